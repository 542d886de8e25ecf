//! What surrounds every handler.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{Method, Uri, header};
use postrider_broker::crash;
use postrider_core::intake;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::Api;
use super::problem::{Code, Problem};

/// The longest URL, bytes.
const MAX_URI_BYTES: usize = 8 * 1024;
/// The largest body, bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The largest body of `POST /v1/events`, bytes.
const MAX_EVENTS_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of bodies in memory at the same time, in KiB; more wait.
const MAX_BODIES_KIB: usize = 128 * 1024;
/// How long a body may take to arrive, and how long a request may be worked on.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How much of bodies may be in memory.
#[derive(Clone, Debug)]
pub(crate) struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES_KIB)))
    }
}

/// Counts and times every request, and every problem by its code.
pub(crate) async fn measure(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    api.metrics.answered(route.as_deref(), method.as_str(), status, begun.elapsed());
    if let Some(code) = response.extensions().get::<Code>() {
        api.metrics.problem(code.as_str());
    }
    tracing::debug!(%method, route, status, duration_ms = begun.elapsed().as_millis(), "answered a request");
    response
}

/// A handler panicked: a fault of ours, said without its details.
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let what = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(what, "a request handler panicked");
    Problem::new(
        Code::Internal,
        "the request met a fault of Postrider",
        "Report this; the log of control says more.",
    )
    .into_response()
}

/// Refuses long URLs.
pub(crate) async fn short_uri(request: Request, next: Next) -> Response {
    let length = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if length > MAX_URI_BYTES {
        let detail = format!("the URL has {length} bytes; at most {MAX_URI_BYTES} are read");
        return Problem::new(Code::UriTooLong, detail, "Shorten the query.").into_response();
    }
    next.run(request).await
}

/// Takes the whole body into memory, within bounds of size and time. It is also left as an extension.
pub(crate) async fn take_body(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if ![Method::POST, Method::PATCH, Method::PUT].contains(request.method()) {
        return next.run(request).await;
    }
    let events = request.uri().path() == "/v1/events";
    let most = if events { MAX_EVENTS_BYTES } else { MAX_BODY_BYTES };
    let too_large = || {
        let detail = format!("at most {most} bytes are read");
        let hint = if events { "Send fewer events in one request." } else { "Send less in one request." };
        Problem::new(Code::BodyTooLarge, detail, hint).into_response()
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if length.is_some_and(|length| length > most) {
        return too_large();
    }
    let kib = u32::try_from(length.unwrap_or(most).div_ceil(1024)).unwrap_or(u32::MAX);
    let Ok(Ok(_place)) = timeout(TIMEOUT, api.bodies.0.clone().acquire_many_owned(kib)).await else {
        return Problem::new(Code::Busy, "too many large requests are worked on", "Try again in a moment.")
            .retry_after(1)
            .into_response();
    };
    let (mut parts, body) = request.into_parts();
    let bytes = match timeout(TIMEOUT, to_bytes(body, most)).await {
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", TIMEOUT.as_secs());
            return Problem::new(Code::SlowBody, detail, "Send the request again.").into_response();
        }
        // The limit is one reason, the other is a client that went away and reads no answer.
        Ok(Err(_)) => return too_large(),
        Ok(Ok(bytes)) => bytes,
    };
    if !bytes.is_empty()
        && let Err(problem) = check_content_type(&parts.headers, events)
    {
        return problem.into_response();
    }
    parts.extensions.insert(bytes.clone());
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

fn check_content_type(headers: &http::HeaderMap, events: bool) -> Result<(), Problem> {
    let refuse = |detail: &str| {
        let hint = "Send the header Content-Type: application/json.";
        Err(Problem::new(Code::UnsupportedMediaType, detail, hint))
    };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        return refuse("Content-Encoding must not be set: send plain JSON");
    }
    match content_type(headers).as_deref() {
        Some("application/json") => Ok(()),
        Some("application/merge-patch+json") if !events => Ok(()),
        Some(intake::CLOUD_EVENT | intake::CLOUD_EVENT_BATCH) if events => Ok(()),
        Some(_) => refuse("the Content-Type is not application/json"),
        None => refuse("there is no Content-Type"),
    }
}

/// The content type without its parameters, in lower case.
pub(crate) fn content_type(headers: &http::HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Ends what takes too long.
pub(crate) async fn deadline(request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    match timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => {
            if changes && response.status().is_success() {
                crash::point("api.committed");
            }
            response
        }
        Err(_) => Problem::new(
            Code::Timeout,
            format!("the request took more than {} s", TIMEOUT.as_secs()),
            "Try again with the same Idempotency-Key, or ask for less.",
        )
        .retry_after(2)
        .into_response(),
    }
}

/// No route has this path.
pub(crate) async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(128).collect();
    Problem::new(Code::NotFound, format!("there is nothing at {path}"), "GET /openapi.json lists every path.")
}

/// The path has other methods.
pub(crate) async fn method_not_allowed(method: Method) -> Problem {
    let method: String = method.as_str().chars().take(32).collect();
    let detail = format!("this path does not take {method}");
    Problem::new(Code::MethodNotAllowed, detail, "The Allow header lists the methods that it takes.")
}
