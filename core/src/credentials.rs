//! Who the client is: from a key or a secret to tokens, and fresh ones before the old end.

use std::{fmt, sync::Arc, time::Duration};

use acb_types::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};

use crate::error::{Error, ErrorCode, Result};

/// Share of a token's life after which it is refreshed.
const REFRESH_AT: f64 = 0.75;
/// A token with less life left than this is not used for a new connection.
pub(crate) const SPARE_LIFE: Duration = Duration::from_secs(30);

/// What a client proves itself with. Secrets are masked in `Debug`.
#[derive(Clone)]
pub struct Credentials(pub(crate) Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    None,
    EnrolmentKey { key: Arc<str>, agent: Arc<str> },
    Secret { tenant: Arc<str>, agent: Arc<str>, secret: Arc<str> },
    Token { access: Arc<str> },
    Refresh { refresh: Arc<str> },
    Dev { tenant: Arc<str>, agent: Arc<str> },
}

impl Credentials {
    pub(crate) fn none() -> Self {
        Self(Kind::None)
    }

    /// An enrolment key (`acb_…`), which names its tenant, and the agent id to take with it.
    pub fn enrolment_key(key: impl Into<String>, agent_id: impl Into<String>) -> Self {
        Self(Kind::EnrolmentKey { key: key.into().into(), agent: agent_id.into().into() })
    }

    /// An agent's own secret.
    pub fn secret(tenant: impl Into<String>, agent_id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Kind::Secret { tenant: tenant.into().into(), agent: agent_id.into().into(), secret: secret.into().into() })
    }

    /// An access token made elsewhere. It cannot be refreshed: the client works until it ends.
    pub fn token(access_token: impl Into<String>) -> Self {
        Self(Kind::Token { access: access_token.into().into() })
    }

    /// A refresh token. It works once: the client takes it over, and nobody else may use it any more.
    pub fn refresh_token(refresh_token: impl Into<String>) -> Self {
        Self(Kind::Refresh { refresh: refresh_token.into().into() })
    }

    /// No proof at all: for `acb-server --dev`, which takes everybody's word.
    pub fn dev(tenant: impl Into<String>, agent_id: impl Into<String>) -> Self {
        Self(Kind::Dev { tenant: tenant.into().into(), agent: agent_id.into().into() })
    }

    /// Whether new tokens can be had at any time.
    pub(crate) fn can_log_in(&self) -> bool {
        matches!(self.0, Kind::EnrolmentKey { .. } | Kind::Secret { .. } | Kind::Dev { .. })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::None => f.write_str("None"),
            Kind::EnrolmentKey { agent, .. } => write!(f, "EnrolmentKey {{ key: ***, agent: {agent:?} }}"),
            Kind::Secret { tenant, agent, .. } => {
                write!(f, "Secret {{ tenant: {tenant:?}, agent: {agent:?}, secret: *** }}")
            }
            Kind::Token { .. } => f.write_str("Token { access: *** }"),
            Kind::Refresh { .. } => f.write_str("Refresh { refresh: *** }"),
            Kind::Dev { tenant, agent } => write!(f, "Dev {{ tenant: {tenant:?}, agent: {agent:?} }}"),
        }
    }
}

/// Who the tokens speak for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The agent.
    pub agent_id: String,
    /// Its tenant.
    pub tenant_id: String,
    /// Its roles: admin, agent-producer, agent-consumer, agent-full, observer.
    pub roles: Vec<String>,
    /// When the access token ends.
    pub access_expires_at: Timestamp,
    /// When the refresh token ends; not set without one.
    pub refresh_expires_at: Timestamp,
}

/// A pair of tokens as it came from the server. Masked in `Debug`.
#[derive(Clone, Default)]
pub struct Tokens {
    /// For the `authorization: Bearer` metadata.
    pub access_token: String,
    /// Works once.
    pub refresh_token: String,
    /// Who they speak for, and for how long.
    pub identity: Identity,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Held {
    tokens: Option<Arc<Tokens>>,
    bearer: Option<MetadataValue<Ascii>>,
    /// When they came and how long they last from then on. Unknown for a token that was made elsewhere: nobody says how
    /// old it is.
    life: Option<(Instant, Duration)>,
}

/// The tokens in use. How long they last is counted from their coming, by what the server's clock says of their life:
/// the wall clock of this machine may stand elsewhere, and then decides nothing.
#[derive(Default)]
pub(crate) struct TokenStore(Mutex<Held>);

impl TokenStore {
    /// A store that starts with what the credentials hold.
    pub(crate) fn new(credentials: &Credentials) -> Result<Self> {
        let store = Self::default();
        let tokens = match &credentials.0 {
            Kind::Token { access } => Tokens {
                identity: identity_of_token(access).unwrap_or_default(),
                access_token: access.to_string(),
                ..Tokens::default()
            },
            Kind::Refresh { refresh } => Tokens { refresh_token: refresh.to_string(), ..Tokens::default() },
            _ => return Ok(store),
        };
        store.hold(tokens, None)?;
        Ok(store)
    }

    /// Takes tokens over that the server has just made.
    pub(crate) fn put(&self, tokens: Tokens, now: Instant) -> Result<Arc<Tokens>> {
        let end = tokens.identity.access_expires_at;
        // A token that does not say how long it was made for can only be measured by this machine's clock.
        let by_ours = || end.is_set().then(|| end.since(crate::time::now()));
        let life = life_of_token(&tokens.access_token).or_else(by_ours).map(|life| (now, life));
        self.hold(tokens, life)
    }

