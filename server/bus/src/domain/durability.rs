//! Which level a message gets that names none, and which it may not go below.

use acb_types::{Durability, ErrorCode};

use crate::error::AppError;

/// What the operator says of durability. The same for every way in: unary sends and publish streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurabilityPolicy {
    /// Level of what names none and is neither request nor reply.
    pub default: Durability,
    /// Lowest level that may be asked for.
    pub floor: Durability,
}

impl Default for DurabilityPolicy {
    fn default() -> Self {
        Self { default: Durability::Synced, floor: Durability::Memory }
    }
}

impl DurabilityPolicy {
    /// The level of one message. Requests and replies (`quick`) take `written` of themselves: a round trip must not wait
    /// for a disk.
    ///
    /// # Errors
    /// `durability_unavailable` below the floor.
    pub fn level(&self, asked: Option<Durability>, quick: bool) -> Result<Durability, AppError> {
        let own = if quick { Durability::Written } else { self.default };
        let level = asked.unwrap_or(own.max(self.floor));
        if level < self.floor {
            let message = format!("{level} is below this server's floor of {}", self.floor);
            return Err(AppError::new(ErrorCode::DurabilityUnavailable, message));
        }
        Ok(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_level_gets_one_that_may_be_asked_for() {
        for floor in [Durability::Memory, Durability::Written, Durability::Synced] {
            for default in [Durability::Memory, Durability::Written, Durability::Synced] {
                let policy = DurabilityPolicy { default, floor };
                assert_eq!(policy.level(None, false).unwrap(), default.max(floor));
                assert_eq!(policy.level(None, true).unwrap(), Durability::Written.max(floor));
            }
        }
    }

    #[test]
    fn below_the_floor_nothing_is_taken() {
        let policy = DurabilityPolicy { floor: Durability::Written, ..DurabilityPolicy::default() };
        let refused = policy.level(Some(Durability::Memory), true).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::DurabilityUnavailable);
        assert_eq!(policy.level(Some(Durability::Written), false).unwrap(), Durability::Written);
    }
}
