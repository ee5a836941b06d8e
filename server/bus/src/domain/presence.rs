//! From "when was it heard of" to "is it there" (DESIGN section 5, Presence).

use std::time::Duration;

use acb_types::limits;

/// Whether an agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgentStatus {
    /// A live stream, or heard of within the grace.
    Online,
    /// Heard of, but not within the grace.
    Offline,
    /// Not heard of since it registered, or since the server started.
    Unknown,
}

/// How surely an agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgentPresence {
    /// A live stream, or a heartbeat in time.
    Active,
    /// Its last stream ended, or a heartbeat is late; the grace is not over.
    Suspect,
    /// The grace is over.
    Offline,
    /// Offline for so long that nobody waits for it.
    Expired,
    /// Not heard of since it registered, or since the server started.
    Unknown,
}

impl AgentPresence {
    /// What follows for those who ask whether it is there.
    pub fn status(self) -> AgentStatus {
        match self {
            Self::Active | Self::Suspect => AgentStatus::Online,
            Self::Offline | Self::Expired => AgentStatus::Offline,
            Self::Unknown => AgentStatus::Unknown,
        }
    }
}

/// What an agent says that it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgentActivity {
    /// Ready for work.
    Idle,
    /// At work.
    Busy,
    /// At work that waits for others.
    Waiting,
    /// Cannot go on without help.
    Blocked,
}

/// When an agent was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not since the server started.
    Never,
    /// It has a stream open.
    Now,
    /// By a heartbeat, that long ago.
    Ago(Duration),
    /// Its last stream ended, that long ago.
    Lost(Duration),
}

/// The presence that follows, and in which time it is another when nothing more is heard. At each bound exactly it is still
/// as before.
pub fn presence(heard: Heard) -> (AgentPresence, Option<Duration>) {
    let (ago, active) = match heard {
        Heard::Never => return (AgentPresence::Unknown, None),
        Heard::Now => return (AgentPresence::Active, None),
        Heard::Ago(ago) => (ago, Some(limits::PRESENCE_ACTIVE)),
        Heard::Lost(ago) => (ago, None),
    };
    let bounds = [
        (active, AgentPresence::Active),
        (Some(limits::PRESENCE_GRACE), AgentPresence::Suspect),
        (Some(limits::PRESENCE_GRACE + limits::PRESENCE_EXPIRY), AgentPresence::Offline),
    ];
    for (bound, presence) in bounds {
        if let Some(bound) = bound.filter(|bound| ago <= *bound) {
            return (presence, Some(bound.saturating_sub(ago) + Duration::from_millis(1)));
        }
    }
    (AgentPresence::Expired, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_agent_is_suspect_before_it_is_offline_and_expired_long_after() {
        let (active, grace) = (limits::PRESENCE_ACTIVE, limits::PRESENCE_GRACE);
        let expiry = grace + limits::PRESENCE_EXPIRY;
        for (heard, expected) in [
            (Heard::Never, AgentPresence::Unknown),
            (Heard::Now, AgentPresence::Active),
            (Heard::Ago(active), AgentPresence::Active),
            (Heard::Ago(active + MS), AgentPresence::Suspect),
            (Heard::Lost(Duration::ZERO), AgentPresence::Suspect),
            (Heard::Lost(grace), AgentPresence::Suspect),
            (Heard::Ago(grace + MS), AgentPresence::Offline),
            (Heard::Lost(expiry), AgentPresence::Offline),
            (Heard::Lost(expiry + MS), AgentPresence::Expired),
        ] {
            assert_eq!(presence(heard).0, expected, "{heard:?}");
        }
    }

    #[test]
    fn it_is_another_exactly_when_it_was_said_to_be() {
        for heard in [Duration::ZERO, Duration::from_secs(7), Duration::from_secs(20), Duration::from_hours(2)] {
            let (now, change) = presence(Heard::Ago(heard));
            let change = change.unwrap();
            assert_eq!(presence(Heard::Ago((heard + change).saturating_sub(MS))).0, now, "{heard:?}");
            assert_ne!(presence(Heard::Ago(heard + change)).0, now, "{heard:?}");
        }
    }
}
