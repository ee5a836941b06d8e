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

/// What is not there, in the language of who asks.
async fn absent(request: Request) -> Response {
    if is_grpc(&request) {
        // gRPC's own status for it is UNIMPLEMENTED, and foreign clients look for that one.
        let error = AppError::new(ErrorCode::UnsupportedFeature, "the server has no such call");
        return status::to_status(&error, RequestId::new()).into_http();
    }
    problem(&AppError::of(ErrorCode::RouteNotFound), RequestId::new())
}

/// The router for connections over the bound: whatever they ask, they hear that there is no room for them.
pub fn full() -> Router {
    Router::new().fallback(|request: Request| async move {
        let error = AppError::of(ErrorCode::TooManyConnections);
        if is_grpc(&request) {
            return status::to_status(&error, RequestId::new()).into_http();
        }
        problem(&error, RequestId::new())
    })
}

fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    content_type.starts_with("application/grpc")
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
