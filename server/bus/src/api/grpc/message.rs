//! `MessageService`, its unary half.

use acb_engine::{DeliveryState, MessageState};
use acb_proto::v1;
use acb_types::{Durability, Envelope, ErrorCode, MessageId, frame};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::call::Grpc;
use crate::{auth::Verb, error::AppError};

#[tonic::async_trait]
impl v1::message_service_server::MessageService for Grpc {
    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        self.call(Verb::Send, request, |(app, ctx, r)| async move {
            let envelope = envelope_in(&r.message.ok_or_else(|| AppError::missing("message"))?)?;
            let receipt = app.message_send(&ctx, envelope, durability_in(r.durability)?).await?;
            Ok(v1::SendResponse {
                message_id: receipt.id.map(|id| id.to_string()).unwrap_or_default(),
                durability: receipt.durability as i32,
                duplicate: receipt.duplicate,
            })
        })
        .await
    }

    async fn get_message_status(
        &self,
        request: Request<v1::GetMessageStatusRequest>,
    ) -> Result<Response<v1::GetMessageStatusResponse>, Status> {
        self.call(Verb::GetMessageStatus, request, |(app, ctx, r)| async move {
            let id = message_id_in("message_id", &r.message_id)?;
            let status = app.message_status(&ctx, id).await?;
            Ok(v1::GetMessageStatusResponse {
                message_id: id.to_string(),
                topic: status.topic,
                from: status.from.to_string(),
                stored_at_ms: status.stored_at.0,
                subscriptions: status.subscriptions.iter().map(state_out).collect(),
            })
        })
        .await
    }
}

pub(super) fn message_id_in(field: &'static str, text: &str) -> Result<MessageId, AppError> {
    if text.is_empty() { Err(AppError::missing(field)) } else { Ok(text.parse()?) }
}

/// A message goes the way of the hot stream: encoded in canonical form and read by the one decoder that knows every limit
/// and says which field breaks it.
fn envelope_in(message: &v1::Message) -> Result<Envelope, AppError> {
    Ok(frame::decode(&message.encode_to_vec().into())?)
}

/// The other way, for dead letters.
pub(super) fn envelope_out(envelope: &Envelope) -> v1::Message {
    v1::Message {
        topic: envelope.topic.to_string(),
        kind: envelope.kind as i32,
        priority: envelope.priority as i32,
        correlation_id: envelope.correlation_id.to_string(),
        reply_to: envelope.reply_to.to_string(),
        idempotency_key: envelope.idempotency_key.to_string(),
        expires_at_ms: envelope.expires_at.0,
        not_before_ms: envelope.not_before.0,
        order_key: envelope.order_key.to_string(),
        content_type: envelope.content_type.to_string(),
        context_refs: envelope.context_refs.iter().map(ToString::to_string).collect(),
        trace: envelope.trace.to_string(),
        original_topic: envelope.original_topic.to_string(),
        attributes: envelope.attributes.as_bytes().clone(),
        payload: envelope.payload.clone(),
    }
}

fn durability_in(n: i32) -> Result<Option<Durability>, AppError> {
    if n == 0 {
        return Ok(None);
    }
    let unknown = || AppError::new(ErrorCode::UnknownEnum, format!("durability has no member {n}"));
    Durability::from_wire(n).map(Some).ok_or_else(unknown)
}

fn state_out(state: &MessageState) -> v1::SubscriptionStatus {
    v1::SubscriptionStatus {
        subscription: state.name.to_string(),
        state: match state.state {
            DeliveryState::Waiting => v1::DeliveryState::Waiting,
            DeliveryState::Leased => v1::DeliveryState::Leased,
            DeliveryState::Acked => v1::DeliveryState::Acked,
            DeliveryState::Dead => v1::DeliveryState::Dead,
            DeliveryState::Expired => v1::DeliveryState::Expired,
        } as i32,
        attempts: state.attempts,
        due_at_ms: state.due.0,
        dead_letter_id: state.dead_letter.map(|id| id.to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use acb_types::{Attributes, MessageKind, Priority, Timestamp};
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_envelope_comes_back_as_it_went() {
        let envelope = Envelope {
            topic: "a.b".into(),
            kind: MessageKind::Request,
            priority: Priority::Critical,
            correlation_id: "c".into(),
            reply_to: "$acb.reply.x".into(),
            idempotency_key: "k".into(),
            expires_at: Timestamp(7),
            not_before: Timestamp(8),
            order_key: "o".into(),
            content_type: "text/plain".into(),
            trace: "t".into(),
            original_topic: "z".into(),
            context_refs: vec!["1".into(), "2".into()],
            attributes: Attributes::from_pairs([("a", "b")]).unwrap(),
            payload: Bytes::from_static(b"p"),
        };
        assert_eq!(envelope_in(&envelope_out(&envelope)).unwrap(), envelope);
        assert_eq!(envelope_in(&envelope_out(&Envelope::default())).unwrap(), Envelope::default());
    }

    #[test]
    fn numbers_that_name_nothing_are_refused() {
        let message = v1::Message { topic: "a".to_owned(), kind: 99, ..v1::Message::default() };
        assert_eq!(envelope_in(&message).unwrap_err().code(), ErrorCode::UnknownEnum);
        let message = v1::Message { topic: "a".to_owned(), priority: -1, ..v1::Message::default() };
        assert_eq!(envelope_in(&message).unwrap_err().code(), ErrorCode::UnknownEnum);
        assert_eq!(durability_in(9).unwrap_err().code(), ErrorCode::UnknownEnum);
        assert_eq!(durability_in(0).unwrap(), None);
    }
}
