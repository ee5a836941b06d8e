//! Durable subscriptions and their dead letters.

use std::time::Duration;

use acb_sdk::{DeadLetter, DeadLetterPolicy, MessageKind, StartAt, SubscriptionInfo, SubscriptionSpec, Timestamp};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};

use crate::{
    call::{Call, nothing, timeout, within},
    client::NativeClient,
    convert::{Options, make, message_id, page, time},
};

fn seconds_of(spans: &[Duration]) -> Vec<f64> {
    spans.iter().map(Duration::as_secs_f64).collect()
}

fn policy_name(policy: DeadLetterPolicy) -> &'static str {
    match policy {
        DeadLetterPolicy::Drop => "drop",
        DeadLetterPolicy::Keep => "keep",
    }
}

fn give(py: Python<'_>, info: SubscriptionInfo) -> PyResult<Py<PyAny>> {
    let parts = info.spec.parts();
    make(py, "SubscriptionInfo", |f| {
        f.set_item("name", info.spec.name())?;
        f.set_item("filters", info.spec.filters())?;
        f.set_item("ack_wait", parts.ack_wait.map(|d| d.as_secs_f64()))?;
        f.set_item("retry_schedule", seconds_of(&parts.retry_schedule))?;
        f.set_item("max_attempts", parts.max_attempts)?;
        f.set_item("max_leased", parts.max_leased)?;
        f.set_item("dead_letters_policy", policy_name(parts.dead_letters.unwrap_or(DeadLetterPolicy::Keep)))?;
        f.set_item("created_at", time(py, info.created_at)?)?;
        f.set_item("created_by", info.created_by)?;
        f.set_item("floor_seq", info.floor_seq)?;
        f.set_item("cursor_seq", info.cursor_seq)?;
        f.set_item("next_seq", info.next_seq)?;
        f.set_item("leased", info.leased)?;
        f.set_item("waiting_retry", info.waiting_retry)?;
        f.set_item("consumers", info.consumers)?;
        f.set_item("dead_letters", info.dead_letters)
    })
}

fn give_dead_letter(py: Python<'_>, letter: DeadLetter, whole: bool) -> PyResult<Py<PyAny>> {
    let m = &letter.message;
    let attributes = PyDict::new(py);
    for (name, value) in &m.attributes {
        attributes.set_item(name, value)?;
    }
    let payload = whole.then(|| PyBytes::new(py, &m.payload));
    make(py, "DeadLetter", |f| {
        f.set_item("id", letter.id.to_string())?;
        f.set_item("subscription", letter.subscription)?;
        f.set_item("message_id", letter.message_id.to_string())?;
        f.set_item("topic", &*m.topic)?;
        f.set_item("kind", m.kind.name())?;
        f.set_item("content_type", &*m.content_type)?;
        f.set_item("correlation_id", &*m.correlation_id)?;
        f.set_item("attributes", attributes)?;
        f.set_item("payload", payload)?;
        f.set_item("payload_bytes", letter.payload_bytes)?;
        f.set_item("from_agent", letter.from)?;
        f.set_item("reason", letter.reason)?;
        f.set_item("last_error", letter.last_error)?;
        f.set_item("attempts", letter.attempts)?;
        f.set_item("stored_at", time(py, letter.stored_at)?)?;
        f.set_item("died_at", time(py, letter.died_at)?)
    })
}

/// A definition as Python gives it, over one that has a name and filters already.
pub(crate) fn define(
    py: Python<'_>,
    operation: &'static str,
    mut spec: SubscriptionSpec,
    given: Option<&Bound<'_, PyDict>>,
) -> PyResult<SubscriptionSpec> {
    let o = Options::new(py, operation, given);
    if let Some(wait) = o.span("ack_wait")? {
        spec = spec.ack_wait(wait);
    }
    if let Some(waits) = o.spans("retry_schedule")? {
        spec = spec.retry_schedule(waits);
    }
    if let Some(attempts) = o.small("max_attempts")? {
        spec = spec.max_attempts(attempts);
    }
    if let Some(messages) = o.small("max_leased")? {
        spec = spec.max_leased(messages);
    }
    if let Some(policy) =
        o.word("dead_letters", [DeadLetterPolicy::Keep, DeadLetterPolicy::Drop], |p| policy_name(*p))?
    {
        spec = spec.dead_letters(policy);
    }
    if let Some(seq) = o.number("start_seq")? {
        spec = spec.start_at(StartAt::Sequence(seq));
    } else if let Some(ms) = o.number("start_time_ms")? {
        spec = spec.start_at(StartAt::Time(Timestamp(ms)));
    } else if let Some(start) = o.word("start", [StartAt::New, StartAt::All], |s| match s {
        StartAt::All => "all",
        _ => "new",
    })? {
        spec = spec.start_at(start);
    }
    Ok(spec)
}

