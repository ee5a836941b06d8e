//! SHA-256 digests (FIPS 180-4): what names a blob, a chunk and a payload; and [`RunningDigest`], which takes that of a
//! chunk and of the whole that it continues in one pass. Single ones come from `sha2`.

mod running;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::{fmt, str::FromStr};

pub use self::running::RunningDigest;

/// A SHA-256 digest. As text: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

/// What was given is no SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 32 bytes, as text 64 hex digits in lower case")]
pub struct InvalidDigest;

impl Sha256Digest {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Sha256Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for Sha256Digest {
    type Error = InvalidDigest;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidDigest> {
        bytes.try_into().map(Self).map_err(|_| InvalidDigest)
    }
}

impl FromStr for Sha256Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let mut out = [0; 32];
        read_hex(text, &mut out).ok_or(InvalidDigest)?;
        Ok(Self(out))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256({self})")
    }
}

/// Writes bytes as lower-case hex digits.
pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// Reads exactly `out.len()` bytes from lower-case hex digits.
pub(crate) fn read_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != out.len() * 2 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_from_its_text() {
        let digest = Sha256Digest(std::array::from_fn(|i| (i * 9) as u8));
        assert_eq!(digest.to_string().len(), 64);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Sha256Digest::try_from(&digest.0[..]), Ok(digest));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let good = "0".repeat(64);
        for bad in ["", "00", &good[1..], &format!("{good}0"), &good.replacen('0', "A", 1), &good.replacen('0', "g", 1)]
        {
            assert_eq!(bad.parse::<Sha256Digest>(), Err(InvalidDigest), "{bad:?}");
        }
        assert_eq!(Sha256Digest::try_from(&[0; 31][..]), Err(InvalidDigest));
    }
}
