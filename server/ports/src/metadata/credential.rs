//! Rows of what callers prove themselves with: enrolment keys, secrets, signing keys, token families.
//!
//! Nothing here can be used to log in: keys and refresh tokens are kept as SHA-256 digests of 256 random bits, secrets
//! as argon2id strings. Signing keys are the exception; their bytes are masked in every `Debug`.

use std::fmt;

use acb_types::{AgentId, CredentialId, InvalidName, Timestamp};

/// Former refresh tokens of a family that are remembered. One older than these is refused as absent.
pub const FAMILY_HASHES_MAX: usize = 64;

/// SHA-256 of a refresh token.
pub type RefreshHash = [u8; 32];

/// The credential of everybody who enrolled with a key.
///
/// # Errors
/// When the key's id is too long to be part of a credential's.
pub fn credential_of_key(key_id: &str) -> Result<CredentialId, InvalidName> {
    format!("key:{key_id}").parse()
}

/// The credential of an agent's secret. It stays the same when the secret changes, so that the agent keeps its id.
///
/// # Errors
/// Never for a real agent id; an id has at most 128 bytes.
pub fn credential_of_secret(agent: &AgentId) -> Result<CredentialId, InvalidName> {
    format!("secret:{agent}").parse()
}

/// An enrolment key.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentKeyRow {
    /// Names the key; sorts by time.
    pub key_id: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// For people.
    pub label: String,
    /// Agent ids that it may take: an id, or a prefix and `*`. Empty for any.
    pub agent_pattern: String,
    /// Roles that its tokens get.
    pub roles: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; not set means never.
    pub expires_at: Timestamp,
    /// When it was revoked; not set when it was not.
    pub revoked_at: Timestamp,
}

impl fmt::Debug for EnrolmentKeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentKeyRow")
            .field("key_id", &self.key_id)
            .field("label", &self.label)
            .field("agent_pattern", &self.agent_pattern)
            .field("roles", &self.roles)
            .field("created_at", &self.created_at)
            .field("expires_at", &self.expires_at)
            .field("revoked_at", &self.revoked_at)
            .finish_non_exhaustive()
    }
}

/// A new secret of an agent.
#[derive(Clone)]
pub struct NewAgentSecret {
    /// The argon2id string.
    pub hash: String,
    /// Roles that its tokens get.
    pub roles: Vec<String>,
    /// The time.
    pub now: Timestamp,
}

impl fmt::Debug for NewAgentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewAgentSecret").field("roles", &self.roles).field("now", &self.now).finish_non_exhaustive()
    }
}

/// An agent's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentSecretRow {
    /// Whose it is.
    pub agent: AgentId,
    /// The argon2id string.
    pub hash: String,
    /// Roles that its tokens get.
    pub roles: Vec<String>,
    /// 1 at first, one more with each change.
    pub version: u64,
    /// When it was set.
    pub set_at: Timestamp,
}

impl fmt::Debug for AgentSecretRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentSecretRow")
            .field("agent", &self.agent)
            .field("roles", &self.roles)
            .field("version", &self.version)
            .field("set_at", &self.set_at)
            .finish_non_exhaustive()
    }
}

/// What setting a secret did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSet {
    /// The secret's version now.
    pub version: u64,
    /// Families of the old one that were revoked.
    pub revoked_families: Vec<String>,
}

/// Bytes that no log and no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// A key that signs tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// Names the key in tokens (`kid`).
    pub key_id: String,
    /// The private key, as PKCS#8 or a seed: whoever makes it decides.
    pub private: SecretBytes,
    /// When it was made.
    pub created_at: Timestamp,
    /// When another took over; not set while it signs.
    pub retired_at: Timestamp,
}

/// Asks for a token family.
#[derive(Clone)]
pub struct NewFamily {
    /// Names the family.
    pub family_id: String,
    /// Agent that its tokens speak for.
    pub agent: AgentId,
    /// What they came of.
    pub credential: CredentialId,
    /// Their roles.
    pub roles: Vec<String>,
    /// SHA-256 of the first refresh token.
    pub refresh_hash: RefreshHash,
    /// When the family is over, unless it is rotated: no token of it is good from then on.
    pub expires_at: Timestamp,
    /// The time.
    pub now: Timestamp,
}

impl fmt::Debug for NewFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewFamily")
            .field("family_id", &self.family_id)
            .field("agent", &self.agent)
            .field("credential", &self.credential)
            .field("roles", &self.roles)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A token family: every token that came of one login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFamilyRow {
    /// Names the family.
    pub family_id: String,
    /// Agent that its tokens speak for.
    pub agent: AgentId,
    /// What they came of.
    pub credential: CredentialId,
    /// Their roles.
    pub roles: Vec<String>,
    /// How often it was rotated.
    pub generation: u64,
    /// When it began.
    pub created_at: Timestamp,
    /// When it is over.
    pub expires_at: Timestamp,
    /// When it was revoked; not set when it was not.
    pub revoked_at: Timestamp,
}

/// Asks for a rotation.
#[derive(Clone)]
pub struct RotationRequest {
    /// SHA-256 of the refresh token that was presented.
    pub presented: RefreshHash,
    /// SHA-256 of the one to come.
    pub next: RefreshHash,
    /// When the family is over from now on.
    pub expires_at: Timestamp,
    /// The time.
    pub now: Timestamp,
}

impl fmt::Debug for RotationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotationRequest")
            .field("expires_at", &self.expires_at)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// What a rotation came to. Looked at in the order absent, revoked, reused, expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Done; the family as it is now.
    Rotated(TokenFamilyRow),
    /// The token had been used before. The family is revoked now.
    Reused(TokenFamilyRow),
    /// The family had been revoked.
    Revoked,
    /// The family is over.
    Expired,
    /// No such family, or a token that it does not remember.
    Absent,
}
