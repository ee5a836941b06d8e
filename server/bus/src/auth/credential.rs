//! What callers prove themselves with: enrolment keys, refresh tokens, secrets. Making, parsing and comparing them.
//!
//! Keys and refresh tokens are 256 random bits, so a plain SHA-256 keeps them; secrets too, but people may choose to
//! bring short ones some day, so they are kept by argon2id, which is slow on purpose and runs on a blocking thread,
//! few at a time.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use acb_ports::IdSource;
use acb_types::{AgentId, ErrorCode, TenantId};
use argon2::{
    Argon2,
    password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use crate::error::AppError;

/// Random bytes of a key, a secret or a refresh token.
const SECRET_BYTES: usize = 32;
/// Longest text that is looked at as a credential.
const TEXT_BYTES_MAX: usize = 512;
/// Hashes at once: each takes a core for some 20 ms and 19 MiB.
const HASHES_AT_ONCE: usize = 2;
/// Hashes that may wait; more is `slow_down`.
const HASHES_WAITING_MAX: usize = 256;

/// 256 random bits as text.
fn random_text(ids: &dyn IdSource) -> String {
    let mut bytes = [0; SECRET_BYTES];
    ids.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A new secret for an agent.
pub fn new_secret(ids: &dyn IdSource) -> String {
    random_text(ids)
}

/// A credential that names its tenant and its row, so that it is found without an index of secrets:
/// `<prefix>_<tenant>_<row>_<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Handle {
    /// Tenant that it belongs to.
    pub tenant: TenantId,
    /// The row that it names: a key's id, a family's.
    pub row: String,
    text: String,
}

impl Handle {
    /// Prefix of enrolment keys.
    pub const KEY: &'static str = "acb";
    /// Prefix of refresh tokens.
    pub const REFRESH: &'static str = "acr";

    /// A new one.
    pub fn new(prefix: &str, tenant: &TenantId, row: &str, ids: &dyn IdSource) -> Self {
        let text = format!("{prefix}_{tenant}_{row}_{}", random_text(ids));
        Self { tenant: tenant.clone(), row: row.to_owned(), text }
    }

    /// Takes one apart. `None` when it is none: the caller learns no more than that its credential is not good.
    pub fn parse(prefix: &str, text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mut parts = text.strip_prefix(prefix)?.strip_prefix('_')?.splitn(3, '_');
        let tenant = parts.next()?.parse().ok()?;
        let row = parts.next().filter(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_alphanumeric()))?;
        parts.next().filter(|secret| !secret.is_empty())?;
        Some(Self { tenant, row: row.to_owned(), text: text.to_owned() })
    }

    /// What is handed out; shown once.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }

    /// Whether it is the one that was kept, in constant time.
    pub fn is(&self, hash: &[u8; 32]) -> bool {
        self.hash().ct_eq(hash).into()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("tenant", &self.tenant).field("row", &self.row).finish_non_exhaustive()
    }
}

/// Agent ids that an enrolment key may take: an id, a prefix and `*`, or nothing for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentPattern<'a>(&'a str);

impl<'a> AgentPattern<'a> {
    /// Parses a pattern.
    ///
    /// # Errors
    /// `invalid_argument` when it can match no agent id.
    pub fn parse(text: &'a str) -> Result<Self, AppError> {
        let prefix = text.strip_suffix('*').unwrap_or(text);
        // The prefix must be able to begin an id: with one letter more it is one, unless it is empty or whole.
        let sound =
            prefix.is_empty() || format!("{prefix}a").parse::<AgentId>().is_ok() || prefix.parse::<AgentId>().is_ok();
        if sound {
            Ok(Self(text))
        } else {
            Err(AppError::invalid("agent_pattern", "must be an agent id, or the beginning of one and '*'"))
        }
    }

    /// Whether the key may take an id.
    pub fn allows(self, agent: &AgentId) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => agent.as_str().starts_with(prefix),
            None => self.0.is_empty() || self.0 == agent.as_str(),
        }
    }
}

/// Hashes and checks secrets on blocking threads, a few at a time.
#[derive(Debug)]
pub struct SecretHasher {
    pool: tokio::runtime::Handle,
    slots: Semaphore,
    waiting: AtomicUsize,
    /// Checked in place of an absent agent's, so that both take the same time.
    decoy: String,
}

impl SecretHasher {
    /// A hasher whose work runs on the blocking threads of a runtime.
    ///
    /// # Errors
    /// `internal` when argon2 refuses its own defaults.
    pub fn new(ids: &dyn IdSource, pool: tokio::runtime::Handle) -> Result<Self, AppError> {
        // Never compared to anything that a caller could know; its text only has to be a hash of the usual cost, and
        // making a real one would cost the start 20 ms.
        let (salt, hash) = (random_text(ids), random_text(ids));
        let standard = |s: &str| s.replace('-', "A").replace('_', "B");
        let decoy = format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", &standard(&salt)[..22], standard(&hash));
        if PasswordHash::new(&decoy).is_err() {
            return Err(AppError::internal("the decoy is no argon2 hash"));
        }
        Ok(Self { pool, slots: Semaphore::new(HASHES_AT_ONCE), waiting: AtomicUsize::new(0), decoy })
    }

