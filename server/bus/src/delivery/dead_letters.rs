//! Dead letters: how they are kept, shown, brought back and thrown away.
//!
//! A dead letter is two neighbouring messages in the class `dead-letters`, stored as one batch: the facts (an encoded
//! `acb.v1.DeadLetter` without the message) and the message itself, whole, under the queue's topic with its own topic in
//! `original_topic`. Each subscription has a twin of the same number in that class's engine, which nobody consumes: what
//! is settled there was redriven or discarded.

use std::sync::Arc;

use acb_engine::Death;
use acb_proto::v1;
use acb_types::{
    Durability, Envelope, ErrorCode, MessageKind, SubscriptionId, SubscriptionName, TenantId, Timestamp, Topic,
    batch::{ReadRequest, Sender, SubscriptionDef},
    envelope::Text,
    frame,
    position::{ClassId, MessageId, Seq},
};
use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;

use super::{Delivery, PARTITION, TenantDelivery, keys, partition::Partition, read_one, store};
use crate::error::AppError;

/// Media type of the facts.
const FACTS: &str = "application/vnd.acb.dead-letter";

/// A dead letter as the bus keeps it.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its own id.
    pub id: MessageId,
    /// The subscription that gave it up.
    pub subscription: SubscriptionName,
    /// Id of the message.
    pub message_id: MessageId,
    /// The message, under its own topic.
    pub message: Envelope,
    /// Who sent it.
    pub from: Arc<Sender>,
    /// Why it was given up.
    pub reason: String,
    /// What the last consumer said.
    pub last_error: String,
    /// Attempts that were made.
    pub attempts: u32,
    /// When the message was stored.
    pub stored_at: Timestamp,
    /// When it was given up.
    pub died_at: Timestamp,
}

/// How many are kept, by subscription.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<AHashMap<SubscriptionId, u64>>);

impl Kept {
    pub(super) fn count(&self, id: SubscriptionId) -> u64 {
        self.0.lock().get(&id).copied().unwrap_or(0)
    }

    fn add(&self, id: SubscriptionId) {
        *self.0.lock().entry(id).or_default() += 1;
    }

    fn remove(&self, id: SubscriptionId) {
        if let Some(n) = self.0.lock().get_mut(&id) {
            *n = n.saturating_sub(1);
        }
    }
}

/// A subscription's place in the class of dead letters.
pub(super) fn twin(def: &SubscriptionDef) -> SubscriptionDef {
    SubscriptionDef { filters: [Topic::dead_letters(&def.name).into()].into(), ..def.clone() }
}

/// Facts and message of one dead letter, as read from the log.
struct Pair {
    facts: v1::DeadLetter,
    seq: Seq,
    epoch: u32,
    message: Envelope,
}

impl Pair {
    fn letter(self, from: Arc<Sender>) -> Result<DeadLetter, AppError> {
        let broken = || AppError::of(ErrorCode::DataDamaged).private("a dead letter's facts");
        let mut message = self.message;
        message.topic = std::mem::take(&mut message.original_topic);
        Ok(DeadLetter {
            id: MessageId { class: ClassId::DEAD_LETTERS, partition: PARTITION, epoch: self.epoch, seq: self.seq },
            subscription: self.facts.subscription.parse().map_err(|_| broken())?,
            message_id: self.facts.message_id.parse().map_err(|_| broken())?,
            message,
            from,
            reason: self.facts.reason,
            last_error: self.facts.last_error,
            attempts: self.facts.attempts,
            stored_at: Timestamp(self.facts.stored_at_ms),
            died_at: Timestamp(self.facts.died_at_ms),
        })
    }
}

