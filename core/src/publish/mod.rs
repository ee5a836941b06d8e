//! The way of a message up: encoded into the open frame, sent on the publish stream, kept until it is answered.

mod frame;
pub(crate) mod producer;
pub(crate) mod receipt;
pub(crate) mod stream;
pub(crate) mod window;

pub(crate) use producer::{Producer, Refused, Window};
pub use receipt::{Published, Receipt};
