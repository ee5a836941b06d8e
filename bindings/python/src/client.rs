//! The client: connecting, its state, its end.

use std::sync::Arc;

use acb_kit::Inherited;
use acb_sdk::{
    Client, ClientBuilder, Credentials, Durability, Error, ErrorCode, Event, Events, RetryPolicy, TlsOptions,
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    call::{Call, limited, nothing, timeout, within},
    convert::{Options, make},
    error::{OrRaise as _, exception, invalid},
    subscription::Feed,
    subscriptions::define,
};

/// A connection to a bus. Everything that its Python faces do goes through this.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct NativeClient {
    pub(crate) client: Inherited<Client>,
    /// Of an async client: makes the coroutine that awaits a call.
    pub(crate) runner: Option<Py<PyAny>>,
}

impl NativeClient {
    /// The core's client, in the process that it was made in.
    pub(crate) fn core(&self, py: Python<'_>, operation: &'static str) -> PyResult<&Client> {
        self.client.get(operation).or_raise(py)
    }

    pub(crate) fn runner(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.runner.as_ref().map(|r| r.clone_ref(py))
    }
}

/// Credentials as Python gives them: a word for what they are, then their parts.
fn credentials(py: Python<'_>, given: &[String]) -> PyResult<Option<Credentials>> {
    let parts: Vec<&str> = given.iter().map(String::as_str).collect();
    Ok(Some(match parts[..] {
        [] => return Ok(None),
        ["enrolment_key", key, agent] => Credentials::enrolment_key(key, agent),
        ["secret", tenant, agent, secret] => Credentials::secret(tenant, agent, secret),
        ["token", token] => Credentials::token(token),
        ["refresh_token", token] => Credentials::refresh_token(token),
        ["dev", tenant, agent] => Credentials::dev(tenant, agent),
        _ => return Err(invalid(py, "connect", "credentials", "no such credentials".to_owned())),
    }))
}

fn tls(py: Python<'_>, o: &Options<'_, '_>) -> PyResult<Option<TlsOptions>> {
    let (roots, cert, key) = (o.text("tls_roots")?, o.text("tls_certificate")?, o.text("tls_key")?);
    if roots.is_none() && cert.is_none() && key.is_none() {
        return Ok(None);
    }
    let mut tls = TlsOptions::default();
    if let Some(pem) = roots {
        tls = tls.root_pem(pem);
    }
    match (cert, key) {
        (Some(cert), Some(key)) => tls = tls.identity_pem(cert, key),
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => {
            let text = "a client certificate and its key belong together".to_owned();
            return Err(invalid(py, "connect", "tls", text));
        }
    }
    if let Some(name) = o.text("tls_server_name")? {
        tls = tls.server_name(name);
    }
    Ok(Some(tls))
}

/// Connects and logs in. With a `runner` the client is an async one.
#[pyfunction]
pub(crate) fn connect(
    py: Python<'_>,
    endpoint: String,
    given: Vec<String>,
    options: &Bound<'_, PyDict>,
    runner: Option<Py<PyAny>>,
) -> PyResult<Call> {
    begin(py, Client::builder(endpoint), &given, options, runner)
}

