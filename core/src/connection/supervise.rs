//! The one task that owns the connection: dials, logs in, watches, dials again, and keeps token and presence alive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use acb_types::limits;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Control, Core, Event, Link, State};
use crate::{
    error::{Error, ErrorCode, Result, Retry},
    retry::Schedule,
    transport::grpc::{self, KeepAlive, Sizes},
};

const OPERATION: &str = "connect";
/// A connection that broke sooner and carried nothing counts as a failed attempt, so that a server that accepts and
/// hangs up is not dialled in a circle.
const STABLE_AFTER: Duration = Duration::from_secs(1);
/// Wait after a failed refresh.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// Heartbeats come a little before they are due.
const HEARTBEAT: Duration = Duration::from_millis(limits::HEARTBEAT_INTERVAL.as_millis() as u64 * 4 / 5);
/// With nothing to do the supervisor still looks around.
const IDLE: Duration = Duration::from_hours(1);

/// How a connection ended.
enum Ended {
    Broken(Error),
    /// To be replaced after this.
    Retired(Duration),
}

pub(super) async fn run(core: Arc<Core>, mut controls: mpsc::Receiver<Control>) {
    // Both may be dropped at any await: what they hold is the connection itself.
    let error = tokio::select! {
        () = core.closing() => Error::closed(OPERATION),
        error = supervise(&core, &mut controls) => error,
    };
    core.state.send_replace(State::Closed(error));
    core.tell(Event::Closed);
    core.tasks.closing.cancel();
}

/// Returns only when the attempts that the policy allows are used up.
async fn supervise(core: &Arc<Core>, controls: &mut mpsc::Receiver<Control>) -> Error {
    let mut schedule = core.options.reconnect.schedule();
    let mut generation = 0;
    let mut suspended = false;
    loop {
        let error = match connect(core, generation + 1).await {
            Ok((link, broken)) => {
                generation += 1;
                let since = Instant::now();
                core.state.send_replace(State::Up(link.clone()));
                core.tell(if generation == 1 { Event::Connected } else { Event::Resumed { generation } });
                suspended = false;
                let ended = watch(core, &link, broken, controls).await;
                if core.took_progress() || since.elapsed() >= STABLE_AFTER {
                    schedule.reset();
                }
                match ended {
                    Ended::Retired(after) => {
                        core.state.send_replace(State::Down(None));
                        core.tell(Event::GoingAway);
                        tokio::time::sleep(after).await;
                        continue;
                    }
                    Ended::Broken(error) => error,
                }
            }
            Err(error) => error,
        };
        core.state.send_replace(State::Down(Some(error.clone())));
        if !std::mem::replace(&mut suspended, true) {
            core.tell(Event::Suspended { error: error.clone() });
        }
        tracing::debug!(%error, attempts = schedule.attempts(), "not connected");
        match pause(core, &mut schedule, &error).await {
            Ok(()) => {}
            Err(error) => return error,
        }
    }
}

async fn pause(core: &Core, schedule: &mut Schedule, error: &Error) -> Result<()> {
    let Some(wait) = schedule.next_wait() else {
        let attempts = schedule.attempts();
        return Err(error.clone().with_retry(Retry::Exhausted { attempts }));
    };
    // The first try after a loss comes at once: most losses are over before they are seen.
    let wait = if schedule.attempts() == 1 && core.down().is_some_and(|e| e.code() == ErrorCode::ConnectionLost) {
        wait / 4
    } else {
        wait.max(error.retry_after().unwrap_or_default().min(core.options.connect_timeout))
    };
    tokio::time::sleep(wait).await;
    Ok(())
}

/// Opens a connection and makes sure of a token on it.
async fn connect(core: &Arc<Core>, generation: u64) -> Result<(Link, oneshot::Receiver<Error>)> {
    let timeout = core.options.connect_timeout;
    let attempt = async {
        let endpoint = &core.options.endpoint;
        let dial_error = |e: std::io::Error| {
            let text = format!("cannot connect to {endpoint}: {e}");
            Error::new(ErrorCode::Unavailable, OPERATION, text).with_source(e)
        };
        let io = core.options.dialer.dial(endpoint).await.map_err(dial_error)?;
        let io = match &core.tls {
            None => io,
            Some(tls) => tls.wrap(io).await.map_err(|e| tls_error(endpoint, e))?,
        };
        let keep_alive =
            KeepAlive { interval: core.options.keep_alive_interval, timeout: core.options.keep_alive_timeout };
        let (channel, driver) = grpc::handshake(io, keep_alive, Sizes::HOT).await.map_err(|e| {
            Error::new(ErrorCode::ProtocolError, OPERATION, format!("{endpoint} does not speak HTTP/2")).with_source(e)
        })?;
        let (tell, broken) = oneshot::channel();
        let closing = core.tasks.closing.clone();
        core.tasks.spawn("wire", async move {
            // The driver may be dropped at any await: then the socket closes.
            let error = tokio::select! {
                () = closing.cancelled() => Error::closed(OPERATION),
                end = driver => match end {
                    Ok(()) => Error::new(ErrorCode::ConnectionLost, OPERATION, "the server closed the connection"),
                    Err(e) => Error::new(ErrorCode::ConnectionLost, OPERATION, format!("the connection broke: {e}")).with_source(e),
                },
            };
            // Nobody waits for a connection that was retired.
            let _ = tell.send(error);
        });
        let link = Link { generation, channel };
        if generation == 1 && !crate::convert::needs_token(&core.options.credentials) {
            // No login will tell whether this is a bus: ask.
            core.probe(&link).await?;
        }
        core.ensure_token(&link).await?;
        Ok((link, broken))
    };
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
        let text = format!("no answer from {} within {timeout:?}", core.options.endpoint);
        Err(Error::new(ErrorCode::Unavailable, OPERATION, text))
    })
}

