//! What consumers do: connect, settle, lose their connection, leave.

use std::{sync::Arc, time::Duration};

use acb_engine::{Credit, SessionDef};
use acb_server::delivery::{
    core::{After, Op, OwnedSettlement, SettleKind},
    outbox::ConsumeOutbox,
};
use acb_types::{Incarnation, SubscriptionId};

use super::{ACK_WAIT, Held, World, agent, note_failed_write};
use crate::model::{Check, Consumer, Violation};

impl World {
    /// Chooses a consumer.
    pub fn some_consumer(&mut self) -> Consumer {
        self.rng.below(self.clients.len() as u64) as usize
    }

    /// How many consumers there are.
    pub fn consumers(&self) -> usize {
        self.clients.len()
    }

    /// A consumer connects, resuming where its last connection was.
    pub fn connect(&mut self, c: Consumer, credit: Credit) -> Check {
        let Some(node) = &mut self.topics else { return Ok(()) };
        if self.clients[c].session.is_some() {
            return Ok(());
        }
        let outbox: Arc<ConsumeOutbox> = Arc::default();
        let client = &self.clients[c];
        let def = SessionDef {
            token: client.token,
            agent: agent(c as u64),
            incarnation: Incarnation(1),
            credit,
            resume_delivery: (client.arrived != 0).then_some(client.arrived),
        };
        let id = SubscriptionId(client.sub as u64 + 1);
        let mut after = After::default();
        let connected = node
            .core
            .connect(id, def, Arc::clone(&outbox), self.now, &mut after)
            .map_err(|e| Violation { invariant: "SIM-10", what: format!("consumer {c} cannot connect: {e}") })?;
        let client = &mut self.clients[c];
        let sub = client.sub;
        client.session = Some(connected.session);
        client.outbox = outbox;
        client.kicked = true;
        client.lost_at = None;
        let dropped: Vec<Held> = if connected.resumed {
            // What had not arrived is given again; what had is still held.
            let (kept, dropped) = std::mem::take(&mut client.held).into_iter().partition(|h| h.arrived);
            client.held = kept;
            client.next_delivery = client.arrived + 1;
            dropped
        } else {
            client.arrived = 0;
            client.next_delivery = 1;
            client.confirming.clear();
            std::mem::take(&mut client.held)
        };
        for h in dropped {
            self.model.lost(sub, h.id);
        }
        self.note(5 + c as u64);
        self.after(after)?;
        self.pump()
    }

    /// A consumer's connection is lost, with what was on its way.
    pub fn disconnect(&mut self, c: Consumer) -> Check {
        let Some(session) = self.clients[c].session.take() else { return Ok(()) };
        self.clients[c].lost_at = Some(self.now.mono_ms);
        self.clients[c].outbox = Arc::default();
        let mut after = After::default();
        if let Some(node) = &mut self.topics {
            node.core.disconnect(session, self.now, &mut after);
        }
        self.after(after)?;
        self.pump()
    }

    /// A consumer leaves and gives back what it has.
    pub fn leave(&mut self, c: Consumer) -> Check {
        let Some(session) = self.clients[c].session.take() else { return Ok(()) };
        let sub = self.clients[c].sub;
        for h in std::mem::take(&mut self.clients[c].held) {
            self.model.released(sub, h.id);
        }
        self.clients[c].arrived = 0;
        self.clients[c].next_delivery = 1;
        self.clients[c].confirming.clear();
        self.clients[c].outbox = Arc::default();
        let mut after = After::default();
        if let Some(node) = &mut self.topics {
            node.core.leave(session, self.now, &mut after);
        }
        self.after(after)?;
        self.pump()
    }

    /// A consumer changes its window.
    pub fn credit(&mut self, c: Consumer, credit: Credit) -> Check {
        let (Some(node), Some(session)) = (&mut self.topics, self.clients[c].session) else { return Ok(()) };
        let mut after = After::default();
        node.core.credit(session, credit, self.now, &mut after);
        self.after(after)?;
        self.pump()
    }

    /// Frames on their way arrive at a consumer.
    pub fn arrive(&mut self, c: Consumer) {
        let client = &mut self.clients[c];
        if client.session.is_none() {
            return;
        }
        for h in &mut client.held {
            h.arrived = true;
            client.arrived = client.arrived.max(h.delivery);
        }
    }

    /// A consumer settles some of what it has.
    pub fn settle(&mut self, c: Consumer, ack_all: bool) -> Check {
        let now = self.now.mono_ms;
        let (Some(_), Some(session)) = (&self.topics, self.clients[c].session) else { return Ok(()) };
        let sub = self.clients[c].sub;
        let mut settlements = Vec::new();
        let held = std::mem::take(&mut self.clients[c].held);
        let mut kept = Vec::new();
        for h in held {
            if !h.arrived || (!ack_all && self.rng.chance(1, 2)) {
                kept.push(h);
                continue;
            }
            let sure = self.model.holds(sub, c, h.id, now);
            // A lease that is over by our clock may be over by the server's or not: settling it tells nothing.
            if !sure {
                self.model.expired(sub, h.id);
                continue;
            }
            let choice = if ack_all { 0 } else { self.rng.below(12) };
            let kind = match choice {
                0..=4 => {
                    self.model.ack(sub, h.id);
                    SettleKind::Ack
                }
                5..=7 => {
                    self.clients[c].confirming.push((h.seq, h.id));
                    self.model.ack(sub, h.id);
                    SettleKind::ConfirmedAck
                }
                8 => {
                    self.model.failed(sub, h.id);
                    let delay = self.rng.chance(1, 2).then(|| Duration::from_millis(1 + self.rng.below(3_000)));
                    SettleKind::Nack { delay, reason: "seed".into() }
                }
                9 => {
                    self.model.extended(sub, h.id, now + ACK_WAIT.as_millis() as u64);
                    kept.push(h);
                    SettleKind::Progress
                }
                10 => {
                    self.model.failed(sub, h.id);
                    SettleKind::Term { reason: "seed".into() }
                }
                _ => {
                    self.model.released(sub, h.id);
                    SettleKind::Release
                }
            };
            settlements.push(OwnedSettlement { first_seq: h.seq, count: 1, kind });
        }
        self.clients[c].held.splice(0..0, kept);
        if settlements.is_empty() {
            return Ok(());
        }
        if let Some(node) = &mut self.topics {
            let mut ops = vec![Op::Settle { session, settlements }];
            let mut after = After::default();
            // Settlements are worked off at once: a queue between would let the lease end on the way, which the model
            // could not tell from a fault.
            node.core.drain(&mut ops, self.now, &mut after);
            note_failed_write(node, &mut self.model);
            self.after(after)?;
        }
        self.pump()
    }
}
