//! `docs/sdk-reference/rust.md`: what the Rust client shows, read from its source. In the order in which the crate's root
//! exports it, with signatures and the first paragraph of each documentation; the whole is `cargo doc -p acb-sdk`.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use syn::{Attribute, Expr, Fields, ImplItem, Item, ItemImpl, Lit, Meta, Type, UseTree, Visibility};

use super::Files;

const CORE: &str = "core/src";
const TYPES: &str = "types/src";
const OUT: &str = "docs/sdk-reference/rust.md";

/// What is known of a type.
#[derive(Debug, Default)]
struct Shown {
    doc: String,
    /// Fields, variants and methods, each with its documentation.
    members: Vec<(String, String)>,
    /// What awaiting it gives.
    output: Option<String>,
    found: bool,
}

pub(super) fn generate(root: &Path, files: &mut Files) -> Result<()> {
    let text = fs::read_to_string(root.join(CORE).join("lib.rs")).context("core/src/lib.rs")?;
    let lib = syn::parse_file(&text).context("core/src/lib.rs")?;
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    for item in &lib.items {
        if let Item::Use(item) = item
            && matches!(item.vis, Visibility::Public(_))
        {
            exports(&item.tree, &mut Vec::new(), &mut own, &mut foreign);
        }
    }
    let mut shown: BTreeMap<String, Shown> =
        own.iter().chain(&foreign).map(|n| (n.clone(), Shown::default())).collect();
    for folder in [TYPES, CORE] {
        read_folder(&root.join(folder), &mut shown)?;
    }
    if let Some(name) = own.iter().find(|name| !shown.get(*name).is_some_and(|s| s.found)) {
        bail!("core exports {name}, and no file of {CORE} has it");
    }
    let mut out = String::from(
        "<!-- Written by `cargo xtask codegen` from the source of `core/`. Do not edit. -->\n\n# Rust: `acb_sdk`\n\n\
         Names in the order in which the crate exports them, with the first words of their documentation; errors, cancel\n\
         safety and examples are in the whole of it: `cargo doc -p acb-sdk --open`. Builders are awaited.\n",
    );
    for name in &own {
        page(&mut out, name, &shown[name]);
    }
    out.push_str("\n## Words of the bus\n\nFrom `acb_types`, the same on the wire and in every language.\n\n");
    for name in foreign.iter().filter(|name| shown[*name].found) {
        let _ = writeln!(out, "- `{name}`: {}", shown[name].doc);
    }
    files.insert(OUT.to_owned(), out.into_bytes());
    Ok(())
}

/// Names that a `pub use` exports: those of this crate, and those of others.
fn exports(tree: &UseTree, path: &mut Vec<String>, own: &mut Vec<String>, foreign: &mut Vec<String>) {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            exports(&part.tree, path, own, foreign);
            path.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| exports(tree, path, own, foreign)),
        UseTree::Name(name) => {
            let into = if path.first().is_some_and(|first| first == "crate") { own } else { foreign };
            into.push(name.ident.to_string());
        }
        UseTree::Rename(_) | UseTree::Glob(_) => {}
    }
}

fn read_folder(folder: &Path, shown: &mut BTreeMap<String, Shown>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read_folder(&path, shown)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
            file.items.iter().for_each(|item| read_item(item, shown));
        }
    }
    Ok(())
}

fn read_item(item: &Item, shown: &mut BTreeMap<String, Shown>) {
    match item {
        Item::Struct(item) if is_public(&item.vis) => {
            let Some(place) = place(shown, &item.ident, &item.attrs) else { return };
            if let Fields::Named(fields) = &item.fields {
                for field in fields.named.iter().filter(|f| is_public(&f.vis)) {
                    let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
                    place.members.push((format!("{name}: {}", type_text(&field.ty)), doc(&field.attrs)));
                }
            }
        }
        Item::Enum(item) if is_public(&item.vis) => {
            let Some(place) = place(shown, &item.ident, &item.attrs) else { return };
            for variant in &item.variants {
                let fields: Vec<String> = variant.fields.iter().map(|f| type_text(&f.ty)).collect();
                let fields = if fields.is_empty() { String::new() } else { format!("({})", fields.join(", ")) };
                place.members.push((format!("{}{fields}", variant.ident), doc(&variant.attrs)));
            }
        }
        Item::Trait(item) if is_public(&item.vis) => {
            place(shown, &item.ident, &item.attrs);
        }
        Item::Type(item) if is_public(&item.vis) => {
            place(shown, &item.ident, &item.attrs);
        }
        Item::Fn(item) if is_public(&item.vis) => {
            let signature = signature(item.sig.clone());
            if let Some(place) = place(shown, &item.sig.ident, &item.attrs) {
                place.members.push((signature, String::new()));
            }
        }
        Item::Impl(item) => read_impl(item, shown),
        // `awaited!(Builder -> Output);`
        Item::Macro(item) if item.mac.path.is_ident("awaited") => {
            let text = item.mac.tokens.to_string();
            if let Some((builder, output)) = text.split_once("->")
                && let Some(place) = shown.get_mut(builder.trim())
            {
                place.output =
                    syn::parse_str::<Type>(output.trim()).ok().map(|ty| format!("Result<{}>", type_text(&ty)));
            }
        }
        _ => {}
    }
}

