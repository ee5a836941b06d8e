//! Conformance scenarios: behaviour as data, one set for every client.

pub mod harness;
pub mod matching;
pub mod model;
pub mod report;
mod run;
mod scope;
pub mod verbs;

pub use self::{
    model::{Scenario, Settings, load},
    run::Stage,
    scope::Scope,
};