/// Connects what a builder describes, with what Python gives on top of it.
pub(crate) fn begin(
    py: Python<'_>,
    mut builder: ClientBuilder,
    given: &[String],
    options: &Bound<'_, PyDict>,
    runner: Option<Py<PyAny>>,
) -> PyResult<Call> {
    let operation = "connect";
    let o = Options::new(py, operation, Some(options));
    if let Some(credentials) = credentials(py, given)? {
        builder = builder.credentials(credentials);
    }
    if let Some(tls) = tls(py, &o)? {
        builder = builder.tls(tls);
    }
    if let Some(span) = o.span("request_timeout")? {
        builder = builder.request_timeout(span);
    }
    if let Some(span) = o.span("connect_timeout")? {
        builder = builder.connect_timeout(span);
    }
    if let Some(span) = o.span("publish_timeout")? {
        builder = builder.publish_timeout(span);
    }
    if let Some(span) = o.span("drain_timeout")? {
        builder = builder.drain_timeout(span);
    }
    if let (Some(messages), Some(bytes)) = (o.small("publish_window_messages")?, o.number("publish_window_bytes")?) {
        builder = builder.publish_window(messages, usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    if let Some(messages) = o.small("frame_messages_max")? {
        builder = builder.frame_messages_max(messages);
    }
    if let (Some(messages), Some(bytes)) = (o.small("max_pending")?, o.number("max_pending_bytes")?) {
        builder = builder.credits(messages, bytes);
    }
    if let Some(span) = o.span("ack_linger")? {
        builder = builder.ack_linger(span);
    }
    if let Some(level) = o.word("durability", Durability::ALL, |d| d.name())? {
        builder = builder.durability(level);
    }
    if let Some(attempts) = o.small("retry_attempts")? {
        builder = builder.retry(RetryPolicy::default().attempts_max(attempts));
    }
    if let Some(attempts) = o.small("reconnect_attempts")? {
        builder = builder.reconnect(RetryPolicy::default().attempts_max(attempts));
    }
    if let (Some(interval), Some(wait)) = (o.span("keep_alive_interval")?, o.span("keep_alive_timeout")?) {
        builder = builder.keep_alive(interval, wait);
    }
    Ok(Call::new(operation, builder.connect(), move |py, client| {
        let native = NativeClient { client: Inherited::new(client), runner };
        Ok(Py::new(py, native)?.into_any())
    }))
}

#[pymethods]
impl NativeClient {
    fn is_connected(&self) -> bool {
        self.client.home().is_here() && self.client.is_connected()
    }

    fn health(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "health";
        let client = self.core(py, operation)?.clone();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, client.health()).await }, |py, health| {
            make(py, "Health", |f| {
                f.set_item("serving", health.serving)?;
                f.set_item("round_trip", health.round_trip.as_secs_f64())
            })
        }))
    }

    fn drain(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "drain";
        let client = self.core(py, operation)?.clone();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { limited(operation, timeout, client.drain()).await }, nothing))
    }

    /// Closes now. In a child of a fork there is nothing to close.
    fn close(&self) -> Call {
        let client = self.client.get("close").ok().cloned();
        let work = async move {
            if let Some(client) = client {
                client.close().await;
            }
            Ok(())
        };
        Call::new("close", work, nothing)
    }

    #[expect(clippy::too_many_arguments, reason = "what Python gives, one by one")]
    /// Opens a subscription: `durable` by its name, the agent's `inbox`, or an `ephemeral` one by filters.
    #[pyo3(signature = (kind, names, max_pending, max_pending_bytes, given, seconds))]
    fn subscribe(
        &self,
        py: Python<'_>,
        kind: &str,
        names: Vec<String>,
        max_pending: Option<u32>,
        max_pending_bytes: Option<u64>,
        given: Option<&Bound<'_, PyDict>>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "subscribe";
        let client = self.core(py, operation)?;
        let timeout = timeout(py, operation, seconds)?;
        let mut builder = match kind {
            "inbox" => client.inbox(),
            "ephemeral" => {
                let mut failed = None;
                let builder = client.listen(&names).spec(|spec| {
                    define(py, operation, spec.clone(), given).unwrap_or_else(|e| {
                        failed = Some(e);
                        spec
                    })
                });
                if let Some(error) = failed {
                    return Err(error);
                }
                builder
            }
            _ => client.subscribe(names.first().map_or("", String::as_str)),
        };
        if let Some(messages) = max_pending {
            builder = builder.credits(messages);
        }
        if let Some(bytes) = max_pending_bytes {
            builder = builder.credit_bytes(bytes);
        }
        let runner = self.runner(py);
        Ok(Call::new(operation, limited(operation, timeout, builder.open()), move |py, subscription| {
            Ok(Py::new(py, Feed::new(subscription, runner))?.into_any())
        }))
    }

    /// What happens to the connection from now on.
    fn events(&self, py: Python<'_>) -> PyResult<NativeEvents> {
        let events = self.core(py, "events")?.events();
        Ok(NativeEvents { events: Inherited::new(Arc::new(tokio::sync::Mutex::new(events))) })
    }
}

/// A client's events.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct NativeEvents {
    events: Inherited<Arc<tokio::sync::Mutex<Events>>>,
}

#[pymethods]
impl NativeEvents {
    /// The next event, or `None` when the client is gone.
    fn next(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "events.next";
        let events = Arc::clone(self.events.get(operation).or_raise(py)?);
        let timeout = timeout(py, operation, seconds)?;
        let work = async move { Ok(events.lock().await.next().await) };
        Ok(Call::new(operation, limited(operation, timeout, work), |py, event| match event {
            Some(event) => give_event(py, event),
            None => Ok(py.None()),
        }))
    }
}

fn give_event(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    let detail = PyDict::new(py);
    let mut because: Option<Error> = None;
    let name = match event {
        Event::Connected => "connected",
        Event::Suspended { error } => {
            because = Some(error);
            "suspended"
        }
        Event::Resumed { generation } => {
            detail.set_item("generation", generation)?;
            "resumed"
        }
        Event::GoingAway => "going_away",
        Event::SlowDown { after } => {
            detail.set_item("after", after.as_secs_f64())?;
            "slow_down"
        }
        Event::Gap { subscription, gap } => {
            detail.set_item("subscription", subscription)?;
            detail.set_item("from_seq", gap.from_seq)?;
            detail.set_item("to_seq", gap.to_seq)?;
            detail.set_item("reason", gap.reason)?;
            "gap"
        }
        Event::SettlementRefused { subscription, first_seq, count, error } => {
            detail.set_item("subscription", subscription)?;
            detail.set_item("first_seq", first_seq)?;
            detail.set_item("count", count)?;
            because = Some(error);
            "settlement_refused"
        }
        Event::Fenced { agent_id } => {
            detail.set_item("agent_id", agent_id)?;
            "fenced"
        }
        Event::Closed => "closed",
        other => {
            because = Some(Error::new(ErrorCode::UnsupportedFeature, "events.next", format!("{other:?}")));
            "unknown"
        }
    };
    let error = because.map(|e| exception(py, &e).into_value(py));
    make(py, "ConnectionEvent", |f| {
        f.set_item("name", name)?;
        f.set_item("detail", detail)?;
        f.set_item("error", error)
    })
}
