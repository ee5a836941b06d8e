//! Messages out: one at a time with what became of it, requests, and where a message stands.

use acb_sdk::{Client, Durability, MessageStatus, Priority, PublishBuilder, Timestamp};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};

use crate::{
    call::{Call, limited, nothing, timeout, within},
    client::NativeClient,
    convert::{Options, list, make, message_id, time},
    error::invalid,
    message::give_message,
    subscriptions::KINDS,
};

/// A message that is stored.
#[pyclass(frozen, eq, module = "acb_sdk")]
#[derive(PartialEq, Eq)]
pub(crate) struct Published(acb_sdk::Published);

impl Published {
    pub(crate) fn give(py: Python<'_>, published: acb_sdk::Published) -> PyResult<Py<PyAny>> {
        Ok(Py::new(py, Self(published))?.into_any())
    }
}

#[pymethods]
impl Published {
    /// Its id, which is its position; `None` when it repeats one so old that its position is forgotten.
    #[getter]
    fn id(&self) -> Option<String> {
        (self.0.id.seq != 0).then(|| self.0.id.to_string())
    }

    /// Number within its partition.
    #[getter]
    fn seq(&self) -> u64 {
        self.0.id.seq
    }

    /// Epoch of its partition.
    #[getter]
    fn epoch(&self) -> u32 {
        self.0.id.epoch
    }

    /// The level that was reached.
    #[getter]
    fn durability(&self) -> &'static str {
        self.0.durability.name()
    }

    /// Whether it had been stored before.
    #[getter]
    fn duplicate(&self) -> bool {
        self.0.duplicate
    }

    fn __repr__(&self) -> String {
        let id = self.id().unwrap_or_else(|| "forgotten".to_owned());
        format!("Published(id={id:?}, durability={:?}, duplicate={})", self.durability(), python_bool(self.0.duplicate))
    }
}

pub(crate) fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// Sets what is given.
pub(crate) fn with_options(
    py: Python<'_>,
    operation: &'static str,
    mut m: PublishBuilder,
    given: Option<&Bound<'_, PyDict>>,
) -> PyResult<PublishBuilder> {
    if given.is_none() {
        return Ok(m);
    }
    let o = Options::new(py, operation, given);
    if let Some(level) = o.word("durability", Durability::ALL, |d| d.name())? {
        m = m.durability(level);
    }
    if let Some(kind) = o.word("kind", KINDS, |k| k.name())? {
        m = m.kind(kind);
    }
    if let Some(priority) = o.word("priority", Priority::ALL, |p| p.name())? {
        m = m.priority(priority);
    }
    if let Some(pairs) = o.pairs("attributes")? {
        m = m.attributes(pairs);
    }
    if let Some(ttl) = o.span("ttl")? {
        m = m.ttl(ttl);
    }
    if let Some(ms) = o.number("expires_at_ms")? {
        m = m.expires_at(Timestamp(ms));
    }
    for (name, set) in [
        ("idempotency_key", PublishBuilder::idempotency_key as fn(PublishBuilder, String) -> PublishBuilder),
        ("order_key", PublishBuilder::order_key),
        ("correlation_id", PublishBuilder::correlation_id),
        ("reply_to", PublishBuilder::reply_to),
        ("content_type", PublishBuilder::content_type),
        ("trace", PublishBuilder::trace),
    ] {
        if let Some(text) = o.text(name)? {
            m = set(m, text);
        }
    }
    for context in o.texts("context_refs")?.unwrap_or_default() {
        m = m.context_ref(context);
    }
    Ok(m)
}

/// A message in the making: to a topic, to an agent, or to all.
fn build(
    py: Python<'_>,
    client: &Client,
    way: &str,
    target: &str,
    payload: &[u8],
    given: Option<&Bound<'_, PyDict>>,
) -> PyResult<(&'static str, PublishBuilder)> {
    let messages = client.messages();
    let payload = payload.to_vec();
    let (operation, m) = match way {
        "send" => ("messages.send", messages.send(target, payload)),
        "broadcast" => ("messages.broadcast", messages.broadcast(payload)),
        _ => ("messages.publish", messages.publish(target, payload)),
    };
    Ok((operation, with_options(py, operation, m, given)?))
}

