//! Rows of the audit log.

use acb_types::Timestamp;
use sha2::{Digest, Sha256};

/// SHA-256 that ties an audit row to the one before it.
pub type AuditDigest = [u8; 32];

/// A security-relevant act. Secrets, tokens and payloads never stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it happened.
    pub at: Timestamp,
    /// Node that saw it.
    pub node: String,
    /// Who acted: an agent or a credential; may be empty when it is not known.
    pub actor: String,
    /// What was done, such as `enrolment_key.revoke`.
    pub action: String,
    /// What it was done to; may be empty.
    pub target: String,
    /// `ok`, or the error code that refused it.
    pub outcome: String,
    /// More facts, as a JSON object; may be empty.
    pub details: String,
    /// Names the request in the server's log.
    pub request_id: String,
}

/// An audit entry as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number in the tenant, from 1 without holes.
    pub id: u64,
    /// What happened.
    pub entry: AuditEntry,
    /// The digest of the row before it; zeros in the first.
    pub previous: AuditDigest,
    /// Its own: see [`AuditRow::digest_of`].
    pub digest: AuditDigest,
}

impl AuditRow {
    /// Chains an entry to the row before it; `None` when it is the first.
    pub fn chained(before: Option<(u64, AuditDigest)>, entry: AuditEntry) -> Self {
        let (last, previous) = before.unwrap_or_default();
        let id = last + 1;
        let digest = Self::digest_of(id, &previous, &entry);
        Self { id, entry, previous, digest }
    }

    /// SHA-256 over the digest before, the number, the time and each text with its length in front, so that no text can
    /// be moved from one field into another.
    pub fn digest_of(id: u64, previous: &AuditDigest, entry: &AuditEntry) -> AuditDigest {
        let mut hash = Sha256::new();
        hash.update(previous);
        hash.update(id.to_be_bytes());
        hash.update(entry.at.0.to_be_bytes());
        let texts = [
            &entry.node,
            &entry.actor,
            &entry.action,
            &entry.target,
            &entry.outcome,
            &entry.details,
            &entry.request_id,
        ];
        for text in texts {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.finalize().into()
    }

    /// Whether the row is what was written, and follows the row before it.
    pub fn follows(&self, before: Option<&Self>) -> bool {
        let (id, previous) = before.map_or((1, AuditDigest::default()), |b| (b.id + 1, b.digest));
        self.id == id && self.previous == previous && self.digest == Self::digest_of(id, &previous, &self.entry)
    }
}
