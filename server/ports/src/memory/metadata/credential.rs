//! Credentials in memory.

use std::collections::{BTreeMap, VecDeque};

use acb_types::{AgentId, ErrorCode, Timestamp};

use super::tenant::Tenant;
use crate::{
    error::StoreError,
    metadata::{
        AgentSecretRow, EnrolmentKeyRow, FAMILY_HASHES_MAX, NewAgentSecret, NewFamily, RefreshHash, Result, Rotation,
        RotationRequest, SecretSet, SigningKeyRow, TokenFamilyRow, credential_of_key, credential_of_secret,
    },
};

/// A family with its tokens' digests.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) row: TokenFamilyRow,
    current: RefreshHash,
    /// Oldest first.
    former: VecDeque<RefreshHash>,
}

fn taken(operation: &'static str, what: &str) -> StoreError {
    StoreError::new(ErrorCode::InvalidState, operation, format!("{what} is there already"))
}

impl Tenant {
    pub(super) fn enrolment_key_create(&mut self, key: EnrolmentKeyRow) -> Result<()> {
        if self.enrolment_keys.contains_key(&key.key_id) {
            return Err(taken("enrolment_key.create", &format!("enrolment key {}", key.key_id)));
        }
        self.enrolment_keys.insert(key.key_id.clone(), key);
        Ok(())
    }

    pub(super) fn enrolment_key_revoke(&mut self, key_id: &str, now: Timestamp) -> Result<Vec<String>> {
        let Some(key) = self.enrolment_keys.get_mut(key_id) else { return Ok(Vec::new()) };
        let credential = credential_of_key(key_id)
            .map_err(|e| StoreError::new(ErrorCode::InvalidArgument, "enrolment_key.revoke", e.to_string()))?;
        if !key.revoked_at.is_set() {
            key.revoked_at = now;
        }
        Ok(self.families_revoke(now, |row| row.credential == credential))
    }

    pub(super) fn agent_secret_set(&mut self, agent: &AgentId, secret: NewAgentSecret) -> Result<SecretSet> {
        let credential = credential_of_secret(agent)
            .map_err(|e| StoreError::new(ErrorCode::InvalidArgument, "agent_secret.set", e.to_string()))?;
        let version = self.secrets.get(agent).map_or(0, |row| row.version) + 1;
        let NewAgentSecret { hash, roles, now } = secret;
        self.secrets.insert(agent.clone(), AgentSecretRow { agent: agent.clone(), hash, roles, version, set_at: now });
        let revoked_families = self.families_revoke(now, |row| row.credential == credential);
        Ok(SecretSet { version, revoked_families })
    }

    pub(super) fn family_create(&mut self, new: NewFamily) -> Result<()> {
        if self.families.contains_key(&new.family_id) {
            return Err(taken("family.create", &format!("token family {}", new.family_id)));
        }
        let row = TokenFamilyRow {
            family_id: new.family_id.clone(),
            agent: new.agent,
            credential: new.credential,
            roles: new.roles,
            generation: 0,
            created_at: new.now,
            expires_at: new.expires_at,
            revoked_at: Timestamp::NONE,
        };
        self.families.insert(new.family_id, Family { row, current: new.refresh_hash, former: VecDeque::new() });
        Ok(())
    }

    pub(super) fn family_rotate(&mut self, family_id: &str, request: &RotationRequest) -> Rotation {
        let Some(family) = self.families.get_mut(family_id) else { return Rotation::Absent };
        let current = family.current == request.presented;
        if !current && !family.former.contains(&request.presented) {
            return Rotation::Absent;
        }
        if family.row.revoked_at.is_set() {
            return Rotation::Revoked;
        }
        if !current {
            family.row.revoked_at = request.now;
            return Rotation::Reused(family.row.clone());
        }
        if family.row.expires_at <= request.now {
            return Rotation::Expired;
        }
        family.former.push_back(family.current);
        if family.former.len() > FAMILY_HASHES_MAX {
            family.former.pop_front();
        }
        family.current = request.next;
        family.row.generation += 1;
        family.row.expires_at = request.expires_at;
        Rotation::Rotated(family.row.clone())
    }

    /// Revokes the families that are wanted and not revoked; their ids, in order.
    pub(super) fn families_revoke(&mut self, now: Timestamp, wanted: impl Fn(&TokenFamilyRow) -> bool) -> Vec<String> {
        let rows = self.families.values_mut().map(|family| &mut family.row);
        let hit = rows.filter(|row| !row.revoked_at.is_set() && wanted(row));
        hit.map(|row| {
            row.revoked_at = now;
            row.family_id.clone()
        })
        .collect()
    }
}

pub(super) fn signing_key_rotate(keys: &mut BTreeMap<String, SigningKeyRow>, key: SigningKeyRow) -> Result<()> {
    if keys.contains_key(&key.key_id) {
        return Err(taken("signing_key.rotate", &format!("signing key {}", key.key_id)));
    }
    for old in keys.values_mut().filter(|old| !old.retired_at.is_set()) {
        old.retired_at = key.created_at;
    }
    keys.insert(key.key_id.clone(), SigningKeyRow { retired_at: Timestamp::NONE, ..key });
    Ok(())
}

pub(super) fn signing_keys_newest_first(keys: &BTreeMap<String, SigningKeyRow>) -> Vec<SigningKeyRow> {
    let mut list: Vec<_> = keys.values().cloned().collect();
    // The one that signs comes first even when the clock went back before it was made.
    list.sort_by_key(|key| {
        (key.retired_at.is_set(), std::cmp::Reverse(key.created_at), std::cmp::Reverse(key.key_id.clone()))
    });
    list
}
