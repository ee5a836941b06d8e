//! What consumers are given.

use acb_proto::{CONSUME, v1};

use super::{fault, wire};
use crate::{
    Fault,
    wire::{down, down_in},
};

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "every-attempt-is-the-first",
        "a message that comes again does not say so",
        &["nack-with-a-delay", "lease-ends-and-another-gets-it"],
        || {
            wire([down(CONSUME, |frame: &mut v1::ConsumeResponse| {
                frame.runs.iter_mut().for_each(|run| run.attempt = 1);
            })])
        },
    ),
    fault("attempts-are-one-too-many", "the first attempt is called the second", &["to-one-agent"], || {
        wire([down(CONSUME, |frame: &mut v1::ConsumeResponse| {
            frame.runs.iter_mut().for_each(|run| run.attempt += 1);
        })])
    }),
    fault(
        "messages-are-delivered-twice",
        "a message is given twice at once, as if it were two first deliveries",
        &["overlapping-filters-give-one-copy"],
        || {
            wire([down_in(CONSUME, |conversation, frame: &mut v1::ConsumeResponse| {
                // The numbers of deliveries stay dense, so that no client takes the double for a loss.
                if frame.delivery > 0 {
                    frame.delivery += conversation.count;
                }
                let (Some(run), Some(message)) = (frame.runs.first().cloned(), frame.messages.first().cloned()) else {
                    return;
                };
                frame.runs.push(v1::DeliveryRun { count: 1, ..run });
                frame.messages.push(message);
                conversation.count += 1;
            })])
        },
    ),
    fault(
        "neighbours-change-places",
        "two messages of one sender come in the wrong order",
        &["order-holds-per-sender"],
        || {
            wire([down(CONSUME, |frame: &mut v1::ConsumeResponse| {
                if frame.messages.len() > 1 {
                    frame.messages.swap(0, 1);
                }
            })])
        },
    ),
    fault(
        "the-last-of-many-is-lost",
        "of many messages at once the last is not given",
        &["order-holds-per-sender"],
        || {
            wire([down_in(CONSUME, |conversation, frame: &mut v1::ConsumeResponse| {
                frame.delivery = frame.delivery.saturating_sub(conversation.count);
                let Some(run) = frame.runs.last_mut().filter(|run| run.count > 2) else { return };
                run.count -= 1;
                frame.messages.pop();
                conversation.count += 1;
            })])
        },
    ),
    fault("senders-are-not-named", "a message does not say who sent it", &["to-one-agent"], || {
        wire([down(CONSUME, |frame: &mut v1::ConsumeResponse| {
            frame.runs.iter_mut().for_each(|run| run.from.clear());
        })])
    }),
];
