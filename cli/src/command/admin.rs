//! `acb admin`: tenants, keys and secrets. What is made is shown this once.

use std::time::Duration;

use acb_sdk::{EnrolmentKey, KeySpec, Tenant};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use crate::{
    connect::Use,
    failure::Result,
    output::{Table, age, when, when_json},
};

/// What admins can do.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Tenants: walls that nothing crosses.
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Enrolment keys: what agents log in with.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Gives an agent a new secret, shows it this once, and ends tokens of the old one.
    SetSecret {
        /// The agent; it need not be registered.
        agent: String,
        /// A role that its tokens get [default: agent-full]; again for more.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// Makes a new signing key for tokens; those of the old one stay good until they end.
    RotateSigningKey,
}

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// Makes a tenant.
    Create {
        /// Its id.
        id: String,
        /// Its name for people.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// Lists all.
    #[command(visible_alias = "list")]
    Ls,
}

/// What can be done with enrolment keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Makes a key, and shows it this once.
    Create(CreateKeyArgs),
    /// Lists the tenant's keys, oldest first, without what is secret of them.
    #[command(visible_alias = "list")]
    Ls,
    /// Ends a key, and all tokens that came of it.
    Revoke {
        /// The key's id.
        id: String,
    },
}

/// What a key is to be.
#[derive(Args, Debug)]
pub(crate) struct CreateKeyArgs {
    /// For people.
    #[arg(long, default_value = "")]
    label: String,
    /// Agents that it may be: an id, or a prefix and `*` [default: any].
    #[arg(long = "agents", value_name = "PATTERN", default_value = "")]
    agents: String,
    /// A role that its tokens get [default: agent-full]; again for more. Roles: admin, agent-producer, agent-consumer,
    /// agent-full, observer.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// How long it lives [default: for ever].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// For another tenant than your own.
    #[arg(long = "for-tenant", value_name = "ID", default_value = "")]
    for_tenant: String,
    /// Prints the key and nothing else.
    #[arg(long)]
    raw: bool,
}

pub(crate) async fn run(command: AdminCommand, context: &Context) -> Result {
    let client = context.connect(Use::Short).await?;
    let admin = client.admin();
    let out = context.out;
    match command {
        AdminCommand::Tenants(TenantsCommand::Create { id, name }) => {
            let tenant = admin.create_tenant(id, name).await?;
            out.result(|| tenant_json(&tenant), || format!("tenant {} is made", tenant.id))?;
        }
        AdminCommand::Tenants(TenantsCommand::Ls) => {
            let all = admin.tenants().all().await?;
            let mut table = Table::new(&["ID", "NAME", "AGE"]).or("no tenants");
            for tenant in &all {
                table.row([tenant.id.clone(), tenant.name.clone(), age(tenant.created_at)]);
            }
            out.rows(all.iter().map(tenant_json), table)?;
        }
        AdminCommand::Keys(KeysCommand::Create(args)) => create_key(args, &admin, context).await?,
        AdminCommand::Keys(KeysCommand::Ls) => {
            let all = admin.enrolment_keys().all().await?;
            let mut table = Table::new(&["ID", "LABEL", "AGENTS", "ROLES", "AGE", "ENDS"]).or("no keys");
            for key in &all {
                let ends = if key.revoked { "revoked".to_owned() } else { when(key.expires_at) };
                table.row([
                    key.id.clone(),
                    key.label.clone(),
                    any(&key.agent_pattern),
                    key.roles.join(" "),
                    age(key.created_at),
                    ends,
                ]);
            }
            out.rows(all.iter().map(key_json), table)?;
        }
        AdminCommand::Keys(KeysCommand::Revoke { id }) => {
            admin.revoke_enrolment_key(&id).await?;
            out.result(|| json!({ "id": id, "revoked": true }), || format!("key {id} is revoked"))?;
        }
        AdminCommand::SetSecret { agent, roles } => {
            let secret = admin.set_agent_secret(&agent, roles).await?;
            out.note(&format!("the new secret of {agent}, shown this once:"));
            out.result(|| json!({ "agent": agent, "secret": secret }), || secret.clone())?;
        }
        AdminCommand::RotateSigningKey => {
            let id = admin.rotate_signing_key().await?;
            out.result(|| json!({ "key_id": id }), || format!("tokens are signed with key {id} from now on"))?;
        }
    }
    client.close().await;
    Ok(())
}

async fn create_key(args: CreateKeyArgs, admin: &acb_sdk::Admin, context: &Context) -> Result {
    let mut spec = KeySpec::new(args.label).agent_pattern(args.agents).tenant(args.for_tenant);
    for role in args.roles {
        spec = spec.role(role);
    }
    if let Some(ttl) = args.ttl {
        spec = spec.ttl(ttl);
    }
    let made = admin.create_enrolment_key(spec).await?;
    if args.raw {
        return context.out.raw(made.secret.as_bytes());
    }
    let agents = any(&made.key.agent_pattern);
    context.out.note(&format!("key {} for {agents} ({}), shown this once:", made.key.id, made.key.roles.join(" ")));
    let object = || {
        let mut object = key_json(&made.key);
        object["enrolment_key"] = made.secret.as_str().into();
        object
    };
    context.out.result(object, || made.secret.clone())
}

fn any(pattern: &str) -> String {
    if pattern.is_empty() { "*".into() } else { pattern.into() }
}

fn tenant_json(tenant: &Tenant) -> Value {
    json!({ "id": tenant.id, "name": tenant.name, "created_at": when_json(tenant.created_at) })
}

fn key_json(key: &EnrolmentKey) -> Value {
    json!({
        "id": key.id,
        "label": key.label,
        "agent_pattern": key.agent_pattern,
        "roles": key.roles,
        "created_at": when_json(key.created_at),
        "expires_at": when_json(key.expires_at),
        "revoked": key.revoked,
    })
}
