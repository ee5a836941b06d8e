//! The wire contract spoken by hand: generated calls, and hot streams whose frames are the test's own bytes.

mod client;
mod codec;
mod consume;
mod failure;
mod hot;
mod publish;

pub use self::{
    client::{Identity, Named, RawClient, Reach, Service, answer},
    codec::BytesCodec,
    consume::{ConsumeSession, Delivered, Opening, one},
    failure::Failure,
    hot::HotStream,
    publish::{Notices, Outcome, PublishSession, Stored, class_name},
};