fn give_status(py: Python<'_>, status: MessageStatus) -> PyResult<Py<PyAny>> {
    let subscriptions = list(py, status.subscriptions, |py, s| {
        make(py, "SubscriptionStatus", |f| {
            f.set_item("subscription", s.subscription)?;
            f.set_item("state", s.state.name())?;
            f.set_item("attempts", s.attempts)?;
            f.set_item("due_at", time(py, s.due_at)?)?;
            f.set_item("dead_letter_id", s.dead_letter_id.map(|id| id.to_string()))
        })
    })?;
    make(py, "MessageStatus", |f| {
        f.set_item("id", status.id.to_string())?;
        f.set_item("topic", status.topic)?;
        f.set_item("from_agent", status.from)?;
        f.set_item("stored_at", time(py, status.stored_at)?)?;
        f.set_item("subscriptions", subscriptions)
    })
}

#[pymethods]
impl NativeClient {
    /// Stores one message and gives what became of it.
    fn messages_put(
        &self,
        py: Python<'_>,
        way: &str,
        target: &str,
        payload: &Bound<'_, PyBytes>,
        given: Option<&Bound<'_, PyDict>>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let client = self.core(py, "messages.publish")?;
        let (operation, message) = build(py, client, way, target, payload.as_bytes(), given)?;
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, limited(operation, timeout, message.confirm()), Published::give))
    }

    /// Sends a request to an agent, or to a topic, and gives the reply.
    fn messages_request(
        &self,
        py: Python<'_>,
        to_topic: bool,
        target: &str,
        payload: &Bound<'_, PyBytes>,
        given: Option<&Bound<'_, PyDict>>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "messages.request";
        let messages = self.core(py, operation)?.messages();
        let payload = payload.as_bytes().to_vec();
        let mut m = if to_topic { messages.request_topic(target, payload) } else { messages.request(target, payload) };
        if let Some(timeout) = timeout(py, operation, seconds)? {
            m = m.timeout(timeout);
        }
        let o = Options::new(py, operation, given);
        if let Some(level) = o.word("durability", Durability::ALL, |d| d.name())? {
            m = m.durability(level);
        }
        if let Some(priority) = o.word("priority", Priority::ALL, |p| p.name())? {
            m = m.priority(priority);
        }
        for (name, value) in o.pairs("attributes")?.unwrap_or_default() {
            m = m.attribute(name, value);
        }
        if let Some(text) = o.text("content_type")? {
            m = m.content_type(text);
        }
        if let Some(text) = o.text("trace")? {
            m = m.trace(text);
        }
        let runner = self.runner(py);
        Ok(Call::new(operation, m.send(), move |py, reply| give_message(py, reply.into_message(), runner.as_ref())))
    }

    fn messages_status(&self, py: Python<'_>, id: &str, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "messages.status";
        let messages = self.core(py, operation)?.messages();
        let (id, timeout) = (message_id(py, operation, id)?, timeout(py, operation, seconds)?);
        Ok(Call::new(operation, async move { within(timeout, messages.status(id)).await }, give_status))
    }

    /// Waits until every publish so far is answered.
    fn messages_flush(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "messages.flush";
        let messages = self.core(py, operation)?.messages();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move {
            limited(operation, timeout, async {
                messages.flush().await;
                Ok(())
            })
            .await
        };
        Ok(Call::new(operation, work, nothing))
    }

    fn messages_unacknowledged(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.core(py, "messages.unacknowledged")?.messages().unacknowledged())
    }
}

/// A list of payloads: `bytes` each.
pub(crate) fn payloads<'py>(
    py: Python<'py>,
    operation: &'static str,
    given: &Bound<'py, PyAny>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    given.extract().map_err(|_| invalid(py, operation, "payloads", "payloads takes a list of bytes".to_owned()))
}
