//! Profiles: where a bus is and who the user is there, under a name. Kept in one file that only its owner can read.

use std::{collections::BTreeMap, fmt};

use acb_types::Timestamp;
use serde::{Deserialize, Serialize};

mod store;

pub(crate) use store::Store;

/// Name of the profile that `acb login` writes when nobody says otherwise.
pub(crate) const DEFAULT: &str = "default";

/// A bus and who the user is there.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Where the bus is.
    pub(crate) url: String,
    /// Agent that the user speaks for.
    pub(crate) agent: String,
    /// The agent's tenant.
    pub(crate) tenant: String,
    /// Roles that the last login gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) roles: Vec<String>,
    /// File with the roots that the bus's certificate is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<String>,
    /// Enrolment key to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The agent's secret to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<String>,
    /// Access token of the last login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) access_token: Option<String>,
    /// When it ends, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) access_expires_at_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Profile {
    /// Whether it can still log in or is logged in.
    pub(crate) fn has_credentials(&self) -> bool {
        self.key.is_some() || self.secret.is_some() || self.access_token.is_some()
    }

    /// The access token, when it lasts longer than `spare_ms` from `now`.
    pub(crate) fn token(&self, now: Timestamp, spare_ms: u64) -> Option<&str> {
        let lasts = self.access_expires_at_ms > now.0.saturating_add(spare_ms);
        self.access_token.as_deref().filter(|_| lasts)
    }

    /// The same bus and agent without anything to log in with.
    pub(crate) fn without_credentials(self) -> Self {
        Self { key: None, secret: None, access_token: None, access_expires_at_ms: 0, roles: Vec::new(), ..self }
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("url", &self.url)
            .field("agent", &self.agent)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

/// All profiles, and which one is used when none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profiles {
    /// The one that is used; empty when none was chosen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) current: String,
    /// Profiles by name.
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, Profile>,
}

impl Profiles {
    /// The profile of that name, or the current one.
    pub(crate) fn pick(&self, name: Option<&str>) -> Option<(&str, &Profile)> {
        let name = name.unwrap_or(&self.current);
        self.profiles.get_key_value(name).map(|(name, profile)| (name.as_str(), profile))
    }

    /// Puts a profile in place and makes it the current one.
    pub(crate) fn put(&mut self, name: &str, profile: Profile) {
        self.profiles.insert(name.to_owned(), profile);
        name.clone_into(&mut self.current);
    }

    /// Takes a profile out. Says whether there was one.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        if self.current == name {
            self.current.clear();
        }
        self.profiles.remove(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(agent: &str) -> Profile {
        Profile {
            url: "acb://127.0.0.1:7400".into(),
            agent: agent.into(),
            tenant: "default".into(),
            ..Profile::default()
        }
    }

    #[test]
    fn the_last_one_written_is_used_until_another_is_named() {
        let mut all = Profiles::default();
        assert_eq!(all.pick(None), None);
        all.put("a", profile("alice"));
        all.put("b", profile("bob"));
        assert_eq!(all.pick(None).unwrap().1.agent, "bob");
        assert_eq!(all.pick(Some("a")).unwrap().1.agent, "alice");
        assert_eq!(all.pick(Some("c")), None);
        assert!(all.remove("b") && !all.remove("b"));
        assert_eq!(all.pick(None), None);
    }

    #[test]
    fn a_token_near_its_end_is_not_used() {
        let mut one = Profile { access_token: Some("t".into()), access_expires_at_ms: 100_000, ..profile("a") };
        assert_eq!(one.token(Timestamp(30_000), 60_000), Some("t"));
        assert_eq!(one.token(Timestamp(50_000), 60_000), None);
        one = one.without_credentials();
        assert!(!one.has_credentials() && one.agent == "a");
    }

    #[test]
    fn secrets_do_not_show() {
        let one = Profile { key: Some("acb_hush".into()), access_token: Some("hush".into()), ..profile("a") };
        assert!(!format!("{one:?}").contains("hush"));
    }
}