    /// Hashes a secret for keeping.
    ///
    /// # Errors
    /// `slow_down` when too many wait.
    pub async fn hash(&self, secret: String, ids: &dyn IdSource) -> Result<String, AppError> {
        let mut salt = [0; 16];
        ids.fill(&mut salt);
        self.run(move || {
            let salt = SaltString::encode_b64(&salt).map_err(|e| AppError::internal(e.to_string()))?;
            let hash = Argon2::default().hash_password(secret.as_bytes(), &salt);
            hash.map(|h| h.to_string()).map_err(|e| AppError::internal(e.to_string()))
        })
        .await
    }

    /// Whether a secret is the kept one. Without a kept one a decoy is checked, and the answer is no.
    ///
    /// # Errors
    /// `slow_down` when too many wait.
    pub async fn is(&self, secret: String, kept: Option<String>) -> Result<bool, AppError> {
        if secret.len() > TEXT_BYTES_MAX {
            return Ok(false);
        }
        let known = kept.is_some();
        let hash = kept.unwrap_or_else(|| self.decoy.clone());
        self.run(move || {
            let hash = PasswordHash::new(&hash).map_err(|e| AppError::internal(format!("stored secret: {e}")))?;
            Ok(Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok() && known)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AppError> + Send + 'static,
    ) -> Result<T, AppError> {
        let _waiting = Waiting::enter(&self.waiting)?;
        let _slot = self.slots.acquire().await.map_err(|_| AppError::of(ErrorCode::GoingAway))?;
        self.pool.spawn_blocking(work).await.map_err(|e| AppError::internal("hashing").caused_by(e))?
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, AppError> {
        let waiting = Self(count);
        if count.fetch_add(1, Relaxed) >= HASHES_WAITING_MAX {
            return Err(AppError::of(ErrorCode::SlowDown));
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use acb_ports::SystemIds;

    use super::*;

    #[test]
    fn a_key_names_its_tenant_and_row_and_nothing_else_is_the_key() {
        let tenant: TenantId = "team-a".parse().unwrap();
        let ids = SystemIds::new();
        for _ in 0..100 {
            // The secret's alphabet has '_' and '-', which must not confuse the parts.
            let key = Handle::new(Handle::KEY, &tenant, "018f", &ids);
            let parsed = Handle::parse(Handle::KEY, key.reveal()).unwrap();
            assert_eq!(parsed, key);
            assert!(parsed.is(&key.hash()));
            assert!(Handle::parse(Handle::REFRESH, key.reveal()).is_none());
            let other = format!("{}x", key.reveal());
            assert!(!Handle::parse(Handle::KEY, &other).unwrap().is(&key.hash()));
        }
        for bad in ["", "acb", "acb_", "acb_t", "acb_t_r", "acb_t_r_", "acb_T_r_s", "acb_t_r.r_s", "acbt_r_s"] {
            assert!(Handle::parse(Handle::KEY, bad).is_none(), "{bad:?} was taken");
        }
    }

    #[test]
    fn no_secret_stands_in_debug() {
        let key = Handle::new(Handle::KEY, &"t".parse().unwrap(), "r", &SystemIds::new());
        let secret = key.reveal().rsplit_once("_r_").unwrap().1.to_owned();
        assert!(!format!("{key:?}").contains(&secret));
    }

    #[test]
    fn a_pattern_allows_an_id_a_prefix_or_anything() {
        let id = |t: &str| t.parse::<AgentId>().unwrap();
        for (pattern, yes, no) in
            [("worker-*", "worker-1", "planner"), ("planner", "planner", "planner2"), ("w.*", "w.a", "w")]
        {
            let p = AgentPattern::parse(pattern).unwrap();
            assert!(p.allows(&id(yes)), "{pattern} {yes}");
            assert!(!p.allows(&id(no)), "{pattern} {no}");
        }
        assert!(AgentPattern::parse("").unwrap().allows(&id("any")));
        assert!(AgentPattern::parse("*").unwrap().allows(&id("any")));
        for bad in ["A*", "a*b", " ", "-x", "*a"] {
            assert!(AgentPattern::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[tokio::test]
    async fn a_secret_is_known_again_and_an_absent_one_never() {
        let ids = SystemIds::new();
        let hasher = SecretHasher::new(&ids, tokio::runtime::Handle::current()).unwrap();
        let hash = hasher.hash("s3cret".to_owned(), &ids).await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(hasher.is("s3cret".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!hasher.is("s3cret2".to_owned(), Some(hash)).await.unwrap());
        assert!(!hasher.is("s3cret".to_owned(), None).await.unwrap());
    }
}
