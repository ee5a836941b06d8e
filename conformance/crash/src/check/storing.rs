//! What becomes of a publish: the log's side.

use std::collections::{BTreeMap, HashMap};

use super::{Findings, Rule, facts::Facts};
use crate::history::{Event, Level, Place};

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    acked_is_stored(facts, findings);
    stored_once(facts, findings);
    repeats(facts, findings);
    refused(facts, findings);
    order(facts, findings);
    one_name(facts, findings);
    seqs_rise(facts, findings);
    epochs_rise(facts, findings);
}

fn acked_is_stored(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for call in &facts.calls {
        let Some((at, place, level, _)) = call.answer else { continue };
        // The server may give more than it was asked for, never less.
        if level < call.level {
            findings.add(
                Rule::AckedIsStored,
                &[call.at, at],
                format!("acknowledged at a level below {:?}", call.level),
            );
        }
        if level == Level::Memory || facts.trimmed(place) {
            continue;
        }
        if place.seq == 0 {
            // An old repeat, whose place is forgotten: somewhere it must be.
            if !facts.records_of.contains_key(call.body) {
                findings.add(Rule::AckedIsStored, &[call.at, at], format!("{} is nowhere in the log", call.body));
            }
            continue;
        }
        match facts.record_at.get(&(place.class, place.seq)).map(|r| &facts.records[*r]) {
            None => findings.add(Rule::AckedIsStored, &[call.at, at], format!("{place} is not in the log")),
            Some(r) if r.body != call.body || r.topic != call.topic || r.place.epoch != place.epoch => {
                findings.add(Rule::AckedIsStored, &[call.at, at, r.at], format!("{place} holds something else"));
            }
            Some(_) => {}
        }
    }
}

fn stored_once(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for (body, records) in &facts.records_of {
        if let [first, .., last] = records[..] {
            let lines = [facts.records[first].at, facts.records[last].at];
            findings.add(Rule::StoredOnce, &lines, format!("{body} is stored {} times", records.len()));
        }
    }
}

fn repeats(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut first: HashMap<&str, (usize, Place)> = HashMap::new();
    let mut answers: Vec<_> = facts
        .calls
        .iter()
        // What memory alone had may be stored anew after a kill.
        .filter(|c| c.level != Level::Memory)
        .filter_map(|c| Some((c.key?, c.answer?)))
        .collect();
    answers.sort_by_key(|(_, (at, ..))| *at);
    for (key, (at, place, _, duplicate)) in answers {
        match first.get(key) {
            None => {
                first.insert(key, (at, place));
            }
            Some((before, original)) => {
                // Of two calls that were open at once either may be the first, so only places are compared then.
                if *original != place {
                    findings.add(Rule::RepeatHasFirstPlace, &[*before, at], format!("{key}: another place"));
                } else if !duplicate && !concurrent(facts, *before, at) {
                    findings.add(Rule::RepeatHasFirstPlace, &[*before, at], format!("{key}: no duplicate"));
                }
            }
        }
    }
}

/// Whether the call that was answered on a line had begun when another was answered.
fn concurrent(facts: &Facts<'_>, before: usize, at: usize) -> bool {
    facts.calls.iter().any(|c| c.answer.is_some_and(|(answered, ..)| answered == at) && c.at < before)
}

fn refused(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let refused = facts.refused_bodies();
    for call in facts.calls.iter().filter(|c| refused.contains(c.body)) {
        let Some(at) = call.refused else { continue };
        for record in facts.records_of.get(call.body).into_iter().flatten() {
            let lines = [call.at, at, facts.records[*record].at];
            findings.add(Rule::RefusedIsNotStored, &lines, format!("{} was refused and is stored", call.body));
        }
        for sub in &facts.subscriptions {
            if let Some(delivery) = sub.deliveries.iter().find(|d| d.body == call.body) {
                let lines = [call.at, at, delivery.at];
                findings.add(Rule::RefusedIsNotStored, &lines, format!("{} was refused and delivered", call.body));
            }
        }
    }
}

