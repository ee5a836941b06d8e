//! `acb_sdk._native`: the client core for Python. Thin over `acb-kit`, which has the threads, the queue and the bounds;
//! here is only what a Python object looks like from either side.
//!
//! Rules of this room:
//! - A thread of the kit never touches an interpreter: results cross as Rust values and become objects where the guest
//!   drains them. So no thread of ours waits for the interpreter, and none needs it when the process ends.
//! - Whatever may wait is a `call::Call`; everything else returns at once.
//! - Panics become `InternalError`; a use after a fork becomes `client_forked`.
//!
//! The stub is `sdk-python/acb_sdk/_native.pyi`, compared with the module by a test.

mod admin;
mod agents;
mod bridge;
mod call;
mod client;
mod contexts;
mod convert;
mod error;
mod groups;
mod message;
mod messages;
mod process;
mod publisher;
mod subscription;
mod subscriptions;
#[cfg(feature = "testing")]
mod testing;
mod transfers;
mod watches;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<bridge::Bridge>()?;
    module.add_class::<call::Call>()?;
    module.add_class::<client::NativeClient>()?;
    module.add_class::<client::NativeEvents>()?;
    module.add_class::<message::MessageBase>()?;
    module.add_class::<message::AsyncMessage>()?;
    module.add_class::<message::Message>()?;
    module.add_class::<message::KeptLease>()?;
    module.add_class::<messages::Published>()?;
    module.add_class::<publisher::NativePublisher>()?;
    module.add_class::<publisher::ReceiptBase>()?;
    module.add_class::<publisher::AsyncReceipt>()?;
    module.add_class::<publisher::SyncReceipt>()?;
    module.add_class::<subscription::Feed>()?;
    module.add_class::<watches::NativeContextWatch>()?;
    module.add_class::<watches::NativeAgentWatch>()?;
    module.add_class::<transfers::NativeTransfer>()?;
    #[cfg(feature = "testing")]
    module.add_class::<testing::NativeFakeBus>()?;
    #[cfg(feature = "testing")]
    module.add_class::<testing::NativeNetwork>()?;
    module.add_function(wrap_pyfunction!(client::connect, module)?)?;
    module.add_function(wrap_pyfunction!(process::drain_logs, module)?)?;
    module.add_function(wrap_pyfunction!(process::set_log_level, module)?)?;
    module.add_function(wrap_pyfunction!(process::shutdown, module)?)?;
    module.add_function(wrap_pyfunction!(process::random_key, module)?)?;
    Ok(())
}
