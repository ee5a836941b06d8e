//! What a store can do, asked instead of assumed.

use acb_types::Durability;

/// What a message log can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCapability {
    /// The highest level that it can keep; a publish that asks for more is `durability_unavailable`.
    pub durability_max: Durability,
    /// Whether other nodes can own partitions of it.
    pub shared: bool,
}

impl LogCapability {
    /// Segments on one machine's disk.
    pub const EMBEDDED: Self = Self { durability_max: Durability::Synced, shared: false };

    /// Whether it can keep a level.
    pub fn keeps(&self, level: Durability) -> bool {
        level <= self.durability_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_keeps_everything_but_replicated() {
        let kept: Vec<_> = Durability::ALL.into_iter().filter(|l| LogCapability::EMBEDDED.keeps(*l)).collect();
        assert_eq!(kept, [Durability::Memory, Durability::Written, Durability::Synced]);
    }
}
