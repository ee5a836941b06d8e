//! One router for everything that comes in on the port: hot methods first, then the services, then plain HTTP.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use acb_types::ErrorCode;
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::map_response,
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::grpc::{status, untyped};
use crate::{error::AppError, request_id::RequestId};

/// Whether the server takes work. Shared by health, readiness and the port.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Relaxed);
    }

    /// Whether it does.
    pub fn is_ready(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The router. `hot` holds the exact routes of the two hot methods, `services` everything that is generated.
pub fn router(hot: Router, services: Router, readiness: Readiness) -> Router {
    let services = services.layer(map_response(untyped::typed));
    let http = Router::new().route("/health", get(health)).with_state(readiness);
    hot.merge(services).merge(http).fallback(absent)
}

async fn health(State(readiness): State<Readiness>) -> Response {
    if readiness.is_ready() {
        Json(serde_json::json!({"status": "serving"})).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({"status": "not_serving"}))).into_response()
    }
}

/// What is not there.
async fn absent(request: Request) -> Response {
    answer(&request, |grpc| {
        if grpc {
            // gRPC's own status for it is UNIMPLEMENTED, and foreign clients look for that one.
            AppError::new(ErrorCode::UnsupportedFeature, "the server has no such call")
        } else {
            AppError::of(ErrorCode::RouteNotFound)
        }
    })
}

/// The router for connections over the bound: whatever they ask, they hear that there is no room for them.
pub fn full() -> Router {
    let no_room = |_| AppError::of(ErrorCode::TooManyConnections);
    Router::new().fallback(move |request: Request| async move { answer(&request, no_room) })
}

/// An error in the language of who asks.
fn answer(request: &Request, error: impl FnOnce(bool) -> AppError) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let grpc = content_type.starts_with("application/grpc");
    let (error, request_id) = (error(grpc), RequestId::new());
    if grpc { status::to_status(&error, request_id).into_http() } else { problem(&error, request_id) }
}

/// An error as problem details (RFC 9457).
pub fn problem(error: &AppError, request_id: RequestId) -> Response {
    let code = error.code();
    let details: serde_json::Map<String, serde_json::Value> =
        error.details().iter().map(|(k, v)| ((*k).to_owned(), v.clone().into())).collect();
    let body = serde_json::json!({
        "type": format!("urn:acb:error:{}", code.name()),
        "title": code.name(),
        "status": code.http_status(),
        "detail": error.message(),
        "code": code.name(),
        "request_id": request_id.to_string(),
        "details": details,
    });
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
