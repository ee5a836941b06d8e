//! What a step gives a verb, read with the step's own words in every complaint.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::raw::Failure;

/// Code of a mistake in a scenario itself.
pub const BAD_SCENARIO: &str = "bad_scenario";

/// The named values of a call, captures filled in.
#[derive(Clone, Debug, Default)]
pub struct Args(Map<String, Value>);

impl From<Map<String, Value>> for Args {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

fn bad(name: &str, wanted: &str, value: &Value) -> Failure {
    Failure::own(BAD_SCENARIO, format!("{name} takes {wanted}, not {value}"))
}

impl Args {
    /// The same, with one value more or another one.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// A value as it is.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Whether a value is given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A text; numbers and truths are taken as they are written.
    ///
    /// # Errors
    /// When it is a list or a map.
    pub fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => text_of(name, value).map(Some),
        }
    }

    /// A text, or nothing.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn text_or_empty(&self, name: &str) -> Result<String, Failure> {
        Ok(self.text(name)?.unwrap_or_default())
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&self, name: &str) -> Result<String, Failure> {
        self.text(name)?.ok_or_else(|| Failure::own(BAD_SCENARIO, format!("{name} is missing")))
    }

    /// A number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some).map_err(|_| bad(name, "a number", &self.0[name])),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| bad(name, "a number", value)),
        }
    }

    /// A number, or another.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn number_or(&self, name: &str, default: u64) -> Result<u64, Failure> {
        Ok(self.number(name)?.unwrap_or(default))
    }

    /// A number of 32 bits, or another.
    ///
    /// # Errors
    /// As [`Self::number`], and when it is larger.
    pub fn small_or(&self, name: &str, default: u32) -> Result<u32, Failure> {
        let number = self.number_or(name, u64::from(default))?;
        u32::try_from(number).map_err(|_| bad(name, "a number of 32 bits", &self.0[name]))
    }

    /// Whether something is so; `false` when it is not said.
    ///
    /// # Errors
    /// When it is neither true nor false.
    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.0.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| bad(name, "true or false", value)),
        }
    }

    /// A span of time, such as `30s`.
    ///
    /// # Errors
    /// When it is none.
    pub fn span(&self, name: &str) -> Result<Option<Duration>, Failure> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => span_of(name, value).map(Some),
        }
    }

    /// Spans of time.
    ///
    /// # Errors
    /// When one is none.
    pub fn spans(&self, name: &str) -> Result<Vec<Duration>, Failure> {
        self.list(name)?.iter().map(|v| span_of(name, v)).collect()
    }

    /// Texts.
    ///
    /// # Errors
    /// When it is no list of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Failure> {
        self.list(name)?.iter().map(|v| text_of(name, v)).collect()
    }

    /// Items of any kind.
    ///
    /// # Errors
    /// When it is no list.
    pub fn list(&self, name: &str) -> Result<&[Value], Failure> {
        match self.0.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(value) => Err(bad(name, "a list", value)),
        }
    }

    /// Texts by name, sorted.
    ///
    /// # Errors
    /// When it is no map of texts.
    pub fn pairs(&self, name: &str) -> Result<Vec<(String, String)>, Failure> {
        match self.0.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => {
                let mut pairs =
                    map.iter().map(|(k, v)| Ok((k.clone(), text_of(name, v)?))).collect::<Result<Vec<_>, Failure>>()?;
                pairs.sort();
                Ok(pairs)
            }
            Some(value) => Err(bad(name, "names with texts", value)),
        }
    }

    /// The maps of a list, each as arguments of its own.
    ///
    /// # Errors
    /// When it is no list of maps.
    pub fn each(&self, name: &str) -> Result<Vec<Self>, Failure> {
        let item = |v: &Value| v.as_object().cloned().map(Self).ok_or_else(|| bad(name, "a list of maps", v));
        self.list(name)?.iter().map(item).collect()
    }
}

fn text_of(name: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        // Texts of a length, which nobody wants to read in a scenario.
        Value::Object(map) if map.len() == 1 && map.contains_key("chars") => {
            let count = map["chars"].as_u64().ok_or_else(|| bad(name, "{chars: n}", value))?;
            Ok("x".repeat(count as usize))
        }
        other => Err(bad(name, "a text", other)),
    }
}

fn span_of(name: &str, value: &Value) -> Result<Duration, Failure> {
    let text = value.as_str().ok_or_else(|| bad(name, "a span such as 30s", value))?;
    humantime::parse_duration(text).map_err(|_| bad(name, "a span such as 30s", value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(value: Value) -> Args {
        Args(value.as_object().unwrap().clone())
    }

    #[test]
    fn values_are_read_as_what_they_are_meant_to_be() {
        let a = args(json!({"t": "x", "n": 3, "s": "1m", "l": ["a", 2], "m": {"b": "2", "a": "1"}, "c": {"chars": 3}}));
        assert_eq!(a.need("t").unwrap(), "x");
        assert_eq!(a.number_or("n", 9).unwrap(), 3);
        assert_eq!(a.number_or("absent", 9).unwrap(), 9);
        assert_eq!(a.span("s").unwrap(), Some(Duration::from_mins(1)));
        assert_eq!(a.texts("l").unwrap(), ["a", "2"]);
        assert_eq!(a.pairs("m").unwrap()[0], ("a".to_owned(), "1".to_owned()));
        assert_eq!(a.need("c").unwrap(), "xxx");
    }

    #[test]
    fn what_is_not_says_which() {
        let a = args(json!({"t": [], "n": "x", "s": 3, "f": 1}));
        for failure in [
            a.text("t").unwrap_err(),
            a.number("n").unwrap_err(),
            a.span("s").unwrap_err(),
            a.flag("f").unwrap_err(),
            a.need("absent").unwrap_err(),
        ] {
            assert_eq!(failure.code, BAD_SCENARIO, "{failure}");
        }
    }
}
