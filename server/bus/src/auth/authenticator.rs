//! From a request's headers to who calls. Synchronous and from memory, so that a serving thread can ask it.

use std::{fmt, sync::Arc};

use acb_ports::Clock;
use acb_types::{AgentId, CredentialId, ErrorCode, TenantId, Timestamp};
use ahash::AHashMap;
use http::{HeaderMap, header::AUTHORIZATION};
use parking_lot::Mutex;

use super::{
    keyring::Keyring,
    principal::{AuthSession, FamilyId, Principal, Roles},
    revocation::Revocations,
};
use crate::error::AppError;

/// Metadata key that names the agent with `--dev`.
pub const DEV_AGENT: &str = "acb-agent";
/// Metadata key that names the tenant with `--dev`.
pub const DEV_TENANT: &str = "acb-tenant";
/// Agent of callers who name none, with `--dev`.
pub const DEV_AGENT_DEFAULT: &str = "anonymous";
/// The tenant that every server has.
pub const TENANT_DEFAULT: &str = "default";

/// Tokens whose check is remembered. Two halves: when the young one is full the old one goes, so that a check costs
/// 60 µs once and not once a call, and a flood of tokens costs no memory.
const CACHE_HALF: usize = 8192;

/// Whether callers must prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By a token.
    Tokens,
    /// `--dev`: a caller without a token is whoever it says, with all roles.
    Dev,
}

#[derive(Default)]
struct Cache {
    young: AHashMap<Box<str>, Arc<AuthSession>>,
    old: AHashMap<Box<str>, Arc<AuthSession>>,
}

/// Makes sessions of tokens.
pub struct Authenticator {
    mode: Mode,
    clock: Arc<dyn Clock>,
    keyring: Arc<Keyring>,
    revocations: Arc<Revocations>,
    cache: Mutex<Cache>,
    dev: Option<DevIdentity>,
}

/// What all callers of `--dev` share.
struct DevIdentity {
    tenant: TenantId,
    agent: AgentId,
    credential: CredentialId,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// An authenticator over these keys.
    pub fn new(mode: Mode, clock: Arc<dyn Clock>, keyring: Arc<Keyring>, revocations: Arc<Revocations>) -> Self {
        let dev = || {
            Some(DevIdentity {
                tenant: TENANT_DEFAULT.parse().ok()?,
                agent: DEV_AGENT_DEFAULT.parse().ok()?,
                credential: "dev".parse().ok()?,
            })
        };
        let dev = if mode == Mode::Dev { dev() } else { None };
        Self { mode, clock, keyring, revocations, cache: Mutex::default(), dev }
    }

    /// Whether callers must prove who they are.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The keys.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// What was taken back.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Who calls, by `authorization: Bearer`, or by `acb-agent` and `acb-tenant` with `--dev` and no token.
    ///
    /// # Errors
    /// `unauthenticated` without a token, `token_invalid`, `token_expired`, `token_revoked`; `invalid_name` for a dev
    /// name that is none.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<AuthSession>, AppError> {
        match (headers.get(AUTHORIZATION), &self.dev) {
            (Some(value), _) => {
                let token = value.to_str().ok().and_then(bearer);
                self.session(token.ok_or_else(|| AppError::of(ErrorCode::TokenInvalid).private("no bearer token"))?)
            }
            (None, Some(dev)) => self.dev_session(dev, headers),
            (None, None) => Err(AppError::of(ErrorCode::Unauthenticated)),
        }
    }

    /// The session of a stream's new token.
    ///
    /// # Errors
    /// As [`Self::authenticate`], and `token_mismatch` when it speaks for somebody else.
    pub fn reauth(&self, old: &AuthSession, token: &str) -> Result<Arc<AuthSession>, AppError> {
        if token.is_empty() && self.mode == Mode::Dev {
            return Ok(Arc::new(AuthSession::new(old.principal.clone(), old.expires_at, Arc::default())));
        }
        let new = self.session(bearer(token).unwrap_or(token))?;
        if (&new.principal.tenant, &new.principal.agent) == (&old.principal.tenant, &old.principal.agent) {
            Ok(new)
        } else {
            Err(AppError::of(ErrorCode::TokenMismatch))
        }
    }

    fn session(&self, token: &str) -> Result<Arc<AuthSession>, AppError> {
        let now = self.clock.now().wall;
        if let Some(session) = self.cached(token) {
            return still_good(session, now);
        }
        let verified = self.keyring.verify(token, now)?;
        let revoked = self.revocations.flag(&verified.principal.family, now);
        let session = Arc::new(AuthSession::new(verified.principal, verified.expires_at, revoked));
        self.remember(token, &session);
        still_good(session, now)
    }

    fn cached(&self, token: &str) -> Option<Arc<AuthSession>> {
        let mut cache = self.cache.lock();
        if let Some(session) = cache.young.get(token) {
            return Some(Arc::clone(session));
        }
        // Still in use: it moves to the young half.
        let (key, session) = cache.old.remove_entry(token)?;
        cache.young.insert(key, Arc::clone(&session));
        Some(session)
    }

    fn remember(&self, token: &str, session: &Arc<AuthSession>) {
        let mut cache = self.cache.lock();
        if cache.young.len() >= CACHE_HALF {
            cache.old = std::mem::take(&mut cache.young);
        }
        cache.young.insert(token.into(), Arc::clone(session));
    }

    #[expect(clippy::unused_self, reason = "the dev half of one method, kept beside its other half")]
    fn dev_session(&self, dev: &DevIdentity, headers: &HeaderMap) -> Result<Arc<AuthSession>, AppError> {
        let tenant = dev_name(headers, DEV_TENANT)?.unwrap_or_else(|| dev.tenant.clone());
        let agent = dev_name(headers, DEV_AGENT)?.unwrap_or_else(|| dev.agent.clone());
        let principal = Principal {
            tenant,
            agent,
            roles: Roles::ALL,
            credential: dev.credential.clone(),
            family: FamilyId::from("dev"),
        };
        Ok(Arc::new(AuthSession::new(principal, Timestamp(u64::MAX), Arc::default())))
    }
}

fn still_good(session: Arc<AuthSession>, now: Timestamp) -> Result<Arc<AuthSession>, AppError> {
    session.check(now).map(|()| session)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn dev_name<T>(headers: &HeaderMap, key: &str) -> Result<Option<T>, AppError>
where
    T: std::str::FromStr<Err = acb_types::InvalidName>,
{
    let Some(value) = headers.get(key) else { return Ok(None) };
    let text = value.to_str().map_err(|_| AppError::new(ErrorCode::InvalidName, format!("{key} is not plain text")))?;
    Ok(Some(text.parse()?))
}
