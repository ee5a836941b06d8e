//! What becomes of a stored message: the consumers' side.

use std::collections::HashMap;

use super::{
    Findings, Rule,
    facts::{Delivery, Facts, Subscription},
};
use crate::history::How;

/// How much earlier than it was seen here a lease may have begun: frames wait in sockets and queues. Leases shorter
/// than this are not judged.
const LEASE_SLACK_US: u64 = 4_000_000;
/// How much earlier than it was asked for here a delay may seem to end. Nothing on the way makes it shorter; clocks of
/// timers are read in milliseconds.
const DELAY_SLACK_US: u64 = 2_000;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for sub in &facts.subscriptions {
        stored(facts, sub, findings);
        everything(facts, sub, findings);
        if sub.alone {
            in_order(facts, sub, findings);
        }
        for all in sub.of.values() {
            again(facts, sub, all, findings);
        }
    }
}

fn stored(facts: &Facts<'_>, sub: &Subscription<'_>, findings: &mut Findings<'_>) {
    for delivery in &sub.deliveries {
        if !sub.filters.iter().any(|f| super::facts::matches(f, delivery.topic)) || delivery.place.seq < sub.start_seq {
            findings.add(Rule::DeliveredIsStored, &[delivery.at], format!("{} does not hear that", sub.name));
        }
        if facts.trimmed(delivery.place) || facts.may_be_lost(delivery.body) {
            continue;
        }
        match facts.record_at.get(&(delivery.place.class, delivery.place.seq)).map(|r| &facts.records[*r]) {
            Some(r) if r.body == delivery.body && r.topic == delivery.topic && r.place == delivery.place => {}
            Some(r) => {
                findings.add(Rule::DeliveredIsStored, &[delivery.at, r.at], "the log holds something else there");
            }
            None => findings.add(Rule::DeliveredIsStored, &[delivery.at], "the log does not hold it"),
        }
    }
}

fn everything(facts: &Facts<'_>, sub: &Subscription<'_>, findings: &mut Findings<'_>) {
    for record in facts.records.iter().filter(|r| !r.expires && sub.hears(r.place, r.topic)) {
        if !sub.of.contains_key(&record.place) {
            let what = format!("{} never got {} ({})", sub.name, record.place, record.body);
            findings.add(Rule::EveryoneGetsEverything, &[record.at], what);
        }
    }
}

fn in_order(facts: &Facts<'_>, sub: &Subscription<'_>, findings: &mut Findings<'_>) {
    let mut last: HashMap<(&str, &str), &Delivery<'_>> = HashMap::new();
    for (i, delivery) in sub.deliveries.iter().enumerate() {
        if sub.of[&delivery.place].first() != Some(&i) {
            continue;
        }
        let producer = facts.by_body.get(delivery.body).map_or("", |calls| facts.calls[calls[0]].producer);
        if let Some(before) = last.insert((producer, delivery.topic), delivery)
            && before.place.seq > delivery.place.seq
        {
            let what = format!("{} got {} after {}", sub.name, delivery.place, before.place);
            findings.add(Rule::DeliveredInOrder, &[before.at, delivery.at], what);
        }
    }
}

/// Deliveries of one message to one subscription.
fn again(facts: &Facts<'_>, sub: &Subscription<'_>, all: &[usize], findings: &mut Findings<'_>) {
    for (i, earlier) in all.iter().map(|d| &sub.deliveries[*d]).enumerate() {
        for later in all[i + 1..].iter().map(|d| &sub.deliveries[*d]) {
            if let Some(confirmed) = earlier.confirmed
                && later.at > confirmed
            {
                let what = format!("{}: {} came again after it was confirmed", sub.name, later.place);
                findings.add(Rule::ConfirmedStaysDone, &[earlier.at, confirmed, later.at], what);
            }
        }
        if let Some(next) = all.get(i + 1).map(|d| &sub.deliveries[*d])
            && next.life == earlier.life
        {
            leased_once(facts, sub, earlier, next, findings);
        }
    }
}

/// The next delivery in the same life of the server: all leases of a killed one are over.
fn leased_once(
    facts: &Facts<'_>,
    sub: &Subscription<'_>,
    earlier: &Delivery<'_>,
    next: &Delivery<'_>,
    findings: &mut Findings<'_>,
) {
    let from = earlier.renewed.unwrap_or(earlier.at);
    let over = (facts.at_us(from) + sub.ack_wait_ms * 1000).saturating_sub(LEASE_SLACK_US);
    if facts.at_us(next.at) >= over || earlier.died.is_some_and(|died| died < next.at) || earlier.refused.is_some() {
        return;
    }
    match earlier.end {
        // What was acknowledged does not come again while its lease would still run: either the bus heard of it, or it
        // still holds the lease.
        None | Some((_, How::Ack | How::Confirm | How::Term)) => {
            let what = format!("{}: {} has a second lease beside a live one", sub.name, next.place);
            findings.add(Rule::OneLease, &[earlier.at, next.at], what);
        }
        Some((at, how)) => {
            if next.at < at {
                let what = format!("{}: {} has a second lease beside a live one", sub.name, next.place);
                findings.add(Rule::OneLease, &[earlier.at, next.at], what);
            } else if let How::Nack { delay_ms } = how
                && facts.at_us(next.at) + DELAY_SLACK_US < facts.at_us(at) + delay_ms * 1000
            {
                let what = format!("{}: {} came again before its delay of {delay_ms} ms", sub.name, next.place);
                findings.add(Rule::NackWaits, &[at, next.at], what);
            }
        }
    }
}
