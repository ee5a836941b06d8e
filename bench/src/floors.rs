//! Floors and goals of DESIGN section 12, and the judgement of a row against them.
//!
//! A floor is a gate, a goal is where we are going. Kinds of bound: our rate over the peer's (at least), a figure of
//! ours alone (at least, or at most), and our latency, alone or over the peer's (below it).

use crate::{
    case::{Mode, Peer},
    record::{GateResult, ResultRow},
};

/// What a bound is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Ratio ours / peer, at least.
    Ratio,
    /// Our own figure, at most (memory per idle connection, time to import).
    Acb,
    /// Our own figure, at least (MB/s).
    AcbLeast,
    /// CPU µs of our server per message, at most.
    ServerCpu,
    /// Our 99th percentile over the peer's, at most.
    P99Ratio,
    /// Our 99th percentile in µs, below.
    P99,
    /// Wakes of a binding's event loop for a thousand messages, at most.
    Wakes,
}

impl Measure {
    /// The name in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Acb => "acb",
            Self::ServerCpu => "acb_cpu_us_per_msg",
            Self::P99Ratio => "p99_ratio",
            Self::AcbLeast => "acb_at_least",
            Self::P99 => "acb_p99_us",
            Self::Wakes => "acb_wakes_per_1000",
        }
    }

    /// Whether `value` keeps within `bound`.
    pub(crate) fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Ratio | Self::AcbLeast => value >= bound,
            Self::Acb | Self::ServerCpu | Self::Wakes => value <= bound,
            // "Lower" means lower: equal is not enough.
            Self::P99Ratio | Self::P99 => value < bound,
        }
    }

    fn of(self, row: &ResultRow) -> Option<f64> {
        match self {
            Self::Ratio => row.ratio,
            Self::Acb | Self::AcbLeast => Some(row.acb),
            Self::P99 => row.acb_p99_us,
            Self::Wakes => row.acb_wakes_per_1000,
            Self::ServerCpu => Some(row.acb_cpu_us_per_msg),
            Self::P99Ratio => Some(row.acb_p99_us? / row.peer_p99_us?),
        }
    }
}

/// A bound of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gate {
    case: &'static str,
    mode: Mode,
    peer: Peer,
    /// What is bounded.
    pub(crate) measure: Measure,
    /// Must hold.
    pub(crate) floor: f64,
    /// Where we are going.
    pub(crate) goal: f64,
}

const fn gate(case: &'static str, mode: Mode, peer: Peer, measure: Measure, floor: f64, goal: f64) -> Gate {
    Gate { case, mode, peer, measure, floor, goal }
}

use Measure::{Acb, AcbLeast, P99, P99Ratio, Ratio, ServerCpu, Wakes};
use Mode::{Synced, Written};
use Peer::{
    Alone, NatsAlways, NatsCore, NatsDefault, NatsLean, NatsPyFetch, NatsPyPublishAsync, NatsPyPush, RedisAlways,
};

