//! The layer around the routes.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;

use super::{
    Change, Conversation, Edit, What,
    body::{self, Edited, Way},
};

/// Largest unary request that is looked at.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Routes that lie.
pub fn around(routes: Router, edits: Arc<[Edit]>) -> Router {
    routes.layer(from_fn(move |request: Request, next: Next| {
        let edits = Arc::clone(&edits);
        async move { Ok::<_, Infallible>(converse(&edits, request, next).await) }
    }))
}

async fn converse(edits: &[Edit], mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let edits: Vec<&Edit> = edits.iter().filter(|edit| edit.path.is_empty() || edit.path == path).collect();
    for edit in &edits {
        if let What::Head(change) = &edit.what {
            change(request.headers_mut());
        }
    }
    let conversation = Arc::new(Mutex::new(conversation(request.headers())));
    let changes = |wanted: fn(&What) -> Option<&Change>| -> Vec<Change> {
        edits.iter().filter_map(|edit| wanted(&edit.what)).map(Arc::clone).collect()
    };
    let ups = changes(|what| if let What::Up(change) = what { Some(change) } else { None });
    let downs = changes(|what| if let What::Down(change) = what { Some(change) } else { None });
    for edit in &edits {
        let What::Answered(answer) = &edit.what else { continue };
        let (head, body) = request.into_parts();
        let whole = axum::body::to_bytes(body, REQUEST_BYTES_MAX).await.unwrap_or_default();
        let message = body::take(&mut BytesMut::from(&whole[..])).unwrap_or_default();
        conversation.lock().request = message;
        let given = answer(&mut conversation.lock(), "");
        if let Some(message) = given {
            return success(&message);
        }
        request = Request::from_parts(head, Body::from(whole));
    }
    let request = request.map(|body| Body::new(Edited::new(body, Way::Up, ups, &conversation)));
    let response = next.run(request).await;
    let code = response.headers().get("acb-error-code").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !code.is_empty() {
        for edit in &edits {
            let What::Failed(instead) = &edit.what else { continue };
            let given = instead(&mut conversation.lock(), code);
            if let Some(message) = given {
                return success(&message);
            }
        }
    }
    response.map(|body| Body::new(Edited::new(body, Way::Down, downs, &conversation)))
}

fn conversation(head: &HeaderMap) -> Conversation {
    let named = |name: &str| head.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    Conversation { tenant: named("acb-tenant"), agent: named("acb-agent"), ..Conversation::default() }
}

/// The answer of a unary call that went well.
fn success(message: &Bytes) -> Response {
    let mut framed = BytesMut::new();
    body::put(&mut framed, message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
