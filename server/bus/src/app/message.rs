//! Messages, one at a time: for simple clients. The hot stream has its own way.

use std::sync::Arc;

use acb_types::{Durability, Envelope, ErrorCode, MessageId, MessageKind, batch::Sender, name::Address};

use super::{App, OpContext};
use crate::{
    delivery::{MessageStatus, SendInput, SendReceipt},
    error::AppError,
};

impl App {
    /// Stores one message and answers when its level is reached. Without a level it takes the default of its kind.
    ///
    /// *Cancel safety*: dropped, the message may or may not be stored; an idempotency key makes a repeat safe.
    ///
    /// # Errors
    /// `agent_not_found`, `no_responders`, `invalid_topic`, `topic_reserved`, `payload_too_large`, `unsupported_feature`,
    /// `idempotency_conflict`, `storage_full`, `durability_unavailable` and their like.
    pub async fn message_send(
        &self,
        ctx: &OpContext,
        envelope: Envelope,
        durability: Option<Durability>,
    ) -> Result<SendReceipt, AppError> {
        let p = ctx.principal();
        check_sendable(&envelope)?;
        let quick = matches!(envelope.kind, MessageKind::Request | MessageKind::Reply);
        let durability = self.deps.config.durability.level(durability, quick)?;
        let incarnation = self.deps.presence.incarnation(&p.tenant, &p.agent);
        let sender = Arc::new(Sender { agent: p.agent.clone(), incarnation });
        self.deps.delivery.send(&p.tenant, SendInput { sender, envelope, durability }).await
    }

    /// Tells where a message stands for each subscription that hears it.
    ///
    /// # Errors
    /// `message_not_found`.
    pub async fn message_status(&self, ctx: &OpContext, id: MessageId) -> Result<MessageStatus, AppError> {
        let tenant = ctx.principal().tenant.clone();
        self.block(move |delivery| delivery.message_status(&tenant, id)).await
    }
}

/// What only the server sets, or what later versions do, is refused and not dropped in silence.
fn check_sendable(envelope: &Envelope) -> Result<(), AppError> {
    if envelope.topic.is_empty() {
        return Err(AppError::missing("topic"));
    }
    if !envelope.original_topic.is_empty() {
        return Err(AppError::invalid("original_topic", "is set by the server on redriven dead letters"));
    }
    if envelope.not_before.is_set() {
        return Err(AppError::new(ErrorCode::UnsupportedFeature, "not_before_ms is not done by this version")
            .detail("field", "not_before_ms"));
    }
    match Address::of(&envelope.reply_to) {
        Address::Unknown(_) | Address::DeadLetters(_) | Address::Redrive(_) => {
            Err(AppError::new(ErrorCode::TopicReserved, "reply_to names the bus's own tree"))
        }
        _ => Ok(()),
    }
}
