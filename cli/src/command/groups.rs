//! `acb groups`: who contexts of the scope group are for. Needs the role admin.

use acb_sdk::Group;
use clap::Subcommand;
use serde_json::{Value, json};

use super::Context;
use crate::{
    connect::Use,
    failure::Result,
    output::{Table, age, when_json},
};

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupsCommand {
    /// Makes a group. The same again changes nothing.
    Create {
        /// Its name.
        name: String,
        /// For people.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Lists all.
    #[command(visible_alias = "list")]
    Ls,
    /// Ends one, with its memberships. What is not there is no error.
    Rm {
        /// Its name.
        name: String,
    },
    /// Puts agents into one.
    Add {
        /// Its name.
        name: String,
        /// The agents.
        #[arg(required = true)]
        agents: Vec<String>,
    },
    /// Takes agents out of one.
    Remove {
        /// Its name.
        name: String,
        /// The agents.
        #[arg(required = true)]
        agents: Vec<String>,
    },
    /// Lists who is in one.
    Members {
        /// Its name.
        name: String,
    },
}

pub(crate) async fn run(command: GroupsCommand, context: &Context) -> Result {
    let client = context.connect(Use::Short).await?;
    let admin = client.admin();
    let count = |group: &Group| format!("{} has {} members", group.name, group.members);
    match command {
        GroupsCommand::Create { name, description } => {
            let group = admin.create_group(name, description).await?;
            context.out.result(|| to_json(&group), || format!("{} is there", group.name))?;
        }
        GroupsCommand::Ls => {
            let all = admin.groups().all().await?;
            let mut table = Table::new(&["NAME", "MEMBERS#", "DESCRIPTION", "AGE"]);
            for one in &all {
                let members = one.members.to_string();
                table.row([one.name.clone(), members, one.description.clone(), age(one.created_at)]);
            }
            context.out.rows(all.iter().map(to_json), table.or("no groups"))?;
        }
        GroupsCommand::Rm { name } => {
            admin.delete_group(&name).await?;
            context.out.result(|| json!({ "name": name, "removed": true }), || format!("{name} is gone"))?;
        }
        GroupsCommand::Add { name, agents } => {
            let group = admin.add_group_members(name, agents).await?;
            context.out.result(|| to_json(&group), || count(&group))?;
        }
        GroupsCommand::Remove { name, agents } => {
            let group = admin.remove_group_members(name, agents).await?;
            context.out.result(|| to_json(&group), || count(&group))?;
        }
        GroupsCommand::Members { name } => {
            let all = admin.group_members(name).all().await?;
            let mut table = Table::new(&["AGENT", "SINCE"]);
            for one in &all {
                table.row([one.agent_id.clone(), age(one.since)]);
            }
            let rows = all.iter().map(|m| json!({ "agent_id": m.agent_id, "since": when_json(m.since) }));
            context.out.rows(rows, table.or("no members"))?;
        }
    }
    client.close().await;
    Ok(())
}

fn to_json(one: &Group) -> Value {
    json!({
        "name": one.name,
        "description": one.description,
        "members": one.members,
        "created_at": when_json(one.created_at),
        "created_by": one.created_by,
        "revision": one.revision,
    })
}
