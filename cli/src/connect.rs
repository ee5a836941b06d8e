//! From profile, environment and flags to a client: where the bus is, and who the user is there.

use std::{fmt, fs};

use acb_sdk::{Client, Credentials, TlsOptions};
use rand::Rng as _;

use crate::{
    args::Global,
    exit::Exit,
    failure::{Failure, Result},
    output::now,
    profile::{Profiles, Store},
};

/// Where a bus is when nobody says.
const URL: &str = "acb://127.0.0.1:7400";
/// Tenant of a server in --dev when nobody says, and of a new data folder.
const TENANT: &str = "default";
/// Agent of who does not say who it is, on a server in --dev.
const AGENT: &str = "acb-cli";
/// A kept token with less life left than this is not used.
const SPARE_MS: u64 = 60_000;

/// What the command needs of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A call or two: a token that is kept will do.
    Short,
    /// Hours perhaps: tokens must be renewed on the way.
    Long,
    /// An inbox of its own, so that commands side by side do not take each other's replies.
    OwnInbox,
}

/// Secrets that come through the environment, where a process list does not show them.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// An access token.
    pub(crate) token: Option<String>,
    /// An enrolment key.
    pub(crate) key: Option<String>,
    /// An agent's secret.
    pub(crate) secret: Option<String>,
}

impl Secrets {
    /// Those that are set.
    pub(crate) fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        Self { token: get("ACB_TOKEN"), key: get("ACB_KEY"), secret: get("ACB_SECRET") }
    }
}

/// What the user proves itself with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// An access token; `kept` when it comes from a profile that could get another.
    Token { token: String, kept: bool },
    /// An enrolment key and the agent to be.
    Key { key: String, agent: String },
    /// An agent's secret.
    Secret { tenant: String, agent: String, secret: String },
    /// Nothing: for a server in --dev.
    Word { tenant: String, agent: String },
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { kept, .. } => write!(f, "Token {{ kept: {kept} }}"),
            Self::Key { agent, .. } => write!(f, "Key {{ agent: {agent:?} }}"),
            Self::Secret { tenant, agent, .. } => write!(f, "Secret {{ tenant: {tenant:?}, agent: {agent:?} }}"),
            Self::Word { tenant, agent } => write!(f, "Word {{ tenant: {tenant:?}, agent: {agent:?} }}"),
        }
    }
}

impl Proof {
    fn credentials(&self) -> Credentials {
        match self {
            Self::Token { token, .. } => Credentials::token(token.as_str()),
            Self::Key { key, agent } => Credentials::enrolment_key(key.as_str(), agent.as_str()),
            Self::Secret { tenant, agent, secret } => {
                Credentials::secret(tenant.as_str(), agent.as_str(), secret.as_str())
            }
            Self::Word { tenant, agent } => Credentials::dev(tenant.as_str(), agent.as_str()),
        }
    }
}

/// Where to connect, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where the bus is.
    pub(crate) url: String,
    /// What to prove oneself with.
    pub(crate) proof: Proof,
    /// The profile it comes from.
    pub(crate) profile: Option<String>,
    /// File with roots, when one is named.
    pub(crate) ca_file: Option<String>,
}