fn read_impl(item: &ItemImpl, shown: &mut BTreeMap<String, Shown>) {
    let Type::Path(of) = &*item.self_ty else { return };
    let Some(name) = of.path.segments.last().map(|s| s.ident.to_string()) else { return };
    let Some(place) = shown.get_mut(&name) else { return };
    let of_trait = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last()).map(|s| s.ident.to_string());
    for member in &item.items {
        match (member, of_trait.as_deref()) {
            (ImplItem::Fn(function), None) if is_public(&function.vis) && !is_hidden(&function.attrs) => {
                place.members.push((signature(function.sig.clone()), doc(&function.attrs)));
            }
            (ImplItem::Type(output), Some("IntoFuture")) if output.ident == "Output" => {
                place.output = Some(type_text(&output.ty));
            }
            _ => {}
        }
    }
}

fn place<'a>(shown: &'a mut BTreeMap<String, Shown>, name: &syn::Ident, attrs: &[Attribute]) -> Option<&'a mut Shown> {
    let place = shown.get_mut(&name.to_string())?;
    place.found = true;
    // The client's own words before those of what it re-exports.
    let text = doc(attrs);
    if !text.is_empty() {
        place.doc = text;
    }
    Some(place)
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn is_hidden(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|a| a.path().is_ident("doc") && a.parse_args::<syn::Ident>().is_ok_and(|i| i == "hidden"))
        || attrs.iter().any(|a| a.path().is_ident("cfg"))
}

/// The first paragraph, in one line. Links to items are shown as their names.
fn doc(attrs: &[Attribute]) -> String {
    let lines = attrs.iter().filter_map(|attr| match &attr.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(lit) => match &lit.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    let first: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    without_links(&first.join(" "))
}

/// ``[`a`](b)`` and ``[`a`]`` as `` `a` ``.
fn without_links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("[`") {
        let (before, link) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = link.find("`]") else { break };
        out.push_str(&link[1..=end]);
        rest = &link[end + 2..];
        if rest.starts_with('(')
            && let Some(close) = rest.find(')')
        {
            rest = &rest[close + 1..];
        }
    }
    out + rest
}

fn type_text(ty: &Type) -> String {
    // A type alone is printed as that of an alias.
    let text = printed(syn::parse_quote!(type T = #ty;));
    text.trim_start_matches("type T = ").trim_end_matches(';').to_owned()
}

fn signature(mut sig: syn::Signature) -> String {
    for input in &mut sig.inputs {
        // How a method keeps what it is given is its own affair.
        if let syn::FnArg::Receiver(receiver) = input
            && receiver.reference.is_none()
        {
            receiver.mutability = None;
        }
        if let syn::FnArg::Typed(typed) = input
            && let syn::Pat::Ident(name) = &mut *typed.pat
        {
            name.mutability = None;
        }
    }
    let text = printed(syn::parse_quote!(#sig {}));
    text.trim_end_matches("{}").trim_end().to_owned()
}

/// An item as rustfmt would have it, in one line.
fn printed(item: Item) -> String {
    let text = prettyplease::unparse(&syn::File { shebang: None, attrs: Vec::new(), items: vec![item] });
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // What stood in lines of their own.
    text.replace("( ", "(").replace(", )", ")").replace("< ", "<").replace(", >", ">")
}

fn page(out: &mut String, name: &str, shown: &Shown) {
    let _ = write!(out, "\n## `{name}`\n\n{}\n", shown.doc);
    if let Some(output) = &shown.output {
        let _ = write!(out, "\nAwaited, it gives `{output}`.\n");
    }
    if !shown.members.is_empty() {
        out.push('\n');
    }
    for (member, text) in &shown.members {
        let colon = if text.is_empty() { "" } else { ": " };
        let _ = writeln!(out, "- `{member}`{colon}{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str, names: &[&str]) -> BTreeMap<String, Shown> {
        let mut shown = names.iter().map(|n| ((*n).to_owned(), Shown::default())).collect();
        syn::parse_file(source).unwrap().items.iter().for_each(|item| read_item(item, &mut shown));
        shown
    }

    #[test]
    fn what_is_public_is_shown_as_one_writes_it_and_nothing_else() {
        let source = "
            /// A [`Thing`](x) of
            /// two lines.
            ///
            /// More.
            pub struct Thing { /// In ms.\n pub at: Option<u64>, hidden: u8 }
            impl Thing {
                /// Does it, see [`Thing`].
                pub async fn act(mut self, mut to: impl Into<String>) -> Result<Vec<u8>> { loop {} }
                fn own(&self) {}
                pub(crate) fn ours(&self) {}
            }
            awaited!(Maker -> Vec<Thing>);
            pub struct Maker;
        ";
        let shown = read(source, &["Thing", "Maker"]);
        assert_eq!(shown["Thing"].doc, "A `Thing` of two lines.");
        let members: Vec<_> = shown["Thing"].members.iter().map(|(m, d)| (m.as_str(), d.as_str())).collect();
        let act = "pub async fn act(self, to: impl Into<String>) -> Result<Vec<u8>>".trim_start_matches("pub ");
        assert_eq!(members, [("at: Option<u64>", "In ms."), (act, "Does it, see `Thing`.")]);
        assert_eq!(shown["Maker"].output.as_deref(), Some("Result<Vec<Thing>>"));
    }

    #[test]
    fn exports_are_told_by_whose_they_are() {
        let file = syn::parse_file("pub use crate::{a::{B, C}, d::E}; pub use other::{F, g::H};").unwrap();
        let (mut own, mut foreign) = (Vec::new(), Vec::new());
        for item in &file.items {
            let Item::Use(item) = item else { panic!() };
            exports(&item.tree, &mut Vec::new(), &mut own, &mut foreign);
        }
        assert_eq!((own, foreign), (vec!["B".into(), "C".into(), "E".into()], vec!["F".into(), "H".into()]));
    }
}
