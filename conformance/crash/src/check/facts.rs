//! A history, looked up: what belongs to which message, subscription and life.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Entry, Event, How, Level, Place};

/// A call to publish, and what came of it. Numbers are lines of the history.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) producer: &'a str,
    pub(super) n: u64,
    pub(super) topic: &'a str,
    pub(super) level: Level,
    pub(super) key: Option<&'a str>,
    pub(super) body: &'a str,
    pub(super) at: usize,
    pub(super) life: u32,
    pub(super) answer: Option<(usize, Place, Level, bool)>,
    pub(super) refused: Option<usize>,
}

/// A delivery, and what its consumer said.
#[derive(Debug)]
pub(super) struct Delivery<'a> {
    pub(super) at: usize,
    pub(super) life: u32,
    pub(super) consumer: &'a str,
    pub(super) place: Place,
    pub(super) topic: &'a str,
    pub(super) attempt: u32,
    pub(super) body: &'a str,
    /// The settlement that ended it.
    pub(super) end: Option<(usize, How)>,
    /// The last sign that its lease was renewed.
    pub(super) renewed: Option<usize>,
    pub(super) confirmed: Option<usize>,
    /// Its settlement was not taken.
    pub(super) refused: Option<usize>,
    /// Its consumer died.
    pub(super) died: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Subscription<'a> {
    pub(super) name: &'a str,
    pub(super) class: u8,
    pub(super) filters: &'a [String],
    pub(super) start_seq: u64,
    pub(super) ack_wait_ms: u64,
    pub(super) max_attempts: u32,
    pub(super) alone: bool,
    /// In the order of the history.
    pub(super) deliveries: Vec<Delivery<'a>>,
    /// Deliveries of a place, as indexes.
    pub(super) of: BTreeMap<Place, Vec<usize>>,
    /// Dead letters: line, place of the message, why, attempts.
    pub(super) dead: Vec<(usize, Place, &'a str, u32)>,
}

impl Subscription<'_> {
    pub(super) fn hears(&self, place: Place, topic: &str) -> bool {
        place.class == self.class
            && place.seq >= self.start_seq
            && self.filters.iter().any(|filter| matches(filter, topic))
    }
}

/// A message as it stands in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) at: usize,
    pub(super) place: Place,
    pub(super) topic: &'a str,
    pub(super) body: &'a str,
    pub(super) expires: bool,
}

