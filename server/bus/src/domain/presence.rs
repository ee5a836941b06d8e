//! From "when was it heard of" to "is it there" (DESIGN section 5, Presence).

use std::time::Duration;

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

/// When an agent was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not since the server started.
    Never,
    /// That long ago; zero while a stream is open.
    Ago(Duration),
}

/// The status that follows. At the grace exactly an agent is still online.
pub fn status(heard: Heard, grace: Duration) -> AgentStatus {
    match heard {
        Heard::Never => AgentStatus::Unknown,
        Heard::Ago(span) if span <= grace => AgentStatus::Online,
        Heard::Ago(_) => AgentStatus::Offline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_goes_offline_only_after_the_grace() {
        let grace = Duration::from_secs(30);
        for (heard, expected) in [
            (Heard::Never, AgentStatus::Unknown),
            (Heard::Ago(Duration::ZERO), AgentStatus::Online),
            (Heard::Ago(grace), AgentStatus::Online),
            (Heard::Ago(grace + Duration::from_millis(1)), AgentStatus::Offline),
        ] {
            assert_eq!(status(heard, grace), expected, "{heard:?}");
        }
    }
}
