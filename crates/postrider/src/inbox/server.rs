//! The HTTP side of an inbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use postrider_core::Timestamp;
use postrider_core::verify::ReceivedLine;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::book::{Answer, Given, Inbox, Order, Received};
use super::relay;
use super::tls::{Certificate, TlsListener};

/// The longest that a request hangs.
pub const MAX_HANG: Duration = Duration::from_secs(120);
/// The most requests that hang at once.
const MAX_HANGING: usize = 1_000;
/// The largest body.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Called with every request that came.
type Notify = Arc<dyn Fn(&Received) + Send + Sync>;

/// How an inbox is reached: the beginning of the URL that signatures may cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http:`
    Http,
    /// `https:`
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What all routes share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) inbox: Arc<Inbox>,
    scheme: Scheme,
    notify: Notify,
    hanging: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

/// The routes of an inbox. `notify` is called with every request that came, but for those that are relayed.
pub fn routes(
    inbox: Arc<Inbox>,
    scheme: Scheme,
    notify: impl Fn(&Received) + Send + Sync + 'static,
    stop: CancellationToken,
) -> Router {
    let shared = Shared {
        inbox,
        scheme,
        notify: Arc::new(notify),
        hanging: Arc::new(Semaphore::new(MAX_HANGING)),
        stop,
    };
    Router::new()
        .route("/in/{name}", any(take))
        .route("/_inbox", get(names))
        .route("/_inbox/{name}", get(list).put(order))
        .merge(relay::routes())
        .with_state(shared)
}

/// Serves an inbox until `stop`, over TLS if there is a certificate.
pub async fn serve(
    listener: TcpListener,
    certificate: Option<Certificate>,
    inbox: Arc<Inbox>,
    notify: impl Fn(&Received) + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let scheme = if certificate.is_some() { Scheme::Https } else { Scheme::Http };
    let routes = routes(inbox, scheme, notify, stop.clone());
    let serving = async {
        match certificate {
            None => axum::serve(listener, routes).await,
            Some(certificate) => axum::serve(TlsListener::new(listener, &certificate)?, routes).await,
        }
    };
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                tracing::error!(%error, "the inbox failed");
            }
        }
        () = stop.cancelled() => {}
    }
}

async fn take(State(shared): State<Shared>, Path(name): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match whole_body(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let headers = readable(&parts.headers);
    let scheme = shared.scheme.as_str();
    let method = parts.method.as_str();
    let given = Given { name: &name, scheme, method, path, headers: &headers, body: &body };
    let at = postrider_broker::now();
    let Some((received, retry_after)) = shared.inbox.take(&given, at, Instant::now()) else {
        return problem(
            StatusCode::INSUFFICIENT_STORAGE,
            "the name is too long, or the inbox has as many names as it can keep",
        );
    };
    if let Some(ledger) = shared.inbox.ledger()
        && let Err(failure) = ledger.append(&[line_of(&received, at)]).await
    {
        tracing::error!(%failure, "a request is not answered, since it could not be written down");
        return problem(StatusCode::INSUFFICIENT_STORAGE, "the request could not be written down");
    }
    (shared.notify)(&received);
    match received.answer {
        Answer::Status(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = (status, Body::empty()).into_response();
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
        Answer::Hang(_) => {
            let Ok(_place) = shared.hanging.try_acquire() else {
                return problem(StatusCode::SERVICE_UNAVAILABLE, "too many requests hang already");
            };
            tokio::select! {
                () = tokio::time::sleep(MAX_HANG) => {}
                () = shared.stop.cancelled() => {}
            }
            problem(StatusCode::GATEWAY_TIMEOUT, "it hung as it was told")
        }
    }
}

/// A body, within limits; else what to answer.
pub(super) async fn whole_body(body: Body) -> Result<Bytes, Response> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let why = format!("a body may have {MAX_BODY_BYTES} bytes");
            Err(problem(StatusCode::PAYLOAD_TOO_LARGE, &why))
        }
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

/// A request as a ledger has it.
fn line_of(received: &Received, at: Timestamp) -> ReceivedLine {
    ReceivedLine {
        webhook_id: received.header("webhook-id").unwrap_or_default().to_owned(),
        n: received.header("webhook-attempt").and_then(|n| n.parse().ok()).unwrap_or(0),
        at,
        status: match received.answer {
            Answer::Status(status) => status,
            Answer::Hang(_) => 0,
        },
        path: received.path.split('?').next().unwrap_or_default().to_owned(),
        verified: received.verified,
    }
}

/// Every name, and how much came to it.
async fn names(State(shared): State<Shared>) -> Response {
    let names = shared.inbox.names().into_iter();
    let items: Vec<_> = names.map(|(name, total)| json!({"name": name, "total": total})).collect();
    Json(json!({"items": items, "next": null})).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// At most so many, the newest.
    limit: Option<usize>,
}

async fn list(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Response {
    let (items, total) = shared.inbox.newest(&name, asked.limit.unwrap_or(usize::MAX));
    Json(json!({"items": items, "total": total, "next": null})).into_response()
}

async fn order(State(shared): State<Shared>, Path(name): Path<String>, body: Bytes) -> Response {
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        // What serde says may quote the input, and that may hold a secret.
        Err(_) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "an order is a JSON object with secret, profile, answer, times, for_ms and retry_after, each optional",
            );
        }
    };
    match shared.inbox.order(&name, &order, Instant::now()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(bad) => problem(StatusCode::UNPROCESSABLE_ENTITY, &bad.to_string()),
    }
}