impl TenantDelivery {
    /// Counts what is kept, once, at the opening.
    pub(super) fn count_dead_letters(&self) -> Result<(), AppError> {
        let names: Vec<(SubscriptionName, SubscriptionId)> =
            self.subscriptions.read().iter().map(|(name, (_, def))| (name.clone(), def.id)).collect();
        let graves = self.graves();
        if graves.with(|core, _, _| core.log().first_seq() == core.log().next_seq()) {
            return Ok(());
        }
        for (name, id) in names {
            let mut from = 0;
            loop {
                let (letters, next) = self.dead_letters_from(&name, id, from, acb_types::limits::PAGE_SIZE_MAX)?;
                for _ in &letters {
                    self.dead_letters.add(id);
                }
                match next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Dead letters of a subscription from a seq on, at most `limit`, and where the next page starts.
    fn dead_letters_from(
        &self,
        name: &SubscriptionName,
        id: SubscriptionId,
        from: Seq,
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, Option<Seq>), AppError> {
        let graves = self.graves();
        // Only to where the twin sees: a letter that is written and not yet durable cannot be settled, so a list that
        // showed it would show it still after it was discarded.
        let (end, mut next) = graves.with(|core, _, _| (core.engine().shown_end(), from.max(core.log().first_seq())));
        let mut out = Vec::new();
        let mut facts: Option<(v1::DeadLetter, Seq, u32)> = None;
        while next < end {
            let request = ReadRequest {
                from_seq: next,
                end_seq: end,
                filters: [Topic::dead_letters(name).into()].into(),
                messages_max: acb_types::limits::PAGE_SIZE_MAX,
                bytes_max: acb_types::limits::FRAME_BYTES_MAX as u64,
            };
            let block = graves.reader().read(&request)?;
            for run in &block.runs {
                for (message, seq) in frame::messages(&run.body).zip(run.first_seq..) {
                    let envelope = frame::decode(&message)?;
                    if is_facts(&envelope) {
                        let decoded = v1::DeadLetter::decode(envelope.payload.clone())
                            .map_err(|e| AppError::of(ErrorCode::DataDamaged).caused_by(e))?;
                        facts = Some((decoded, seq, run.facts.epoch));
                    } else if let Some((decoded, at, epoch)) = facts.take() {
                        if graves.with(|core, _, _| core.engine().is_settled(id, at)) {
                            continue;
                        }
                        if out.len() as u32 == limit {
                            return Ok((out, Some(at)));
                        }
                        let pair = Pair { facts: decoded, seq: at, epoch, message: envelope };
                        out.push(pair.letter(Arc::clone(&run.facts.sender))?);
                    }
                }
            }
            // A page may end between facts and message: the facts are kept, so going on from there is right.
            if block.next_seq <= next {
                break;
            }
            next = block.next_seq;
        }
        Ok((out, None))
    }
}

fn is_facts(envelope: &Envelope) -> bool {
    envelope.kind == MessageKind::Event && &*envelope.content_type == FACTS && envelope.original_topic.is_empty()
}

impl Delivery {
    /// Writes the dead letter of a death, durably. `None` when the message is not in the log any more.
    pub(super) async fn dead_letter_write(
        &self,
        partition: &Arc<Partition>,
        death: &Death,
    ) -> Result<Option<MessageId>, AppError> {
        let Some(run) = read_one(partition, death.seq)? else { return Ok(None) };
        let Some(message) = frame::messages(&run.body).next() else { return Ok(None) };
        let tenant = self.tenant(&partition.id().tenant)?;
        let mut whole = frame::decode(&message)?;
        let id =
            MessageId { class: partition.id().class, partition: PARTITION, epoch: run.facts.epoch, seq: death.seq };
        let queue = Topic::dead_letters(&death.name);
        let facts = v1::DeadLetter {
            subscription: death.name.to_string(),
            message_id: id.to_string(),
            from: run.facts.sender.agent.to_string(),
            reason: death.reason.name().to_owned(),
            last_error: death.last_error.to_string(),
            attempts: death.attempts,
            stored_at_ms: run.facts.stored_at.0,
            died_at_ms: partition.now().wall.0,
            payload_bytes: whole.payload.len() as u64,
            ..v1::DeadLetter::default()
        };
        let facts = Envelope {
            topic: Text::from(queue.as_str()),
            kind: MessageKind::Event,
            content_type: FACTS.into(),
            payload: facts.encode_to_vec().into(),
            ..Envelope::default()
        };
        // A message that comes from a redrive keeps the topic that it was first published to.
        if whole.original_topic.is_empty() {
            whole.original_topic = std::mem::take(&mut whole.topic);
        }
        whole.topic = Text::from(queue.as_str());
        // The sender's key and expiry were for its own delivery.
        whole.idempotency_key = Text::EMPTY;
        whole.expires_at = Timestamp::NONE;
        let keys = (0..2).map(|i| keys::dead_letter_key(&death.name, id, i)).collect();
        let receipt =
            store(tenant.graves(), &[facts, whole], keys, Arc::clone(&run.facts.sender), Durability::Synced).await?;
        if !receipt.duplicate {
            tenant.dead_letters.add(death.subscription);
        }
        Ok(receipt.id)
    }

    /// A page of a subscription's dead letters, oldest first, and where the next page starts.
    ///
    /// # Errors
    /// `subscription_not_found`.
    pub fn dead_letter_list(
        &self,
        tenant: &TenantId,
        subscription: &SubscriptionName,
        from: Seq,
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, Option<Seq>), AppError> {
        let tenant = self.tenant(tenant)?;
        let (_, def) = tenant.subscription(subscription).ok_or(ErrorCode::SubscriptionNotFound)?;
        tenant.dead_letters_from(subscription, def.id, from, limit)
    }

    /// One dead letter.
    ///
    /// # Errors
    /// `dead_letter_not_found`.
    pub fn dead_letter_get(&self, tenant: &TenantId, id: MessageId) -> Result<DeadLetter, AppError> {
        let (_, _, letter) = self.dead_letter_find(tenant, id)?;
        Ok(letter)
    }

    fn dead_letter_find(
        &self,
        tenant: &TenantId,
        id: MessageId,
    ) -> Result<(Arc<TenantDelivery>, SubscriptionId, DeadLetter), AppError> {
        let gone = || AppError::of(ErrorCode::DeadLetterNotFound);
        let tenant = self.tenant(tenant)?;
        if id.class != ClassId::DEAD_LETTERS || id.partition != PARTITION {
            return Err(gone());
        }
        let run = read_one(tenant.graves(), id.seq)?.filter(|r| r.facts.epoch == id.epoch).ok_or_else(gone)?;
        let topic = String::from_utf8_lossy(&run.topic).into_owned();
        let acb_types::name::Address::DeadLetters(name) = acb_types::name::Address::of(&topic) else {
            return Err(gone());
        };
        let name: SubscriptionName = name.parse().map_err(|_| gone())?;
        let (_, def) = tenant.subscription(&name).ok_or_else(gone)?;
        let (mut letters, _) = tenant.dead_letters_from(&name, def.id, id.seq, 1)?;
        match letters.pop() {
            Some(letter) if letter.id == id => Ok((tenant, def.id, letter)),
            _ => Err(gone()),
        }
    }

    /// Gives a dead letter to its subscription again and takes it off the list. Reaches that subscription only; a crash
    /// in the middle delivers it once.
    ///
    /// # Errors
    /// `dead_letter_not_found`, `storage_full`.
    pub async fn dead_letter_redrive(
        &self,
        tenant: &TenantId,
        id: MessageId,
        payload: Option<Bytes>,
    ) -> Result<MessageId, AppError> {
        let (tenant, subscription, letter) = self.dead_letter_find(tenant, id)?;
        let partition =
            tenant.partition(letter.message_id.class).ok_or_else(|| AppError::of(ErrorCode::DeadLetterNotFound))?;
        let mut envelope = letter.message;
        envelope.original_topic = std::mem::take(&mut envelope.topic);
        envelope.topic = Text::from(Topic::redrive(&letter.subscription).as_str());
        if let Some(payload) = payload {
            envelope.payload = payload;
        }
        let keys = vec![keys::redrive_key(id)];
        let receipt = store(partition, &[envelope], keys, letter.from, Durability::Synced).await?;
        self.dead_letter_settle(&tenant, subscription, id).await?;
        receipt.id.ok_or_else(|| AppError::of(ErrorCode::DeadLetterNotFound))
    }

    /// Takes a dead letter off the list for good. Discarding what is absent succeeds.
    ///
    /// # Errors
    /// The log's.
    pub async fn dead_letter_discard(&self, tenant: &TenantId, id: MessageId) -> Result<(), AppError> {
        match self.dead_letter_find(tenant, id) {
            Ok((tenant, subscription, _)) => self.dead_letter_settle(&tenant, subscription, id).await,
            Err(e) if e.code() == ErrorCode::DeadLetterNotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn dead_letter_settle(
        &self,
        tenant: &TenantDelivery,
        subscription: SubscriptionId,
        id: MessageId,
    ) -> Result<(), AppError> {
        let graves = tenant.graves();
        let fresh = graves.with(|core, now, after| core.settle_direct(subscription, id.seq, now, after))?;
        if fresh {
            tenant.dead_letters.remove(subscription);
        }
        // Answered only when it is on disk: a crash must not bring back what was thrown away.
        graves.flushed().await;
        Ok(())
    }
}
