//! Waiting on the guest's own thread, in slices, so that between them the guest can look for its signals.

use std::{future::Future, pin::Pin, time::Duration};

use acb_sdk::Error;

use crate::{
    port::stop_panic,
    runtime::{Runtime, over},
};

/// A future that a guest waits for on a thread of its own. Each [`Self::wait`] is one slice.
pub struct Waiting<T> {
    operation: &'static str,
    future: Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>,
    runtime: &'static Runtime,
}

impl<T> std::fmt::Debug for Waiting<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

impl<T: Send + 'static> Waiting<T> {
    /// How long a guest may be without a look at its signals: half of what people notice.
    pub const SLICE: Duration = Duration::from_millis(50);

    /// Starts to wait.
    ///
    /// # Errors
    /// `client_closed` when the runtime was ended.
    pub fn new(
        operation: &'static str,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<Self, Error> {
        let runtime = Runtime::get()?;
        if runtime.is_over() {
            return Err(over(operation));
        }
        Ok(Self { operation, future: Box::pin(stop_panic(operation, future)), runtime })
    }

    /// Waits for one slice; `None` when it is not over yet. Dropping it instead gives the work up.
    pub fn wait(&mut self) -> Option<Result<T, Error>> {
        self.runtime.wait(self.operation, &mut self.future, Self::SLICE)
    }
}
