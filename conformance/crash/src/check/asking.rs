//! Requests and their answers.

use std::collections::HashMap;

use super::{Findings, Rule, facts::Facts};
use crate::history::Event;

/// How a reply begins that belongs to a request: `re:<body of the request>`, and then whatever tells replies apart.
pub const REPLY_PREFIX: &str = "re:";
/// Ends the request's body in a reply.
pub const REPLY_END: char = '|';

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut asked: HashMap<(&str, u64), (usize, &str)> = HashMap::new();
    let mut answered: HashMap<(&str, u64), usize> = HashMap::new();
    for (at, entry) in facts.entries.iter().enumerate() {
        match &entry.event {
            Event::Request { requester, n, body } => {
                asked.insert((requester, *n), (at, body));
            }
            Event::Answered { requester, n, reply, code } => {
                let Some((question, body)) = asked.get(&(requester.as_str(), *n)) else {
                    findings.add(Rule::OneAnswer, &[at], "an answer without a request");
                    continue;
                };
                if let Some(before) = answered.insert((requester, *n), at) {
                    findings.add(Rule::OneAnswer, &[*question, before, at], "a second final answer");
                }
                if let Some(reply) = reply {
                    let of = reply.strip_prefix(REPLY_PREFIX).and_then(|r| r.split(REPLY_END).next());
                    if of != Some(body) {
                        findings.add(Rule::OneAnswer, &[*question, at], "the reply belongs to another request");
                    }
                }
                // No kill takes a request, a reply, or the place in the log from which they are delivered.
                if code.as_deref() == Some("timeout") {
                    findings.add(Rule::AskedIsAnswered, &[*question, at], format!("{body} was never answered"));
                }
                // Nobody was there: then nothing was stored, and nobody may hear of it later.
                if code.as_deref() == Some("no_responders") {
                    if let Some(record) = facts.records_of.get(body).and_then(|r| r.first()) {
                        let lines = [*question, at, facts.records[*record].at];
                        findings.add(
                            Rule::RefusedIsNotStored,
                            &lines,
                            format!("{body} had no responders and is stored"),
                        );
                    }
                    let heard = facts.subscriptions.iter().flat_map(|s| &s.deliveries).find(|d| d.body == *body);
                    if let Some(delivery) = heard {
                        let lines = [*question, at, delivery.at];
                        findings.add(Rule::RefusedIsNotStored, &lines, format!("{body} had no responders and came"));
                    }
                }
            }
            _ => {}
        }
    }
    let mut open: Vec<_> = asked.iter().filter(|(key, _)| !answered.contains_key(*key)).collect();
    open.sort_by_key(|(_, (at, _))| *at);
    for (_, (at, body)) in open {
        findings.add(Rule::OneAnswer, &[*at], format!("{body} has no final answer at all"));
    }
}
