//! What comes back, and the look at it: every answer and delivery is put to the model.

use std::task::{Context, Waker};

use acb_engine::Delivery;
use acb_server::delivery::{core::After, outbox::ConsumeNews};
use acb_types::{
    Durability, ErrorCode, SubscriptionId, frame,
    position::{MessageId, Seq},
};

use super::{ACK_WAIT, GRACE, Held, MAX_LEASED, World};
use crate::model::{Check, Consumer, Id, Violation};

impl World {
    /// Looks at all outboxes and checks what is in them.
    pub(super) fn pump(&mut self) -> Check {
        let cx = Context::from_waker(Waker::noop());
        for p in 0..self.producers.len() {
            let Some(news) = self.producers[p].outbox.take(&cx) else { continue };
            for ack in news.acks {
                self.note(ack.first_seq ^ ack.counter << 32);
                for i in 0..u64::from(ack.count) {
                    let counter = ack.counter + i;
                    let seq = if ack.first_seq == 0 { 0 } else { ack.first_seq + i };
                    let Some(id) = self.id_of(p, counter) else { continue };
                    self.model.acked(id, seq, ack.duplicate)?;
                }
                self.answered(p, ack.counter, ack.count);
            }
            for reject in news.rejects {
                self.note(reject.counter);
                match reject.code {
                    // Retryable: the frame stays open and is sent again.
                    ErrorCode::StorageFull | ErrorCode::StorageReadOnly | ErrorCode::StorageFailed => {}
                    code => {
                        return Err(Violation {
                            invariant: "SIM-9",
                            what: format!("counter {} of producer {p} was refused with {code}", reject.counter),
                        });
                    }
                }
            }
        }
        let mut deliveries = Vec::new();
        for c in 0..self.clients.len() {
            self.pump_consumer(c, &mut deliveries)?;
        }
        // Consumers of one subscription are looked at one after the other, while their deliveries went out in turns:
        // order over all of them is that of the seqs. Each one's own order was checked above.
        deliveries.sort_by_key(|(_, d)| (d.first_seq, d.attempt));
        for (c, delivery) in deliveries {
            self.deliver(c, &delivery)?;
        }
        self.end_leases();
        self.pump_graves(&cx)?;
        self.check_bounds()
    }

    pub(super) fn id_of(&self, p: usize, counter: u64) -> Option<Id> {
        let frames = self.producers[p].open.iter().chain(&self.producers[p].answered);
        frames
            .filter(|f| counter >= f.counter && counter < f.counter + f.ids.len() as u64)
            .map(|f| f.ids[(counter - f.counter) as usize])
            .next()
    }

    /// Moves frames to the answered ones once every message of them is.
    pub(super) fn answered(&mut self, p: usize, _counter: u64, _count: u32) {
        while let Some(frame) = self.producers[p].open.front() {
            let done = frame.ids.iter().all(|id| self.model.sent.get(id).is_some_and(|s| s.acked));
            if !done {
                return;
            }
            if let Some(frame) = self.producers[p].open.pop_front() {
                self.producers[p].answered.push(frame);
            }
        }
    }

    pub(super) fn pump_consumer(&mut self, c: Consumer, out: &mut Vec<(Consumer, Delivery)>) -> Check {
        let cx = Context::from_waker(Waker::noop());
        let news = self.clients[c].outbox.with(&cx, |news| Some(std::mem::take(news))).unwrap_or_default();
        let ConsumeNews { deliveries, settled, gaps, kicked, closed } = news;
        self.clients[c].kicked |= kicked;
        if let Some(code) = closed {
            return Err(Violation { invariant: "SIM-10", what: format!("consumer {c} was ended with {code}") });
        }
        if let Some(gap) = gaps.first() {
            return Err(Violation { invariant: "SIM-1", what: format!("consumer {c} was told of a gap {gap:?}") });
        }
        let sub = self.clients[c].sub;
        for s in settled {
            match s.result {
                Ok(()) => {
                    let range = s.first_seq..s.first_seq + u64::from(s.count);
                    let done: Vec<(Seq, Id)> =
                        self.clients[c].confirming.iter().copied().filter(|(seq, _)| range.contains(seq)).collect();
                    self.clients[c].confirming.retain(|(seq, _)| !range.contains(seq));
                    for (_, id) in done {
                        self.model.confirmed(sub, id)?;
                    }
                }
                Err(code) => {
                    return Err(Violation {
                        invariant: "SIM-10",
                        what: format!(
                            "consumer {c} holds seq {} and its settlement was refused with {code}",
                            s.first_seq
                        ),
                    });
                }
            }
        }
        let mut first = 0;
        for d in deliveries {
            if d.delivery != self.clients[c].next_delivery {
                return Err(Violation {
                    invariant: "SIM-10",
                    what: format!(
                        "consumer {c} got delivery {} after {}",
                        d.delivery,
                        self.clients[c].next_delivery - 1
                    ),
                });
            }
            self.clients[c].next_delivery += u64::from(d.count);
            if d.attempt == 1 && !self.model.was_delivered(sub, d.first_seq) {
                if d.first_seq < first {
                    return Err(Violation {
                        invariant: "SIM-2",
                        what: format!("consumer {c} got seq {} after {first}, both for the first time", d.first_seq),
                    });
                }
                first = d.first_seq;
            }
            out.push((c, d));
        }
        Ok(())
    }

