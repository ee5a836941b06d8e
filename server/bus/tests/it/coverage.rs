//! A call without a test here is a failure.

use std::path::Path;

/// How a test makes a call: by the generated client's method, by the constant of a hot one, or by its path.
fn marks(path: &str) -> Vec<String> {
    let method = path.rsplit('/').next().unwrap();
    let mut snake = String::new();
    for c in method.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    vec![format!(".{snake}("), format!("acb_proto::{}", snake.to_uppercase()), format!("\"{path}\"")]
}

#[test]
fn every_call_is_made_by_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut source = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|n| n != "coverage.rs") {
            source.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    let missing: Vec<String> =
        super::policy::paths().into_iter().filter(|p| !marks(p).iter().any(|m| source.contains(m))).collect();
    assert!(missing.is_empty(), "no test makes these calls: {missing:#?}");
}