/// Decides where to connect and as whom.
///
/// The environment goes before the profile. A profile's key is shown to the profile's own bus only, unless the profile is
/// named beside the other address.
pub(crate) fn choose(global: &Global, secrets: &Secrets, profiles: &Profiles, need: Use) -> Result<Target> {
    let picked = profiles.pick(global.profile.as_deref());
    if let (Some(name), None) = (&global.profile, picked) {
        let sentence = format!("there is no profile {name}");
        return Err(Failure::own(Exit::NotFound, sentence, "`acb profiles ls` shows those there are"));
    }
    let given = global.ca_file.as_ref().map(|path| path.display().to_string());
    let ca_file = given.or_else(|| picked.and_then(|(_, p)| p.ca_file.clone()));
    let url = global
        .url
        .clone()
        .filter(|url| !url.is_empty())
        .or_else(|| picked.map(|(_, p)| p.url.clone()))
        .unwrap_or_else(|| URL.into());
    let trusted = picked.filter(|(_, p)| global.profile.is_some() || same_bus(&p.url, &url));
    let agent = global.agent.clone().or_else(|| trusted.map(|(_, p)| p.agent.clone()));
    let tenant = global.tenant.clone().or_else(|| trusted.map(|(_, p)| p.tenant.clone()));
    let tenant = tenant.filter(|t| !t.is_empty()).unwrap_or_else(|| TENANT.into());
    let named = |what: &str| {
        agent.clone().ok_or_else(|| {
            let hint = "name the agent with --agent or ACB_AGENT";
            Failure::own(Exit::Usage, format!("{what} is set, but no agent to be"), hint)
        })
    };
    let mut target =
        Target { url, proof: Proof::Word { tenant: tenant.clone(), agent: String::new() }, profile: None, ca_file };
    if let Some(token) = &secrets.token {
        target.proof = Proof::Token { token: token.clone(), kept: false };
    } else if let Some(key) = &secrets.key {
        target.proof = Proof::Key { key: key.clone(), agent: named("ACB_KEY")? };
    } else if let Some(secret) = &secrets.secret {
        target.proof = Proof::Secret { tenant, agent: named("ACB_SECRET")?, secret: secret.clone() };
    } else if let Some((name, profile)) = trusted.filter(|(_, p)| p.has_credentials()) {
        let agent = agent.unwrap_or_default();
        let token = profile.token(now(), SPARE_MS).filter(|_| agent == profile.agent);
        target.profile = Some(name.to_owned());
        target.proof = match (token, &profile.key, &profile.secret) {
            (Some(token), ..) if need == Use::Short => Proof::Token { token: token.to_owned(), kept: true },
            (_, Some(key), _) => Proof::Key { key: key.clone(), agent },
            (_, _, Some(secret)) => Proof::Secret { tenant, agent, secret: secret.clone() },
            (Some(token), ..) => Proof::Token { token: token.to_owned(), kept: true },
            _ => {
                let sentence = format!("the login of profile {name} has ended");
                return Err(Failure::own(Exit::Denied, sentence, "log in again with `acb login`"));
            }
        };
    } else {
        let agent = agent.unwrap_or_else(|| match need {
            Use::OwnInbox => format!("{AGENT}-{:08x}", rand::rng().random::<u32>()),
            Use::Short | Use::Long => AGENT.into(),
        });
        target.proof = Proof::Word { tenant, agent };
    }
    Ok(target)
}

