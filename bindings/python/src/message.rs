//! A delivered message as a Python object: cheap to make, read where it is asked, settled at once.

use std::time::Duration;

use acb_kit::Inherited;
use acb_sdk::{Error, ErrorCode, KeptLease as CoreLease, MessageKind};
use parking_lot::Mutex;
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyFunction, PyString},
};

use crate::{
    call::{Call, limited, nothing, span, timeout, within},
    convert::time,
    error::{OrRaise as _, exception},
    messages::{Published, python_bool, with_options},
};

/// What both faces' messages have.
#[pyclass(frozen, subclass, name = "MessageBase", module = "acb_sdk._native")]
pub(crate) struct MessageBase {
    message: Inherited<acb_sdk::Message>,
    runner: Option<Py<PyAny>>,
}

/// A message of an async client. Settling it happens at the call; awaiting that only gives the loop a turn when it must.
#[pyclass(frozen, extends = MessageBase, module = "acb_sdk")]
pub(crate) struct AsyncMessage;

/// A message of a sync client.
#[pyclass(frozen, extends = MessageBase, module = "acb_sdk")]
pub(crate) struct Message;

/// Makes the object of a message: of an async client when there is a runner.
pub(crate) fn give_message(
    py: Python<'_>,
    message: acb_sdk::Message,
    runner: Option<&Py<PyAny>>,
) -> PyResult<Py<PyAny>> {
    let base = MessageBase { message: Inherited::new(message), runner: runner.map(|r| r.clone_ref(py)) };
    let base = PyClassInitializer::from(base);
    Ok(if runner.is_some() {
        Py::new(py, base.add_subclass(AsyncMessage))?.into_any()
    } else {
        Py::new(py, base.add_subclass(Message))?.into_any()
    })
}

impl MessageBase {
    /// The message, in the process that it came to.
    fn core(&self, py: Python<'_>, operation: &'static str) -> PyResult<&acb_sdk::Message> {
        self.message.get(operation).or_raise(py)
    }

    fn ack_now(&self, py: Python<'_>) -> PyResult<()> {
        self.core(py, "message.ack")?.ack().or_raise(py)
    }

    fn nack_now(&self, py: Python<'_>, reason: String, delay: Option<f64>) -> PyResult<()> {
        let operation = "message.nack";
        let message = self.core(py, operation)?;
        let delay = delay.map(|seconds| span(py, operation, "delay", seconds)).transpose()?;
        message.nack(delay, reason).or_raise(py)
    }

    fn term_now(&self, py: Python<'_>, reason: String) -> PyResult<()> {
        self.core(py, "message.term")?.term(reason).or_raise(py)
    }

    fn release_now(&self, py: Python<'_>) -> PyResult<()> {
        self.core(py, "message.release")?.release().or_raise(py)
    }

    fn progress_now(&self, py: Python<'_>) -> PyResult<()> {
        self.core(py, "message.progress")?.progress().or_raise(py)
    }

    fn confirmed(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let operation = "message.ack_confirmed";
        let message = self.core(py, operation)?.clone();
        let timeout = timeout(py, operation, seconds)?;
        let work = async move { within(timeout, message.ack_confirmed()).await };
        Ok(Call::new(operation, work, nothing).run_by(self.runner(py)))
    }

    fn reply_call(
        &self,
        py: Python<'_>,
        payload: &Bound<'_, PyAny>,
        options: &ReplyOptions<'_, '_>,
        seconds: Option<f64>,
    ) -> PyResult<Call> {
        static ENCODE: PyOnceLock<Py<PyFunction>> = PyOnceLock::new();
        let operation = "message.reply";
        let message = self.core(py, operation)?;
        let timeout = timeout(py, operation, seconds)?;
        let encode = ENCODE.import(py, "acb_sdk._payload", "encode")?;
        let (body, content_type): (Bound<'_, PyBytes>, Option<String>) =
            encode.call1((payload, options.content_type))?.extract()?;
        let given = PyDict::new(py);
        given.set_item("content_type", content_type)?;
        given.set_item("attributes", options.attributes)?;
        given.set_item("durability", options.durability)?;
        let reply = message.reply(body.as_bytes().to_vec()).or_raise(py)?;
        let reply = with_options(py, operation, reply, Some(&given))?;
        Ok(Call::new(operation, limited(operation, timeout, reply.confirm()), Published::give).run_by(self.runner(py)))
    }

    fn runner(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.runner.as_ref().map(|r| r.clone_ref(py))
    }
}

/// What a reply may be given.
struct ReplyOptions<'a, 'py> {
    content_type: Option<&'a str>,
    attributes: Option<&'a Bound<'py, PyDict>>,
    durability: Option<&'a str>,
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[pymethods]
impl MessageBase {
    #[getter]
    fn id(&self) -> String {
        self.message.id().to_string()
    }

