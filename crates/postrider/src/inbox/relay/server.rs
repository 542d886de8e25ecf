//! The HTTP side of a relay. To those who send: `/relay/NAME`. To those who listen: `/_relay/NAME`, where `PUT` begins, `GET` hands
//! out what came (`?most=` of it, waiting up to `?wait_ms=`), `DELETE` ends, and `POST /_relay/NAME/ID` answers a request.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{BadListener, Headers, Raw, Relayed, Relays, Reply, SILENT_AFTER, Unheard, is_of_connection};
use crate::inbox::server::{Shared, problem, whole_body};

/// How long an answer may take: longer than any webhook waits for one.
const MAX_ANSWER: Duration = Duration::from_secs(65);
/// How often whoever waits for an answer looks whether the listener is still there.
const LOOK: Duration = Duration::from_secs(1);
/// The longest that a listener may wait for requests: it has to show itself more often than this.
const MAX_POLL: Duration = Duration::from_secs(SILENT_AFTER.as_secs() / 2);
/// The most bytes of an answer, as JSON.
const MAX_REPLY_BYTES: usize = 1024 * 1024;
/// When a request that nobody took should come again, seconds.
const RETRY_AFTER: u64 = 5;

/// The routes of a relay.
pub(in crate::inbox) fn routes() -> Router<Shared> {
    Router::new()
        .route("/relay/{name}", any(receive))
        .route("/relay/{name}/{*rest}", any(receive))
        .route("/_relay/{name}", put(begin).get(take).delete(end))
        .route("/_relay/{name}/{id}", post(reply).layer(DefaultBodyLimit::max(MAX_REPLY_BYTES)))
}

/// A request that waits for its answer; withdrawn with the value.
struct Place<'a> {
    relays: &'a Relays,
    name: &'a str,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.relays.withdraw(self.name, self.id);
    }
}

async fn receive(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match whole_body(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let target = target.strip_prefix("/relay/").unwrap_or_default();
    let (name, path) = target.split_at(target.find(['/', '?']).unwrap_or(target.len()));
    let relayed = Relayed {
        id: 0,
        method: parts.method.as_str().to_owned(),
        path: path.to_owned(),
        headers: about_the_message(&parts.headers),
        body: Raw(body.to_vec()),
    };
    drop(body);
    let relays = shared.inbox.relays();
    let (id, mut answer) = match relays.offer(name, relayed, Instant::now()) {
        Ok(offered) => offered,
        Err(unheard) => return not_heard(unheard),
    };
    let _place = Place { relays, name, id };
    let begun = Instant::now();
    loop {
        tokio::select! {
            reply = &mut answer => return match reply {
                Ok(reply) => as_response(reply),
                Err(_) => not_heard(Unheard::Over),
            },
            () = tokio::time::sleep(LOOK) => {
                if let Err(unheard) = relays.heard(name, Instant::now()) {
                    return not_heard(unheard);
                }
                if begun.elapsed() >= MAX_ANSWER {
                    return problem(StatusCode::GATEWAY_TIMEOUT, "whoever listens under this name did not answer");
                }
            }
            () = shared.stop.cancelled() => return not_heard(Unheard::Silent),
        }
    }
}

/// Headers without those of the connection and without `host`, which names this inbox.
fn about_the_message(headers: &HeaderMap) -> Headers {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|list| list.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    headers
        .iter()
        .filter(|(name, _)| *name != header::HOST && !is_of_connection(name.as_str()))
        .filter(|(name, _)| !named.iter().any(|named| named == name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), Raw(value.as_bytes().to_vec())))
        .collect()
}

/// The answer of a listener, as it is.
fn as_response(reply: Reply) -> Response {
    let bad = || problem(StatusCode::BAD_GATEWAY, "whoever listens under this name gave no legal answer");
    let legal = |status: &StatusCode| (200..=599).contains(&status.as_u16());
    let Some(status) = StatusCode::from_u16(reply.status).ok().filter(legal) else { return bad() };
    let mut headers = HeaderMap::new();
    for (name, value) in reply.headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value.0)) else {
            return bad();
        };
        if !is_of_connection(name.as_str()) {
            headers.append(name, value);
        }
    }
    (status, headers, Body::from(reply.body.0)).into_response()
}

