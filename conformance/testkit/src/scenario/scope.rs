//! What steps saved, and how later steps name it: `${name}` or `${name.path.0}`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

/// What one run of a scenario has saved.
#[derive(Clone, Debug, Default)]
pub struct Scope(BTreeMap<String, Value>);

impl Scope {
    /// Notes a value under a name.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Saves the part of a result that a path leads to; an empty path is the whole.
    ///
    /// # Errors
    /// When the path leads nowhere.
    pub fn save(&mut self, name: &str, result: &Value, path: &str) -> Result<()> {
        let value = lookup(result, path).with_context(|| format!("nothing to save at {path:?} in {result}"))?.clone();
        self.set(name, value);
        Ok(())
    }

    /// Fills the names in everywhere in a value.
    ///
    /// # Errors
    /// When a name was not saved.
    pub fn fill(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => self.fill_text(text)?,
            Value::Array(items) => Value::Array(items.iter().map(|v| self.fill(v)).collect::<Result<_>>()?),
            Value::Object(map) => Value::Object(self.fill_map(map)?),
            other => other.clone(),
        })
    }

    /// Fills the names in everywhere in a map's values.
    ///
    /// # Errors
    /// When a name was not saved.
    pub fn fill_map(&self, map: &Map<String, Value>) -> Result<Map<String, Value>> {
        map.iter().map(|(k, v)| Ok((k.clone(), self.fill(v)?))).collect()
    }

    fn fill_text(&self, text: &str) -> Result<Value> {
        // A name alone keeps the type of what it stands for.
        if let Some(name) = text.strip_prefix("${").and_then(|t| t.strip_suffix('}'))
            && !name.contains('}')
        {
            return self.get(name).cloned();
        }
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, behind)) = after.split_once('}') else {
                bail!("{text:?} opens a name and does not close it")
            };
            out.push_str(before);
            match self.get(name)? {
                Value::String(value) => out.push_str(value),
                value => out.push_str(&value.to_string()),
            }
            rest = behind;
        }
        out.push_str(rest);
        Ok(Value::String(out))
    }

    fn get(&self, name: &str) -> Result<&Value> {
        let (head, path) = name.split_once('.').unwrap_or((name, ""));
        let value = self.0.get(head).with_context(|| format!("no step saved {head}"))?;
        lookup(value, path).with_context(|| format!("{name} leads nowhere in {value}"))
    }
}

fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    path.split('.').try_fold(value, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_stand_for_what_was_saved_with_its_type() {
        let mut scope = Scope::default();
        scope.save("m", &json!({"list": [{"seq": 7}], "id": "a-1"}), "").unwrap();
        scope.save("seq", &json!({"list": [{"seq": 7}]}), "list.0.seq").unwrap();
        let filled = scope.fill(&json!({"a": "${seq}", "b": ["x ${m.id} y ${seq}"], "c": "${m.list.0}"})).unwrap();
        assert_eq!(filled, json!({"a": 7, "b": ["x a-1 y 7"], "c": {"seq": 7}}));
    }

    #[test]
    fn what_was_not_saved_is_an_error_and_not_an_empty_text() {
        let mut scope = Scope::default();
        assert!(scope.fill(&json!("${x}")).is_err());
        assert!(scope.save("x", &json!({}), "a.b").is_err());
        scope.set("x", json!(1));
        assert!(scope.fill(&json!("${x.y}")).is_err());
        assert!(scope.fill(&json!("a ${x")).is_err());
    }
}
