//! What producers do: frames, resends, retries under old keys.

use std::sync::Arc;

use acb_server::delivery::core::Op;
use acb_types::{
    Durability, Envelope,
    batch::{Batch, Keyed},
    envelope::Text,
    frame,
};
use bytes::BytesMut;

use super::{Frame, KEY_WINDOW, TOPICS, World, smallvec};
use crate::model::{Check, Sent};

impl World {
    /// A producer sends a frame.
    pub fn publish(&mut self) -> Check {
        let p = self.rng.below(self.producers.len() as u64) as usize;
        if self.producers[p].open.len() >= 8 {
            return Ok(());
        }
        let count = 1 + self.rng.below(5);
        let level = [Durability::Written, Durability::Synced, Durability::Memory][self.rng.below(3) as usize];
        let keyed = self.rng.chance(1, 4);
        let mut body = BytesMut::new();
        let mut ids = Vec::new();
        let counter = self.producers[p].next;
        let mut topic = TOPICS[self.rng.below(TOPICS.len() as u64) as usize];
        for i in 0..count {
            if self.rng.chance(1, 4) {
                topic = TOPICS[self.rng.below(TOPICS.len() as u64) as usize];
            }
            let id = self.next_id;
            self.next_id += 1;
            let fill = self.rng.below(64) as usize * if self.rng.chance(1, 16) { 100 } else { 1 };
            let mut payload = id.to_le_bytes().to_vec();
            payload.resize(8 + fill, id as u8);
            let key = if keyed { Text::from(format!("k{id}")) } else { Text::EMPTY };
            let envelope =
                Envelope { topic: topic.into(), payload: payload.into(), idempotency_key: key, ..Envelope::default() };
            frame::encode(&mut body, &envelope);
            ids.push(id);
            let sent =
                Sent { producer: p, counter: counter + i, level, topic, seq: None, acked: false, may_be_lost: false };
            self.model.sent.insert(id, sent);
        }
        self.producers[p].next += count;
        let sent_at = (self.now.wall.0, self.wall_steps);
        let frame = Frame { counter, ids, level, body: body.freeze(), keyed, retry: false, sent_at };
        self.producers[p].open.push_back(frame.clone());
        self.submit(p, &frame);
        Ok(())
    }

    pub(super) fn submit(&mut self, p: usize, f: &Frame) {
        let Some(node) = &mut self.topics else { return };
        let Ok(walked) = frame::walk(&f.body) else { return };
        let keys = if f.keyed {
            f.ids.iter().zip(0..).map(|(id, index)| Keyed { index, key: u128::from(*id), body: *id }).collect()
        } else {
            smallvec()
        };
        let producer = &self.producers[p];
        let batch = Batch {
            count: walked.count,
            flags: walked.flags,
            body: f.body.clone(),
            runs: walked.runs,
            sender: Arc::clone(&producer.sender),
            producer: producer.key,
            producer_epoch: 1,
            counter: f.counter,
            keys,
        };
        let op = Op::Append { batch, level: f.level, outbox: Arc::clone(&producer.outbox) };
        if f.level >= Durability::Synced || producer.outbox.has_sync_queued() {
            producer.outbox.enter_sync_queue();
            node.sync_queue.push(op);
        } else {
            node.queue.push(op);
        }
    }

    /// A producer sends again what was not answered, in order, as after a reconnect; sometimes also what was.
    pub fn resend(&mut self, p: usize, answered_too: bool) {
        let mut frames: Vec<Frame> = Vec::new();
        if answered_too
            && let Some(last) = self.producers[p].answered.last()
            && (!last.retry || self.is_young(last))
        {
            frames.push(last.clone());
        }
        frames.extend(self.producers[p].open.iter().cloned());
        for f in frames {
            self.submit(p, &f);
        }
    }

    /// A user sends again, under its old idempotency keys, what it sent long ago: new counters, old messages.
    pub fn retry_keyed(&mut self, p: usize) {
        if self.producers[p].open.len() >= 8 {
            return;
        }
        let young = |f: &&Frame| f.keyed && self.is_young(f);
        let keyed: Vec<Frame> = self.producers[p].answered.iter().filter(young).cloned().collect();
        if keyed.is_empty() {
            return;
        }
        let mut again = keyed[self.rng.below(keyed.len() as u64) as usize].clone();
        let producer = &mut self.producers[p];
        again.retry = true;
        again.counter = producer.next;
        producer.next += again.ids.len() as u64;
        // Acknowledged before, so this one counts as answered at once; its acks are checked all the same.
        producer.answered.push(again.clone());
        self.submit(p, &again);
    }

    /// Whether the keys of a frame are still known: they are remembered for a window of the wall clock, which a step of
    /// that clock can end. A retry's counter was never stored, so with its keys all memory of it goes.
    fn is_young(&self, f: &Frame) -> bool {
        f.sent_at.1 == self.wall_steps && self.now.wall.0 - f.sent_at.0 < KEY_WINDOW
    }

    /// All producers send again what was not answered.
    pub fn resend_all(&mut self) {
        for p in 0..self.producers.len() {
            self.resend(p, false);
        }
    }

    /// Chooses a producer.
    pub fn some_producer(&mut self) -> usize {
        self.rng.below(self.producers.len() as u64) as usize
    }
}
