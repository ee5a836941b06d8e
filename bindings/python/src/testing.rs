//! The fake bus of people's tests: the server itself, in this process, reached by pipes (`acb-testing`).
//!
//! What waits is a [`Call`] like any other, so that a loop goes on meanwhile and the interpreter is free. The bus has threads
//! of its own, and none of them ever asks for an interpreter: one that is dropped with its object may be waited for there.

use std::sync::Arc;

use acb_kit::Inherited;
use acb_sdk::{Client, Error, ErrorCode, Timestamp};
use acb_testing::{FakeBus, FakeError, Network, Way};
use parking_lot::Mutex;
use pyo3::{prelude::*, types::PyDict};

use crate::{
    call::{self, Call, nothing},
    client::begin,
    convert::{Options, time},
    error::{OrRaise as _, exception, invalid},
};

/// A bus in this process, until it is closed.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct NativeFakeBus {
    bus: Inherited<Mutex<Option<Arc<FakeBus>>>>,
}

/// What went wrong with a bus, as an error like any other.
fn told(operation: &'static str, error: &FakeError) -> Error {
    let code = match error {
        FakeError::Setting(_) => ErrorCode::InvalidArgument,
        FakeError::RealClock | FakeError::NotRunning => ErrorCode::InvalidState,
        FakeError::Start(_) | FakeError::Thread(_) | FakeError::Broken => ErrorCode::Internal,
    };
    Error::new(code, operation, error.to_string())
}

impl NativeFakeBus {
    fn bus(&self, py: Python<'_>, operation: &'static str) -> PyResult<Arc<FakeBus>> {
        let bus = self.bus.get(operation).or_raise(py)?.lock().clone();
        bus.ok_or_else(|| Error::new(ErrorCode::InvalidState, operation, "the fake bus was closed")).or_raise(py)
    }
}

#[pymethods]
impl NativeFakeBus {
    /// Starts a bus and waits until it serves.
    #[staticmethod]
    fn start(py: Python<'_>, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let operation = "fake_bus.start";
        let o = Options::new(py, operation, Some(options));
        let mut builder = FakeBus::builder();
        if let Some(tenant) = o.text("tenant")? {
            builder = builder.tenant(tenant);
        }
        if let Some(ms) = o.number("starting_at_ms")? {
            builder = builder.starting_at(Timestamp(ms));
        }
        if o.flag("real_clock")? {
            builder = builder.real_clock();
        }
        if o.flag("with_credentials")? {
            builder = builder.with_credentials();
        }
        for (path, value) in o.pairs("settings")?.unwrap_or_default() {
            builder = builder.setting(path, value);
        }
        let work = async move { builder.start().await.map_err(|e| told(operation, &e)) };
        Ok(Call::new(operation, work, |py, bus| {
            let bus = Inherited::new(Mutex::new(Some(Arc::new(bus))));
            Ok(Py::new(py, Self { bus })?.into_any())
        }))
    }

    /// Lets time pass on the bus; what came due thereby has happened when the call is over.
    fn advance(&self, py: Python<'_>, seconds: f64) -> PyResult<Call> {
        let operation = "fake_bus.advance";
        let bus = self.bus(py, operation)?;
        let span = call::span(py, operation, "seconds", seconds)?;
        let work = async move {
            // What came due is dealt with on the thread that asks.
            let moved = tokio::task::spawn_blocking(move || bus.advance(span)).await;
            let moved = moved.map_err(|e| Error::new(ErrorCode::Internal, operation, e.to_string()))?;
            moved.map_err(|e| told(operation, &e))
        };
        Ok(Call::new(operation, work, give_time))
    }

    /// Sets the wall clock, in milliseconds since 1970.
    fn set_wall(&self, py: Python<'_>, wall_ms: u64) -> PyResult<()> {
        let operation = "fake_bus.set_wall";
        self.bus(py, operation)?.set_wall(Timestamp(wall_ms)).map_err(|e| exception(py, &told(operation, &e)))
    }

    fn now(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        give_time(py, self.bus(py, "fake_bus.now")?.now())
    }

