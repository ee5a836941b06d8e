//! The engine against a naive model.
//!
//! The model knows each message of each subscription by name. It does not foresee what the engine does where the engine
//! may choose (who is given a message, how much jitter a wait gets); it judges what was done, step by step, and says so
//! when the engine did not do what it must. With `planted` bugs it has to find each.

#[macro_use]
mod state;
mod judge;
mod world;

use proptest::prelude::*;

use self::state::{Check, World};

/// What a history is made of. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Publish {
        topics: Vec<u8>,
        expires_in: Option<u16>,
    },
    Connect {
        sub: u8,
        who: u8,
        messages: u8,
        bytes: u16,
        behind: u8,
    },
    Disconnect {
        sub: u8,
        who: u8,
    },
    Leave {
        sub: u8,
        who: u8,
    },
    Credit {
        sub: u8,
        who: u8,
        messages: u8,
        bytes: u16,
    },
    Settle {
        sub: u8,
        who: u8,
        how: How,
        from: u8,
        count: u8,
    },
    Advance {
        steps: u16,
    },
    Bury,
    Journal,
    Sync,
    Snapshot,
    Crash {
        keep: u8,
    },
    JournalLost,
    Trim {
        by: u8,
    },
    /// From now on kicks wait, or are served after each step.
    Lazy(bool),
    /// A read begins, and ends some steps later; or fails.
    BeginRead,
    EndRead,
    FailRead,
    Survey,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Ack,
    Confirm,
    Nack { delay: u8 },
    Progress,
    Term,
    Release,
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Ack),
        2 => Just(How::Confirm),
        3 => (0u8..30).prop_map(|delay| How::Nack { delay: delay.saturating_sub(20) }),
        1 => Just(How::Progress),
        1 => Just(How::Term),
        1 => Just(How::Release),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let b = any::<u8>;
    prop_oneof![
        8 => (prop::collection::vec(b(), 1..6), prop::option::weighted(0.2, 0u16..2000))
            .prop_map(|(topics, expires_in)| Op::Publish { topics, expires_in }),
        5 => (b(), b(), b(), 0u16..4000, b())
            .prop_map(|(sub, who, messages, bytes, behind)| Op::Connect { sub, who, messages, bytes, behind }),
        2 => (b(), b()).prop_map(|(sub, who)| Op::Disconnect { sub, who }),
        1 => (b(), b()).prop_map(|(sub, who)| Op::Leave { sub, who }),
        1 => (b(), b(), b(), 0u16..4000).prop_map(|(sub, who, messages, bytes)| Op::Credit { sub, who, messages, bytes }),
        16 => (b(), b(), how(), b(), b()).prop_map(|(sub, who, how, from, count)| Op::Settle { sub, who, how, from, count }),
        6 => prop_oneof![8 => 1u16..25, 1 => 180u16..260].prop_map(|steps| Op::Advance { steps }),
        2 => Just(Op::Bury),
        1 => Just(Op::Journal),
        2 => Just(Op::Sync),
        1 => Just(Op::Snapshot),
        1 => b().prop_map(|keep| Op::Crash { keep }),
        1 => Just(Op::JournalLost),
        1 => b().prop_map(|by| Op::Trim { by }),
        1 => prop::bool::weighted(0.3).prop_map(Op::Lazy),
        1 => Just(Op::BeginRead),
        1 => Just(Op::EndRead),
        1 => Just(Op::FailRead),
        1 => Just(Op::Survey),
    ]
}

/// Runs a history; the first step that is wrong, and how.
pub(crate) fn run(seed: u64, ops: &[Op]) -> Check {
    let mut world = World::new(seed);
    for (i, op) in ops.iter().enumerate() {
        world.step(op).map_err(|e| format!("step {i}, {op:?}: {e}"))?;
    }
    Ok(())
}

/// How many histories to try: `ENGINE_HISTORIES`, or enough for every day.
fn histories() -> u32 {
    std::env::var("ENGINE_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_naive_model_allows_and_demands(
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        if let Err(wrong) = run(seed, &ops) {
            return Err(TestCaseError::fail(wrong));
        }
    }
}