pub(super) fn tls_error(endpoint: &crate::transport::Endpoint, e: std::io::Error) -> Error {
    // A certificate that is refused now is refused the next time; a broken socket is not.
    let refused = e.kind() == std::io::ErrorKind::InvalidData;
    let code = if refused { ErrorCode::ProtocolError } else { ErrorCode::Unavailable };
    Error::new(code, OPERATION, format!("no TLS with {endpoint}: {e}")).with_source(e)
}

/// What is due on a connection, and when.
struct Duties {
    renew_at: Instant,
    /// The server asked for a fresh token.
    renew_now: bool,
    renewing: Arc<AtomicBool>,
    heartbeat_at: Option<Instant>,
    beating: Arc<AtomicBool>,
}

/// Watches a connection until it ends.
async fn watch(
    core: &Arc<Core>,
    link: &Link,
    mut broken: oneshot::Receiver<Error>,
    controls: &mut mpsc::Receiver<Control>,
) -> Ended {
    let mut duties = Duties {
        renew_at: renew_at(core),
        renew_now: false,
        renewing: Arc::default(),
        heartbeat_at: None,
        beating: Arc::default(),
    };
    loop {
        duties.plan_heartbeat(core);
        let due = duties.heartbeat_at.map_or(duties.renew_at, |at| at.min(duties.renew_at));
        // All three may be dropped at any await: each is asked anew.
        tokio::select! {
            error = &mut broken => {
                return Ended::Broken(error.unwrap_or_else(|_| Error::new(ErrorCode::ConnectionLost, OPERATION, "the connection broke")));
            }
            control = controls.recv() => match control {
                Some(Control::Retire(generation, after)) if generation == link.generation => {
                    return Ended::Retired(after);
                }
                Some(Control::TokenExpires) => duties.renew_now = true,
                Some(Control::Retire(..) | Control::Presence) | None => {}
            },
            () = tokio::time::sleep_until(due) => {}
        }
        duties.perform(core, link);
    }
}

fn renew_at(core: &Core) -> Instant {
    let now = Instant::now();
    now + core.tokens.refresh_in(now).unwrap_or(IDLE).min(IDLE)
}

impl Duties {
    fn plan_heartbeat(&mut self, core: &Core) {
        if core.incarnation() == 0 || core.has_hot_stream() {
            self.heartbeat_at = None;
        } else if self.heartbeat_at.is_none() {
            self.heartbeat_at = Some(Instant::now() + HEARTBEAT);
        }
    }

    /// Starts what is due, in tasks of its own: a refresh that is cancelled half-way has spent its token.
    fn perform(&mut self, core: &Arc<Core>, link: &Link) {
        let now = Instant::now();
        if self.renew_now || now >= self.renew_at {
            let due = core.tokens.refresh_in(now).is_some_and(|left| left.is_zero());
            if !std::mem::take(&mut self.renew_now) && !due {
                self.renew_at = renew_at(core);
            } else if !self.renewing.swap(true, Ordering::Relaxed) {
                self.renew_at = now + RENEW_AGAIN;
                let (core, link, renewing) = (Arc::clone(core), link.clone(), Arc::clone(&self.renewing));
                let tasks = Arc::clone(&core);
                tasks.tasks.spawn("renew", async move {
                    if let Err(error) = core.renew(&link).await {
                        tracing::warn!(%error, "the token could not be refreshed, will try again");
                    }
                    renewing.store(false, Ordering::Relaxed);
                });
            }
        }
        if self.heartbeat_at.is_some_and(|at| now >= at) {
            self.heartbeat_at = None;
            if !self.beating.swap(true, Ordering::Relaxed) {
                let (core, beating) = (Arc::clone(core), Arc::clone(&self.beating));
                let tasks = Arc::clone(&core);
                tasks.tasks.spawn("heartbeat", async move {
                    core.heartbeat().await;
                    beating.store(false, Ordering::Relaxed);
                });
            }
        }
    }
}
