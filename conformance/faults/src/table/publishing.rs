//! Messages on their way in, and what their senders are told.

use std::{collections::HashMap, sync::Arc};

use acb_proto::{PUBLISH_STREAM, v1};
use acb_types::ErrorCode;
use parking_lot::Mutex;

use super::{fault, wire};
use crate::{
    Fault, Lie,
    wire::{Conversation, Edit, down, instead_of, up, up_in},
};

const SEND: &str = "/acb.v1.MessageService/Send";

/// A change of each message, by either way in.
fn messages_in(change: impl Fn(&Conversation, &mut v1::Message) + Send + Sync + 'static) -> [Edit; 2] {
    let change = Arc::new(change);
    let streamed = Arc::clone(&change);
    [
        up_in(SEND, move |conversation, request: &mut v1::SendRequest| {
            request.message.iter_mut().for_each(|message| change(conversation, message));
        }),
        up_in(PUBLISH_STREAM, move |conversation, frame: &mut v1::PublishStreamRequest| {
            frame.messages.iter_mut().for_each(|message| streamed(conversation, message));
        }),
    ]
}

fn messages(change: impl Fn(&mut v1::Message) + Send + Sync + 'static) -> Lie {
    wire(messages_in(move |_, message| change(message)))
}

/// Whether a topic is of the bus's own tree and of no use to a client.
fn is_closed(topic: &str) -> bool {
    let open = ["$acb.inbox.", "$acb.reply.", "$acb.all", "$acb.cap."];
    topic.starts_with("$acb.") && !open.iter().any(|prefix| topic.starts_with(prefix))
}

/// Takes refusals with a code out of a frame down, and gives them back.
fn refusals(frame: &mut v1::PublishStreamResponse, code: ErrorCode) -> Vec<v1::PublishReject> {
    let is = |reject: &v1::PublishReject| reject.error.as_ref().is_some_and(|error| error.code == code.name());
    let (with, others) = std::mem::take(&mut frame.rejects).into_iter().partition(is);
    frame.rejects = others;
    with
}

const WRITTEN: i32 = v1::Durability::Written as i32;
const SYNCED: i32 = v1::Durability::Synced as i32;
const REPLICATED: i32 = v1::Durability::Replicated as i32;

fn overstated(level: &mut i32) {
    if *level == WRITTEN {
        *level = SYNCED;
    }
}

pub(super) const FAULTS: &[Fault] = &[
    fault("attributes-are-dropped", "a message loses its attributes", &["envelope-arrives-whole"], || {
        messages(|message| message.attributes.clear())
    }),
    fault("priorities-are-forgotten", "a message loses its priority", &["envelope-arrives-whole"], || {
        messages(|message| message.priority = 0)
    }),
    fault(
        "correlation-ids-are-lost",
        "a message loses the id that joins it to others",
        &["envelope-arrives-whole", "request-and-reply"],
        || messages(|message| message.correlation_id.clear()),
    ),
    fault(
        "idempotency-keys-are-ignored",
        "a message sent again under its key is stored again",
        &["same-key-same-message-is-stored-once", "same-key-other-message-is-a-conflict"],
        || messages(|message| message.idempotency_key.clear()),
    ),
    fault(
        "a-key-answers-for-another-message",
        "another message under a key that was used counts as a repeat",
        &["same-key-other-message-is-a-conflict"],
        || {
            let first: Mutex<HashMap<(String, String, String), v1::Message>> = Mutex::default();
            wire(messages_in(move |conversation, message| {
                if message.idempotency_key.is_empty() {
                    return;
                }
                let key = (conversation.tenant.clone(), conversation.agent.clone(), message.idempotency_key.clone());
                *message = first.lock().entry(key).or_insert_with(|| message.clone()).clone();
            }))
        },
    ),
    fault(
        "time-to-live-is-ignored",
        "a message is delivered after its time",
        &["expired-message-is-not-delivered", "expired-message-is-not-redelivered"],
        || messages(|message| message.expires_at_ms = 0),
    ),
    fault("wildcards-can-be-published-to", "a topic with a wildcard is taken", &["topics-have-a-grammar"], || {
        messages(|message| message.topic = message.topic.replace(['*', '>'], "x"))
    }),
    fault(
        "the-reserved-tree-is-open",
        "a topic of the bus's own tree is taken",
        &["reserved-topics-are-closed"],
        || {
            messages(|message| {
                if is_closed(&message.topic) {
                    message.topic = message.topic.replace('$', "");
                }
            })
        },
    ),
    fault("levels-are-overstated", "what is only written is called synced", &["the-ack-names-the-level"], || {
        wire([
            down(SEND, |response: &mut v1::SendResponse| overstated(&mut response.durability)),
            down(PUBLISH_STREAM, |frame: &mut v1::PublishStreamResponse| {
                frame.acks.iter_mut().for_each(|ack| overstated(&mut ack.durability));
            }),
        ])
    }),
    fault(
        "replicated-is-promised",
        "a level that one machine cannot keep is taken for a lower one",
        &["replicated-needs-a-cluster"],
        || {
            wire([
                up(SEND, |request: &mut v1::SendRequest| {
                    if request.durability == REPLICATED {
                        request.durability = SYNCED;
                    }
                }),
                up(PUBLISH_STREAM, |frame: &mut v1::PublishStreamRequest| {
                    if frame.durability == REPLICATED {
                        frame.durability = SYNCED;
                    }
                }),
            ])
        },
    ),
    fault(
        "unknown-agents-are-sent-to",
        "a message to an agent that never was is answered as stored",
        &["nobody-registered-under-that-name"],
        || {
            wire([
                instead_of(SEND, "agent_not_found", |_| v1::SendResponse {
                    message_id: "inbox-0-1-1".to_owned(),
                    durability: SYNCED,
                    duplicate: false,
                }),
                down(PUBLISH_STREAM, |frame: &mut v1::PublishStreamResponse| {
                    for reject in refusals(frame, ErrorCode::AgentNotFound) {
                        frame.acks.push(v1::PublishAck {
                            counter: reject.counter,
                            count: reject.count,
                            epoch: 1,
                            first_seq: 1,
                            durability: SYNCED,
                            ..Default::default()
                        });
                    }
                }),
            ])
        },
    ),
    fault(
        "nobody-there-is-silence",
        "a request that nobody hears is not refused",
        &["nobody-to-answer-an-agents-request", "nobody-to-answer-on-a-topic"],
        || {
            wire([down(PUBLISH_STREAM, |frame: &mut v1::PublishStreamResponse| {
                drop(refusals(frame, ErrorCode::NoResponders));
            })])
        },
    ),
    fault("ids-name-the-next-message", "a sender is told another message's id", &["to-one-agent"], || {
        wire([
            down(SEND, |response: &mut v1::SendResponse| {
                let Some((head, seq)) = response.message_id.rsplit_once('-') else { return };
                let seq: u64 = seq.parse().unwrap_or_default();
                response.message_id = format!("{head}-{}", seq + 1);
            }),
            down(PUBLISH_STREAM, |frame: &mut v1::PublishStreamResponse| {
                frame.acks.iter_mut().for_each(|ack| ack.first_seq += 1);
            }),
        ])
    }),
    fault(
        "older-epochs-go-on",
        "a producer's older self is not fenced",
        &["older-epoch-of-a-producer-is-fenced"],
        || {
            wire([up(PUBLISH_STREAM, |frame: &mut v1::PublishStreamRequest| {
                if let Some(open) = &mut frame.open {
                    open.epoch = 1;
                }
            })])
        },
    ),
];
