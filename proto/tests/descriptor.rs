//! Reflection serves the whole contract; generated services leave the hot streams out.

#![allow(clippy::unwrap_used, reason = "tests")]

use acb_proto::{CONSUME, FILE_DESCRIPTOR_SET, MESSAGE_SERVICE, PUBLISH_STREAM, SUBSCRIPTION_SERVICE, v1};
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Paths of all methods in the descriptor set.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut out = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                out.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    out
}

#[test]
fn the_hot_streams_stand_in_the_contract() {
    let methods = methods();
    for path in [PUBLISH_STREAM, CONSUME] {
        assert!(methods.iter().any(|m| m == path), "{path} is not in {methods:?}");
    }
    assert!(PUBLISH_STREAM.starts_with(&format!("/{MESSAGE_SERVICE}/")));
    assert!(CONSUME.starts_with(&format!("/{SUBSCRIPTION_SERVICE}/")));
}

#[test]
fn generated_services_have_the_names_of_the_contract() {
    assert_eq!(v1::message_service_server::SERVICE_NAME, MESSAGE_SERVICE);
    assert_eq!(v1::subscription_service_server::SERVICE_NAME, SUBSCRIPTION_SERVICE);
}

#[test]
fn comments_of_methods_stay_with_them_when_hot_streams_are_taken_out() {
    // The method after the one that was taken out.
    let source = include_str!("../src/generated/acb.v1.rs");
    let at = source.find("async fn get_message_status").unwrap();
    let before = &source[..at];
    let comment = before.rfind("/// ").map(|start| before[start..].lines().next().unwrap_or_default());
    assert_eq!(comment, Some("/// Errors: `message_not_found` when the id names nothing that is kept."));
    assert!(!source.contains("fn publish_stream") && !source.contains("fn consume("));
}