fn order(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // By producer and topic: the last call and where it was stored. A body counts with its first call.
    let mut last: HashMap<(&str, &str), (usize, u64)> = HashMap::new();
    for (i, call) in facts.calls.iter().enumerate() {
        if facts.by_body[call.body].first() != Some(&i) {
            continue;
        }
        let Some(record) = facts.records_of.get(call.body).and_then(|r| r.first()) else { continue };
        let seq = facts.records[*record].place.seq;
        if let Some((before, earlier)) = last.insert((call.producer, call.topic), (call.at, seq))
            && earlier >= seq
        {
            let what = format!("{} number {} is stored at {seq}, the one before at {earlier}", call.producer, call.n);
            findings.add(Rule::OrderPerProducer, &[before, call.at], what);
        }
    }
}

fn one_name(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut names: HashMap<(u8, u64), (usize, u32, &str)> = HashMap::new();
    let calls = facts.calls.iter().filter_map(|c| c.answer.map(|(at, place, ..)| (at, place, c.body)));
    let deliveries = facts.subscriptions.iter().flat_map(|s| &s.deliveries).map(|d| (d.at, d.place, d.body));
    let records = facts.records.iter().map(|r| (r.at, r.place, r.body));
    for (at, place, body) in calls.chain(deliveries).chain(records).filter(|(_, place, _)| place.seq != 0) {
        let (first, epoch, name) = *names.entry((place.class, place.seq)).or_insert((at, place.epoch, body));
        if name != body || epoch != place.epoch {
            findings.add(Rule::SeqNamesOneMessage, &[first, at], format!("{place} is {body}, and was {name}"));
        }
    }
}

/// The highest seq that was acknowledged, and on which line, by class.
type Known = BTreeMap<u8, (usize, u64)>;

fn seqs_rise(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // Highest seq that was known to somebody when a call began, by class.
    let mut known = Known::new();
    let mut began: HashMap<(&str, u64), Known> = HashMap::new();
    for (at, entry) in facts.entries.iter().enumerate() {
        match &entry.event {
            Event::Publish { producer, n, .. } => {
                began.insert((producer, *n), known.clone());
            }
            Event::Published { producer, n, place, duplicate, .. } => {
                let before = began.get(&(producer.as_str(), *n)).and_then(|k| k.get(&place.class));
                if let Some((line, seq)) = before
                    && !duplicate
                    && place.seq <= *seq
                {
                    let what = format!("{place} was given after {seq} had been acknowledged");
                    findings.add(Rule::SeqsRise, &[*line, at], what);
                }
                if known.get(&place.class).is_none_or(|(_, seq)| *seq < place.seq) {
                    known.insert(place.class, (at, place.seq));
                }
            }
            _ => {}
        }
    }
}

fn epochs_rise(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // Highest epoch that a life's own calls were answered with, by class: line and epoch.
    let mut of: BTreeMap<(u8, u32), (usize, u32)> = BTreeMap::new();
    for call in &facts.calls {
        let Some((at, place, _, false)) = call.answer else { continue };
        // A call that began in an earlier life may have been stored there.
        let lower = of.range((place.class, 0)..(place.class, call.life)).next_back();
        if let Some((_, (before, epoch))) = lower
            && *epoch >= place.epoch
        {
            let what = format!("life {} stores in epoch {}, an earlier one did in {epoch}", call.life, place.epoch);
            findings.add(Rule::EpochsRise, &[*before, call.at, at], what);
        }
        let answered_in = facts.life_at(at);
        if answered_in == call.life {
            let top = of.entry((place.class, call.life)).or_insert((at, place.epoch));
            if top.1 < place.epoch {
                *top = (at, place.epoch);
            }
        }
    }
    let mut last: HashMap<u8, (usize, Place)> = HashMap::new();
    for record in &facts.records {
        if let Some((before, earlier)) = last.insert(record.place.class, (record.at, record.place))
            && (earlier.seq >= record.place.seq || earlier.epoch > record.place.epoch)
        {
            findings.add(Rule::EpochsRise, &[before, record.at], "the log goes backwards");
        }
    }
}
