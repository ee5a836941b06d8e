//! The whole digest of an upload, and what chunks do to it: the work that blocks.

use acb_ports::blob_store::Stage;
use acb_types::{ErrorCode, RunningDigest, Sha256Digest, stream::Chunking};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::AppError;

/// The digest of the unbroken run from the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole {
    hasher: RunningDigest,
    /// The chunk that continues it.
    pub(super) next: u64,
}

/// A chunk that waits for the whole digest.
pub(super) struct Ahead {
    pub(super) data: Bytes,
    pub(super) _memory: OwnedSemaphorePermit,
}

impl Whole {
    /// Goes on over chunks that are at hand. Blocks.
    pub(super) fn over(mut self, chunks: Vec<Ahead>) -> Self {
        for chunk in chunks {
            self.hasher.update(&chunk.data);
            self.next += 1;
        }
        self
    }

    pub(super) fn digest(&self) -> Sha256Digest {
        self.hasher.digest()
    }
}

/// A chunk that is written and not yet flushed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) index: u64,
    pub(super) sha256: Sha256Digest,
    pub(super) len: u64,
}

/// A chunk that was taken and waits to be written.
pub(super) struct Queued {
    pub(super) written: Written,
    pub(super) offset: u64,
    pub(super) data: Bytes,
    pub(super) memory: OwnedSemaphorePermit,
}

/// A chunk of the line.
pub(super) struct Passed {
    pub(super) written: Written,
    pub(super) outcome: Result<(), AppError>,
    pub(super) data: Bytes,
    /// Whether the whole digest has it.
    pub(super) hashed: bool,
}

/// Checks and writes a chunk. Blocks.
pub(super) fn write(stage: &dyn Stage, chunk: &Written, offset: u64, data: &[u8]) -> Result<(), AppError> {
    write_if(stage, chunk, Sha256Digest(Sha256::digest(data).into()), offset, data)
}

/// Writes a chunk that has this digest, if that is the one that it was sent with. Blocks.
fn write_if(stage: &dyn Stage, chunk: &Written, is: Sha256Digest, offset: u64, data: &[u8]) -> Result<(), AppError> {
    if is != chunk.sha256 {
        let message = format!("chunk {} has another SHA-256 than it was sent with", chunk.index);
        return Err(AppError::new(ErrorCode::DigestMismatch, message));
    }
    Ok(stage.write_at(offset, data)?)
}

/// Checks and writes chunks of the line, and lets the whole digest go on over them, up to the first that fails. Blocks.
pub(super) fn pass(stage: &dyn Stage, mut whole: Whole, chunks: Vec<Queued>) -> (Whole, Vec<Passed>) {
    let mut broken = false;
    let mut one = |Queued { written, offset, data, memory }: Queued| {
        let outcome = if broken {
            write(stage, &written, offset, &data)
        } else {
            let mut after = whole.clone();
            let is = after.hasher.update_with_chunk(&data);
            let outcome = write_if(stage, &written, is, offset, &data);
            broken = outcome.is_err();
            if !broken {
                after.next += 1;
                whole = after;
            }
            outcome
        };
        // What is in the digest is needed no more; its memory goes before the share of it.
        let data = if broken { data } else { Bytes::new() };
        drop(memory);
        Passed { written, outcome, data, hashed: !broken }
    };
    let passed = chunks.into_iter().map(&mut one).collect();
    (whole, passed)
}

/// Lets the whole digest go on over what is written. Blocks.
pub(super) fn advance(stage: &dyn Stage, mut whole: Whole, chunking: Chunking, end: u64) -> Result<Whole, AppError> {
    while whole.next < end {
        let len = chunking.len(whole.next);
        let offset = chunking.offset(whole.next).unwrap_or(u64::MAX);
        let data = stage.read_at(offset, len as usize)?;
        if (data.len() as u64) < len {
            return Err(AppError::of(ErrorCode::DataDamaged).private("a stage is shorter than what was written to it"));
        }
        whole.hasher.update(&data);
        whole.next += 1;
    }
    Ok(whole)
}
