//! Attribute blocks: what is made can be read, and only what could have been made is taken.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use acb_types::{Attributes, attributes::InvalidAttributes, attributes::check};
use bytes::Bytes;
use proptest::prelude::*;

fn pairs() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("\\PC{1,20}", "\\PC{0,200}", 0..20)
}

proptest! {
    #[test]
    fn a_block_gives_back_its_pairs_by_name(pairs in pairs()) {
        let made = Attributes::from_pairs(pairs.iter().rev()).unwrap();
        let read = Attributes::from_block(Bytes::copy_from_slice(made.block())).unwrap();
        prop_assert_eq!(&read, &made);
        let expected: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!(read.len(), pairs.len());
        prop_assert_eq!(read.is_empty(), pairs.is_empty());
        for (name, value) in &pairs {
            prop_assert_eq!(read.get(name), Some(value.as_str()));
            let other = format!("{name}!");
            prop_assert_eq!(read.get(&other), pairs.get(&other).map(String::as_str));
        }
    }

    #[test]
    fn what_is_taken_is_what_would_be_made(block in proptest::collection::vec(0u8..6, 0..40)) {
        if check(&block).is_ok() {
            let read = Attributes::from_block(block.clone().into()).unwrap();
            let made = Attributes::from_pairs(&read).unwrap();
            prop_assert_eq!(made.block(), &block[..]);
        }
    }

    #[test]
    fn any_bytes_are_answered(block in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = check(&block);
    }
}

#[test]
fn each_fault_has_its_own_answer() {
    use InvalidAttributes as E;
    let cases: &[(&[u8], E)] = &[
        (b"\x01", E::Malformed { at: 0 }),
        (b"\x01a", E::Malformed { at: 0 }),
        (b"\x01a\x00\x01b\x05x", E::Malformed { at: 3 }),
        (b"\x81\x00a\x00", E::Malformed { at: 0 }),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a", E::Malformed { at: 0 }),
        (b"\x00\x01a", E::NameLength { index: 0, bytes: 0, limit: 128 }),
        (b"\x01\xff\x00", E::Utf8 { index: 0 }),
        (b"\x01a\x01\xff", E::Utf8 { index: 0 }),
        (b"\x01b\x00\x01a\x00", E::Order { index: 1 }),
        (b"\x01a\x00\x01a\x00", E::Double { index: 1 }),
    ];
    for (block, error) in cases {
        assert_eq!(check(block).as_ref(), Err(error), "{block:?}");
    }
}

#[test]
fn limits_hold_at_their_edge() {
    let many = |n: usize| Attributes::from_pairs((0..n).map(|i| (format!("n{i}"), "")));
    assert_eq!(many(64).unwrap().len(), 64);
    assert_eq!(many(65), Err(InvalidAttributes::TooMany { limit: 64 }));

    // One byte of length and one of name, two of the value's length.
    let large = |n: usize| Attributes::from_pairs([("a", "v".repeat(n))]);
    let full = large(16_384 - 4).unwrap();
    assert_eq!(full.block().len(), 16_384);
    assert_eq!(check(full.block()), Ok(()));
    assert_eq!(large(16_384 - 3), Err(InvalidAttributes::TooLarge { bytes: 16_385, limit: 16_384 }));
    assert_eq!(check(&vec![0; 16_385]), Err(InvalidAttributes::TooLarge { bytes: 16_385, limit: 16_384 }));

    assert!(Attributes::from_pairs([("n".repeat(128), "")]).is_ok());
    assert!(matches!(
        Attributes::from_pairs([("n".repeat(129), "")]),
        Err(InvalidAttributes::NameLength { bytes: 129, .. })
    ));
    assert_eq!(Attributes::from_pairs([("a", "1"), ("a", "1")]), Err(InvalidAttributes::Double { index: 1 }));

    let mut block = Vec::new();
    for i in 0..65u8 {
        block.extend([1, b' ' + i, 0]);
    }
    assert_eq!(check(&block), Err(InvalidAttributes::TooMany { limit: 64 }));
    assert_eq!(check(&block[..64 * 3]), Ok(()));
}

#[test]
fn debug_shows_the_pairs() {
    let some = Attributes::from_pairs([("b", "2"), ("a", "1")]).unwrap();
    assert_eq!(format!("{some:?}"), r#"{"a": "1", "b": "2"}"#);
    assert_eq!(format!("{:?}", Attributes::EMPTY), "{}");
    assert_eq!(Attributes::default(), Attributes::EMPTY);
}
