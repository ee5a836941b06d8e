//! The checker: from a whole history to everything that is wrong with it. A pure function that knows nothing of the
//! server, of clients or of the round that made the history; its tests feed it one of each kind of wrong.
//!
//! What it promises, and what not: see [`Rule`]. A publish at level `memory` may be gone after a kill, whatever was
//! acknowledged; what it must not do even then is to come twice, or under a number that names something else.

mod asking;
mod delivering;
mod ending;
mod facts;
mod storing;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::asking::{REPLY_END, REPLY_PREFIX};
use self::facts::Facts;
use crate::history::{Entry, line};

/// Violations of one rule that are told; more say nothing new.
const TOLD_MAX: usize = 5;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What was acknowledged as written or synced is in the log, where the acknowledgement said.
    AckedIsStored,
    /// No message is in the log twice, however often it was sent.
    StoredOnce,
    /// A repeat under a key is answered with the place of the first, and as a duplicate.
    RepeatHasFirstPlace,
    /// What was refused is neither in the log nor delivered.
    RefusedIsNotStored,
    /// Messages of one producer to one topic are stored in the order in which they were published.
    OrderPerProducer,
    /// A seq names one message for ever.
    SeqNamesOneMessage,
    /// What is published after an acknowledgement has a higher seq than what was acknowledged.
    SeqsRise,
    /// Each life of the server after a kill stores under a higher epoch, and epochs rise with seqs.
    EpochsRise,
    /// What is delivered is in the log, under its place, and was sent to where it was delivered from.
    DeliveredIsStored,
    /// Every subscription gets every message that it hears, at least once.
    EveryoneGetsEverything,
    /// First deliveries to a lone consumer come in the order of the log, per producer and topic.
    DeliveredInOrder,
    /// A message has one live lease per subscription.
    OneLease,
    /// A message that failed does not come again before its delay.
    NackWaits,
    /// What was confirmed as acknowledged is never delivered again.
    ConfirmedStaysDone,
    /// Nothing is both confirmed as acknowledged and dead.
    ConfirmedIsNotDead,
    /// Each death has one dead letter.
    OneLetterPerDeath,
    /// What was given up, or failed its last attempt, is a dead letter in the end.
    GivenUpIsDead,
    /// What nobody gave up, and what did not use up its attempts, is no dead letter.
    DeadHasCause,
    /// What was delivered is settled in the end: nothing is forgotten.
    NothingIsForgotten,
    /// A request has at most one final answer, and a reply belongs to it.
    OneAnswer,
    /// A request is answered in its time or refused, also over kills: its responder lives as long as it asks.
    AskedIsAnswered,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CRASH-{} {self:?}", *self as u8 + 1)
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// By what, with the lines of the history that show it.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Collects what is wrong.
struct Findings<'a> {
    entries: &'a [Entry],
    found: Vec<Violation>,
}

impl Findings<'_> {
    /// A rule is broken, as these lines show.
    fn add(&mut self, rule: Rule, lines: &[usize], what: impl fmt::Display) {
        let mut text = what.to_string();
        for at in lines {
            text.push_str("\n    ");
            text.push_str(&line(*at, &self.entries[*at]));
        }
        self.found.push(Violation { rule, what: text });
    }
}

/// Everything that is wrong with a history.
pub fn check(entries: &[Entry]) -> Vec<Violation> {
    let facts = Facts::new(entries);
    let mut findings = Findings { entries, found: Vec::new() };
    storing::check(&facts, &mut findings);
    delivering::check(&facts, &mut findings);
    ending::check(&facts, &mut findings);
    asking::check(&facts, &mut findings);
    findings.found
}

/// Violations for people: a few of each rule, then how many there were.
pub fn told(violations: &[Violation]) -> String {
    let mut rules: Vec<Rule> = violations.iter().map(|v| v.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    let mut out = String::new();
    for rule in rules {
        let of: Vec<_> = violations.iter().filter(|v| v.rule == rule).collect();
        for violation in of.iter().take(TOLD_MAX) {
            out.push_str(&format!("  {violation}\n"));
        }
        if of.len() > TOLD_MAX {
            out.push_str(&format!("  {rule}: {} in all\n", of.len()));
        }
    }
    out
}
