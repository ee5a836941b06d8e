//! Reference adapters: simple and obviously right. They are the model that other adapters are compared with, and what
//! tests of use cases run on. Nothing here outlives the process.

mod blobs;
mod log;
mod metadata;

pub use self::{
    blobs::MemoryBlobs,
    log::{MemoryKeep, MemoryLog},
    metadata::MemoryMetadata,
};