#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) calls: Vec<Call<'a>>,
    /// Calls by body, in order.
    pub(super) by_body: HashMap<&'a str, Vec<usize>>,
    pub(super) subscriptions: Vec<Subscription<'a>>,
    pub(super) records: Vec<Record<'a>>,
    pub(super) record_at: HashMap<(u8, u64), usize>,
    pub(super) records_of: HashMap<&'a str, Vec<usize>>,
    /// First seq that was kept, by class.
    pub(super) kept_from: HashMap<u8, u64>,
    /// Lines on which lives began.
    pub(super) starts: Vec<(usize, u32)>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(entries: &'a [Entry]) -> Self {
        let mut facts = Self {
            entries,
            calls: Vec::new(),
            by_body: HashMap::new(),
            subscriptions: Vec::new(),
            records: Vec::new(),
            record_at: HashMap::new(),
            records_of: HashMap::new(),
            kept_from: HashMap::new(),
            starts: Vec::new(),
        };
        let mut calls: HashMap<(&str, u64), usize> = HashMap::new();
        let mut subscriptions: HashMap<&str, usize> = HashMap::new();
        // Deliveries by their number: subscription and index.
        let mut deliveries: HashMap<u64, (usize, usize)> = HashMap::new();
        let mut died: HashMap<(&str, &str), usize> = HashMap::new();
        let mut life = 0;
        for (at, entry) in entries.iter().enumerate() {
            match &entry.event {
                Event::Started { life: now } => {
                    life = *now;
                    facts.starts.push((at, life));
                }
                Event::Publish { producer, n, topic, level, key, body } => {
                    let call = facts.calls.len();
                    calls.insert((producer, *n), call);
                    facts.by_body.entry(body).or_default().push(call);
                    facts.calls.push(Call {
                        producer,
                        n: *n,
                        topic,
                        level: *level,
                        key: key.as_deref(),
                        body,
                        at,
                        life,
                        answer: None,
                        refused: None,
                    });
                }
                Event::Published { producer, n, place, level, duplicate } => {
                    if let Some(call) = calls.get(&(producer.as_str(), *n)) {
                        facts.calls[*call].answer = Some((at, *place, *level, *duplicate));
                    }
                }
                Event::Refused { producer, n, .. } => {
                    if let Some(call) = calls.get(&(producer.as_str(), *n)) {
                        facts.calls[*call].refused = Some(at);
                    }
                }
                Event::Subscribed { subscription, class, filters, start_seq, ack_wait_ms, max_attempts, alone } => {
                    subscriptions.insert(subscription, facts.subscriptions.len());
                    facts.subscriptions.push(Subscription {
                        name: subscription,
                        class: *class,
                        filters,
                        start_seq: *start_seq,
                        ack_wait_ms: *ack_wait_ms,
                        max_attempts: *max_attempts,
                        alone: *alone,
                        deliveries: Vec::new(),
                        of: BTreeMap::new(),
                        dead: Vec::new(),
                    });
                }
                Event::Delivered { subscription, consumer, delivery, place, topic, attempt, body } => {
                    let Some(of) = subscriptions.get(subscription.as_str()) else { continue };
                    let sub = &mut facts.subscriptions[*of];
                    deliveries.insert(*delivery, (*of, sub.deliveries.len()));
                    sub.of.entry(*place).or_default().push(sub.deliveries.len());
                    sub.deliveries.push(Delivery {
                        at,
                        life,
                        consumer,
                        place: *place,
                        topic,
                        attempt: *attempt,
                        body,
                        end: None,
                        renewed: None,
                        confirmed: None,
                        refused: None,
                        // Its last words may be written down after its death was.
                        died: died.get(&(subscription.as_str(), consumer.as_str())).copied(),
                    });
                }
                Event::Settle { delivery, how, .. } => {
                    if let Some(delivery) = facts.held(&deliveries, *delivery) {
                        if how.ends() {
                            delivery.end = Some((at, *how));
                        } else {
                            delivery.renewed = Some(at);
                        }
                    }
                }
                Event::Confirmed { delivery, .. } => {
                    if let Some(delivery) = facts.held(&deliveries, *delivery) {
                        delivery.confirmed = Some(at);
                    }
                }
                Event::NotSettled { delivery, .. } => {
                    if let Some(delivery) = facts.held(&deliveries, *delivery) {
                        delivery.refused = Some(at);
                    }
                }
                Event::Died { subscription, consumer } => {
                    died.insert((subscription, consumer), at);
                    if let Some(sub) = subscriptions.get(subscription.as_str()) {
                        let all = facts.subscriptions[*sub].deliveries.iter_mut();
                        all.filter(|d| d.consumer == consumer).for_each(|d| d.died = Some(at));
                    }
                }
                Event::Stored { place, topic, body, expires } => {
                    let record = facts.records.len();
                    facts.record_at.insert((place.class, place.seq), record);
                    facts.records_of.entry(body).or_default().push(record);
                    facts.records.push(Record { at, place: *place, topic, body, expires: *expires });
                }
                Event::LogRead { class, first_seq, .. } => {
                    facts.kept_from.insert(*class, *first_seq);
                }
                Event::Dead { subscription, place, reason, attempts, .. } => {
                    if let Some(sub) = subscriptions.get(subscription.as_str()) {
                        facts.subscriptions[*sub].dead.push((at, *place, reason, *attempts));
                    }
                }
                Event::Killed { .. } | Event::Unanswered { .. } | Event::Request { .. } | Event::Answered { .. } => {}
            }
        }
        facts
    }

    fn held(&mut self, deliveries: &HashMap<u64, (usize, usize)>, number: u64) -> Option<&mut Delivery<'a>> {
        let (sub, at) = *deliveries.get(&number)?;
        self.subscriptions[sub].deliveries.get_mut(at)
    }

    /// Whether a place lies below what its log keeps: it was settled by everybody and went.
    pub(super) fn trimmed(&self, place: Place) -> bool {
        self.kept_from.get(&place.class).is_some_and(|first| place.seq < *first)
    }

    /// The life of the server in which a line was written down.
    pub(super) fn life_at(&self, line: usize) -> u32 {
        let starts = self.starts.partition_point(|(at, _)| *at <= line);
        starts.checked_sub(1).map_or(0, |i| self.starts[i].1)
    }

    pub(super) fn at_us(&self, line: usize) -> u64 {
        self.entries[line].at_us
    }

    /// Bodies that may be gone: only the memory of a server that was killed had them.
    pub(super) fn may_be_lost(&self, body: &str) -> bool {
        self.by_body.get(body).is_some_and(|calls| calls.iter().all(|c| self.calls[*c].level == Level::Memory))
    }

    /// Bodies of which every call was refused.
    pub(super) fn refused_bodies(&self) -> HashSet<&'a str> {
        let all = |calls: &Vec<usize>| calls.iter().all(|c| self.calls[*c].refused.is_some());
        self.by_body.iter().filter(|(_, calls)| all(calls)).map(|(body, _)| *body).collect()
    }
}

/// Whether a pattern hears a topic: `*` is one token, a last `>` one or more.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('.'), topic.split('.'));
    loop {
        match (filter.next(), topic.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}