/// The bounds; the first of a row is its main one.
pub(crate) static GATES: &[Gate] = &[
    gate("publish-256-pipelined", Written, NatsDefault, Ratio, 5.0, 15.0),
    gate("publish-256-pipelined", Written, NatsDefault, ServerCpu, 0.8, 0.3),
    gate("publish-256-pipelined", Written, NatsLean, Ratio, 3.0, 8.0),
    gate("publish-256-pipelined", Synced, NatsDefault, Ratio, 3.0, 7.0),
    gate("publish-256-pipelined", Synced, RedisAlways, Ratio, 3.0, 8.0),
    gate("publish-256-pipelined", Synced, NatsAlways, Ratio, 60.0, 150.0),
    gate("publish-256-oneframe", Written, NatsDefault, Ratio, 3.0, 7.0),
    gate("publish-4096-pipelined", Written, NatsDefault, Ratio, 3.0, 6.0),
    gate("publish-4096-fresh", Written, NatsDefault, Ratio, 1.5, 2.5),
    gate("publish-256-keyed", Written, NatsDefault, Ratio, 3.0, 7.0),
    gate("publish-256-50x1", Written, NatsDefault, Ratio, 1.2, 1.7),
    gate("publish-256-50x1", Synced, RedisAlways, Ratio, 0.9, 1.2),
    gate("publish-256-50x1", Synced, NatsAlways, Ratio, 6.0, 10.0),
    gate("publish-256-1x1", Written, NatsDefault, Ratio, 1.1, 1.35),
    gate("deliver-256-backlog", Written, NatsDefault, Ratio, 8.0, 20.0),
    gate("deliver-256-backlog", Written, NatsDefault, ServerCpu, 0.6, 0.2),
    gate("deliver-4096-backlog", Written, NatsDefault, Ratio, 3.0, 5.5),
    gate("live-256", Written, NatsDefault, Ratio, 8.0, 20.0),
    gate("live-256", Written, NatsDefault, P99Ratio, 1.0, 1.0),
    gate("live-256-oneframe", Written, NatsDefault, Ratio, 4.0, 9.0),
    gate("live-256-oneframe", Written, NatsDefault, P99Ratio, 1.0, 1.0),
    gate("live-256-8subs", Written, NatsDefault, Ratio, 8.0, 20.0),
    gate("request-reply-1x1", Written, NatsCore, Ratio, 0.9, 1.1),
    gate("request-reply-50x1", Written, NatsCore, Ratio, 0.75, 1.0),
    gate("idle-10k", Written, NatsCore, Acb, 64.0, 48.0),
    gate("agents-50-open-loop", Written, NatsCore, P99, 5000.0, 5000.0),
    gate("upload-1g", Synced, NatsDefault, Ratio, 2.0, 2.0),
    gate("upload-1g", Synced, NatsDefault, AcbLeast, 250.0, 250.0),
    gate("download-1g", Synced, NatsDefault, Ratio, 2.0, 2.0),
    gate("download-1g", Synced, NatsDefault, AcbLeast, 250.0, 250.0),
    gate("python-publish-256", Written, NatsPyPublishAsync, Ratio, 3.0, 6.0),
    gate("python-publish-256", Written, NatsPyPublishAsync, Wakes, 20.0, 20.0),
    gate("python-receive-256", Written, NatsPyPush, Ratio, 1.5, 3.0),
    gate("python-receive-256", Written, NatsPyPush, Wakes, 20.0, 20.0),
    gate("python-receive-256", Written, NatsPyFetch, Ratio, 6.0, 10.0),
    gate("python-import", Written, Alone, Acb, 60.0, 60.0),
    gate("python-upload-1g", Synced, Alone, AcbLeast, 250.0, 250.0),
    gate("python-download-1g", Synced, Alone, AcbLeast, 250.0, 250.0),
];

/// The bounds of a row.
pub(crate) fn gates(case: &str, mode: Mode, peer: Peer) -> impl Iterator<Item = &'static Gate> {
    GATES.iter().filter(move |gate| gate.case == case && gate.mode == mode && gate.peer == peer)
}

