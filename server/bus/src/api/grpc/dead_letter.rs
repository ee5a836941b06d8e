//! `DeadLetterService`.

use acb_proto::v1;
use tonic::{Request, Response, Status};

use super::{
    call::Grpc,
    message::{envelope_out, message_id_in},
    subscription::name_in,
};
use crate::{auth::Verb, delivery::DeadLetter};

#[tonic::async_trait]
impl v1::dead_letter_service_server::DeadLetterService for Grpc {
    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        self.call(Verb::ListDeadLetters, request, |(app, ctx, r)| async move {
            let name = name_in("subscription", &r.subscription)?;
            let page = app.dead_letter_list(&ctx, name, r.page_size, &r.page_token).await?;
            let without_payload = |letter: DeadLetter| {
                let mut out = letter_out(&letter);
                out.message.get_or_insert_default().payload.clear();
                out
            };
            Ok(v1::ListDeadLettersResponse {
                dead_letters: page.items.into_iter().map(without_payload).collect(),
                next_page_token: page.next,
            })
        })
        .await
    }

    async fn get_dead_letter(
        &self,
        request: Request<v1::GetDeadLetterRequest>,
    ) -> Result<Response<v1::GetDeadLetterResponse>, Status> {
        self.call(Verb::GetDeadLetter, request, |(app, ctx, r)| async move {
            let letter = app.dead_letter_get(&ctx, message_id_in("dead_letter_id", &r.dead_letter_id)?).await?;
            Ok(v1::GetDeadLetterResponse { dead_letter: Some(letter_out(&letter)) })
        })
        .await
    }

    async fn redrive_dead_letter(
        &self,
        request: Request<v1::RedriveDeadLetterRequest>,
    ) -> Result<Response<v1::RedriveDeadLetterResponse>, Status> {
        self.call(Verb::RedriveDeadLetter, request, |(app, ctx, r)| async move {
            let id = message_id_in("dead_letter_id", &r.dead_letter_id)?;
            let id = app.dead_letter_redrive(&ctx, id, r.payload).await?;
            Ok(v1::RedriveDeadLetterResponse { message_id: id.to_string() })
        })
        .await
    }

    async fn discard_dead_letter(
        &self,
        request: Request<v1::DiscardDeadLetterRequest>,
    ) -> Result<Response<v1::DiscardDeadLetterResponse>, Status> {
        self.call(Verb::DiscardDeadLetter, request, |(app, ctx, r)| async move {
            app.dead_letter_discard(&ctx, message_id_in("dead_letter_id", &r.dead_letter_id)?).await?;
            Ok(v1::DiscardDeadLetterResponse {})
        })
        .await
    }
}

fn letter_out(letter: &DeadLetter) -> v1::DeadLetter {
    v1::DeadLetter {
        dead_letter_id: letter.id.to_string(),
        subscription: letter.subscription.to_string(),
        message_id: letter.message_id.to_string(),
        message: Some(envelope_out(&letter.message)),
        from: letter.from.agent.to_string(),
        reason: letter.reason.clone(),
        last_error: letter.last_error.clone(),
        attempts: letter.attempts,
        stored_at_ms: letter.stored_at.0,
        died_at_ms: letter.died_at.0,
        payload_bytes: letter.message.payload.len() as u64,
    }
}
