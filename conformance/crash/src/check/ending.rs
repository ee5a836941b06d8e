//! How messages end: acknowledged, or dead.

use std::collections::HashMap;

use super::{
    Findings, Rule,
    facts::{Facts, Subscription},
};
use crate::history::{How, Place};

/// Lost connections after which a message dies of them.
const LOST_CONNECTIONS_MAX: u32 = 3;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for sub in &facts.subscriptions {
        let dead = letters(sub, findings);
        for (place, all) in &sub.of {
            ended(facts, sub, *place, all, dead.get(place).copied(), findings);
        }
    }
}

/// Dead letters by message; a second one of the same death is wrong.
fn letters(sub: &Subscription<'_>, findings: &mut Findings<'_>) -> HashMap<Place, usize> {
    let mut dead: HashMap<Place, usize> = HashMap::new();
    for (i, (at, place, ..)) in sub.dead.iter().enumerate() {
        if let Some(before) = dead.insert(*place, i) {
            let what = format!("{}: {place} died twice", sub.name);
            findings.add(Rule::OneLetterPerDeath, &[sub.dead[before].0, *at], what);
        }
        if !sub.of.contains_key(place) {
            let what = format!("{}: {place} is dead and was never delivered", sub.name);
            findings.add(Rule::DeadHasCause, &[*at], what);
        }
    }
    dead
}

fn ended(
    facts: &Facts<'_>,
    sub: &Subscription<'_>,
    place: Place,
    all: &[usize],
    dead: Option<usize>,
    findings: &mut Findings<'_>,
) {
    let deliveries = || all.iter().map(|d| &sub.deliveries[*d]);
    let letter = dead.map(|i| sub.dead[i]);
    if let Some((line, ..)) = letter
        && let Some(confirmed) = deliveries().find_map(|d| d.confirmed)
    {
        let what = format!("{}: {place} is confirmed and dead", sub.name);
        findings.add(Rule::ConfirmedIsNotDead, &[confirmed, line], what);
    }
    let Some(last) = deliveries().next_back() else { return };
    let given_up = deliveries().find_map(|d| match d.end {
        Some((at, How::Term)) => Some(at),
        Some((at, How::Nack { .. })) if d.attempt >= sub.max_attempts => Some(at),
        _ => None,
    });
    if let Some((line, _, reason, attempts)) = letter {
        // A message may die of connections that are lost again and again: nobody has to give it up then.
        let lost = reason == "connection_lost" && attempts >= LOST_CONNECTIONS_MAX;
        if given_up.is_none() && !lost {
            findings.add(Rule::DeadHasCause, &[last.at, line], format!("{}: nobody gave {place} up", sub.name));
        }
        return;
    }
    match last.end {
        Some((at, How::Term)) => {
            findings.add(Rule::GivenUpIsDead, &[last.at, at], format!("{}: {place} has no dead letter", sub.name));
        }
        Some((at, How::Nack { .. })) if last.attempt >= sub.max_attempts => {
            findings.add(Rule::GivenUpIsDead, &[last.at, at], format!("{}: {place} has no dead letter", sub.name));
        }
        Some((_, How::Ack | How::Confirm)) if last.refused.is_none() => {}
        // The server was killed before it answered: it may have kept the word all the same.
        Some((_, How::Confirm)) if last.refused.is_some_and(|at| facts.life_at(at) > last.life) => {}
        // What memory alone had is gone with its server.
        _ if facts.may_be_lost(last.body) => {}
        end => {
            let mut lines = vec![last.at];
            lines.extend(end.map(|(at, _)| at));
            lines.extend(last.refused);
            findings.add(Rule::NothingIsForgotten, &lines, format!("{}: {place} was never settled", sub.name));
        }
    }
}
