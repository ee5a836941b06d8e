//! Writes of contexts: in one call, or as an upload where the payload is too large for one.

use acb_proto::v1::{self, context_service_client::ContextServiceClient};
use acb_types::{ContextId, Sha256Digest, StreamId, limits};
use sha2::{Digest as _, Sha256};

use super::model::{SharedContext, UpdatedContext};
use crate::{
    client::Handle,
    convert,
    error::{Error, ErrorCode, Result},
    idempotency::IdempotencyKey,
    retry::Safety,
    streams::{LargeCall, UploadBuilder},
};

const SHARE: &str = "contexts.share";
const UPDATE: &str = "contexts.update";

pub(crate) async fn create(
    core: &Handle,
    operation: &'static str,
    request: v1::CreateContextRequest,
) -> Result<v1::CreateContextResponse> {
    core.call(operation, Safety::Idempotent, request, |to, request| async move {
        ContextServiceClient::with_origin(to.channel, to.origin).create_context(request).await
    })
    .await
}

pub(crate) async fn update(
    core: &Handle,
    operation: &'static str,
    request: v1::UpdateContextRequest,
) -> Result<v1::UpdateContextResponse> {
    core.call(operation, Safety::Idempotent, request, |to, request| async move {
        ContextServiceClient::with_origin(to.channel, to.origin).update_context(request).await
    })
    .await
}

/// Makes a context.
pub(super) async fn share(core: Handle, request: v1::CreateContextRequest) -> Result<SharedContext> {
    if request.payload.len() <= limits::CONTEXT_ONE_CALL_BYTES {
        let response = create(&core, SHARE, request).await?;
        return Ok(SharedContext { context: convert::context(SHARE, response.context)?, existed: response.existed });
    }
    let id: ContextId = request.context_id.parse().map_err(|e| Error::name(SHARE, &e))?;
    let payload = request.payload;
    let call = LargeCall {
        // One upload for each context that is made: who repeats the call finds it.
        stream: StreamId(*id.as_bytes()),
        context_id: request.context_id.clone(),
        spec: request.spec.unwrap_or_default(),
        fields: Vec::new(),
        condition: (0, false),
        payload: payload.clone(),
    };
    match UploadBuilder::of_call(core.clone(), call).carry().await {
        Ok(done) => {
            let context = convert::context(SHARE, Some(done.context))?;
            Ok(SharedContext { context, existed: done.found })
        }
        // The bus forgets an upload after some days, and a context's id never. While it knows it, another payload is another
        // digest.
        Err(error) if error.code() == ErrorCode::ContextExists || is_another(&error) => {
            let found = super::Contexts::new(core).get(request.context_id.as_str()).without_payload().await;
            match found {
                Ok(context) if context.sha256 == Sha256::digest(&payload)[..] => {
                    Ok(SharedContext { context, existed: true })
                }
                Ok(_) if is_another(&error) => {
                    let message = format!("context id {} is taken", request.context_id);
                    Err(Error::new(ErrorCode::ContextExists, SHARE, message))
                }
                _ => Err(error.with_operation(SHARE)),
            }
        }
        Err(error) => Err(error.with_operation(SHARE)),
    }
}

/// Whether an upload is known, of another content.
fn is_another(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::DigestMismatch | ErrorCode::ChunkMismatch)
}

/// Changes a context. `key` is the caller's own, when there is one.
pub(super) async fn change(
    core: Handle,
    mut request: v1::UpdateContextRequest,
    key: Option<String>,
) -> Result<UpdatedContext> {
    let is_own_key = key.is_some();
    request.idempotency_key = key.unwrap_or_else(|| IdempotencyKey::random().as_str().to_owned());
    let large = request.payload.take_if(|payload| payload.len() > limits::CONTEXT_ONE_CALL_BYTES);
    let Some(payload) = large else {
        let response = update(&core, UPDATE, request).await?;
        let context = convert::context(UPDATE, response.context)?;
        return Ok(UpdatedContext { context, duplicate: response.duplicate });
    };
    if request.if_rev == 0 && !request.force {
        let message = "a change says the revision that it was made for, or that it overwrites whatever is there";
        return Err(Error::new(ErrorCode::MissingField, UPDATE, message).with("field", "if_rev"));
    }
    let call = LargeCall {
        stream: stream_of(&request.context_id, &request.idempotency_key),
        context_id: request.context_id,
        spec: request.spec.unwrap_or_default(),
        fields: request.fields,
        condition: (request.if_rev, request.force),
        payload,
    };
    let done = match UploadBuilder::of_call(core, call).carry().await {
        Ok(done) => done,
        Err(error) if is_own_key && is_another(&error) => {
            let message = "the idempotency key was used for another update";
            return Err(Error::new(ErrorCode::IdempotencyConflict, UPDATE, message));
        }
        Err(error) => return Err(error.with_operation(UPDATE)),
    };
    let context = convert::context(UPDATE, Some(done.context))?;
    Ok(UpdatedContext { context, duplicate: done.found })
}

/// The upload that a change with this key goes by: the same for who repeats the call.
fn stream_of(context_id: &str, key: &str) -> StreamId {
    let digest =
        Sha256Digest(Sha256::new().chain_update(context_id).chain_update([0]).chain_update(key).finalize().into());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.0[..16]);
    StreamId(id)
}
