//! The one room that knows both the wire's types and the crate's own. Nothing of protobuf leaves it by a public
//! signature, so the contract can grow without breaking anybody.

mod contexts;
mod error;
mod hot;
mod nouns;
mod streams;

pub(crate) use contexts::*;
pub(crate) use error::*;
pub(crate) use hot::*;
pub(crate) use nouns::*;
pub(crate) use streams::*;
