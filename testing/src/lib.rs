//! A bus for your tests: in process, without a server, a port or a file; there in milliseconds; its time is yours.
//!
//! ```
//! use std::time::Duration;
//!
//! use acb_testing::FakeBus;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = FakeBus::start().await?;
//! let worker = bus.client("worker").connect().await?;
//! worker.agents().register("worker").await?;
//! let mut inbox = worker.inbox().await?;
//!
//! let planner = bus.client("planner").connect().await?;
//! planner.messages().send("worker", "count me").confirm().await?;
//! let message = inbox.next().await.ok_or("the inbox ended")??;
//! assert_eq!(message.attempt(), 1);
//!
//! // Nobody settles it: its lease ends after 30 s, and a second later it is tried again. Both are now.
//! bus.advance(Duration::from_secs(30))?;
//! bus.advance(Duration::from_secs(1))?;
//! let again = inbox.next().await.ok_or("the inbox ended")??;
//! assert_eq!(again.attempt(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # What it is
//! The server itself (`acb-server` as a library: use cases, delivery, engine, codecs, HTTP/2) over the memory stores of
//! `acb-ports`, on a thread of its own, reached by pipes instead of sockets. So it does what the server does, down to error
//! codes and order: the conformance scenarios run against it, and forty deliberate faults, put into it, are each found by one
//! of them (ADR 0010).
//!
//! # What it is not
//! A place to keep anything: what it stores ends with it, `synced` or not. [`FakeBus::kill`] is what kill -9 does to a
//! process, and [`FakeBus::restart`] starts over the same stores; there is no power cut. It has no REST side, no TLS and no
//! admin listener; [`FakeBus::metrics`] gives what that would show. Its speed says nothing about the server's.
//!
//! # Time
//! The bus's clock stands until [`FakeBus::advance`] moves it, and what came due thereby (leases, retries, expiries,
//! tokens) is dealt with before that returns. The client's own timers (request timeouts, waits between reconnects) are
//! real time: do not pause tokio's clock in such a test, as timeouts would fire while the bus, on its own thread, is at
//! work. [`FakeBusBuilder::real_clock`] lets the bus run on the machine's time.

mod bus;
mod cable;
mod error;
mod network;
mod run;

#[doc(hidden)]
pub use acb_server::in_process::RouteLayer;

#[doc(hidden)]
pub use self::bus::Wrapping;
pub use self::{
    bus::{FakeBus, FakeBusBuilder},
    error::FakeError,
    network::{Network, Way},
};