    fn hold(&self, tokens: Tokens, life: Option<(Instant, Duration)>) -> Result<Arc<Tokens>> {
        let bearer = if tokens.access_token.is_empty() {
            None
        } else {
            let text = format!("Bearer {}", tokens.access_token);
            Some(text.parse().map_err(|_| {
                Error::new(ErrorCode::TokenInvalid, "auth", "the access token has characters that no token has")
            })?)
        };
        let tokens = Arc::new(tokens);
        *self.0.lock() = Held { tokens: Some(Arc::clone(&tokens)), bearer, life };
        Ok(tokens)
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        *self.0.lock() = Held::default();
    }

    /// Takes the refresh token away from the store: it works once.
    pub(crate) fn take_refresh(&self) -> Option<String> {
        let mut held = self.0.lock();
        let tokens = held.tokens.as_ref().filter(|t| !t.refresh_token.is_empty())?;
        let mut changed = Tokens::clone(tokens);
        let refresh = std::mem::take(&mut changed.refresh_token);
        held.tokens = Some(Arc::new(changed));
        Some(refresh)
    }

    /// The tokens.
    pub(crate) fn tokens(&self) -> Option<Arc<Tokens>> {
        self.0.lock().tokens.clone()
    }

    /// What goes into a call's metadata.
    pub(crate) fn bearer(&self) -> Option<MetadataValue<Ascii>> {
        self.0.lock().bearer.clone()
    }

    /// Whether an access token is there that lasts a little longer, as far as is known: of a token from elsewhere the
    /// server says when it is over.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        let held = self.0.lock();
        let lasts = held.life.is_none_or(|(since, life)| now.duration_since(since) + SPARE_LIFE < life);
        held.bearer.is_some() && lasts
    }

    /// How long until the tokens should be refreshed; `None` when nobody knows.
    pub(crate) fn refresh_in(&self, now: Instant) -> Option<Duration> {
        let (since, life) = self.0.lock().life?;
        Some(life.mul_f64(REFRESH_AT).saturating_sub(now.duration_since(since)))
    }
}

impl fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenStore").field(&self.0.lock().tokens).finish()
    }
}

/// What a token says of itself. Not checked: the server does that; this only tells the client its own name, and how long
/// the token was made for.
#[derive(serde::Deserialize)]
struct Claims {
    #[serde(default)]
    agent_id: String,
    #[serde(default)]
    tenant_id: String,
    #[serde(default)]
    roles: Vec<String>,
    /// Made at, in seconds since 1970 by the server's clock.
    #[serde(default)]
    iat: u64,
    /// Ends at, by the same clock.
    #[serde(default)]
    exp: u64,
}

fn claims_of_token(token: &str) -> Option<Claims> {
    use base64::Engine as _;
    let claims = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn identity_of_token(token: &str) -> Option<Identity> {
    let claims = claims_of_token(token)?;
    Some(Identity {
        agent_id: claims.agent_id,
        tenant_id: claims.tenant_id,
        roles: claims.roles,
        access_expires_at: Timestamp(claims.exp.saturating_mul(1000)),
        refresh_expires_at: Timestamp::NONE,
    })
}

/// How long a token was made for; `None` when it does not say.
fn life_of_token(token: &str) -> Option<Duration> {
    let claims = claims_of_token(token)?;
    (claims.iat != 0 && claims.exp != 0).then(|| Duration::from_secs(claims.exp.saturating_sub(claims.iat)))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn a_given_token_tells_the_client_its_name() {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(r#"{"agent_id":"a","tenant_id":"t","roles":["agent-full"],"exp":100}"#);
        let store = TokenStore::new(&Credentials::token(format!("h.{claims}.s"))).unwrap();
        let tokens = store.tokens().unwrap();
        assert_eq!(tokens.identity.agent_id, "a");
        assert_eq!(tokens.identity.access_expires_at, Timestamp(100_000));
        let now = Instant::now();
        assert!(store.is_fresh(now), "whether it is over is for the server to say");
        assert_eq!(store.refresh_in(now), None);
    }

    fn made(iat: u64, exp: u64) -> Tokens {
        let claims = format!(r#"{{"agent_id":"a","iat":{iat},"exp":{exp}}}"#);
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        let identity = Identity { access_expires_at: Timestamp(exp * 1000), ..Identity::default() };
        Tokens { access_token: format!("h.{claims}.s"), refresh_token: "r".into(), identity }
    }

    #[test]
    fn tokens_are_refreshed_at_three_quarters_of_their_life_by_whatever_clock() {
        let minutes = |n| Duration::from_mins(n);
        // A server whose clock stands in 1970, in our time, and in 2286.
        for iat in [1, 1_800_000_000, 9_999_999_999] {
            let (store, since) = (TokenStore::default(), Instant::now());
            store.put(made(iat, iat + 3600), since).unwrap();
            assert_eq!(store.refresh_in(since), Some(minutes(45)));
            assert_eq!(store.refresh_in(since + minutes(50)), Some(Duration::ZERO));
            assert!(store.is_fresh(since + minutes(59)));
            assert!(!store.is_fresh(since + minutes(60) - SPARE_LIFE));
        }
    }

    #[test]
    fn tokens_that_nobody_says_the_end_of_are_used_until_the_server_refuses_them() {
        let (store, since) = (TokenStore::default(), Instant::now());
        store.put(Tokens { access_token: "opaque".into(), ..Tokens::default() }, since).unwrap();
        assert!(store.is_fresh(since + Duration::from_hours(99)));
        assert_eq!(store.refresh_in(since), None);
    }

    #[test]
    fn a_refresh_token_is_taken_once() {
        let store = TokenStore::new(&Credentials::refresh_token("r")).unwrap();
        assert_eq!(store.take_refresh().as_deref(), Some("r"));
        assert_eq!(store.take_refresh(), None);
        assert!(store.bearer().is_none());
    }
}
