//! A registration that a command needs for itself: replies and inboxes come to registered agents only.

use acb_sdk::{Client, ErrorCode};

use crate::{
    connect::{Proof, Target},
    failure::{Failure, Result},
};

/// The command's own agent on the bus.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Its id.
    pub(crate) agent: String,
    /// Whether it goes when the command ends: its name was made up for it.
    temporary: bool,
}

impl Guest {
    /// Makes sure that the client's agent is registered. One that is keeps its registration: to register again would
    /// fence whoever runs under that name.
    pub(crate) async fn of(client: &Client, target: &Target, named: bool) -> Result<Self> {
        let agent = client.agent_id().ok_or_else(|| Failure::usage("no agent is named: add --agent, or log in"))?;
        match client.agents().get(&agent).await {
            Ok(_) => {}
            Err(error) if error.code() == ErrorCode::AgentNotFound => {
                client.agents().register(&agent).kind("acb").description("the command line").await?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Self { agent, temporary: !named && matches!(target.proof, Proof::Word { .. }) })
    }

    /// Leaves nothing behind.
    pub(crate) async fn leave(self, client: &Client) {
        if self.temporary {
            // Nobody knows the name; if this fails it expires.
            let _ = client.agents().unregister(&self.agent).await;
        }
    }
}
