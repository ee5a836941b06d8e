//! One suite per port. An adapter runs it in its own tests through the macro and a harness that opens and breaks it; the
//! cases quote the clauses they prove.
//!
//! Each suite runs twice: `plain`, and `reopened`, where the store is closed and opened anew at each turn of a case.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::wildcard_imports,
    clippy::enum_glob_use,
    clippy::disallowed_methods,
    clippy::type_complexity,
    reason = "these are tests: a panic is how they fail, and they own their tasks"
)]

pub mod blob_store;
pub mod message_log;
pub mod metadata;

use std::future::Future;

/// Whether a case closes and opens its store at every turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// It stays open.
    Plain,
    /// It is closed and opened anew.
    Reopened,
}

/// Runs one case on a runtime of its own with two threads, so that concurrent callers really are.
pub fn run(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(case);
}

/// Writes the tests of a suite: `$harness` makes a fresh harness, each name is a function in the cases of
/// `$room`.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_cases {
    ($harness:expr, $room:ident => $($case:ident),+ $(,)?) => {
        mod plain {
            #[allow(unused_imports, reason = "the harness may be named from anywhere")]
            use super::*;
            $(#[test]
            fn $case() {
                $crate::contract::run(async {
                    let context = $crate::contract::$room::Context::new($harness, $crate::contract::Turns::Plain).await;
                    $crate::contract::$room::cases::$case(context).await;
                });
            })+
        }
        mod reopened {
            #[allow(unused_imports, reason = "the harness may be named from anywhere")]
            use super::*;
            $(#[test]
            fn $case() {
                $crate::contract::run(async {
                    let context = $crate::contract::$room::Context::new($harness, $crate::contract::Turns::Reopened).await;
                    $crate::contract::$room::cases::$case(context).await;
                });
            })+
        }
    };
}