fn same_bus(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

impl Target {
    /// Connects.
    pub(crate) async fn connect(&self, global: &Global) -> Result<Client> {
        self.builder(global)?.connect().await.map_err(|error| self.explain(error))
    }

    /// A client's builder for this target, for commands that set more.
    pub(crate) fn builder(&self, global: &Global) -> Result<acb_sdk::ClientBuilder> {
        let mut builder = Client::builder(self.url.as_str())
            .credentials(self.proof.credentials())
            .connect_timeout(global.connect_timeout);
        if let Some(path) = &self.ca_file {
            let pem = fs::read(path).map_err(|error| Failure::file(path.as_ref(), &error))?;
            builder = builder.tls(TlsOptions::default().root_pem(pem));
        }
        Ok(builder)
    }

    /// An error of connecting, with the address that it is about.
    pub(crate) fn explain(&self, error: acb_sdk::Error) -> Failure {
        error.with("url", self.url.as_str()).into()
    }
}

/// The target of a command, from the user's own profiles and environment.
pub(crate) fn target(global: &Global, need: Use) -> Result<Target> {
    choose(global, &Secrets::from_env(), &Store::of_user()?.load()?, need)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::profile::Profile;

    fn global() -> Global {
        Global {
            url: None,
            profile: None,
            agent: None,
            tenant: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(1),
            json: false,
            verbose: false,
        }
    }

    fn profiles(change: impl FnOnce(&mut Profile)) -> Profiles {
        let mut profile =
            Profile { url: "acb://home:1".into(), agent: "me".into(), tenant: "t".into(), ..Profile::default() };
        profile.key = Some("acb_key".into());
        change(&mut profile);
        let mut all = Profiles::default();
        all.put("home", profile);
        all
    }

    fn proof(global: &Global, secrets: &Secrets, profiles: &Profiles, need: Use) -> Proof {
        choose(global, secrets, profiles, need).unwrap().proof
    }

    #[test]
    fn without_anything_the_local_server_is_met_by_word() {
        let target = choose(&global(), &Secrets::default(), &Profiles::default(), Use::Short).unwrap();
        assert_eq!(target.url, URL);
        assert_eq!(target.proof, Proof::Word { tenant: "default".into(), agent: "acb-cli".into() });
    }

    #[test]
    fn commands_with_an_inbox_of_their_own_do_not_share_a_name() {
        let agent = || match proof(&global(), &Secrets::default(), &Profiles::default(), Use::OwnInbox) {
            Proof::Word { agent, .. } => agent,
            other => panic!("{other:?}"),
        };
        let (one, other) = (agent(), agent());
        assert!(one.starts_with("acb-cli-") && one != other, "{one} {other}");
    }

    #[test]
    fn the_environment_goes_before_the_profile() {
        let secrets = Secrets { token: Some("t".into()), key: Some("acb_env".into()), secret: None };
        let all = profiles(|_| ());
        assert_eq!(proof(&global(), &secrets, &all, Use::Short), Proof::Token { token: "t".into(), kept: false });
        let secrets = Secrets { token: None, ..secrets };
        let expected = Proof::Key { key: "acb_env".into(), agent: "me".into() };
        assert_eq!(proof(&global(), &secrets, &all, Use::Short), expected);
    }

    #[test]
    fn a_key_without_an_agent_is_refused_with_what_to_do() {
        let secrets = Secrets { key: Some("acb_env".into()), ..Secrets::default() };
        let refused = choose(&global(), &secrets, &Profiles::default(), Use::Short).unwrap_err();
        assert_eq!(refused.exit(), Exit::Usage);
        assert!(refused.to_string().contains("ACB_KEY"), "{refused}");
    }

    #[test]
    fn a_kept_token_serves_short_commands_while_it_lasts() {
        let fresh = profiles(|p| {
            p.access_token = Some("kept".into());
            p.access_expires_at_ms = u64::MAX;
        });
        let key = Proof::Key { key: "acb_key".into(), agent: "me".into() };
        assert_eq!(
            proof(&global(), &Secrets::default(), &fresh, Use::Short),
            Proof::Token { token: "kept".into(), kept: true }
        );
        assert_eq!(proof(&global(), &Secrets::default(), &fresh, Use::Long), key);
        let other = Global { agent: Some("other".into()), ..global() };
        assert!(
            matches!(proof(&other, &Secrets::default(), &fresh, Use::Short), Proof::Key { agent, .. } if agent == "other")
        );
        let stale = profiles(|p| p.access_token = Some("kept".into()));
        assert_eq!(proof(&global(), &Secrets::default(), &stale, Use::Short), key);
    }

    #[test]
    fn a_login_that_ended_asks_for_another() {
        let ended = profiles(|p| {
            p.key = None;
            p.access_token = Some("old".into());
        });
        let refused = choose(&global(), &Secrets::default(), &ended, Use::Short).unwrap_err();
        assert_eq!(refused.exit(), Exit::Denied);
    }

    #[test]
    fn a_profiles_key_is_not_shown_to_another_bus() {
        let elsewhere = Global { url: Some("acb://other:1".into()), ..global() };
        let all = profiles(|_| ());
        assert!(matches!(proof(&elsewhere, &Secrets::default(), &all, Use::Short), Proof::Word { .. }));
        let named = Global { profile: Some("home".into()), ..elsewhere };
        assert!(matches!(proof(&named, &Secrets::default(), &all, Use::Short), Proof::Key { .. }));
    }

    #[test]
    fn an_unknown_profile_is_named() {
        let named = Global { profile: Some("nope".into()), ..global() };
        let refused = choose(&named, &Secrets::default(), &Profiles::default(), Use::Short).unwrap_err();
        assert_eq!((refused.exit(), refused.to_string().as_str()), (Exit::NotFound, "there is no profile nope"));
    }
}
