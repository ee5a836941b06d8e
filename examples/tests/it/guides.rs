//! The readme and the guides are true: what they tell the reader to type is typed here, and what they say is printed is
//! looked for. Their Rust is a part of a sample that other tests run, word for word.
//!
//! A guide's `sh` blocks run in one shell, one after the other, in an empty folder, with a server of their own. A `text`
//! block after one is what the reader sees: each of its lines has to come, in what the block or a program in the
//! background prints, and `…` stands for anything. A comment `<!-- not run: why -->` before a block leaves it out, if
//! [`LEFT_OUT`] has it too. A block that nobody runs fails a test.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::Stdio, time::Duration};

use acb_testkit::{server::free_port, wait::within};
use tokio::process::Command;

/// All of a guide may take so long, on a busy machine.
const GUIDE_WITHIN: Duration = Duration::from_mins(2);
/// Shell functions that the guides' commands run among: waiting for what goes on in the background.
const PRELUDE: &str = include_str!("guides.sh");
/// Blocks that are not run here, by their page and first command. The comment before each of them says why.
const LEFT_OUT: [(&str, &str); 5] = [
    ("README.md", "make demo"),
    ("README.md", "make build"),
    ("README.md", "import asyncio"),
    ("docs/guide/cli.md", "acb login --url acb://bus:7400 --agent planner"),
    ("docs/guide/quickstart.md", "make build"),
];