    fn metrics(&self, py: Python<'_>) -> PyResult<String> {
        let operation = "fake_bus.metrics";
        let bus = self.bus(py, operation)?;
        py.detach(|| bus.metrics()).map_err(|e| exception(py, &told(operation, &e)))
    }

    fn admin_key(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.bus(py, "fake_bus.admin_key")?.admin_key())
    }

    /// Whether it runs. One that was closed does not.
    fn is_running(&self) -> bool {
        self.bus.home().is_here() && self.bus.lock().as_ref().is_some_and(|bus| bus.is_running())
    }

    fn kill(&self, py: Python<'_>) -> PyResult<Call> {
        let operation = "fake_bus.kill";
        let bus = self.bus(py, operation)?;
        let work = async move {
            bus.kill().await;
            Ok(())
        };
        Ok(Call::new(operation, work, nothing))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<Call> {
        let operation = "fake_bus.stop";
        let bus = self.bus(py, operation)?;
        let work = async move {
            bus.stop().await;
            Ok(())
        };
        Ok(Call::new(operation, work, nothing))
    }

    fn restart(&self, py: Python<'_>) -> PyResult<Call> {
        let operation = "fake_bus.restart";
        let bus = self.bus(py, operation)?;
        let work = async move { bus.restart().await.map_err(|e| told(operation, &e)) };
        Ok(Call::new(operation, work, nothing))
    }

    /// Stops it and lets go of what it stored. In a child of a fork there is nothing to close; may be called twice.
    fn close(&self) -> Call {
        let operation = "fake_bus.close";
        let bus = self.bus.get(operation).ok().and_then(|bus| bus.lock().take());
        let work = async move {
            if let Some(bus) = bus {
                bus.stop().await;
            }
            Ok(())
        };
        Call::new(operation, work, nothing)
    }

    /// A way to the bus of its own.
    fn network(&self, py: Python<'_>) -> PyResult<NativeNetwork> {
        Ok(NativeNetwork { network: Inherited::new(self.bus(py, "fake_bus.network")?.network()) })
    }
}

fn give_time(py: Python<'_>, at: Timestamp) -> PyResult<Py<PyAny>> {
    Ok(time(py, at)?.unwrap_or_else(|| py.None()))
}

/// A way to a fake bus, whose faults the test commands.
#[pyclass(frozen, module = "acb_sdk._native")]
pub(crate) struct NativeNetwork {
    network: Inherited<Network>,
}

impl NativeNetwork {
    fn network(&self, py: Python<'_>, operation: &'static str) -> PyResult<&Network> {
        self.network.get(operation).or_raise(py)
    }
}

#[pymethods]
impl NativeNetwork {
    /// As the module's own `connect`, this way.
    fn connect(
        &self,
        py: Python<'_>,
        endpoint: String,
        given: Vec<String>,
        options: &Bound<'_, PyDict>,
        runner: Option<Py<PyAny>>,
    ) -> PyResult<Call> {
        let dialer = self.network(py, "connect")?.dialer();
        begin(py, Client::builder(endpoint).dialer(dialer), &given, options, runner)
    }

    fn cut(&self, py: Python<'_>) -> PyResult<()> {
        self.network(py, "network.cut")?.cut();
        Ok(())
    }

    /// `way` is `up`, to the bus, or `down`.
    fn cut_after(&self, py: Python<'_>, way: &str, bytes: usize) -> PyResult<()> {
        let operation = "network.cut_after";
        let way = match way {
            "up" => Way::Up,
            "down" => Way::Down,
            _ => return Err(invalid(py, operation, "way", format!("way is one of up, down, not {way:?}"))),
        };
        self.network(py, operation)?.cut_after(way, bytes);
        Ok(())
    }

    fn part(&self, py: Python<'_>) -> PyResult<()> {
        self.network(py, "network.part")?.part();
        Ok(())
    }

    fn hold(&self, py: Python<'_>) -> PyResult<()> {
        self.network(py, "network.hold")?.hold();
        Ok(())
    }

    fn mend(&self, py: Python<'_>) -> PyResult<()> {
        self.network(py, "network.mend")?.mend();
        Ok(())
    }
}
