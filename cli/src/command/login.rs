//! `acb login` and `acb logout`.
//!
//! A profile keeps the key or secret that it was made with, readable by its owner only, and the access token of its last
//! login. Refresh tokens are not kept: each works once, and commands that run side by side would take it from each other.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use acb_sdk::Client;
use clap::Args;
use serde_json::json;

use super::Context;
use crate::{
    connect::{Proof, Secrets, Target, Use, choose, target},
    exit::Exit,
    failure::{Failure, Result},
    profile::{DEFAULT, Profile, Profiles, Store},
};

/// Longest key or secret that is read.
const SECRET_BYTES_MAX: u64 = 4096;

/// What `login` takes. The key comes from ACB_KEY, a file, a pipe or a prompt: never from an argument, which others on the
/// machine could see.
#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// File with the enrolment key or secret; `-` is standard input [default: ACB_KEY or ACB_SECRET, else a prompt].
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,

    /// What is read is an agent's secret, not an enrolment key.
    #[arg(long)]
    secret: bool,
}

pub(crate) async fn run(args: LoginArgs, context: &Context) -> Result {
    let name = context.global.profile.clone().unwrap_or_else(|| DEFAULT.to_owned());
    let store = Store::of_user()?;
    let known = store.load()?.profiles.get(&name).cloned().unwrap_or_default();
    let target = wanted(&args, context, &known)?;
    let client = target.connect(&context.global).await?;
    let identity = client.identity().unwrap_or_default();
    let mut profile = Profile {
        url: target.url.clone(),
        agent: identity.agent_id.clone(),
        tenant: identity.tenant_id.clone(),
        ca_file: target.ca_file.clone(),
        ..Profile::default()
    };
    match target.proof {
        Proof::Key { key, .. } => profile.key = Some(key),
        Proof::Secret { secret, .. } => profile.secret = Some(secret),
        Proof::Token { .. } | Proof::Word { .. } => {}
    }
    remember(&mut profile, &client);
    client.close().await;
    store.change(|all| {
        all.put(&name, profile);
        Ok(())
    })?;
    let roles = identity.roles.join(" ");
    context.out.result(
        || json!({ "profile": name, "url": target.url, "agent": identity.agent_id, "tenant": identity.tenant_id, "roles": identity.roles }),
        || format!("logged in to {} as {} (tenant {}, {roles}); profile {name}", target.url, identity.agent_id, identity.tenant_id),
    )
}

/// Where to log in, and with what.
fn wanted(args: &LoginArgs, context: &Context, known: &Profile) -> Result<Target> {
    let mut global = context.global.clone();
    // The profile that is being written is no profile to log in with; its address and agent are good defaults.
    global.profile = None;
    global.url = global.url.or_else(|| Some(known.url.clone()).filter(|url| !url.is_empty()));
    global.agent = global.agent.or_else(|| Some(known.agent.clone()).filter(|agent| !agent.is_empty()));
    if global.agent.is_none() {
        return Err(Failure::own(Exit::Usage, "no agent to log in as", "name it with --agent or ACB_AGENT"));
    }
    let env = Secrets::from_env();
    let given = if args.key_file.is_some() || (env.key.is_none() && env.secret.is_none()) {
        let text = read(args)?;
        if args.secret || !text.starts_with("acb_") {
            Secrets { secret: Some(text), ..Secrets::default() }
        } else {
            Secrets { key: Some(text), ..Secrets::default() }
        }
    } else {
        Secrets { token: None, ..env }
    };
    choose(&global, &given, &Profiles::default(), Use::Long)
}

fn read(args: &LoginArgs) -> Result<String> {
    let mut text = String::new();
    match &args.key_file {
        Some(path) if path.as_os_str() != "-" => {
            let file = std::fs::File::open(path).map_err(|error| Failure::file(path, &error))?;
            file.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(|error| Failure::file(path, &error))?;
        }
        None if io::stdin().is_terminal() => {
            eprint!("enrolment key or secret: ");
            io::stderr().flush()?;
            let _quiet = NoEcho::start();
            io::stdin().lock().take(SECRET_BYTES_MAX).read_line(&mut text)?;
        }
        _ => {
            io::stdin().lock().take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
        }
    }
    let text = text.trim();
    if text.is_empty() {
        let hint = "set ACB_KEY, name a file with --key-file, or pipe it in";
        return Err(Failure::own(Exit::Usage, "there is no key", hint));
    }
    Ok(text.to_owned())
}

/// Keeps a terminal from showing what is typed.
struct NoEcho;

impl NoEcho {
    fn start() -> Self {
        Self::set("-echo");
        Self
    }

    fn set(mode: &str) {
        // Where there is no stty, the key shows as it is typed.
        let _ = Command::new("stty").arg(mode).stdin(Stdio::inherit()).stderr(Stdio::null()).status();
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        Self::set("echo");
        eprintln!();
    }
}

/// Keeps the client's access token with a profile.
fn remember(profile: &mut Profile, client: &Client) {
    if let Some(tokens) = client.auth().tokens().filter(|tokens| !tokens.access_token.is_empty()) {
        profile.access_expires_at_ms = tokens.identity.access_expires_at.0;
        profile.roles = tokens.identity.roles;
        profile.access_token = Some(tokens.access_token);
    }
}

/// Keeps the token of a client that had to log in, so that the next command need not.
pub(crate) fn keep_token(target: &Target, client: &Client) {
    let (Some(name), Proof::Key { agent, .. } | Proof::Secret { agent, .. }) = (&target.profile, &target.proof) else {
        return;
    };
    // The command works without; the next one logs in again.
    let _ = Store::of_user().and_then(|store| {
        store.change(|all| {
            if let Some(profile) = all.profiles.get_mut(name).filter(|profile| profile.agent == *agent) {
                remember(profile, client);
            }
            Ok(())
        })
    });
}

/// Forgets a kept token that the bus refused.
pub(crate) fn forget_token(target: &Target) {
    let Some(name) = &target.profile else { return };
    let _ = Store::of_user().and_then(|store| {
        store.change(|all| {
            if let Some(profile) = all.profiles.get_mut(name) {
                profile.access_token = None;
                profile.access_expires_at_ms = 0;
            }
            Ok(())
        })
    });
}

pub(crate) async fn logout(context: &Context) -> Result {
    let store = Store::of_user()?;
    let all = store.load()?;
    let Some((name, _)) = all.pick(context.global.profile.as_deref()) else {
        let sentence = match &context.global.profile {
            Some(name) => format!("there is no profile {name}"),
            None => "no profile is logged in".to_owned(),
        };
        return Err(Failure::own(Exit::NotFound, sentence, "`acb profiles ls` shows those there are"));
    };
    let name = name.to_owned();
    // The token that is kept ends on the bus too. One that cannot be reached must not keep the user from forgetting.
    let ended = async {
        let client = target(&context.global, Use::Short)?.connect(&context.global).await?;
        client.auth().logout().await?;
        client.close().await;
        Ok::<_, Failure>(())
    };
    let ended = ended.await;
    store.change(|all| {
        if let Some(profile) = all.profiles.remove(&name) {
            all.profiles.insert(name.clone(), profile.without_credentials());
        }
        Ok(())
    })?;
    if let Err(error) = &ended {
        context.out.note(&format!("note: the key is forgotten here, but the bus was not told: {error}"));
    }
    context.out.result(|| json!({ "profile": name, "logged_out": true }), || format!("logged out of profile {name}"))
}
