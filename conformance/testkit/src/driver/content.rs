//! Contents of streams: bytes that tell where they stand, of which content, and in which world. So a chunk in the wrong
//! place, of another content or of another tenant is not the same bytes.

use std::ops::Range;

use serde_json::Value;

use super::{Mark, args::Args, args::BAD_SCENARIO};
use crate::raw::Failure;

/// Largest content that a scenario may ask for: they are to be short.
const BYTES_MAX: u64 = 64 << 20;

/// A content that a scenario names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(Vec<u8>);

impl Content {
    /// The content of a step, `{of: name, bytes: n}`; `None` when it gives none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(args: &Args, mark: &Mark) -> Result<Option<Self>, Failure> {
        let Some(given) = args.get("content") else { return Ok(None) };
        let bad = || Failure::own(BAD_SCENARIO, format!("content takes {{of: name, bytes: n}}, not {given}"));
        let of = given.get("of").and_then(Value::as_str).ok_or_else(bad)?;
        let bytes = given.get("bytes").and_then(Value::as_u64).filter(|n| *n <= BYTES_MAX).ok_or_else(bad)?;
        Ok(Some(Self::new(mark.name(), of, bytes as usize)))
    }

    /// The content that a step must give.
    ///
    /// # Errors
    /// When it does not.
    pub fn need(args: &Args, mark: &Mark) -> Result<Self, Failure> {
        Self::read(args, mark)?.ok_or_else(|| Failure::own(BAD_SCENARIO, "content is missing"))
    }

    fn new(world: &str, of: &str, len: usize) -> Self {
        // FNV of both names, then one multiplication a byte: the same in every run.
        let seed = world.bytes().chain([0]).chain(of.bytes());
        let seed =
            seed.fold(0xcbf2_9ce4_8422_2325, |hash: u64, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let byte = |at: u64| (seed.wrapping_add(at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        Self((0..len as u64).map(byte).collect())
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A part of it, as far as there is so much.
    pub fn part(&self, range: Range<u64>) -> &[u8] {
        let end = range.end.min(self.0.len() as u64) as usize;
        self.0.get(range.start as usize..end).unwrap_or_default()
    }

    /// Its digest.
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.0)
    }
}

/// A digest.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_differ_by_world_name_and_place() {
        let a = Content::new("left", "a", 600_000);
        assert_eq!(a, Content::new("left", "a", 600_000));
        assert_ne!(a, Content::new("right", "a", 600_000));
        assert_ne!(a, Content::new("left", "b", 600_000));
        assert_ne!(a.part(0..262_144), a.part(262_144..524_288), "chunks are told apart");
        assert_eq!(a.part(599_999..700_000), &a.bytes()[599_999..]);
        assert_eq!(a.part(600_000..700_000), b"");
    }
}