    pub(super) fn deliver(&mut self, c: Consumer, d: &Delivery) -> Check {
        let sub = self.clients[c].sub;
        let (written, synced) =
            self.topics.as_ref().map_or((0, 0), |n| (n.core.log().written_end(), n.core.log().synced_end()));
        self.note(d.first_seq ^ u64::from(d.attempt) << 40);
        for ((message, seq), delivery) in frame::messages(&d.body).zip(d.first_seq..).zip(d.delivery..) {
            let envelope = frame::decode(&message)
                .map_err(|e| Violation { invariant: "SIM-6", what: format!("seq {seq} does not decode: {e}") })?;
            let id = envelope.payload.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
            let level = self.model.sent.get(&id).map_or(Durability::Synced, |s| s.level);
            let end = if level >= Durability::Synced { synced } else { written };
            if seq >= end {
                return Err(Violation {
                    invariant: "SIM-8",
                    what: format!("seq {seq} ({level}) was delivered when its level had reached {end}"),
                });
            }
            let until = self.now.mono_ms + ACK_WAIT.as_millis() as u64;
            self.model.delivered(sub, c, id, seq, d.attempt, self.now.mono_ms, until)?;
            self.clients[c].held.push(Held { id, seq, delivery, arrived: false });
        }
        Ok(())
    }

    /// Leases that a lost connection kept are over after the grace, those of the others when their time is.
    pub(super) fn end_leases(&mut self) {
        let now = self.now.mono_ms;
        for c in 0..self.clients.len() {
            let sub = self.clients[c].sub;
            if self.clients[c].lost_at.is_some_and(|at| now >= at + GRACE) {
                self.clients[c].lost_at = None;
                for h in std::mem::take(&mut self.clients[c].held) {
                    self.model.lost(sub, h.id);
                }
                self.clients[c].arrived = 0;
                self.clients[c].next_delivery = 1;
            }
            for h in std::mem::take(&mut self.clients[c].held) {
                if self.model.holds(sub, c, h.id, now) {
                    self.clients[c].held.push(h);
                } else {
                    self.model.expired(sub, h.id);
                }
            }
        }
    }

    pub(super) fn pump_graves(&mut self, cx: &Context<'_>) -> Check {
        let Some(news) = self.grave_outbox.take(cx) else { return Ok(()) };
        let mut after = After::default();
        for ack in news.acks {
            for i in 0..u64::from(ack.count) {
                let Some((sub, death)) = self.burials.remove(&(ack.counter + i)) else { continue };
                let id = MessageId { class: ack.class, partition: 0, epoch: ack.epoch, seq: ack.first_seq + i };
                if let Some(node) = &mut self.topics {
                    node.core.dead(death.subscription, death.seq, Some(id), self.now, &mut after);
                    self.model.buried(sub, death.seq);
                }
            }
        }
        for reject in news.rejects {
            if let Some(again) = self.burials.remove(&reject.counter) {
                self.deaths.push_back(again);
            }
        }
        self.after(after)
    }

    pub(super) fn check_bounds(&mut self) -> Check {
        let Some(node) = &mut self.topics else { return Ok(()) };
        for sub in 0..self.model.subscriptions.len() {
            let Some(counts) = node.core.engine().counts(SubscriptionId(sub as u64 + 1)) else { continue };
            let outstanding = counts.leased + counts.waiting_retry + counts.dying;
            if outstanding > u64::from(MAX_LEASED) {
                return Err(Violation {
                    invariant: "SIM-7",
                    what: format!("subscription {sub} has {outstanding} outstanding, limit {MAX_LEASED}"),
                });
            }
        }
        Ok(())
    }
}
