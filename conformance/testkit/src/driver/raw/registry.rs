//! Agents and subscriptions.

use acb_proto::v1;
use serde_json::{Value, json};

use super::{
    RawDriver,
    build::{agent_spec, subscription},
};
use crate::{
    driver::{Args, args::BAD_SCENARIO, shape},
    raw::{Failure, answer},
};

impl RawDriver {
    pub(super) async fn register(&mut self, args: &Args) -> Result<Value, Failure> {
        let spec = agent_spec(args, &self.place.agent)?;
        let own = spec.id == self.place.agent;
        let request = v1::RegisterAgentRequest { spec: Some(spec) };
        let registered = answer(self.client().await?.agents().register_agent(request)).await?;
        let agent = registered.agent.unwrap_or_default();
        if own {
            self.incarnation = agent.incarnation;
        }
        Ok(shape::agent(&agent))
    }

    pub(super) async fn get_agent(&mut self, args: &Args) -> Result<Value, Failure> {
        let agent_id = args.text("id")?.unwrap_or_else(|| self.place.agent.clone());
        let request = v1::GetAgentRequest { agent_id };
        let found = answer(self.client().await?.agents().get_agent(request)).await?;
        Ok(shape::agent(&found.agent.unwrap_or_default()))
    }

    pub(super) async fn update_agent(&mut self, args: &Args) -> Result<Value, Failure> {
        let spec = Some(agent_spec(args, &self.place.agent)?);
        let request = v1::UpdateAgentRequest { spec, fields: args.texts("fields")? };
        let updated = answer(self.client().await?.agents().update_agent(request)).await?;
        Ok(shape::agent(&updated.agent.unwrap_or_default()))
    }

    pub(super) async fn unregister(&mut self, args: &Args) -> Result<Value, Failure> {
        let agent_id = args.text("id")?.unwrap_or_else(|| self.place.agent.clone());
        if agent_id == self.place.agent {
            self.incarnation = 0;
        }
        let request = v1::UnregisterAgentRequest { agent_id, keep_inbox: args.flag("keep_inbox")? };
        answer(self.client().await?.agents().unregister_agent(request)).await?;
        Ok(Value::Null)
    }

    pub(super) async fn heartbeat(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::HeartbeatRequest {
            agent_id: args.text("id")?.unwrap_or_else(|| self.place.agent.clone()),
            incarnation: args.number_or("incarnation", self.incarnation)?,
            ..Default::default()
        };
        let beat = answer(self.client().await?.agents().heartbeat(request)).await?;
        Ok(json!({ "next_within_ms": beat.next_within_ms }))
    }

    pub(super) async fn discover(&mut self, args: &Args) -> Result<Value, Failure> {
        use v1::AgentStatus as S;
        let status = match args.text("status")?.as_deref() {
            None => S::Unspecified,
            Some("online") => S::Online,
            Some("offline") => S::Offline,
            Some("unknown") => S::Unknown,
            Some(other) => return Err(Failure::own(BAD_SCENARIO, format!("no status is called {other}"))),
        };
        let request = v1::DiscoverAgentsRequest {
            r#type: args.text_or_empty("type")?,
            location: args.text_or_empty("location")?,
            capabilities_all: args.texts("capabilities_all")?,
            capabilities_any: args.texts("capabilities_any")?,
            status: status as i32,
            metadata: args.pairs("metadata")?.into_iter().collect(),
            text: args.text_or_empty("text")?,
            page_size: args.small_or("page_size", 0)?,
            page_token: args.text_or_empty("page_token")?,
        };
        Ok(shape::agents(&answer(self.client().await?.agents().discover_agents(request)).await?))
    }

    pub(super) async fn create_subscription(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::CreateSubscriptionRequest { spec: Some(subscription(args)?) };
        let created = answer(self.client().await?.subscriptions().create_subscription(request)).await?;
        let mut shown = shape::subscription(&created.subscription.unwrap_or_default());
        shown["existed"] = created.existed.into();
        Ok(shown)
    }

    pub(super) async fn get_subscription(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::GetSubscriptionRequest { name: args.need("name")? };
        let found = answer(self.client().await?.subscriptions().get_subscription(request)).await?;
        Ok(shape::subscription(&found.subscription.unwrap_or_default()))
    }

    pub(super) async fn list_subscriptions(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::ListSubscriptionsRequest {
            page_size: args.small_or("page_size", 0)?,
            page_token: args.text_or_empty("page_token")?,
        };
        let page = answer(self.client().await?.subscriptions().list_subscriptions(request)).await?;
        let subscriptions: Vec<Value> = page.subscriptions.iter().map(shape::subscription).collect();
        let names: Vec<Value> = subscriptions.iter().map(|s| s["name"].clone()).collect();
        Ok(json!({"subscriptions": subscriptions, "names": names, "next_page_token": page.next_page_token}))
    }

    pub(super) async fn delete_subscription(&mut self, args: &Args) -> Result<Value, Failure> {
        let request = v1::DeleteSubscriptionRequest { name: args.need("name")? };
        answer(self.client().await?.subscriptions().delete_subscription(request)).await?;
        Ok(Value::Null)
    }
}