#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    text: String,
    /// Why it is not run.
    left_out: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut open, mut left_out) = (false, None);
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            open = !open;
            if open {
                let language = language.split(',').next().unwrap_or_default().to_owned();
                blocks.push(Block { language, text: String::new(), left_out: left_out.take() });
            }
        } else if open {
            let block = blocks.last_mut().unwrap();
            block.text.push_str(line);
            block.text.push('\n');
        } else if let Some(comment) = line.strip_prefix("<!-- not run: ") {
            left_out = Some(comment.trim_end_matches(" -->").to_owned());
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

/// One script of all blocks. What is left in the background is waited for until it listens.
fn script(blocks: &[Block]) -> String {
    let mut script = PRELUDE.to_owned();
    for (n, block) in blocks.iter().enumerate() {
        if block.left_out.is_some() {
            continue;
        }
        match block.language.as_str() {
            "sh" => {
                writeln!(script, "block {n}").unwrap();
                for line in block.text.lines() {
                    let command = without_comment(line);
                    match command.strip_suffix('&') {
                        Some(command) => writeln!(script, "background {}", quoted(command.trim_end())).unwrap(),
                        None => writeln!(script, "{line}").unwrap(),
                    }
                }
            }
            "text" => {
                for line in block.text.lines().filter(|l| !l.trim().is_empty()) {
                    writeln!(script, "expect {}", quoted(line.trim())).unwrap();
                }
            }
            _ => {}
        }
    }
    script.push_str("finish\n");
    script
}

fn without_comment(command: &str) -> &str {
    command.split(" #").next().unwrap_or_default().trim_end()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

async fn follow(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join(page)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_request-reply")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let (port, admin) = (free_port().unwrap(), free_port().unwrap());
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", &script(&blocks(&text))])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("HOME", folder.path())
        .env("ACB_URL", format!("acb://127.0.0.1:{port}"))
        .env("ACB_SERVER_LISTEN", format!("127.0.0.1:{port}"))
        .env("ACB_SERVER_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within(page, GUIDE_WITHIN, shell.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{page} does not do what it says:\n{out}\n{err}");
    assert!(out.contains("guide followed"), "{page} was not followed to its end:\n{out}\n{err}");
}

/// A test for each page, and the list of them.
macro_rules! followed {
    ($($test:ident: $page:literal,)+) => {
        /// Pages whose commands are typed.
        const FOLLOWED: &[&str] = &[$($page),+];
        $(
            #[tokio::test]
            async fn $test() {
                follow($page).await;
            }
        )+
    };
}

followed! {
    the_readme_does_what_it_says: "README.md",
    the_quickstart_does_what_it_says: "docs/guide/quickstart.md",
    the_guide_to_messages_does_what_it_says: "docs/guide/messaging.md",
    the_guide_to_contexts_does_what_it_says: "docs/guide/contexts.md",
    the_guide_to_large_contents_does_what_it_says: "docs/guide/streaming.md",
    the_guide_to_credentials_does_what_it_says: "docs/guide/authentication.md",
    the_guide_to_the_command_line_does_what_it_says: "docs/guide/cli.md",
}

/// The readme and all guides, by their paths.
fn pages() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guides = std::fs::read_dir(root.join("docs/guide")).unwrap();
    let names = guides.map(|guide| format!("docs/guide/{}", guide.unwrap().file_name().into_string().unwrap()));
    let read = |name: String| (name.clone(), std::fs::read_to_string(root.join(&name)).unwrap());
    names.chain(["README.md".to_owned()]).map(read).collect()
}

/// What is wrong with a page, if nobody runs one of its blocks; and those that are left out.
fn unseen(name: &str, page: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (mut wrong, mut left_out) = (Vec::new(), Vec::new());
    if page.lines().any(|line| line.trim_start().starts_with("```") && !line.starts_with("```")) {
        wrong.push(format!("{name} has a block that is indented: it is not seen"));
    }
    for block in blocks(page) {
        let first = without_comment(block.text.lines().next().unwrap_or_default()).to_owned();
        match block.language.as_str() {
            _ if block.left_out.is_some() => left_out.push((name.to_owned(), first)),
            "sh" | "text" if FOLLOWED.contains(&name) => {}
            // The guides' is looked for below, the readme's is an example in the documentation of this crate.
            "rust" => {}
            // `sdk-python/tests/test_examples.py` runs it, and fails on a guide that it does not know.
            "python" if name.starts_with("docs/guide/") => {}
            language => wrong.push(format!("{name}: nobody runs the {language:?} block that begins with: {first}")),
        }
    }
    (wrong, left_out)
}

#[test]
fn no_block_of_a_guide_is_left_to_the_reader_alone() {
    let (mut wrong, mut left_out) = (Vec::new(), Vec::new());
    for (name, page) in pages() {
        let (more, out) = unseen(&name, &page);
        wrong.extend(more);
        left_out.extend(out);
    }
    assert_eq!(wrong, [] as [String; 0]);
    let left_out: Vec<_> = left_out.iter().map(|(page, first)| (page.as_str(), first.as_str())).collect();
    assert_eq!(left_out, LEFT_OUT, "what is left out has to be in the list, and the other way round");
}

#[test]
fn a_block_that_nobody_runs_is_found() {
    let page = "```sh\nls\n```\n";
    assert_eq!(unseen("docs/guide/cli.md", page), (vec![], vec![]));
    assert!(unseen("docs/guide/new.md", page).0[0].contains("nobody runs the \"sh\" block that begins with: ls"));
    assert!(unseen("docs/guide/cli.md", "```toml\na = 1\n```\n").0[0].contains("\"toml\""));
    assert!(unseen("README.md", "```python\nprint()\n```\n").0[0].contains("\"python\""));
    assert!(unseen("docs/guide/cli.md", "- a\n  ```sh\n  ls\n  ```\n").0[0].contains("indented"));
    let out = unseen("docs/guide/new.md", &format!("<!-- not run: no bus -->\n{page}"));
    assert_eq!(out, (vec![], vec![("docs/guide/new.md".to_owned(), "ls".to_owned())]));
}

/// A line without what formatting may change.
fn bare(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect()
}

#[test]
fn the_guides_rust_is_that_of_samples_that_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut samples = Vec::new();
    // Samples, and tests that a guide shows.
    for folder in ["src/bin", "../testing/tests/it"] {
        for sample in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = sample.unwrap().path();
            if path.is_file() {
                samples.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut seen = 0;
    for guide in std::fs::read_dir(root.join("../docs/guide")).unwrap() {
        let path = guide.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for block in blocks(&text).iter().filter(|b| b.language == "rust" && b.left_out.is_none()) {
            let wanted = bare(&block.text);
            let found = samples.iter().any(|s| bare(s).windows(wanted.len()).any(|w| w == wanted));
            assert!(found, "no sample has this Rust of {}:\n{}", path.display(), block.text);
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen} blocks: the guides lost their Rust");
}

#[test]
fn what_a_page_says_is_found_in_it() {
    let page = "a\n```sh\nls &   # b\n```\n\n```text\nx … 'y'\n```\n<!-- not run: no bus -->\n```sh\nrm\n```\n";
    let found = blocks(page);
    assert_eq!(found.len(), 3);
    assert_eq!(found[2].left_out.as_deref(), Some("no bus"));
    let script = script(&found);
    assert!(script.ends_with("block 0\nbackground 'ls'\nexpect 'x … '\\''y'\\'''\nfinish\n"), "{script}");
}
