//! Keys, tokens and roles.

use std::{collections::HashMap, sync::Arc};

use acb_proto::v1;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;

use super::{fault, wire};
use crate::{
    Fault,
    wire::{answered, down_in, heads, up},
};

const CREATE_KEY: &str = "/acb.v1.AdminService/CreateEnrolmentKey";
const REVOKE_KEY: &str = "/acb.v1.AdminService/RevokeEnrolmentKey";
const REFRESH: &str = "/acb.v1.AuthService/Refresh";

/// Makes a caller known by name alone, as servers without credentials do.
fn believe(head: &mut HeaderMap, tenant: &str, agent: &str) {
    head.remove(header::AUTHORIZATION);
    for (name, text) in [("acb-tenant", tenant), ("acb-agent", agent)] {
        if let Ok(value) = HeaderValue::from_str(text) {
            head.insert(name, value);
        }
    }
}

fn bearer(head: &HeaderMap) -> Option<String> {
    Some(head.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.to_owned())
}

/// What a token says of itself, whoever signed it.
fn claims(token: &str) -> Option<serde_json::Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
}

pub(super) const FAULTS: &[Fault] = &[
    fault("revoking-does-nothing", "a revoked key and its tokens go on", &["revoked-key-ends-everything"], || {
        wire([answered(REVOKE_KEY, |_| Some(v1::RevokeEnrolmentKeyResponse {}))])
    }),
    fault("refresh-tokens-work-twice", "a refresh token gives tokens again", &["refresh-tokens-work-once"], || {
        let given: Arc<Mutex<HashMap<String, v1::RefreshResponse>>> = Arc::default();
        let kept = Arc::clone(&given);
        wire([
            answered(REFRESH, move |conversation| {
                given.lock().get(&conversation.request::<v1::RefreshRequest>().refresh_token).cloned()
            }),
            down_in(REFRESH, move |conversation, response: &mut v1::RefreshResponse| {
                let token = conversation.request::<v1::RefreshRequest>().refresh_token;
                kept.lock().insert(token, response.clone());
            }),
        ])
    }),
    fault("forged-tokens-open-the-door", "a token that nobody signed is taken", &["forged-tokens-are-refused"], || {
        wire([heads(|head| {
            if bearer(head).is_some_and(|token| claims(&token).is_none_or(|claims| claims.get("exp").is_none())) {
                believe(head, "default", "eve");
            }
        })])
    }),
    fault("roles-are-not-looked-at", "whoever has a token may do everything", &["roles-bound-what-callers-do"], || {
        wire([heads(|head| {
            let Some(claims) = bearer(head).and_then(|token| claims(&token)) else { return };
            let text = |name: &str| claims.get(name).and_then(|v| v.as_str()).map(str::to_owned);
            if let (Some(tenant), Some(agent)) = (text("tenant_id"), text("agent_id")) {
                believe(head, &tenant, &agent);
            }
        })])
    }),
    fault("key-patterns-are-ignored", "a key takes an agent id that it may not", &["key-becomes-a-token"], || {
        wire([up(CREATE_KEY, |request: &mut v1::CreateEnrolmentKeyRequest| request.agent_pattern.clear())])
    }),
    fault("keys-live-for-ever", "a key whose life is over is taken", &["key-with-a-life-ends"], || {
        wire([up(CREATE_KEY, |request: &mut v1::CreateEnrolmentKeyRequest| request.ttl_ms = 0)])
    }),
];