fn not_heard(unheard: Unheard) -> Response {
    match unheard {
        Unheard::Over => problem(StatusCode::GONE, &unheard.to_string()),
        Unheard::Unknown | Unheard::Silent | Unheard::Full => {
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &unheard.to_string());
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.into());
            response
        }
    }
}

fn refusal(bad: BadListener) -> Response {
    let status = match bad {
        BadListener::Name | BadListener::Token => StatusCode::UNPROCESSABLE_ENTITY,
        BadListener::Foreign => StatusCode::FORBIDDEN,
        BadListener::Full => StatusCode::INSUFFICIENT_STORAGE,
        BadListener::Unknown => StatusCode::NOT_FOUND,
    };
    problem(status, &bad.to_string())
}

/// The listener's token; none at all is a wrong one.
fn token(headers: &HeaderMap) -> &str {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
}

fn done(result: Result<(), BadListener>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(bad) => refusal(bad),
    }
}

async fn begin(State(shared): State<Shared>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    done(shared.inbox.relays().begin(&name, token(&headers), Instant::now()))
}

async fn end(State(shared): State<Shared>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    done(shared.inbox.relays().end(&name, token(&headers)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// At most so many, the oldest.
    most: usize,
    /// How long to wait for the first.
    wait_ms: u64,
}

async fn take(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let until = tokio::time::Instant::now() + Duration::from_millis(asked.wait_ms).min(MAX_POLL);
    loop {
        let (items, wake) =
            match shared.inbox.relays().take(&name, token(&headers), asked.most, Instant::now()) {
                Ok(taken) => taken,
                Err(bad) => return refusal(bad),
            };
        if !items.is_empty() || asked.most == 0 || tokio::time::Instant::now() >= until {
            return Json(json!({"items": items})).into_response();
        }
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep_until(until) => {}
            () = shared.stop.cancelled() => {
                return problem(StatusCode::SERVICE_UNAVAILABLE, "the inbox stops");
            }
        }
    }
}

async fn reply(
    State(shared): State<Shared>,
    Path((name, id)): Path<(String, u64)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(reply) = serde_json::from_slice::<Reply>(&body) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "an answer is a JSON object with status, headers and body; values of headers and the body are base64",
        );
    };
    match shared.inbox.relays().reply(&name, token(&headers), id, reply) {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => problem(StatusCode::GONE, "nobody waits for this answer any more"),
        Err(bad) => refusal(bad),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::to_bytes;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use super::*;
    use crate::inbox::{Inbox, Received, Scheme, routes};

    const BEARER: &str = "Bearer 0123456789abcdef";

    fn inbox() -> (Router, CancellationToken) {
        let stop = CancellationToken::new();
        let inbox = Arc::new(Inbox::new(None));
        (
            routes(
                inbox,
                Scheme::Http,
                |_: &Received| panic!("a relayed request is shown to nobody"),
                stop.clone(),
            ),
            stop,
        )
    }

    async fn call(routes: &Router, request: Request) -> (u16, HeaderMap, Vec<u8>) {
        let (parts, body) = routes.clone().oneshot(request).await.unwrap().into_parts();
        (parts.status.as_u16(), parts.headers, to_bytes(body, 1 << 20).await.unwrap().to_vec())
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::from(body.to_owned())).unwrap()
    }

    fn told(method: &str, path: &str, body: &str) -> Request {
        request(method, path, &[("authorization", BEARER)], body)
    }

    #[tokio::test]
    async fn a_request_goes_to_the_listener_and_its_answer_comes_back() {
        let (routes, _stop) = inbox();
        assert_eq!(call(&routes, request("POST", "/relay/l", &[], "")).await.0, 503, "nobody listens");
        assert_eq!(call(&routes, told("PUT", "/_relay/l", "")).await.0, 204);
        let headers = [
            ("host", "inbox:8081"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("webhook-id", "msg_1"),
            ("content-type", "application/json"),
        ];
        let sending = call(&routes, request("POST", "/relay/l/sub/path?k=v", &headers, "{ \"n\": 1.50 }"));
        let listening = async {
            let (status, _, body) = call(&routes, told("GET", "/_relay/l?most=16&wait_ms=5000", "")).await;
            assert_eq!(status, 200);
            let mut answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let taken: Vec<Relayed> = serde_json::from_value(answer["items"].take()).unwrap();
            let [relayed] = taken.as_slice() else { panic!("{taken:?}") };
            assert_eq!((relayed.method.as_str(), relayed.path.as_str()), ("POST", "/sub/path?k=v"));
            assert_eq!(relayed.body.0, b"{ \"n\": 1.50 }", "byte for byte");
            let names: Vec<&str> = relayed.headers.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["webhook-id", "content-type"]);
            let answer = Reply {
                status: 503,
                headers: vec![
                    ("retry-after".into(), Raw(b"2".to_vec())),
                    ("transfer-encoding".into(), Raw(b"chunked".to_vec())),
                ],
                body: Raw(b"not yet".to_vec()),
            };
            let answer = serde_json::to_string(&answer).unwrap();
            let path = format!("/_relay/l/{}", relayed.id);
            assert_eq!(call(&routes, request("POST", &path, &[], &answer)).await.0, 403, "without the token");
            assert_eq!(call(&routes, told("POST", &path, "{}")).await.0, 400);
            assert_eq!(call(&routes, told("POST", &path, &answer)).await.0, 204);
            assert_eq!(call(&routes, told("POST", &path, &answer)).await.0, 410, "it has its answer");
        };
        let ((status, headers, body), ()) = tokio::join!(sending, listening);
        assert_eq!((status, body.as_slice()), (503, &b"not yet"[..]));
        assert_eq!(
            (&headers["retry-after"], headers.get("transfer-encoding")),
            (&"2".parse().unwrap(), None)
        );
        assert_eq!(call(&routes, told("DELETE", "/_relay/l", "")).await.0, 204);
        assert_eq!(call(&routes, request("POST", "/relay/l", &[], "")).await.0, 410);
    }

    #[tokio::test]
    async fn what_is_relayed_is_in_no_list_and_needs_the_token() {
        let (routes, _stop) = inbox();
        assert_eq!(call(&routes, told("PUT", "/_relay/l", "")).await.0, 204);
        let sending = call(&routes, request("POST", "/relay/l", &[], "{\"secret\":\"hunter2\"}"));
        let looking = async {
            for path in ["/_inbox", "/_inbox/l", "/_relay/l?most=1&wait_ms=0"] {
                let (_, _, body) = call(&routes, request("GET", path, &[], "")).await;
                let body = String::from_utf8(body).unwrap();
                assert!(!body.contains("hunter2") && !body.contains("\"name\""), "{path}: {body}");
            }
            assert_eq!(call(&routes, request("GET", "/_relay/l?most=1&wait_ms=0", &[], "")).await.0, 403);
            let other = [("authorization", "Bearer fedcba9876543210")];
            assert_eq!(call(&routes, request("PUT", "/_relay/l", &other, "")).await.0, 403);
            assert_eq!(call(&routes, request("DELETE", "/_relay/l", &other, "")).await.0, 403);
            assert_eq!(call(&routes, told("DELETE", "/_relay/l", "")).await.0, 204);
        };
        let ((status, ..), ()) = tokio::join!(sending, looking);
        assert_eq!(status, 410, "it waited for somebody who left");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_a_bad_gateway_and_a_stop_ends_all_waiting() {
        let legal = |status: u16, name: &str, value: &[u8]| {
            let headers = vec![(name.to_owned(), Raw(value.to_vec()))];
            as_response(Reply { status, headers, body: Raw::default() }).status().as_u16()
        };
        assert_eq!(legal(302, "location", b"/x"), 302);
        assert_eq!(legal(101, "x", b""), 502);
        assert_eq!(legal(200, "a b", b""), 502);
        assert_eq!(legal(200, "x", b"a\nb"), 502);
        let (routes, stop) = inbox();
        assert_eq!(call(&routes, told("PUT", "/_relay/l", "")).await.0, 204);
        let listening = call(&routes, told("GET", "/_relay/l?most=1&wait_ms=5000", ""));
        stop.cancel();
        assert_eq!(listening.await.0, 503);
        assert_eq!(call(&routes, request("POST", "/relay/l", &[], "")).await.0, 503);
    }
}
