//! Many messages of one shape: one short lock and one copy each, under the interpreter's lock and without waiting.

use std::{future::poll_fn, pin::Pin, sync::Arc};

use acb_kit::Inherited;
use acb_sdk::{Durability, MessageKind, Priority, Publisher, Receipt, TryPublishError};
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyStopIteration,
    prelude::*,
    types::{PyBytes, PyDict, PyList},
};

use crate::{
    call::{Call, limited, timeout},
    client::NativeClient,
    convert::Options,
    error::{OrRaise as _, exception},
    messages::{Published, payloads},
    subscriptions::KINDS,
};

const OPERATION: &str = "publisher.publish";

/// Publishes many messages to one topic, or to one agent.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct NativePublisher {
    publisher: Inherited<Publisher>,
    runner: Option<Py<PyAny>>,
}

#[pymethods]
impl NativeClient {
    /// Prepares many messages of one shape.
    fn messages_publisher(
        &self,
        py: Python<'_>,
        to_agent: bool,
        target: &str,
        given: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<NativePublisher> {
        let operation = "messages.publisher";
        let messages = self.core(py, operation)?.messages();
        let o = Options::new(py, operation, given);
        let mut builder = if to_agent { messages.publisher_to_agent(target) } else { messages.publisher(target) };
        if let Some(level) = o.word("durability", Durability::ALL, |d| d.name())? {
            builder = builder.durability(level);
        }
        if let Some(kind) = o.word("kind", KINDS, MessageKind::name_of)? {
            builder = builder.kind(kind);
        }
        if let Some(priority) = o.word("priority", Priority::ALL, |p| p.name())? {
            builder = builder.priority(priority);
        }
        if let Some(text) = o.text("content_type")? {
            builder = builder.content_type(text);
        }
        if let Some(text) = o.text("order_key")? {
            builder = builder.order_key(text);
        }
        for (name, value) in o.pairs("attributes")?.unwrap_or_default() {
            builder = builder.attribute(name, value);
        }
        let publisher = Inherited::new(builder.build().or_raise(py)?);
        Ok(NativePublisher { publisher, runner: self.runner(py) })
    }
}

trait NameOf {
    fn name_of(&self) -> &'static str;
}

impl NameOf for MessageKind {
    fn name_of(&self) -> &'static str {
        self.name()
    }
}

#[pymethods]
impl NativePublisher {
    #[getter]
    fn topic(&self) -> &str {
        self.publisher.topic()
    }

    /// Queues a message if there is room now, and gives its receipt; `None` when the window is full.
    fn try_publish(&self, py: Python<'_>, payload: &Bound<'_, PyBytes>) -> PyResult<Option<Py<PyAny>>> {
        let publisher = self.publisher.get(OPERATION).or_raise(py)?;
        // So short that giving the interpreter up would cost more.
        match publisher.try_publish(payload.as_bytes()) {
            Ok(receipt) => give_receipt(py, receipt, self.runner.as_ref()).map(Some),
            Err(TryPublishError::Full) => Ok(None),
            Err(TryPublishError::Failed(error)) => Err(exception(py, &error)),
            Err(_) => Ok(None),
        }
    }

    /// Queues a message, waiting for room, and gives its receipt.
    fn publish(&self, py: Python<'_>, payload: &Bound<'_, PyBytes>, seconds: Option<f64>) -> PyResult<Call> {
        let publisher = self.publisher.get(OPERATION).or_raise(py)?.clone();
        let timeout = timeout(py, OPERATION, seconds)?;
        let payload = payload.as_bytes().to_vec();
        let runner = self.runner.as_ref().map(|r| r.clone_ref(py));
        let work = async move { limited(OPERATION, timeout, publisher.publish(payload)).await };
        Ok(Call::new(OPERATION, work, move |py, receipt| give_receipt(py, receipt, runner.as_ref())))
    }

