//! What every language's binding stands on: the client core, turned into something that a guest can submit to, be woken
//! by, and drain.
//!
//! pyo3, napi and the C ABI are thin over this crate, so that batching, bounds, cancellation and forks are written once.
//! What crosses a border, and how, is decided in `docs/adr/0009-binding-kit.md`; in one sentence: **work goes in by
//! [`Port::submit`], comes back through one [`Queue`] in batches behind one edge-triggered wake, and messages are pulled in
//! batches from a [`Feed`]; nothing crosses the border one message at a time.**
//!
//! ```text
//!   guest thread                          tokio threads of the kit
//!   submit(future) ─────────────────────▶ task ──▶ core
//!        ▲  token                             │
//!        │                                    ▼ completion, exactly one a token
//!   drain(max) ◀── one wake a batch ──── Queue
//!   feed.take(max, bytes) ◀───────────── core's own queue of arrived frames (bounded by credit)
//! ```
//!
//! # What guests may rely on
//! - **One completion a token**, whether the work succeeded, failed, panicked, was cancelled or lost its runtime.
//! - **A wake is an edge**: after one, drain until nothing is left; there is no other before that.
//! - **Cancelling loses nothing**: what a [`Feed`] has reserved stays reserved for whoever asks next.
//! - **A panic of ours is an error** (`internal`) of the call that met it, not the end of the guest's process.
//! - **After a fork** the child gets `client_forked` from everything that its parent made, and may make its own.

mod block;
mod credit;
mod feed;
mod fork;
mod handle;
mod logs;
mod pool;
mod port;
mod queue;
mod runtime;
mod stats;
mod sync;
mod transfer;
mod wake;
mod watch;

pub use self::{
    block::Waiting,
    credit::{Permit, Window},
    feed::{Feed, Taken},
    fork::{Home, Inherited},
    handle::{Handle, Handles},
    logs::{LogLine, Logs},
    pool::{Buffer, Pool, SIZES},
    port::{Completion, IN_FLIGHT_MAX, Outcome, Port, Submitted, Token, stop_panic},
    queue::{Queue, Wake},
    runtime::{Runtime, WORKERS},
    stats::Stats,
    transfer::{Pipe, PipeReader, PipeTaker, PipeWriter, Transfer},
    wake::{Callback, WakeFd},
    watch::{BYTES_MAX, EVENTS_MAX, Seen, Watch, Watched},
};