    #[getter]
    fn seq(&self) -> u64 {
        self.message.seq()
    }

    #[getter]
    fn epoch(&self) -> u32 {
        self.message.id().epoch
    }

    #[getter]
    fn topic(&self) -> &str {
        self.message.topic()
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.message.payload_ref())
    }

    /// The payload as text.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        let invalid =
            |_| exception(py, &Error::new(ErrorCode::InvalidUtf8, "message.text", "the payload is no UTF-8 text"));
        let text = std::str::from_utf8(self.message.payload_ref()).map_err(invalid)?;
        Ok(PyString::new(py, text))
    }

    /// The payload read as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOADS: PyOnceLock<Py<PyFunction>> = PyOnceLock::new();
        LOADS.import(py, "json", "loads")?.call1((self.payload(py),))
    }

    #[getter]
    fn payload_bytes(&self) -> usize {
        self.message.payload_ref().len()
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.message.kind().name()
    }

    #[getter]
    fn priority(&self) -> &'static str {
        self.message.priority().name()
    }

    #[getter]
    fn correlation_id(&self) -> Option<&str> {
        some(self.message.correlation_id())
    }

    #[getter]
    fn reply_to(&self) -> Option<&str> {
        some(self.message.reply_to())
    }

    #[getter]
    fn idempotency_key(&self) -> Option<&str> {
        some(self.message.idempotency_key())
    }

    #[getter]
    fn order_key(&self) -> Option<&str> {
        some(self.message.order_key())
    }

    #[getter]
    fn content_type(&self) -> Option<&str> {
        some(self.message.content_type())
    }

    #[getter]
    fn trace(&self) -> Option<&str> {
        some(self.message.trace())
    }

    #[getter]
    fn original_topic(&self) -> Option<&str> {
        some(self.message.original_topic())
    }

    #[getter]
    fn context_refs(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let envelope = self.message.envelope().or_raise(py)?;
        Ok(envelope.context_refs.iter().map(ToString::to_string).collect())
    }

    #[getter]
    fn attributes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let out = PyDict::new(py);
        for (name, value) in &self.message.attributes() {
            out.set_item(name, value)?;
        }
        Ok(out)
    }

    #[getter(from_agent)]
    fn sender(&self) -> &str {
        self.message.from()
    }

    #[getter(from_incarnation)]
    fn sender_incarnation(&self) -> u64 {
        self.message.from_incarnation()
    }

    #[getter]
    fn attempt(&self) -> u32 {
        self.message.attempt()
    }

    #[getter]
    fn redelivered(&self) -> bool {
        self.message.is_redelivered()
    }

    #[getter]
    fn stored_at(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        time(py, self.message.stored_at())
    }

    #[getter]
    fn expires_at(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        time(py, self.message.expires_at())
    }

    #[getter]
    fn is_request(&self) -> bool {
        self.message.kind() == MessageKind::Request
    }

    #[getter]
    fn is_late(&self) -> bool {
        self.message.is_late()
    }

    #[getter]
    fn ack_wait(&self) -> f64 {
        Duration::as_secs_f64(&self.message.ack_wait())
    }

    /// Renews the lease until the guard is let go.
    fn keep_lease(&self, py: Python<'_>) -> PyResult<KeptLease> {
        let lease = self.core(py, "message.keep_lease")?.keep_lease();
        Ok(KeptLease(Inherited::new(Mutex::new(Some(lease)))))
    }

    fn __repr__(&self) -> String {
        let m = &*self.message;
        format!(
            "Message(id={:?}, topic={:?}, from_agent={:?}, attempt={}, payload_bytes={}, redelivered={})",
            m.id().to_string(),
            m.topic(),
            m.from(),
            m.attempt(),
            m.payload_ref().len(),
            python_bool(m.is_redelivered()),
        )
    }
}

/// What was done already, as something to await.
#[pyclass(frozen, module = "acb_sdk._native")]
struct Done;

#[pymethods]
impl Done {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Over at once: `await` gives `None` without a turn of the loop.
    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }
}

