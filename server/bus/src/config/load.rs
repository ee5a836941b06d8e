//! From file, environment and flags to one value a key, each with where it came from.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::{KEYS, Key, setting::Setting};

/// The file that is read when it is there and no other is named.
pub const FILE_DEFAULT: &str = "acb.toml";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Something wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// The key it is about; empty when it is about the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.origin, self.message)
        } else {
            write!(f, "{}: {}: {}", self.origin, self.path, self.message)
        }
    }
}

/// One value a key.
#[derive(Clone, Debug)]
pub struct Values(BTreeMap<&'static str, (String, Origin)>);

impl Default for Values {
    fn default() -> Self {
        Self(KEYS.iter().map(|key| (key.path, (key.default.to_owned(), Origin::Default))).collect())
    }
}

impl Values {
    /// The text of a key and where it came from.
    pub fn get(&self, path: &str) -> Option<(&str, &Origin)> {
        self.0.get(path).map(|(text, origin)| (text.as_str(), origin))
    }

    /// Where a key's value came from.
    pub fn origin(&self, path: &str) -> Origin {
        self.get(path).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// Sets a key.
    ///
    /// # Errors
    /// When no key has this path; names the nearest.
    pub fn set(&mut self, path: &str, text: impl Into<String>, origin: Origin) -> Result<(), Problem> {
        match key(path) {
            Some(key) => {
                self.0.insert(key.path, (text.into(), origin));
                Ok(())
            }
            None => Err(Problem { origin, path: path.to_owned(), message: unknown(path) }),
        }
    }

    /// Reads a value of a type, or notes the problem.
    pub(super) fn read<T: Setting>(&self, path: &'static str, problems: &mut Vec<Problem>) -> Option<T> {
        let (text, origin) = self.get(path)?;
        match T::read(text) {
            Ok(value) => Some(value),
            Err(why) => {
                let secret = key(path).is_some_and(|k| k.secret);
                let shown = if secret { "the value".to_owned() } else { format!("{text:?}") };
                let message = format!("{shown} {why}");
                problems.push(Problem { origin: origin.clone(), path: path.to_owned(), message });
                None
            }
        }
    }

    /// Takes the values of a file.
    pub fn file(&mut self, path: &Path, problems: &mut Vec<Problem>) {
        let whole = |message: String| Problem { origin: Origin::File(path.into()), path: String::new(), message };
        match std::fs::read_to_string(path) {
            Ok(text) => self.toml(path, &text, problems),
            Err(error) => problems.push(whole(format!("cannot be read: {error}"))),
        }
    }

    /// Takes the values of a file's text.
    pub fn toml(&mut self, path: &Path, text: &str, problems: &mut Vec<Problem>) {
        let origin = Origin::File(path.into());
        let table: toml::Table = match toml::from_str(text) {
            Ok(table) => table,
            Err(error) => {
                let message = error.to_string().trim_end().to_owned();
                problems.push(Problem { origin, path: String::new(), message });
                return;
            }
        };
        for (section, value) in table {
            let toml::Value::Table(keys) = value else {
                let message = if KEYS.iter().any(|k| k.section() == section) {
                    format!("is a section, written [{section}]")
                } else {
                    format!("keys stand in sections; {}", unknown(&section))
                };
                problems.push(Problem { origin: origin.clone(), path: section, message });
                continue;
            };
            for (name, value) in keys {
                let path = format!("{section}.{name}");
                if let Some(text) = text_of(&value) {
                    problems.extend(self.set(&path, text, origin.clone()).err());
                } else {
                    let message = "must be a text, a number or true or false".to_owned();
                    problems.push(Problem { origin: origin.clone(), path, message });
                }
            }
        }
    }

    /// Takes the values of environment variables. Others that begin with `ACB_` are left alone unless they begin like a
    /// section of ours: client programs have variables too.
    pub fn variables(&mut self, variables: impl IntoIterator<Item = (String, String)>, problems: &mut Vec<Problem>) {
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix("ACB_") else { continue };
            if let Some(key) = KEYS.iter().find(|k| k.variable() == name) {
                self.0.insert(key.path, (value, Origin::Variable(name)));
                continue;
            }
            let ours = |k: &&Key| rest.starts_with(&format!("{}_", k.section().to_uppercase()));
            if let Some(like) = KEYS.iter().find(ours) {
                let name_in_section = rest[like.section().len() + 1..].to_lowercase();
                let path = format!("{}.{name_in_section}", like.section());
                let message = unknown(&path);
                problems.push(Problem { origin: Origin::Variable(name), path, message });
            }
        }
    }

    /// Takes `section.key=value` of a `--set`.
    pub fn assignment(&mut self, text: &str, problems: &mut Vec<Problem>) {
        let origin = Origin::Flag("--set");
        if let Some((path, value)) = text.split_once('=') {
            problems.extend(self.set(path.trim(), value.trim(), origin).err());
        } else {
            let message = format!("{text:?} is not section.key=value");
            problems.push(Problem { origin, path: String::new(), message });
        }
    }
}

fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.path == path)
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(n) => Some(n.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        _ => None,
    }
}

