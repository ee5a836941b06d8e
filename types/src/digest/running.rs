//! The digest of a whole that comes in chunks, and of each chunk.

use std::fmt;

use super::Sha256Digest;

/// Bytes that SHA-256 takes at once.
const BLOCK: usize = 64;

/// Between blocks: eight words, `a` to `h`.
type State = [u32; 8];

/// Of no bytes.
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 (FIPS 180-4) of what has come so far. Unlike a hasher for one digest it takes a chunk's own digest and the
/// whole's in one pass: on processors with SHA instructions each of these waits for the one before it in its digest, and
/// the other digest fits between them. Both cost hardly more than one then; elsewhere they cost two passes.
///
/// # Examples
/// ```
/// use acb_types::RunningDigest;
///
/// let mut whole = RunningDigest::default();
/// let first = whole.update_with_chunk(b"a chunk");
/// assert_eq!(first, whole.digest(), "so far the chunk is the whole");
/// let second = whole.update_with_chunk(b" and another");
/// assert_ne!(second, whole.digest());
/// ```
#[derive(Clone)]
pub struct RunningDigest {
    state: State,
    /// Bytes so far.
    len: u64,
    /// The last `len % BLOCK` of them, which make no block yet.
    rest: [u8; BLOCK],
}

impl Default for RunningDigest {
    fn default() -> Self {
        Self { state: INITIAL, len: 0, rest: [0; BLOCK] }
    }
}

impl fmt::Debug for RunningDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningDigest").field("len", &self.len).finish_non_exhaustive()
    }
}

impl RunningDigest {
    /// Goes on over these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let had = self.rest_len();
        self.len += bytes.len() as u64;
        let mut bytes = bytes;
        if had > 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK - had));
            self.rest[had..had + head.len()].copy_from_slice(head);
            if had + head.len() < BLOCK {
                return;
            }
            compress(&mut self.state, &self.rest);
            bytes = tail;
        }
        let (blocks, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK);
        compress(&mut self.state, blocks);
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// Goes on over a chunk, and gives the chunk's own digest. In one pass where the bytes so far are whole blocks of 64:
    /// chunks of such a size, as those of a stream are.
    pub fn update_with_chunk(&mut self, chunk: &[u8]) -> Sha256Digest {
        if self.len == 0 {
            self.update(chunk);
            return self.digest();
        }
        if self.rest_len() > 0 {
            self.update(chunk);
            let mut own = Self::default();
            own.update(chunk);
            return own.digest();
        }
        let mut own = INITIAL;
        let (blocks, rest) = chunk.split_at(chunk.len() - chunk.len() % BLOCK);
        compress_both(&mut self.state, &mut own, blocks);
        self.len += chunk.len() as u64;
        self.rest[..rest.len()].copy_from_slice(rest);
        finish(own, rest, chunk.len() as u64)
    }

    /// The digest of all so far.
    pub fn digest(&self) -> Sha256Digest {
        finish(self.state, &self.rest[..self.rest_len()], self.len)
    }

    fn rest_len(&self) -> usize {
        (self.len % BLOCK as u64) as usize
    }
}

/// The last block or two: what is left, a one bit, zeros, and the length in bits.
fn finish(mut state: State, rest: &[u8], len: u64) -> Sha256Digest {
    let mut last = [0; 2 * BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    let end = if rest.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
    // Of the length in bits SHA-256 keeps the lowest 64.
    last[end - 8..end].copy_from_slice(&len.wrapping_mul(8).to_be_bytes());
    compress(&mut state, &last[..end]);
    let mut out = [0; 32];
    for (out, word) in out.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    Sha256Digest(out)
}

/// Whole blocks, one after the other.
fn compress(state: &mut State, blocks: &[u8]) {
    let (blocks, rest) = blocks.as_chunks::<BLOCK>();
    debug_assert!(rest.is_empty(), "{} bytes are no block", rest.len());
    for block in blocks {
        sha2::compress256(state, std::slice::from_ref(block.into()));
    }
}

/// The same blocks into two states.
fn compress_both(one: &mut State, other: &mut State, blocks: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if super::x86::compress_both(one, other, blocks) {
        return;
    }
    compress(one, blocks);
    compress(other, blocks);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn plain(bytes: &[u8]) -> Sha256Digest {
        Sha256Digest(Sha256::digest(bytes).into())
    }

    #[test]
    fn the_examples_of_the_standard_come_out() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(RunningDigest::default().digest().to_string(), empty);
        let mut abc = RunningDigest::default();
        abc.update(b"abc");
        assert_eq!(abc.digest().to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn two_states_over_the_same_blocks_are_what_each_is_alone() {
        let bytes: Vec<u8> = (0..640_u32).map(|i| (i * 7 % 251) as u8).collect();
        let (mut one, mut other) = (INITIAL, [1, 2, 3, 4, 5, 6, 7, u32::MAX]);
        let (mut one_alone, mut other_alone) = (one, other);
        compress_both(&mut one, &mut other, &bytes);
        compress(&mut one_alone, &bytes);
        compress(&mut other_alone, &bytes);
        assert_eq!((one, other), (one_alone, other_alone));
    }

    proptest! {
        #[test]
        fn digests_of_chunks_and_whole_are_what_sha2_says(
            pieces in proptest::collection::vec(
                (any::<bool>(), prop_oneof![0..200_usize, (0..20_usize).prop_map(|blocks| blocks * BLOCK)], any::<u8>()),
                0..12,
            )
        ) {
            let (mut whole, mut all) = (RunningDigest::default(), Vec::new());
            for (is_chunk, len, seed) in pieces {
                let piece: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
                if is_chunk {
                    prop_assert_eq!(whole.update_with_chunk(&piece), plain(&piece));
                } else {
                    whole.update(&piece);
                }
                all.extend(piece);
                prop_assert_eq!(whole.digest(), plain(&all));
            }
        }
    }
}
