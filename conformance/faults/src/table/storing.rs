//! What is kept, and the time.

use super::fault;
use crate::{Fault, Lie, LogLie};

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "counters-are-ignored",
        "what a producer sends again after a break is stored again",
        &["same-counter-is-stored-once", "acks-lost-on-the-way-make-no-doubles"],
        || Lie::Log(LogLie::NoCounters),
    ),
    fault("a-restart-forgets-keys", "idempotency keys are new after a restart", &["keys-survive-a-restart"], || {
        Lie::Log(LogLie::ForgetsKeys)
    }),
    fault(
        "a-restart-forgets-settlements",
        "acks and attempts are forgotten by a restart",
        &["killed-server-keeps-messages-and-acks", "attempts-survive-a-restart"],
        || Lie::Log(LogLie::ForgetsState),
    ),
    fault(
        "a-restart-empties-the-logs",
        "messages are gone after a restart",
        &["killed-server-keeps-messages-and-acks", "killed-server-keeps-what-was-only-written"],
        || Lie::Log(LogLie::ForgetsEverything),
    ),
    fault("reading-skips-a-message", "who catches up misses a message", &["start-at-all"], || {
        Lie::Log(LogLie::SkipsOnRead)
    }),
    fault(
        "timers-follow-the-wall-clock",
        "spans are measured with the time of day",
        &["jumps-move-no-lease", "jumps-move-no-redelivery"],
        || Lie::Clock,
    ),
];