/// Says that a path is unknown, and which known one is near it.
fn unknown(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or_default();
    let near = KEYS
        .iter()
        // A key may stand under the wrong section, so its bare name counts as well as the whole.
        .map(|k| {
            (strsim::damerau_levenshtein(path, k.path).min(strsim::damerau_levenshtein(name, k.name()) + 1), k.path)
        })
        .min();
    match near {
        Some((distance, known)) if distance <= 1 + path.len() / 4 => format!("no such key; did you mean {known}?"),
        _ => "no such key".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn with_toml(text: &str) -> (Values, Vec<Problem>) {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        values.toml(Path::new("acb.toml"), text, &mut problems);
        (values, problems)
    }

    #[test]
    fn every_default_reads() {
        let config = Config::read(&Values::default());
        assert!(config.is_ok(), "{config:?}");
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let (mut values, mut problems) =
            with_toml("[server]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:1\"\nallow_plaintext = true\n");
        let variables = [("ACB_SERVER_LISTEN", "127.0.0.1:2"), ("ACB_SERVER_ADMIN_LISTEN", "127.0.0.1:2")];
        values.variables(variables.map(|(k, v)| (k.to_owned(), v.to_owned())), &mut problems);
        values.set("server.listen", "127.0.0.1:3", Origin::Flag("--listen")).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let config = Config::read(&values).unwrap();
        assert_eq!(config.server.listen.port(), 3);
        assert_eq!(config.server.admin_listen.port(), 2);
        assert!(config.server.allow_plaintext);
        assert_eq!(config.storage.data_dir, Path::new("acb-data"));
        assert_eq!(values.origin("server.listen"), Origin::Flag("--listen"));
        assert_eq!(values.origin("storage.data_dir"), Origin::Default);
    }

    #[test]
    fn unknown_keys_are_errors_that_name_the_nearest() {
        let (_, problems) = with_toml("[server]\nlisen = \"x\"\n[edge]\ndata_dir = \"x\"\n[zzz]\nqqqqqqqq = 1\n");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "acb.toml: edge.data_dir: no such key; did you mean storage.data_dir?",
                "acb.toml: server.lisen: no such key; did you mean server.listen?",
                "acb.toml: zzz.qqqqqqqq: no such key",
            ]
        );
    }

    #[test]
    fn a_variable_that_looks_like_ours_is_an_error_and_a_clients_is_not() {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        let variables = [("ACB_SERVER_LISTN", "x"), ("ACB_TOKEN", "x"), ("PATH", "x")];
        values.variables(variables.map(|(k, v)| (k.to_owned(), v.to_owned())), &mut problems);
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["ACB_SERVER_LISTN: server.listn: no such key; did you mean server.listen?"]);
    }

    #[test]
    fn all_bad_values_are_told_together_with_where_they_stand() {
        let (mut values, mut problems) =
            with_toml("[edge]\nconnections_max = \"many\"\n[auth]\naccess_token_ttl = 5\n");
        values.assignment("shutdown.drain_timeout=soon", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let told: Vec<String> = Config::read(&values).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "acb.toml: edge.connections_max: \"many\" is no number of 0 to 18446744073709551615",
                "acb.toml: auth.access_token_ttl: \"5\" is no time such as \"30s\" or \"2h\"",
                "--set: shutdown.drain_timeout: \"soon\" is no time such as \"30s\" or \"2h\"",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_or_no_section_is_told() {
        let (_, problems) = with_toml("listen = 1\nserver = 2\n");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("keys stand in sections; no such key; did you mean server.listen?"), "{told:?}");
        assert!(told[1].contains("is a section, written [server]"), "{told:?}");
        let (_, problems) = with_toml("[server\n");
        assert!(problems[0].to_string().starts_with("acb.toml: TOML parse error at line 1"), "{problems:?}");
        let (_, problems) = with_toml("[server]\nlisten = [1]\n");
        assert!(problems[0].message.contains("must be a text"), "{problems:?}");
    }
}
