//! Whether a result is what a step expects.
//!
//! Expected maps are part of what must be there; lists are exact in length and order; all else is equal or not. A map
//! with one key that starts with `$` is a condition: see `condition`.

use serde_json::Value;

/// What is wrong with a result: path and sentence. `None` when it is as expected.
pub fn differs(expected: &Value, actual: &Value) -> Option<String> {
    at("", expected, actual)
}

fn at(path: &str, expected: &Value, actual: &Value) -> Option<String> {
    let here = || if path.is_empty() { "the result".to_owned() } else { path.trim_start_matches('.').to_owned() };
    match (expected, actual) {
        (Value::Object(map), _) if map.len() == 1 && map.keys().all(|k| k.starts_with('$')) => {
            let (name, operand) = map.iter().next()?;
            match condition(name, operand, actual) {
                Ok(true) => None,
                Ok(false) => Some(format!("{} is {}, not {name} {operand}", here(), short(actual))),
                Err(error) => Some(format!("{}: {error}", here())),
            }
        }
        // Nothing is expected: whatever came will do.
        (Value::Object(wanted), _) if wanted.is_empty() => None,
        (Value::Object(wanted), Value::Object(given)) => wanted.iter().find_map(|(key, expected)| {
            let path = format!("{path}.{key}");
            match given.get(key) {
                Some(actual) => at(&path, expected, actual),
                None if is_absence(expected) => None,
                None => Some(format!("{} is missing in {}", path.trim_start_matches('.'), short(actual))),
            }
        }),
        (Value::Array(wanted), Value::Array(given)) => {
            if wanted.len() != given.len() {
                let text = format!("{} has {} items, not {}: {}", here(), given.len(), wanted.len(), short(actual));
                return Some(text);
            }
            let pairs = wanted.iter().zip(given).enumerate();
            pairs.into_iter().find_map(|(i, (w, g))| at(&format!("{path}.{i}"), w, g))
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ if expected == actual => None,
        _ => Some(format!("{} is {}, not {}", here(), short(actual), short(expected))),
    }
}

fn is_absence(expected: &Value) -> bool {
    expected.get("$absent").is_some()
}

/// A value as text, cut where it gets long.
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(800) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// The conditions that a step can set instead of a value.
fn condition(name: &str, operand: &Value, actual: &Value) -> Result<bool, String> {
    let number = |v: &Value| v.as_f64().ok_or_else(|| format!("{v} is no number"));
    Ok(match name {
        // There, whatever it is.
        "$any" => !actual.is_null(),
        // Not there, or empty.
        "$absent" => actual.is_null() || actual == "" || actual.as_array().is_some_and(Vec::is_empty),
        "$not" => at("", operand, actual).is_some(),
        "$min" => number(actual)? >= number(operand)?,
        "$max" => number(actual)? <= number(operand)?,
        // So many items, characters or entries.
        "$len" => {
            let len = match actual {
                Value::Array(items) => items.len(),
                Value::Object(map) => map.len(),
                Value::String(text) => text.chars().count(),
                other => return Err(format!("{other} has no length")),
            };
            len as f64 == number(operand)?
        }
        // A list that has an item like this, or a text that has this part.
        "$has" => match (actual, operand) {
            (Value::Array(items), _) => items.iter().any(|item| at("", operand, item).is_none()),
            (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
            (other, _) => return Err(format!("{other} has no parts")),
        },
        // A list with the same items in any order.
        "$set" => match (actual, operand) {
            (Value::Array(items), Value::Array(wanted)) => {
                let mut left: Vec<&Value> = items.iter().collect();
                let found = wanted.iter().all(|w| {
                    let place = left.iter().position(|item| at("", w, item).is_none());
                    place.map(|i| left.swap_remove(i)).is_some()
                });
                found && left.is_empty()
            }
            _ => return Err("$set compares lists".to_owned()),
        },
        // [prefix, first, count]: the texts prefix0, prefix1, … in order.
        "$numbered" => {
            let parts = operand.as_array().filter(|p| p.len() == 3).ok_or("$numbered takes [prefix, first, count]")?;
            let prefix = parts[0].as_str().ok_or("the prefix is a text")?;
            let (first, count) = (parts[1].as_u64().unwrap_or(0), parts[2].as_u64().unwrap_or(0));
            let items = actual.as_array().ok_or("$numbered wants a list")?;
            let wanted = (first..first + count).map(|n| Value::String(format!("{prefix}{n}")));
            items.iter().cloned().eq(wanted)
        }
        other => return Err(format!("no condition is called {other}")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_map_may_have_more_and_a_list_may_not() {
        assert_eq!(differs(&json!({"a": 1}), &json!({"a": 1.0, "b": 2})), None);
        assert!(differs(&json!({"a": 1}), &json!({"b": 2})).unwrap().contains("a is missing"));
        assert!(differs(&json!([1]), &json!([1, 2])).unwrap().contains("2 items, not 1"));
        assert_eq!(
            differs(&json!({"a": {"b": [{"c": 1}]}}), &json!({"a": {"b": [{"c": 2}]}})).unwrap(),
            "a.b.0.c is 2, not 1"
        );
    }

    #[test]
    fn conditions_hold_or_say_what_was_there() {
        for (expected, good, bad) in [
            (json!({"$any": true}), json!("x"), json!(null)),
            (json!({"$absent": true}), json!(""), json!("x")),
            (json!({"$not": "x"}), json!("y"), json!("x")),
            (json!({"$min": 2}), json!(2), json!(1)),
            (json!({"$max": 2}), json!(2), json!(3)),
            (json!({"$len": 2}), json!([1, 2]), json!([1])),
            (json!({"$has": {"a": 1}}), json!([{"a": 2}, {"a": 1, "b": 1}]), json!([{"a": 2}])),
            (json!({"$has": "lo"}), json!("hello"), json!("hi")),
            (json!({"$set": [1, 2]}), json!([2, 1]), json!([1, 1])),
            (json!({"$numbered": ["n", 1, 2]}), json!(["n1", "n2"]), json!(["n2", "n1"])),
        ] {
            assert_eq!(differs(&expected, &good), None, "{expected}");
            assert!(differs(&expected, &bad).is_some(), "{expected} took {bad}");
        }
        assert_eq!(differs(&json!({"a": {"$absent": true}}), &json!({})), None);
        assert!(differs(&json!({"$odd": 1}), &json!(1)).unwrap().contains("no condition"));
    }
}
