//! Who may do what: the table in the code against the one that people wrote by hand, and against the contract.

use std::collections::BTreeSet;

use acb_server::auth::{Role, Verb, policy::Access};
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Every call of the contract and of the standard services, by path.
pub(crate) fn paths() -> BTreeSet<String> {
    let sets = [
        acb_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut paths = BTreeSet::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    paths.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
    }
    paths
}

#[test]
fn every_call_of_the_contract_has_a_row_and_every_row_a_call() {
    let rows: BTreeSet<String> = Verb::ALL.iter().map(|v| v.path().to_owned()).collect();
    assert_eq!(rows.len(), Verb::ALL.len(), "a path stands twice");
    assert_eq!(rows, paths());
    for verb in Verb::ALL {
        assert_eq!(Verb::from_path(verb.path()), Some(*verb));
    }
}

#[test]
fn the_table_is_the_one_that_was_written_by_hand() {
    let golden = include_str!("../golden/rbac.txt");
    let mut expected = Vec::new();
    for line in golden.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        let mut columns = line.split_whitespace();
        let path = columns.next().unwrap();
        expected.push((path.to_owned(), columns.map(str::to_owned).collect::<Vec<_>>()));
    }
    let short = |role: Role, allowed: bool| if allowed { role.name().to_owned() } else { "-".to_owned() };
    let actual: Vec<(String, Vec<String>)> = Verb::ALL
        .iter()
        .map(|verb| {
            let columns = match verb.access() {
                Access::Public => vec!["public".to_owned()],
                Access::Authenticated => vec!["any-token".to_owned()],
                Access::Roles(roles) => Role::ALL.map(|r| short(r, roles.has(r))).into(),
            };
            (verb.path().to_owned(), columns)
        })
        .collect();
    assert_eq!(actual, expected);
}
