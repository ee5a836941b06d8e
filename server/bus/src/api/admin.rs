//! The admin listener: is it alive, is it ready, what does it count, and with `--manual-clock` what time is it. Loopback
//! only, plain text, no credentials; nothing here changes or shows what belongs to a tenant.

use std::{sync::Arc, time::Duration};

use acb_ports::{Clock, ManualClock};
use acb_types::{Now, Timestamp};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};

use super::router::Readiness;
use crate::{delivery::Delivery, presence::Presence, telemetry::Metrics};

/// Version of the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the admin listener shows.
#[derive(Clone, Debug)]
pub struct AdminDeps {
    /// Whether the server takes work.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is there.
    pub presence: Arc<Presence>,
    /// Whose gauges are set when somebody asks.
    pub delivery: Arc<Delivery>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When the server became ready, on the monotonic clock.
    pub started_mono_ms: u64,
    /// The clock that `/advance` and `/wall` move, with `--manual-clock`.
    pub manual: Option<Arc<ManualClock>>,
}

/// The admin router.
pub fn router(deps: AdminDeps) -> Router {
    let manual = deps.manual.is_some();
    let router = Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version));
    let router = if manual { router.route("/advance", post(advance)).route("/wall", post(wall)) } else { router };
    router.fallback(|| async { StatusCode::NOT_FOUND }).with_state(deps)
}

async fn live() -> Response {
    Json(serde_json::json!({"status": "live"})).into_response()
}

async fn ready(State(deps): State<AdminDeps>) -> Response {
    if deps.readiness.is_ready() {
        Json(serde_json::json!({"status": "ready"})).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({"status": "not_ready"}))).into_response()
    }
}

async fn version() -> Response {
    Json(serde_json::json!({"version": VERSION})).into_response()
}

async fn metrics(State(deps): State<AdminDeps>) -> Response {
    match deps.metrics_text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!("metrics not encoded: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    ms: u64,
}

/// Where the wall clock is to stand, in milliseconds since 1970.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wall {
    ms: u64,
}

/// Time goes on by a span: both clocks move, and who waited wakes. Leases that ended thereby and attempts that came due
/// are dealt with before the answer, so that whoever asked may look at once.
async fn advance(State(deps): State<AdminDeps>, Query(by): Query<Advance>) -> Response {
    let span = Duration::from_millis(by.ms);
    deps.advance(span).map_or_else(|| StatusCode::NOT_FOUND.into_response(), told)
}

impl AdminDeps {
    /// Moves a manual clock on, and deals with what came due thereby. `None` when the clock is the machine's.
    pub(crate) fn advance(&self, span: Duration) -> Option<Now> {
        let now = self.manual.as_ref()?.advance(span);
        for partition in self.delivery.partitions() {
            partition.run_due(now);
        }
        self.presence.run_due(now);
        Some(now)
    }

    /// Sets the wall half of a manual clock.
    pub(crate) fn set_wall(&self, wall: Timestamp) -> Option<Now> {
        let clock = self.manual.as_ref()?;
        clock.set_wall(wall);
        Some(clock.now())
    }

    /// What is counted, as Prometheus reads it.
    ///
    /// # Errors
    /// When it cannot be written as text.
    pub(crate) fn metrics_text(&self) -> Result<String, std::fmt::Error> {
        for (tenant, online) in self.presence.active() {
            self.metrics.tenant(&tenant).active_agents.set(online as i64);
        }
        for partition in self.delivery.partitions() {
            partition.observe();
        }
        let up = self.clock.now().mono_ms.saturating_sub(self.started_mono_ms) / 1000;
        self.metrics.uptime.set(up as i64);
        self.metrics.encode()
    }
}

/// The wall clock is set, forward or back, as by somebody at the machine: no time has passed, and nobody wakes.
async fn wall(State(deps): State<AdminDeps>, Query(to): Query<Wall>) -> Response {
    deps.set_wall(Timestamp(to.ms)).map_or_else(|| StatusCode::NOT_FOUND.into_response(), told)
}

fn told(now: Now) -> Response {
    Json(serde_json::json!({"mono_ms": now.mono_ms, "wall_ms": now.wall.0})).into_response()
}
