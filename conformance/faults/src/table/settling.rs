//! Acks, nacks, leases, credit: what consumers say.

use acb_proto::{CONSUME, v1};

use super::{fault, wire};
use crate::{
    Fault,
    wire::{up, up_in},
};

/// A change of what a consumer may have at once.
fn credits(change: impl Fn(&mut v1::Credit) + Send + Sync + 'static) -> crate::Lie {
    wire([up(CONSUME, move |frame: &mut v1::ConsumeRequest| {
        let opening = frame.open.as_mut().and_then(|open| open.credit.as_mut());
        opening.into_iter().chain(&mut frame.credit).for_each(&change);
    })])
}

pub(super) const FAULTS: &[Fault] = &[
    fault("plain-acks-are-dropped", "acks are taken and not noted", &["plain-ack"], || {
        wire([up(CONSUME, |frame: &mut v1::ConsumeRequest| frame.acks.clear())])
    }),
    fault(
        "confirmed-acks-are-confirmed-and-dropped",
        "a confirmed ack is answered and not noted",
        &["confirmed-ack"],
        || {
            wire([up_in(CONSUME, |conversation, frame: &mut v1::ConsumeRequest| {
                for range in frame.confirmed_acks.drain(..) {
                    let settled = v1::Settled { first_seq: range.first_seq, count: range.count, error: None };
                    conversation.inject(&v1::ConsumeResponse { settled: vec![settled], ..Default::default() });
                }
            })])
        },
    ),
    fault("nack-delays-are-ignored", "the delay of a nack is not looked at", &["nack-with-a-delay"], || {
        wire([up(CONSUME, |frame: &mut v1::ConsumeRequest| {
            frame.nacks.iter_mut().for_each(|nack| nack.delay_ms = 0);
        })])
    }),
    fault("nack-reasons-are-lost", "why a message failed is not kept", &["attempts-run-out"], || {
        wire([up(CONSUME, |frame: &mut v1::ConsumeRequest| {
            frame.nacks.iter_mut().for_each(|nack| nack.reason.clear());
        })])
    }),
    fault(
        "terms-are-taken-for-nacks",
        "a message that was given up is tried again",
        &["term-makes-a-dead-letter-at-once"],
        || {
            wire([up(CONSUME, |frame: &mut v1::ConsumeRequest| {
                let nacks = frame.terms.drain(..).map(|term| v1::Nack {
                    first_seq: term.first_seq,
                    count: term.count,
                    reason: term.reason,
                    ..Default::default()
                });
                frame.nacks.extend(nacks);
            })])
        },
    ),
    fault(
        "releases-count-as-failures",
        "a message given back untouched counts as a failed attempt",
        &["release-is-no-failure"],
        || {
            wire([up(CONSUME, |frame: &mut v1::ConsumeRequest| {
                let nacks = frame.releases.drain(..).map(|range| v1::Nack {
                    first_seq: range.first_seq,
                    count: range.count,
                    ..Default::default()
                });
                frame.nacks.extend(nacks);
            })])
        },
    ),
    fault(
        "progress-is-ignored",
        "a lease does not start anew when its holder is still at work",
        &["progress-starts-the-lease-anew"],
        || wire([up(CONSUME, |frame: &mut v1::ConsumeRequest| frame.progress.clear())]),
    ),
    fault(
        "leaving-is-taken-for-a-loss",
        "who leaves in order keeps its messages for the grace",
        &["leaving-gives-back-at-once"],
        || {
            wire([up_in(CONSUME, |conversation, _: &mut v1::ConsumeRequest| {
                conversation.breaks_at_end = true;
            })])
        },
    ),
    fault(
        "credit-in-messages-is-ignored",
        "a consumer gets more messages than it granted",
        &["credit-in-messages"],
        || {
            credits(|credit| {
                if credit.messages > 0 {
                    credit.messages = 1000;
                }
            })
        },
    ),
    fault("credit-in-bytes-is-ignored", "a consumer gets more bytes than it granted", &["credit-in-bytes"], || {
        credits(|credit| credit.bytes = 8 << 20)
    }),
    fault(
        "no-credit-gives-one",
        "a consumer that grants nothing is given a message",
        &["no-credit-no-messages"],
        || credits(|credit| credit.messages = credit.messages.max(1)),
    ),
    fault(
        "lost-consumers-are-strangers",
        "a consumer that comes back after a break does not find its leases",
        &["lease-outlives-a-short-break"],
        || {
            wire([up(CONSUME, |frame: &mut v1::ConsumeRequest| {
                if let Some(open) = &mut frame.open {
                    open.session_id = rand::random::<[u8; 16]>().to_vec().into();
                    open.resume_delivery = 0;
                }
            })])
        },
    ),
];