    /// Queues messages as long as there is room, the rest as room comes, and gives what became of all of them.
    fn publish_many(&self, py: Python<'_>, given: &Bound<'_, PyAny>, seconds: Option<f64>) -> PyResult<Call> {
        let publisher = self.publisher.get(OPERATION).or_raise(py)?.clone();
        let timeout = timeout(py, OPERATION, seconds)?;
        let all = payloads(py, OPERATION, given)?;
        let mut receipts = Vec::with_capacity(all.len());
        let mut rest = Vec::new();
        for payload in &all {
            if rest.is_empty() {
                match publisher.try_publish(payload.as_bytes()) {
                    Ok(receipt) => {
                        receipts.push(receipt);
                        continue;
                    }
                    Err(TryPublishError::Failed(error)) => return Err(exception(py, &error)),
                    Err(_) => {}
                }
            }
            rest.push(payload.as_bytes().to_vec());
        }
        let work = async move {
            limited(OPERATION, timeout, async {
                for payload in rest {
                    receipts.push(publisher.publish(payload).await?);
                }
                let mut published = Vec::with_capacity(receipts.len());
                for receipt in receipts {
                    published.push(receipt.await?);
                }
                Ok(published)
            })
            .await
        };
        Ok(Call::new(OPERATION, work, |py, all| {
            let out = PyList::empty(py);
            for published in all {
                out.append(Published::give(py, published)?)?;
            }
            Ok(out.into_any().unbind())
        }))
    }
}

/// The promise of an acknowledgement: what both faces' receipts have.
#[pyclass(frozen, subclass, name = "ReceiptBase", module = "acb_sdk._native")]
pub(crate) struct ReceiptBase {
    receipt: Inherited<Arc<Mutex<Receipt>>>,
    runner: Option<Py<PyAny>>,
}

/// Of an async client.
#[pyclass(frozen, extends = ReceiptBase, name = "AsyncReceipt", module = "acb_sdk")]
pub(crate) struct AsyncReceipt;

/// Of a sync client.
#[pyclass(frozen, extends = ReceiptBase, name = "Receipt", module = "acb_sdk")]
pub(crate) struct SyncReceipt;

/// Makes the object of a receipt: of an async client when there is a runner.
fn give_receipt(py: Python<'_>, receipt: Receipt, runner: Option<&Py<PyAny>>) -> PyResult<Py<PyAny>> {
    let base =
        ReceiptBase { receipt: Inherited::new(Arc::new(Mutex::new(receipt))), runner: runner.map(|r| r.clone_ref(py)) };
    let base = PyClassInitializer::from(base);
    Ok(if runner.is_some() {
        Py::new(py, base.add_subclass(AsyncReceipt))?.into_any()
    } else {
        Py::new(py, base.add_subclass(SyncReceipt))?.into_any()
    })
}

impl ReceiptBase {
    fn answer(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Call> {
        let receipt = Arc::clone(self.receipt.get(OPERATION).or_raise(py)?);
        let timeout = timeout(py, OPERATION, seconds)?;
        let answer = poll_fn(move |cx| Pin::new(&mut *receipt.lock()).poll(cx));
        let runner = self.runner.as_ref().map(|r| r.clone_ref(py));
        Ok(Call::new(OPERATION, limited(OPERATION, timeout, answer), Published::give).run_by(runner))
    }
}

#[pymethods]
impl ReceiptBase {
    /// Whether the answer is there.
    #[getter]
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.receipt.get(OPERATION).or_raise(py)?.lock().try_get().is_some())
    }
}

#[pymethods]
impl AsyncReceipt {
    #[pyo3(signature = (*, timeout=None))]
    fn result(slf: PyRef<'_, Self>, timeout: Option<f64>) -> PyResult<Call> {
        slf.as_super().answer(slf.py(), timeout)
    }

    fn __await__(slf: PyRef<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let py = slf.py();
        let answer = slf.as_super().receipt.get(OPERATION).or_raise(py)?.lock().try_get();
        match answer {
            // There already, as it is for all but the first of a frame: no turn of the loop.
            Some(Ok(published)) => Ok(Bound::new(py, Ready(Mutex::new(Some(published))))?.into_any()),
            Some(Err(error)) => Err(exception(py, &error)),
            None => Bound::new(py, slf.as_super().answer(py, None)?)?.call_method0("__await__"),
        }
    }
}

#[pymethods]
impl SyncReceipt {
    #[pyo3(signature = (*, timeout=None))]
    fn result(slf: PyRef<'_, Self>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let answer = slf.as_super().receipt.get(OPERATION).or_raise(py)?.lock().try_get();
        match answer {
            Some(Ok(published)) => Published::give(py, published),
            Some(Err(error)) => Err(exception(py, &error)),
            None => slf.as_super().answer(py, timeout)?.wait(py),
        }
    }
}

/// An answer that is there, as what `await` runs.
#[pyclass(frozen, module = "acb_sdk._native")]
struct Ready(Mutex<Option<acb_sdk::Published>>);

#[pymethods]
impl Ready {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.0.lock().take() {
            Some(published) => Err(PyStopIteration::new_err((Published::give(py, published)?,))),
            None => Err(PyStopIteration::new_err(())),
        }
    }
}
