//! What can be wrong with a fake bus.

/// A fake bus that does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum FakeError {
    /// A setting that the server does not know, or a value that it does not take.
    #[error("{0}")]
    Setting(String),
    /// The server did not start.
    #[error("the fake bus did not start: {0}")]
    Start(#[from] acb_server::StartError),
    /// The system gives no thread.
    #[error("no thread for the fake bus: {0}")]
    Thread(#[from] std::io::Error),
    /// The bus runs on the machine's time, which nobody moves.
    #[error("the clock of this bus is the machine's: start it without real_clock()")]
    RealClock,
    /// Something was asked of a bus that was stopped or killed.
    #[error("the bus does not run: restart() it first")]
    NotRunning,
    /// The server's own thread ended early: a fault of ours.
    #[error("the fake bus ended early, which is a fault of its own")]
    Broken,
}
