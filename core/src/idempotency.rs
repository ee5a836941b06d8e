//! Keys that make a repeat harmless. The client's own resends need none (the producer session's numbers do that); these
//! are for callers who repeat whole calls, also after a restart.

use std::fmt;

/// A key of 128 random bits, as 32 hex digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A fresh key. Keep it with the work that it stands for, and use it again for each repeat of that work.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for IdempotencyKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_length_and_differ() {
        let (a, b) = (IdempotencyKey::random(), IdempotencyKey::random());
        assert_eq!(a.as_str().len(), 32);
        assert_ne!(a, b);
    }
}