fn done(py: Python<'_>) -> PyResult<Py<Done>> {
    static ONE: PyOnceLock<Py<Done>> = PyOnceLock::new();
    ONE.get_or_try_init(py, || Py::new(py, Done)).map(|one| one.clone_ref(py))
}

#[pymethods]
impl AsyncMessage {
    fn ack(slf: PyRef<'_, Self>) -> PyResult<Py<Done>> {
        let py = slf.py();
        slf.as_super().ack_now(py)?;
        done(py)
    }

    #[pyo3(signature = (reason, *, delay=None))]
    fn nack(slf: PyRef<'_, Self>, reason: String, delay: Option<f64>) -> PyResult<Py<Done>> {
        let py = slf.py();
        slf.as_super().nack_now(py, reason, delay)?;
        done(py)
    }

    fn term(slf: PyRef<'_, Self>, reason: String) -> PyResult<Py<Done>> {
        let py = slf.py();
        slf.as_super().term_now(py, reason)?;
        done(py)
    }

    fn release(slf: PyRef<'_, Self>) -> PyResult<Py<Done>> {
        let py = slf.py();
        slf.as_super().release_now(py)?;
        done(py)
    }

    fn progress(slf: PyRef<'_, Self>) -> PyResult<Py<Done>> {
        let py = slf.py();
        slf.as_super().progress_now(py)?;
        done(py)
    }

    #[pyo3(signature = (*, timeout=None))]
    fn ack_confirmed(slf: PyRef<'_, Self>, timeout: Option<f64>) -> PyResult<Call> {
        slf.as_super().confirmed(slf.py(), timeout)
    }

    #[pyo3(signature = (payload, *, content_type=None, attributes=None, durability=None, timeout=None))]
    fn reply(
        slf: PyRef<'_, Self>,
        payload: &Bound<'_, PyAny>,
        content_type: Option<&str>,
        attributes: Option<&Bound<'_, PyDict>>,
        durability: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<Call> {
        slf.as_super().reply_call(slf.py(), payload, &ReplyOptions { content_type, attributes, durability }, timeout)
    }
}

#[pymethods]
impl Message {
    fn ack(slf: PyRef<'_, Self>) -> PyResult<()> {
        slf.as_super().ack_now(slf.py())
    }

    #[pyo3(signature = (reason, *, delay=None))]
    fn nack(slf: PyRef<'_, Self>, reason: String, delay: Option<f64>) -> PyResult<()> {
        slf.as_super().nack_now(slf.py(), reason, delay)
    }

    fn term(slf: PyRef<'_, Self>, reason: String) -> PyResult<()> {
        slf.as_super().term_now(slf.py(), reason)
    }

    fn release(slf: PyRef<'_, Self>) -> PyResult<()> {
        slf.as_super().release_now(slf.py())
    }

    fn progress(slf: PyRef<'_, Self>) -> PyResult<()> {
        slf.as_super().progress_now(slf.py())
    }

    #[pyo3(signature = (*, timeout=None))]
    fn ack_confirmed(slf: PyRef<'_, Self>, timeout: Option<f64>) -> PyResult<()> {
        let py = slf.py();
        slf.as_super().confirmed(py, timeout)?.wait(py).map(drop)
    }

    #[pyo3(signature = (payload, *, content_type=None, attributes=None, durability=None, timeout=None))]
    fn reply(
        slf: PyRef<'_, Self>,
        payload: &Bound<'_, PyAny>,
        content_type: Option<&str>,
        attributes: Option<&Bound<'_, PyDict>>,
        durability: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        slf.as_super()
            .reply_call(py, payload, &ReplyOptions { content_type, attributes, durability }, timeout)?
            .wait(py)
    }
}

/// A lease that is renewed until it is let go.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct KeptLease(Inherited<Mutex<Option<CoreLease>>>);

#[pymethods]
impl KeptLease {
    /// Whether it is still kept: the message was neither settled nor lost.
    #[getter]
    fn kept(&self, py: Python<'_>) -> PyResult<bool> {
        let lease = self.0.get("message.keep_lease").or_raise(py)?;
        Ok(lease.lock().as_ref().is_some_and(CoreLease::is_kept))
    }

    /// Lets it run out.
    fn let_go(&self, py: Python<'_>) -> PyResult<()> {
        drop(self.0.get("message.keep_lease").or_raise(py)?.lock().take());
        Ok(())
    }
}