fn readable(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({"status": status.as_u16(), "detail": detail});
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tower::ServiceExt as _;

    async fn call(routes: &Router, request: Request) -> (StatusCode, HeaderMap, String) {
        let response = routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    fn request(method: &str, path: &str, body: &str) -> Request {
        Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap()
    }

    #[tokio::test]
    async fn it_is_told_over_http_and_lists_what_came() {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let notify = move |_: &Received| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let routes = routes(Arc::new(Inbox::new(None)), Scheme::Http, notify, CancellationToken::new());
        let told =
            call(&routes, request("PUT", "/_inbox/a", r#"{"answer":503,"times":1,"retry_after":2}"#)).await;
        assert_eq!(told.0, 204);
        let first = call(&routes, request("POST", "/in/a?k=v", r#"{"event_type":"X"}"#)).await;
        assert_eq!((first.0.as_u16(), first.1["retry-after"].to_str().unwrap()), (503, "2"));
        assert_eq!(call(&routes, request("POST", "/in/a", "{}")).await.0, 200);
        let listed = call(&routes, request("GET", "/_inbox/a", "")).await.2;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["total"], 2);
        assert_eq!(listed["items"][0]["path"], "/in/a?k=v");
        assert_eq!(listed["items"][0]["answer"], 503);
        assert_eq!(listed["items"][0]["event_type"], "X");
        let newest = call(&routes, request("GET", "/_inbox/a?limit=1", "")).await.2;
        let newest: serde_json::Value = serde_json::from_str(&newest).unwrap();
        assert_eq!((&newest["total"], &newest["items"][0]["answer"]), (&json!(2), &json!(200)));
        assert_eq!(newest["items"].as_array().unwrap().len(), 1);
        let names = call(&routes, request("GET", "/_inbox", "")).await.2;
        let names: serde_json::Value = serde_json::from_str(&names).unwrap();
        assert_eq!(names["items"], json!([{"name": "a", "total": 2}]));
        assert_eq!(seen.load(Ordering::Relaxed), 2);
        let bad = call(&routes, request("PUT", "/_inbox/a", r#"{"secret":"whsec_hunter2"}"#)).await;
        assert_eq!(bad.0, 422);
        assert!(!bad.2.contains("hunter2"));
        let shape = call(&routes, request("PUT", "/_inbox/a", r#"{"sekret":"hunter2"}"#)).await;
        assert_eq!(shape.0, 400);
        assert!(!shape.2.contains("hunter2"));
    }

    #[tokio::test]
    async fn a_hanging_request_ends_when_the_inbox_stops() {
        let stop = CancellationToken::new();
        let routes = routes(Arc::new(Inbox::new(None)), Scheme::Http, |_: &Received| {}, stop.clone());
        assert_eq!(call(&routes, request("PUT", "/_inbox/a", r#"{"answer":"hang"}"#)).await.0, 204);
        stop.cancel();
        assert_eq!(call(&routes, request("POST", "/in/a", "")).await.0, 504);
    }
}
