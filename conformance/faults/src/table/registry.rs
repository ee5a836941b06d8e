//! Agents: what they say of themselves, whether they are there, how they are found.

use std::collections::HashMap;

use acb_proto::{CONSUME, PUBLISH_STREAM, v1};
use parking_lot::Mutex;

use super::{fault, wire};
use crate::{
    Fault,
    wire::{down, down_in, up, up_in},
};

const REGISTER: &str = "/acb.v1.AgentRegistry/RegisterAgent";
const GET: &str = "/acb.v1.AgentRegistry/GetAgent";
const UPDATE: &str = "/acb.v1.AgentRegistry/UpdateAgent";
const UNREGISTER: &str = "/acb.v1.AgentRegistry/UnregisterAgent";
const HEARTBEAT: &str = "/acb.v1.AgentRegistry/Heartbeat";
const DISCOVER: &str = "/acb.v1.AgentRegistry/DiscoverAgents";

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "incarnations-do-not-rise",
        "registering again gives the same incarnation",
        &["registering-again-is-a-new-incarnation"],
        || {
            wire([down(REGISTER, |response: &mut v1::RegisterAgentResponse| {
                response.agent.iter_mut().for_each(|agent| agent.incarnation = 1);
            })])
        },
    ),
    fault(
        "older-selves-are-not-fenced",
        "an agent's older streams go on after it registered again",
        &["newer-incarnation-fences-the-older"],
        || {
            wire([
                up(CONSUME, |frame: &mut v1::ConsumeRequest| {
                    frame.open.iter_mut().for_each(|open| open.incarnation = 0);
                }),
                up(PUBLISH_STREAM, |frame: &mut v1::PublishStreamRequest| {
                    frame.open.iter_mut().for_each(|open| open.incarnation = 0);
                }),
            ])
        },
    ),
    fault(
        "offline-agents-are-found-as-online",
        "a status that is asked for is not looked at",
        &["discover-by-status"],
        || wire([up(DISCOVER, |request: &mut v1::DiscoverAgentsRequest| request.status = 0)]),
    ),
    fault(
        "one-capability-of-all-is-enough",
        "an agent that has one of the capabilities is found where all are wanted",
        &["discover-by-capabilities"],
        || {
            wire([up(DISCOVER, |request: &mut v1::DiscoverAgentsRequest| {
                request.capabilities_any.append(&mut request.capabilities_all);
            })])
        },
    ),
    fault(
        "another-tenants-agents-are-shown",
        "a search finds agents of other tenants",
        &["foreign-tenants-see-nothing"],
        || {
            let known: Mutex<Vec<(String, v1::Agent)>> = Mutex::default();
            let known = std::sync::Arc::new(known);
            let told = std::sync::Arc::clone(&known);
            wire([
                down_in(REGISTER, move |conversation, response: &mut v1::RegisterAgentResponse| {
                    let agents = response.agent.clone().map(|agent| (conversation.tenant.clone(), agent));
                    known.lock().extend(agents);
                }),
                down_in(DISCOVER, move |conversation, response: &mut v1::DiscoverAgentsResponse| {
                    let told = told.lock();
                    let others = told.iter().filter(|(tenant, _)| *tenant != conversation.tenant);
                    response.agents.extend(others.map(|(_, agent)| agent.clone()));
                }),
            ])
        },
    ),
    fault(
        "stale-page-tokens-are-taken",
        "a page token of another search goes on with that search",
        &["discovery-comes-in-pages"],
        || {
            let searches: Mutex<HashMap<String, v1::DiscoverAgentsRequest>> = Mutex::default();
            let searches = std::sync::Arc::new(searches);
            let noted = std::sync::Arc::clone(&searches);
            wire([
                up_in(DISCOVER, move |_, request: &mut v1::DiscoverAgentsRequest| {
                    if let Some(search) = searches.lock().get(&request.page_token) {
                        let page_token = std::mem::take(&mut request.page_token);
                        *request = v1::DiscoverAgentsRequest { page_token, ..search.clone() };
                    }
                }),
                down_in(DISCOVER, move |conversation, response: &mut v1::DiscoverAgentsResponse| {
                    noted.lock().insert(response.next_page_token.clone(), conversation.request());
                }),
            ])
        },
    ),
    fault(
        "updates-replace-everything",
        "an update changes fields that it does not name",
        &["update-changes-what-is-named"],
        || wire([up(UPDATE, |request: &mut v1::UpdateAgentRequest| request.fields.clear())]),
    ),
    fault(
        "inboxes-outlive-their-agents",
        "an agent that left finds its old messages",
        &["unregistering-cleans-up"],
        || wire([up(UNREGISTER, |request: &mut v1::UnregisterAgentRequest| request.keep_inbox = true)]),
    ),
    fault("kept-inboxes-are-emptied", "an inbox that was to be kept is gone", &["inbox-can-be-kept"], || {
        wire([up(UNREGISTER, |request: &mut v1::UnregisterAgentRequest| request.keep_inbox = false)])
    }),
    fault(
        "nobody-is-ever-offline",
        "an agent that went away is shown as online",
        &["broken-connection-goes-offline-after-the-grace", "heartbeats-keep-an-agent-online"],
        || {
            wire([down(GET, |response: &mut v1::GetAgentResponse| {
                if let Some(agent) = &mut response.agent
                    && agent.status() == v1::AgentStatus::Offline
                {
                    agent.set_status(v1::AgentStatus::Online);
                }
            })])
        },
    ),
    fault(
        "older-selves-keep-an-agent-alive",
        "a heartbeat of an older incarnation is taken",
        &["heartbeat-of-an-older-incarnation-is-refused"],
        || wire([up(HEARTBEAT, |request: &mut v1::HeartbeatRequest| request.incarnation = 0)]),
    ),
    fault(
        "bad-names-are-mended",
        "an id outside its grammar is registered as another",
        &["bad-specs-are-refused"],
        || {
            wire([up(REGISTER, |request: &mut v1::RegisterAgentRequest| {
                request.spec.iter_mut().for_each(|spec| spec.id = spec.id.to_lowercase().replace(' ', "-"));
            })])
        },
    ),
];