/// Fills in the row's gates, main floor and goal, and whether it passes. A bound whose measure is missing
/// does not hold: silence is no proof.
pub(crate) fn judge(row: &mut ResultRow) {
    row.gates = gates(&row.case, row.mode, row.peer)
        .map(|gate| {
            let value = gate.measure.of(row);
            GateResult {
                measure: gate.measure.name().to_owned(),
                value: value.unwrap_or(0.0),
                floor: gate.floor,
                goal: gate.goal,
                pass: value.is_some_and(|value| gate.measure.holds(value, gate.floor)),
                goal_met: value.is_some_and(|value| gate.measure.holds(value, gate.goal)),
            }
        })
        .collect();
    row.floor = row.gates.first().map(|gate| gate.floor);
    row.goal = row.gates.first().map(|gate| gate.goal);
    row.pass = (!row.gates.is_empty()).then(|| row.gates.iter().all(|gate| gate.pass));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{case::ROWS, record::tests::sample};

    #[test]
    fn every_gate_belongs_to_a_row() {
        for gate in GATES {
            let known = ROWS.iter().any(|row| row.case == gate.case && row.mode == gate.mode && row.peer == gate.peer);
            assert!(known, "{gate:?}");
        }
    }

    #[test]
    fn goals_are_not_below_floors() {
        for gate in GATES {
            let sane = match gate.measure {
                Measure::Ratio | Measure::AcbLeast => gate.goal >= gate.floor,
                _ => gate.goal <= gate.floor,
            };
            assert!(sane, "{gate:?}");
        }
    }

    #[test]
    fn a_row_passes_only_if_all_its_floors_hold() {
        let mut row = sample();
        judge(&mut row);
        assert_eq!((row.floor, row.goal, row.pass), (Some(5.0), Some(15.0), Some(true)));
        assert_eq!(row.gates.len(), 2);
        row.acb_cpu_us_per_msg = 0.81;
        judge(&mut row);
        assert_eq!(row.pass, Some(false));
        assert!(row.gates[0].pass && row.gates[0].goal_met && !row.gates[1].pass);
    }

    #[test]
    fn a_row_without_bounds_neither_passes_nor_fails() {
        let mut row = sample();
        row.peer = Peer::RedisEverysec;
        judge(&mut row);
        assert_eq!((row.floor, row.pass), (None, None));
    }

    #[test]
    fn lower_p99_means_lower_and_a_missing_one_does_not_pass() {
        let mut row = sample();
        row.case = "live-256".into();
        row.acb_p99_us = Some(4500.0);
        judge(&mut row);
        assert!(!row.gates[1].pass, "{:?}", row.gates);
        row.acb_p99_us = Some(4499.0);
        judge(&mut row);
        assert!(row.gates[1].pass, "{:?}", row.gates);
        row.peer_p99_us = None;
        judge(&mut row);
        assert_eq!(row.pass, Some(false));
    }

    #[test]
    fn a_transfer_must_be_fast_by_itself_and_a_missing_ratio_does_not_pass() {
        let mut row = sample();
        row.case = "upload-1g".into();
        row.mode = Mode::Synced;
        (row.acb, row.ratio) = (250.0, Some(2.0));
        judge(&mut row);
        assert_eq!(row.pass, Some(true), "{:?}", row.gates);
        row.acb = 249.0;
        judge(&mut row);
        assert_eq!(row.pass, Some(false));
        (row.acb, row.ratio) = (900.0, None);
        judge(&mut row);
        assert_eq!(row.pass, Some(false));
    }

    #[test]
    fn fifty_agents_answer_within_5_ms_and_a_binding_wakes_seldom() {
        let mut row = sample();
        (row.case, row.peer, row.acb_p99_us) = ("agents-50-open-loop".into(), Peer::NatsCore, Some(5000.0));
        judge(&mut row);
        assert_eq!(row.pass, Some(false), "{:?}", row.gates);
        row.acb_p99_us = Some(4999.0);
        judge(&mut row);
        assert_eq!(row.pass, Some(true), "{:?}", row.gates);
        (row.case, row.peer) = ("python-publish-256".into(), Peer::NatsPyPublishAsync);
        row.acb_wakes_per_1000 = Some(20.5);
        judge(&mut row);
        assert_eq!(row.pass, Some(false), "{:?}", row.gates);
        row.acb_wakes_per_1000 = Some(20.0);
        judge(&mut row);
        assert_eq!(row.pass, Some(true), "{:?}", row.gates);
    }

    #[test]
    fn memory_is_bounded_from_above() {
        let mut row = sample();
        row.case = "idle-10k".into();
        row.peer = Peer::NatsCore;
        row.acb = 65.0;
        judge(&mut row);
        assert_eq!(row.pass, Some(false));
        row.acb = 41.0;
        judge(&mut row);
        assert_eq!(row.pass, Some(true));
    }
}
