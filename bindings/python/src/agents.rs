//! Agents: register, look up, change, search.

use acb_sdk::{Agent, AgentActivity, AgentCapability, AgentSpec, AgentStatus};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    call::{Call, nothing, timeout, within},
    client::NativeClient,
    convert::{Options, list, make, page, time},
    error::OrRaise as _,
};

/// An agent as `acb_sdk.Agent`.
pub(crate) fn give(py: Python<'_>, agent: Agent) -> PyResult<Py<PyAny>> {
    let spec = agent.spec;
    let capabilities = list(py, spec.capabilities, |py, c| {
        make(py, "Capability", |f| {
            f.set_item("name", c.name)?;
            f.set_item("version", c.version)?;
            f.set_item("input_schema", c.input_schema)?;
            f.set_item("output_schema", c.output_schema)
        })
    })?;
    make(py, "Agent", |f| {
        f.set_item("id", spec.id)?;
        f.set_item("type", spec.kind)?;
        f.set_item("name", spec.name)?;
        f.set_item("description", spec.description)?;
        f.set_item("version", spec.version)?;
        f.set_item("location", spec.location)?;
        f.set_item("capabilities", capabilities)?;
        f.set_item("endpoint", spec.endpoint)?;
        f.set_item("groups", spec.groups)?;
        f.set_item("metadata", spec.metadata)?;
        f.set_item("incarnation", agent.incarnation)?;
        f.set_item("status", agent.status.name())?;
        f.set_item("presence", agent.presence.name())?;
        f.set_item("activity", agent.activity.map(AgentActivity::name))?;
        f.set_item("activity_until", time(py, agent.activity_until)?)?;
        f.set_item("registered_at", time(py, agent.registered_at)?)?;
        f.set_item("updated_at", time(py, agent.updated_at)?)?;
        f.set_item("last_seen_at", time(py, agent.last_seen_at)?)?;
        f.set_item("revision", agent.revision)
    })
}

fn capability(py: Python<'_>, operation: &'static str, given: &Bound<'_, PyDict>) -> PyResult<AgentCapability> {
    let o = Options::new(py, operation, Some(given));
    let mut capability = AgentCapability::new(o.text("name")?.unwrap_or_default());
    if let Some(version) = o.text("version")? {
        capability = capability.version(version);
    }
    if let Some(schema) = o.text("input_schema")? {
        capability = capability.input_schema(schema);
    }
    if let Some(schema) = o.text("output_schema")? {
        capability = capability.output_schema(schema);
    }
    Ok(capability)
}

/// Sets what is given, on either of the core's two builders.
macro_rules! fill {
    ($py:ident, $o:ident, $operation:ident, $builder:ident) => {
        if let Some(text) = $o.text("type")? {
            $builder = $builder.kind(text);
        }
        if let Some(text) = $o.text("name")? {
            $builder = $builder.name(text);
        }
        if let Some(text) = $o.text("description")? {
            $builder = $builder.description(text);
        }
        if let Some(text) = $o.text("version")? {
            $builder = $builder.version(text);
        }
        if let Some(text) = $o.text("location")? {
            $builder = $builder.location(text);
        }
        if let Some(text) = $o.text("endpoint")? {
            $builder = $builder.endpoint(text);
        }
        for given in $o.each("capabilities")?.unwrap_or_default() {
            $builder = $builder.capability(capability($py, $operation, &given)?);
        }
        for group in $o.texts("groups")?.unwrap_or_default() {
            $builder = $builder.group(group);
        }
        for (name, value) in $o.pairs("metadata")?.unwrap_or_default() {
            $builder = $builder.metadata(name, value);
        }
    };
}

#[pymethods]
impl NativeClient {
    fn agents_register(
        &self,
        py: Python<'_>,
        id: String,
        fields: &Bound<'_, PyDict>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "agents.register";
        let client = self.core(py, operation)?;
        let timeout = timeout(py, operation, seconds)?;
        let o = Options::new(py, operation, Some(fields));
        let mut builder = client.agents().register(id.as_str()).spec(AgentSpec { id, ..AgentSpec::default() });
        fill!(py, o, operation, builder);
        Ok(Call::new(operation, within(timeout, builder.send()), give))
    }

    fn agents_update(
        &self,
        py: Python<'_>,
        id: String,
        fields: &Bound<'_, PyDict>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "agents.update";
        let client = self.core(py, operation)?;
        let timeout = timeout(py, operation, seconds)?;
        let o = Options::new(py, operation, Some(fields));
        let mut builder = client.agents().update(id);
        // A list or map that is given replaces the one that is there, also by an empty one.
        if o.each("capabilities")?.is_some() {
            builder = builder.no_capabilities();
        }
        if o.pairs("metadata")?.is_some() {
            builder = builder.no_metadata();
        }
        fill!(py, o, operation, builder);
        Ok(Call::new(operation, within(timeout, builder.send()), give))
    }

    fn agents_get(&self, py: Python<'_>, id: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "agents.get";
        let agents = self.core(py, operation)?.agents();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, agents.get(id)).await }, give))
    }

    fn agents_unregister(&self, py: Python<'_>, id: String, keep_inbox: bool, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "agents.unregister";
        let agents = self.core(py, operation)?.agents();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move {
            if keep_inbox {
                within(timeout, agents.unregister_keeping_inbox(id)).await
            } else {
                within(timeout, agents.unregister(id)).await
            }
        };
        Ok(Call::new(operation, work, nothing))
    }

    fn agents_heartbeat(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "agents.heartbeat";
        let agents = self.core(py, operation)?.agents();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, agents.heartbeat()).await }, |py, next| {
            Ok(next.as_secs_f64().into_pyobject(py)?.into_any().unbind())
        }))
    }

    fn agents_page(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyDict>,
        size: u32,
        token: String,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "agents.discover";
        let client = self.core(py, operation)?;
        let timeout = timeout(py, operation, seconds)?;
        let o = Options::new(py, operation, Some(query));
        let mut search = client.agents().discover();
        if let Some(kind) = o.text("type")? {
            search = search.kind(kind);
        }
        if let Some(location) = o.text("location")? {
            search = search.location(location);
        }
        for name in o.texts("capabilities")?.unwrap_or_default() {
            search = search.capability(name);
        }
        for name in o.texts("any_capability")?.unwrap_or_default() {
            search = search.any_capability(name);
        }
        for (name, value) in o.pairs("metadata")?.unwrap_or_default() {
            search = search.metadata(name, value);
        }
        if let Some(text) = o.text("text")? {
            search = search.text(text);
        }
        let statuses = [AgentStatus::Online, AgentStatus::Offline, AgentStatus::Unknown];
        if let Some(status) = o.word("status", statuses, |s| s.name())? {
            search = search.status(status);
        }
        let work = async move { within(timeout, search.page(size, token)).await };
        Ok(Call::new(operation, work, |py, found| page(py, found, give)))
    }

    fn agent_id(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.client.get("client.agent_id").or_raise(py)?.agent_id())
    }
}
