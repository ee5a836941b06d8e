//! Where a message is: (class, partition, epoch, seq). Printed, it is the message's id, so status by id needs no index.

use std::{fmt, str::FromStr};

use crate::{id::TenantId, name::InvalidName};

/// A log class of a tenant. Three are built in; numbers 3 to 18 are kept for classes that a tenant names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u8);

impl ClassId {
    /// Direct messages, requests, replies and broadcasts: they live until acknowledged.
    pub const INBOX: Self = Self(0);
    /// Published topics: they live for the class's retention.
    pub const TOPICS: Self = Self(1);
    /// Dead letters of all subscriptions.
    pub const DEAD_LETTERS: Self = Self(2);
    /// The built-in classes, in order of their numbers.
    pub const BUILT_IN: [Self; 3] = [Self::INBOX, Self::TOPICS, Self::DEAD_LETTERS];

    /// The class's name, as it stands in ids, folders and metrics. `None` for a number that names no class.
    pub fn name(self) -> Option<&'static str> {
        match self.0 {
            0 => Some("inbox"),
            1 => Some("topics"),
            2 => Some("dead-letters"),
            _ => None,
        }
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::BUILT_IN.into_iter().find(|c| c.name() == Some(name))
    }
}

impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "class{}", self.0),
        }
    }
}

impl fmt::Debug for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A partition's number inside its class. One partition each by default: 0.
pub type PartitionNo = u16;

/// One log: (tenant, class, partition).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Its class.
    pub class: ClassId,
    /// Its number inside the class.
    pub partition: PartitionNo,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.class, self.partition)
    }
}

/// A number within a partition, strictly rising from 1, gaps allowed. A seq once seen by anybody is never reused.
pub type Seq = u64;

/// Raised by one after each unclean stop of a log, so that a position from a lost tail is never mistaken for a new one.
pub type Epoch = u32;

/// A message's id: its position, printed `class-partition-epoch-seq`, for example `topics-0-1-42`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The log class.
    pub class: ClassId,
    /// The partition inside the class.
    pub partition: PartitionNo,
    /// The log's epoch when the message was stored.
    pub epoch: Epoch,
    /// The seq inside the partition.
    pub seq: Seq,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.class, self.partition, self.epoch, self.seq)
    }
}

impl FromStr for MessageId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        const BAD: InvalidName =
            InvalidName::Shape { what: "message id", shape: "class-partition-epoch-seq, such as topics-0-1-42" };
        // Class names may hold dashes, so the numbers are taken from the right.
        let mut parts = text.rsplitn(4, '-');
        let mut number = || parts.next().and_then(canonical_number).ok_or(BAD);
        let seq = number()?;
        let epoch = Epoch::try_from(number()?).map_err(|_| BAD)?;
        let partition = PartitionNo::try_from(number()?).map_err(|_| BAD)?;
        let class = parts.next().and_then(ClassId::from_name).ok_or(BAD)?;
        Ok(Self { class, partition, epoch, seq })
    }
}

/// A number in its one spelling: no sign, no leading zero. Two texts must not name one message.
fn canonical_number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_reads_back_what_it_prints() {
        for class in ClassId::BUILT_IN {
            let id = MessageId { class, partition: 3, epoch: 7, seq: u64::MAX };
            assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
        }
    }

    #[test]
    fn a_message_id_has_one_spelling() {
        for bad in [
            "",
            "topics",
            "topics-0-1",
            "nope-0-1-2",
            "topics-00-1-2",
            "topics-0-1-+2",
            "topics-0-1-",
            "topics-70000-1-2",
            "Topics-0-1-2",
        ] {
            assert!(bad.parse::<MessageId>().is_err(), "{bad:?} was taken");
        }
    }
}
