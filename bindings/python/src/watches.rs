//! Watches of contexts and of agents: events pulled by whoever reads.

use acb_kit::{Watch, Watched};
use acb_sdk::{AgentActivity, AgentEvent, AgentWatch, ContextEvent, ContextWatch};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

use crate::{
    agents,
    call::{Call, limited, nothing, span, timeout, within},
    client::NativeClient,
    contexts,
    convert::{Options, make},
    error::OrRaise as _,
};

const NEXT: &str = "watch.next";

/// Events that came: a list, empty when nothing is here now, `None` when nothing ever comes again.
fn take<'py, W: Watched>(
    py: Python<'py>,
    watch: &Watch<W>,
    max: usize,
    give: impl Fn(Python<'_>, W::Event, u64) -> PyResult<Option<Py<PyAny>>>,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let Some(batch) = watch.take(max).or_raise(py)? else { return Ok(None) };
    let out = PyList::empty(py);
    for (event, revision) in batch {
        if let Some(event) = give(py, event, revision)? {
            out.append(event)?;
        }
    }
    Ok(Some(out))
}

fn ready<W: Watched>(py: Python<'_>, watch: &Watch<W>, seconds: Option<f64>) -> PyResult<Call> {
    let timeout = timeout(py, NEXT, seconds)?;
    Ok(Call::new(NEXT, limited(NEXT, timeout, watch.ready()), nothing))
}

/// An open watch of contexts.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct NativeContextWatch(Watch<ContextWatch>);

#[pymethods]
impl NativeContextWatch {
    /// Takes what is here, up to `max` events.
    fn take<'py>(&self, py: Python<'py>, max: usize) -> PyResult<Option<Bound<'py, PyList>>> {
        take(py, &self.0, max, |py, event, revision| {
            let kind = match &event {
                ContextEvent::State(_) => "state",
                ContextEvent::Synced(_) => "synced",
                ContextEvent::Created(_) => "created",
                ContextEvent::Updated(_) => "updated",
                ContextEvent::Deleted(_) => "deleted",
                ContextEvent::Expired(_) => "expired",
                ContextEvent::Restarted => "restarted",
                // One that this version has no word for.
                _ => return Ok(None),
            };
            let context = event.context().cloned().map(|c| contexts::give(py, c)).transpose()?;
            make(py, "ContextEvent", |f| {
                f.set_item("kind", kind)?;
                f.set_item("context", context)?;
                f.set_item("revision", revision)
            })
            .map(Some)
        })
    }

    /// Is done when `take` has something to say. Giving it up loses nothing.
    fn ready(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        ready(py, &self.0, seconds)
    }

    /// Ends it. May be called twice.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

/// An open watch of agents.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct NativeAgentWatch(Watch<AgentWatch>);

#[pymethods]
impl NativeAgentWatch {
    /// Takes what is here, up to `max` events.
    fn take<'py>(&self, py: Python<'py>, max: usize) -> PyResult<Option<Bound<'py, PyList>>> {
        take(py, &self.0, max, |py, event, revision| {
            let (kind, id, agent) = match event {
                AgentEvent::State(agent) => ("state", None, Some(agent)),
                AgentEvent::Synced(_) => ("synced", None, None),
                AgentEvent::Changed(agent) => ("changed", None, Some(agent)),
                AgentEvent::Left(id) => ("left", Some(id), None),
                AgentEvent::Presence(agent) => ("presence", None, Some(agent)),
                AgentEvent::Restarted => ("restarted", None, None),
                // One that this version has no word for.
                _ => return Ok(None),
            };
            let id = id.or_else(|| agent.as_ref().map(|a| a.id().to_owned()));
            let agent = agent.map(|agent| agents::give(py, agent)).transpose()?;
            make(py, "AgentEvent", |f| {
                f.set_item("kind", kind)?;
                f.set_item("agent_id", id)?;
                f.set_item("agent", agent)?;
                f.set_item("revision", revision)
            })
            .map(Some)
        })
    }

    /// Is done when `take` has something to say. Giving it up loses nothing.
    fn ready(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        ready(py, &self.0, seconds)
    }

    /// Ends it. May be called twice.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

#[pymethods]
impl NativeClient {
    fn contexts_watch(&self, py: Python<'_>, query: &Bound<'_, PyDict>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "contexts.watch";
        let mut watch = self.core(py, operation)?.contexts().watch();
        let timeout = timeout(py, operation, seconds)?;
        let o = Options::new(py, operation, Some(query));
        if let Some(text) = o.text("id")? {
            watch = watch.id(text);
        }
        if let Some(text) = o.text("key")? {
            watch = watch.key(text);
        }
        if let Some(text) = o.text("key_prefix")? {
            watch = watch.key_prefix(text);
        }
        if let Some(text) = o.text("type")? {
            watch = watch.kind(text);
        }
        if let Some(text) = o.text("owner")? {
            watch = watch.owner(text);
        }
        for label in o.texts("labels")?.unwrap_or_default() {
            watch = watch.label(label);
        }
        if let Some(revision) = o.number("after")? {
            watch = watch.after(revision);
        }
        if let Some(bytes) = o.small("payloads_up_to")? {
            watch = watch.payloads_up_to(bytes as usize);
        }
        Ok(Call::new(operation, limited(operation, timeout, watch.open()), |py, watch| {
            Ok(Py::new(py, NativeContextWatch(Watch::new(watch)))?.into_any())
        }))
    }

    fn agents_watch(&self, py: Python<'_>, query: &Bound<'_, PyDict>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "agents.watch";
        let mut watch = self.core(py, operation)?.agents().watch();
        let timeout = timeout(py, operation, seconds)?;
        let o = Options::new(py, operation, Some(query));
        if let Some(text) = o.text("id")? {
            watch = watch.id(text);
        }
        if let Some(text) = o.text("type")? {
            watch = watch.kind(text);
        }
        if let Some(text) = o.text("location")? {
            watch = watch.location(text);
        }
        for name in o.texts("capabilities")?.unwrap_or_default() {
            watch = watch.capability(name);
        }
        if let Some(revision) = o.number("after")? {
            watch = watch.after(revision);
        }
        Ok(Call::new(operation, limited(operation, timeout, watch.open()), |py, watch| {
            Ok(Py::new(py, NativeAgentWatch(Watch::new(watch)))?.into_any())
        }))
    }

    fn agents_set_activity(
        &self,
        py: Python<'_>,
        fields: &Bound<'_, PyDict>,
        ttl: Option<f64>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "agents.set_activity";
        let agents = self.core(py, operation)?.agents();
        let timeout = timeout(py, operation, seconds)?;
        let all = [AgentActivity::Idle, AgentActivity::Busy, AgentActivity::Waiting, AgentActivity::Blocked];
        let o = Options::new(py, operation, Some(fields));
        let Some(activity) = o.word("activity", all, |a| a.name())? else {
            return Err(o.refuse("activity", "no activity is given".to_owned()));
        };
        let ttl = ttl.map(|ttl| span(py, operation, "ttl", ttl)).transpose()?;
        let work = async move {
            match ttl {
                Some(ttl) => within(timeout, agents.set_activity_for(activity, ttl)).await,
                None => within(timeout, agents.set_activity(activity)).await,
            }
        };
        Ok(Call::new(operation, work, nothing))
    }
}
