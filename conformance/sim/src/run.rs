//! One seed from beginning to end.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use acb_engine::Credit;

use crate::{
    model::{Check, Violation},
    world::World,
};

/// Steps of the stormy part.
const STEPS: u64 = 250;
/// Rounds of the calm part after which a run that is not quiet is stuck.
const CALM_ROUNDS: u64 = 20_000;

/// A fault planted in the code under test; the run is expected to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// None.
    Nothing,
    /// One of the log's.
    Log(acb_log::planted::Bug),
    /// One of the engine's.
    Engine(acb_engine::planted::Bug),
    /// The core acknowledges before it writes.
    AckBeforeWrite,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Steps that were made.
    pub step: u64,
    /// Fold of all that was seen.
    pub trace: u64,
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// Messages that were sent.
    pub messages: usize,
}

/// Runs a seed.
pub fn run(seed: u64, planted: Planted) -> Outcome {
    plant(planted);
    let mut world = World::new(seed, planted == Planted::AckBeforeWrite);
    let mut step = 0;
    // An assertion of the code itself is as good a finding as one of the model.
    let driven = catch_unwind(AssertUnwindSafe(|| drive(&mut world, &mut step)));
    let violation = match driven {
        Ok(checked) => checked.err(),
        Err(panic) => Some(Violation { invariant: "SIM-0", what: format!("panicked: {}", text(&panic)) }),
    };
    plant(Planted::Nothing);
    Outcome { seed, step, trace: world.trace, violation, messages: world.model.sent.len() }
}

fn text(panic: &Box<dyn Any + Send>) -> String {
    let message = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn plant(planted: Planted) {
    acb_log::planted::plant(match planted {
        Planted::Log(bug) => Some(bug),
        _ => None,
    });
    acb_engine::planted::plant(match planted {
        Planted::Engine(bug) => Some(bug),
        _ => None,
    });
}

fn drive(world: &mut World, step: &mut u64) -> Check {
    world.start()?;
    while *step < STEPS {
        *step += 1;
        one(world)?;
    }
    calm(world, step)
}

fn window(world: &mut World) -> Credit {
    match world.rng.below(8) {
        0 => Credit { messages: 0, bytes: 0 },
        1 => Credit { messages: 1, bytes: 1 << 20 },
        2 => Credit { messages: 8, bytes: 300 },
        _ => Credit { messages: 1 + world.rng.below(40) as u32, bytes: 1 << 20 },
    }
}

fn one(world: &mut World) -> Check {
    if !world.is_up() {
        // A server that starts on a failing disk may refuse to; the log's own tests have that.
        world.heal_disk();
        world.start()?;
        world.resend_all();
        return Ok(());
    }
    let c = world.some_consumer();
    match world.rng.below(100) {
        0..=24 => world.publish(),
        25..=36 => world.drain(),
        37..=48 => world.commit(false),
        49..=51 => world.commit(true),
        52..=58 => {
            let credit = window(world);
            world.connect(c, credit)
        }
        59..=68 => {
            world.arrive(c);
            world.settle(c, false)
        }
        69..=71 => {
            world.arrive(c);
            Ok(())
        }
        72..=80 => match world.some_kicked() {
            Some(c) => world.read(c),
            None => Ok(()),
        },
        81..=82 => world.disconnect(c),
        83 => world.leave(c),
        84..=85 => {
            let credit = window(world);
            world.credit(c, credit)
        }
        86..=88 => {
            let ms = [10, 100, 1_000, 5_000, 12_000, 31_000][world.rng.below(6) as usize];
            world.advance(ms)
        }
        89 => world.step_wall(),
        90..=92 => {
            world.bury();
            Ok(())
        }
        93 => {
            let p = world.some_producer();
            match world.rng.below(3) {
                0 => world.resend(p, true),
                1 => world.resend(p, false),
                _ => world.retry_keyed(p),
            }
            Ok(())
        }
        94 => {
            world.kill();
            Ok(())
        }
        95 => {
            world.power_cut();
            Ok(())
        }
        96 => world.shut_down(),
        97 => {
            let errno = [28, 30][world.rng.below(2) as usize];
            world.fail_disk(errno);
            if world.rng.chance(1, 2) {
                // Full for just one round: whoever was told nothing in it must not be taken for served by the next.
                world.drain()?;
                world.heal_disk();
            }
            Ok(())
        }
        98 if world.rng.chance(1, 4) => {
            world.fail_sync();
            Ok(())
        }
        _ => {
            world.heal_disk();
            Ok(())
        }
    }
}

/// The storm is over: the disk is well, everybody is connected and handles what comes. In the end all must be settled.
fn calm(world: &mut World, step: &mut u64) -> Check {
    world.heal_disk();
    if world.is_up() {
        world.kill();
    }
    world.start()?;
    world.resend_all();
    for round in 0.. {
        *step += 1;
        world.drain()?;
        world.commit(false)?;
        world.bury();
        world.commit(true)?;
        for c in 0..world.consumers() {
            world.connect(c, Credit { messages: 64, bytes: 1 << 20 })?;
            world.read(c)?;
            world.arrive(c);
            world.settle(c, true)?;
        }
        if world.is_quiet() {
            break;
        }
        if round % 4 == 3 {
            world.advance(500)?;
        }
        if round > CALM_ROUNDS {
            return Err(Violation { invariant: "SIM-1", what: "messages are left that nobody gets".into() });
        }
    }
    world.count_dead_letters()?;
    world.model.finished()
}