#[pymethods]
impl NativeClient {
    fn subscriptions_create(
        &self,
        py: Python<'_>,
        name: String,
        filters: Vec<String>,
        given: &Bound<'_, PyDict>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "subscriptions.create";
        let subscriptions = self.core(py, operation)?.subscriptions();
        let timeout = timeout(py, operation, seconds)?;
        let spec = filters.into_iter().fold(SubscriptionSpec::new(name), SubscriptionSpec::filter);
        let spec = define(py, operation, spec, Some(given))?;
        let work = async move { within(timeout, subscriptions.create(spec)).await };
        Ok(Call::new(operation, work, |py, created| {
            let subscription = give(py, created.subscription)?;
            make(py, "CreatedSubscription", |f| {
                f.set_item("subscription", subscription)?;
                f.set_item("existed", created.existed)
            })
        }))
    }

    fn subscriptions_get(&self, py: Python<'_>, name: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "subscriptions.get";
        let subscriptions = self.core(py, operation)?.subscriptions();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, subscriptions.get(name)).await }, give))
    }

    fn subscriptions_page(&self, py: Python<'_>, size: u32, token: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "subscriptions.list";
        let subscriptions = self.core(py, operation)?.subscriptions();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move { within(timeout, subscriptions.page(size, token)).await };
        Ok(Call::new(operation, work, |py, found| page(py, found, give)))
    }

    fn subscriptions_delete(&self, py: Python<'_>, name: String, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "subscriptions.delete";
        let subscriptions = self.core(py, operation)?.subscriptions();
        let timeout = timeout(py, operation, seconds)?;
        Ok(Call::new(operation, async move { within(timeout, subscriptions.delete(name)).await }, nothing))
    }

    fn dead_letters_page(
        &self,
        py: Python<'_>,
        subscription: String,
        size: u32,
        token: String,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "dead_letters.list";
        let letters = self.core(py, operation)?.dead_letters();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move { within(timeout, letters.page(subscription, size, token)).await };
        Ok(Call::new(operation, work, |py, found| page(py, found, |py, d| give_dead_letter(py, d, false))))
    }

    fn dead_letters_get(&self, py: Python<'_>, id: &str, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "dead_letters.get";
        let letters = self.core(py, operation)?.dead_letters();
        let (id, timeout) = (message_id(py, operation, id)?, timeout(py, operation, seconds)?);
        let work = async move { within(timeout, letters.get(id)).await };
        Ok(Call::new(operation, work, |py, letter| give_dead_letter(py, letter, true)))
    }

    fn dead_letters_redrive(
        &self,
        py: Python<'_>,
        id: &str,
        payload: Option<Vec<u8>>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        let operation = "dead_letters.redrive";
        let letters = self.core(py, operation)?.dead_letters();
        let (id, timeout) = (message_id(py, operation, id)?, timeout(py, operation, seconds)?);
        let work = async move {
            match payload {
                Some(payload) => within(timeout, letters.redrive_with_payload(id, payload)).await,
                None => within(timeout, letters.redrive(id)).await,
            }
        };
        Ok(Call::new(operation, work, |py, id| Ok(id.to_string().into_pyobject(py)?.into_any().unbind())))
    }

    fn dead_letters_discard(&self, py: Python<'_>, id: &str, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "dead_letters.discard";
        let letters = self.core(py, operation)?.dead_letters();
        let (id, timeout) = (message_id(py, operation, id)?, timeout(py, operation, seconds)?);
        Ok(Call::new(operation, async move { within(timeout, letters.discard(id)).await }, nothing))
    }
}

/// Kinds of messages that a sender may choose.
pub(crate) const KINDS: [MessageKind; 5] = MessageKind::ALL;
