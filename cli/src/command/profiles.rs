//! `acb profiles`: buses the user knows.

use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::{
    exit::Exit,
    failure::{Failure, Result},
    output::Table,
    profile::Store,
};

/// What can be done with profiles.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfilesCommand {
    /// Lists them; the current one has a star.
    #[command(visible_alias = "list")]
    Ls,
    /// Makes one the current one.
    Use {
        /// Its name.
        name: String,
    },
    /// Forgets one, with its key.
    Rm {
        /// Its name.
        name: String,
    },
}

pub(crate) fn run(command: ProfilesCommand, context: &Context) -> Result {
    let store = Store::of_user()?;
    match command {
        ProfilesCommand::Ls => {
            let all = store.load()?;
            let mut table = Table::new(&["", "NAME", "URL", "AGENT", "TENANT", "LOGIN"]);
            let mut objects = Vec::new();
            for (name, profile) in &all.profiles {
                let current = *name == all.current;
                let login = match (&profile.key, &profile.secret, &profile.access_token) {
                    (Some(_), ..) => "key",
                    (_, Some(_), _) => "secret",
                    (_, _, Some(_)) => "token",
                    _ => "none",
                };
                table.row([
                    if current { "*" } else { "" }.to_owned(),
                    name.clone(),
                    profile.url.clone(),
                    profile.agent.clone(),
                    profile.tenant.clone(),
                    login.to_owned(),
                ]);
                objects.push(json!({
                    "name": name,
                    "current": current,
                    "url": profile.url,
                    "agent": profile.agent,
                    "tenant": profile.tenant,
                    "roles": profile.roles,
                    "login": login,
                }));
            }
            context.out.rows(objects, table.or("no profiles; `acb login` makes one"))
        }
        ProfilesCommand::Use { name } => {
            store.change(|all| {
                if !all.profiles.contains_key(&name) {
                    return Err(absent(&name));
                }
                all.current.clone_from(&name);
                Ok(())
            })?;
            context.out.result(|| json!({ "name": name, "current": true }), || format!("{name} is the current profile"))
        }
        ProfilesCommand::Rm { name } => {
            store.change(|all| if all.remove(&name) { Ok(()) } else { Err(absent(&name)) })?;
            context.out.result(|| json!({ "name": name, "removed": true }), || format!("{name} is forgotten"))
        }
    }
}

fn absent(name: &str) -> Failure {
    Failure::own(Exit::NotFound, format!("there is no profile {name}"), "`acb profiles ls` shows those there are")
}
