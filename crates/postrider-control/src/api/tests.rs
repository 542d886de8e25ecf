//! The API as its callers see it. No broker here: what is published is written down instead; what depends on a broker
//! is tested with one, in `tests/it`.

mod access;
mod configuration;
mod endings;
mod export;
mod queues;
mod replays;
mod stats;
mod system;
mod webhooks;

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::Body;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use postrider_broker::topology::{Looked, Topology};
use postrider_broker::{BrokerError, Depth, Names, Outgoing};
use postrider_core::intake;
use postrider_core::profile::KeyForm;
use postrider_core::wire::TopologyRecord;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::link::LinkState;
use crate::recorder::Activity;
use crate::store::test_store::{TestStore, key};

const TOKEN: &str = "an-admin-token-of-a-test";

/// Stands in for the broker: writes down what is published.
struct Sheet {
    names: Names,
    flowing: AtomicBool,
    /// Publishes that are confirmed before they begin to fail.
    confirms: AtomicUsize,
    published: Mutex<Vec<Outgoing>>,
    /// Whether it is away from those who look at queues.
    away: AtomicBool,
    /// Queues that are not empty and as they should be, by name.
    looked: Mutex<HashMap<String, Looked>>,
}

impl Sheet {
    fn looked(&self, queue: &str) -> Looked {
        let fine = Looked { depth: Some(Depth { ready: 0, consumers: 1 }), difference: None, compared: true };
        self.looked.lock().unwrap().get(queue).cloned().unwrap_or(fine)
    }
}

impl Broker for Sheet {
    fn names(&self) -> &Names {
        &self.names
    }

    fn is_flowing(&self) -> bool {
        self.flowing.load(Ordering::SeqCst)
    }

    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), BrokerError>> {
        async move {
            let left = self.confirms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            if left.is_err() {
                return Err(BrokerError::Lost);
            }
            self.published.lock().unwrap().push(message);
            Ok(())
        }
        .boxed()
    }

    fn depth<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Depth, BrokerError>> {
        async { Err(BrokerError::Lost) }.boxed()
    }

    fn look<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<Looked>, BrokerError>> {
        async move {
            match self.away.load(Ordering::SeqCst) {
                true => Err(BrokerError::Lost),
                false => Ok(topology.queues.iter().map(|queue| self.looked(&queue.name)).collect()),
            }
        }
        .boxed()
    }

    fn topology(&self) -> Option<TopologyRecord> {
        None
    }

    fn state(&self) -> LinkState {
        let since = Timestamp::from_millis(1_700_000_000_000);
        LinkState { connected: !self.away.load(Ordering::SeqCst), blocked: false, since }
    }
}

struct Test {
    router: Router,
    sheet: Arc<Sheet>,
    api: Arc<Api>,
    registry: prometheus::Registry,
    _dir: tempfile::TempDir,
}

impl Test {
    async fn new() -> Self {
        Self::exporting(Exports::default()).await
    }

    async fn exporting(exports: Exports) -> Self {
        let TestStore { store, dir } = TestStore::new().await;
        let store = Arc::new(store);
        let sheet = Arc::new(Sheet {
            names: Names::new("postrider", 1000),
            flowing: AtomicBool::new(true),
            confirms: AtomicUsize::new(usize::MAX),
            published: Mutex::new(Vec::new()),
            away: AtomicBool::new(false),
            looked: Mutex::default(),
        });
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let broker: Arc<dyn Broker> = sheet.clone();
        let books = Bookkeeper::new(store.clone(), broker.clone(), Activity::new(), metrics.clone());
        let api = Arc::new(Api {
            store,
            queues: Arc::new(Queues::new(broker.clone())),
            broker,
            books: Arc::new(books),
            metrics,
            key: key(1),
            token: AdminToken::new(TOKEN).unwrap(),
            wrong_tokens: WrongTokens::default(),
            uses: Arc::default(),
            egress: EgressPolicy::default(),
            https_only: false,
            in_progress: InProgress::default(),
            bodies: Bodies::default(),
            exports,
            logins: Arc::default(),
            inbox: None,
            started_at: Timestamp::from_millis(1_700_000_000_000),
            settings: vec![Setting {
                name: "admin_token",
                value: Some("***".into()),
                source: "env POSTRIDER_ADMIN_TOKEN".into(),
                env: "POSTRIDER_ADMIN_TOKEN".into(),
                help: "the token of the API",
            }],
            broker_address: "127.0.0.1:5672".into(),
        });
        Self { router: router(api.clone()), sheet, api, registry, _dir: dir }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let (status, _, value) = read(self.send(request(method, path, body)).await).await;
        (status, value)
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, Some(&body.to_string())).await
    }

    async fn webhook(&self, change: Value) -> Value {
        let mut body =
            json!({ "name": "billing", "url": "https://example.com/hooks", "subscription": { "all": true } });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, webhook) = self.post("/v1/webhooks", body).await;
        assert_eq!(status, 201, "{webhook}");
        webhook
    }

    fn published(&self) -> Vec<Outgoing> {
        self.sheet.published.lock().unwrap().clone()
    }
}

fn request(method: &str, path: &str, body: Option<&str>) -> Request<Body> {
    let request =
        Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    match body {
        Some(body) => request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap(),
        None => request.body(Body::empty()).unwrap(),
    }
}

fn with_key(path: &str, body: &str, key: &str) -> Request<Body> {
    let mut request = request("POST", path, Some(body));
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

async fn read(response: Response<Body>) -> (u16, http::HeaderMap, Value) {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let is_lines = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/x-ndjson");
    let value = match bytes.is_empty() {
        true => Value::Null,
        false if is_lines => {
            serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>().map(Result::unwrap).collect()
        }
        false => serde_json::from_slice(&bytes).unwrap(),
    };
    if parts.status.is_client_error() || parts.status.is_server_error() {
        assert_eq!(parts.headers[header::CONTENT_TYPE], "application/problem+json");
        for member in ["type", "title", "status", "detail", "code", "hint"] {
            assert!(!value[member].is_null(), "{member} in {value}");
        }
    }
    (parts.status.as_u16(), parts.headers, value)
}

#[test]
fn the_description_is_as_documented() {
    insta::assert_snapshot!("openapi", openapi());
}

#[tokio::test]
async fn nobody_gets_in_without_the_token() {
    let t = Test::new().await;
    let mut answers = HashSet::new();
    for given in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic abc"), Some(TOKEN), Some("Bearer")]
    {
        for path in ["/v1/webhooks", "/v1/nothing", "/v1/events/x"] {
            let mut request = Request::builder().uri(path);
            if let Some(given) = given {
                request = request.header(header::AUTHORIZATION, given);
            }
            let (status, headers, body) = read(t.send(request.body(Body::empty()).unwrap()).await).await;
            assert_eq!(status, 401, "{given:?} {path}");
            assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer realm=\"postrider\"");
            answers.insert(body.to_string());
        }
    }
    assert_eq!(answers.len(), 1, "the same answer for everybody");
    let in_query = Request::get(format!("/v1/webhooks?token={TOKEN}")).body(Body::empty()).unwrap();
    assert_eq!(t.send(in_query).await.status(), 401);
    let description = t.send(Request::get("/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(description.status(), 200);
    assert_eq!(t.call("GET", "/v1/webhooks", None).await.0, 200);
}

#[tokio::test]
async fn what_http_gets_wrong_is_a_problem_too() {
    let t = Test::new().await;
    let good = r#"{"name":"a","url":"https://example.com/","subscription":{"all":true}}"#;
    let (status, _, body) = read(t.send(request("GET", "/v1/nothing", None)).await).await;
    assert_eq!((status, body["code"].as_str()), (404, Some("not_found")));
    let (status, headers, body) = read(t.send(request("PUT", "/v1/webhooks", Some("{}"))).await).await;
    assert_eq!((status, body["code"].as_str()), (405, Some("method_not_allowed")));
    assert!(headers[header::ALLOW].to_str().unwrap().contains("POST"), "{headers:?}");
    let long = format!("/v1/webhooks?cursor={}", "a".repeat(9000));
    assert_eq!(t.call("GET", &long, None).await.0, 414);
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(1024 * 1024));
    assert_eq!(t.call("POST", "/v1/webhooks", Some(&large)).await.1["code"], "body_too_large");
    for content_type in [Some("text/plain"), Some("application/x-www-form-urlencoded"), None] {
        let mut request = request("POST", "/v1/webhooks", Some(good));
        request.headers_mut().remove(header::CONTENT_TYPE);
        if let Some(content_type) = content_type {
            request.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        assert_eq!(read(t.send(request).await).await.0, 415, "{content_type:?}");
    }
    let (status, body) = t.call("POST", "/v1/webhooks", Some("{\n  \"name\": }")).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("bad_json")));
    assert!(body["detail"].as_str().unwrap().contains("line 2"), "{body}");
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for path in ["/v1/webhooks", "/v1/tenants"] {
        assert_eq!(t.call("POST", path, Some(&deep)).await.0, 400, "{path}");
    }
    let overridden = {
        let mut request = request("GET", "/v1/webhooks", None);
        request.headers_mut().insert("x-http-method-override", "DELETE".parse().unwrap());
        request
    };
    assert_eq!(t.send(overridden).await.status(), 200);
}

#[tokio::test]
async fn a_webhook_is_made_shown_changed_and_removed() {
    let t = Test::new().await;
    let made = t
        .webhook(json!({
            "url": "http://example.com/hooks",
            "api_key": { "in": "header", "name": "X-API-Key", "value": "canary-key" },
            "headers": { "X-Shop": "canary-header" },
            "retry": { "max_attempts": 3 },
        }))
        .await;
    let secret = made["secret"].as_str().unwrap();
    assert!(postrider_core::signature::SigningKey::parse(secret).is_ok());
    assert_eq!(made["warnings"].as_array().unwrap().len(), 1, "http is said");
    assert_eq!((made["timeout_ms"].as_u64(), made["max_in_flight"].as_u64()), (Some(15000), Some(10)));
    assert_eq!(made["state"], "active");
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/webhooks/{id}");

    let (status, shown) = t.call("GET", &path, None).await;
    assert_eq!(status, 200);
    let text = shown.to_string();
    assert!(!text.contains("canary") && !text.contains(secret), "{text}");
    assert_eq!(shown["api_key"], json!({ "in": "header", "name": "X-API-Key" }));
    assert_eq!(shown["headers"], json!({ "X-Shop": "********" }));
    assert_eq!(shown["retry"], json!({ "max_attempts": 3 }));
    let last: String = secret.chars().skip(secret.len() - 4).collect();
    assert_eq!(shown["secret_hint"], format!("whsec_…{last}"));
    let (_, list) = t.call("GET", "/v1/webhooks?state=active", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["next"], Value::Null);

    // A patch keeps what it does not name, secrets among it.
    let patch = json!({ "url": "https://example.com/new", "headers": { "X-New": "v" }, "retry": null, "max_in_flight": 3 });
    let (status, patched) = t.call("PATCH", &path, Some(&patch.to_string())).await;
    assert_eq!(status, 200, "{patched}");
    assert_eq!(patched["headers"], json!({ "X-Shop": "********", "X-New": "********" }));
    assert_eq!((&patched["retry"], &patched["max_in_flight"]), (&Value::Null, &json!(3)));
    assert!(patched.get("warnings").is_none(), "{patched}");
    assert!(patched["revision"].as_u64() > made["revision"].as_u64());
    let row = t.api.store.webhook("default", id).await.unwrap().unwrap();
    let credentials = row.record.webhook(1).unwrap().open(&key(1), KeyForm::Base64).unwrap();
    assert_eq!(credentials.api_key.unwrap().2.as_str(), "canary-key");
    let headers: Vec<(&str, &str)> =
        credentials.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(headers, [("x-new", "v"), ("x-shop", "canary-header")]);

    for (patch, field) in [
        (json!({ "secret": "x" }), "secret"),
        (json!({ "tenant": "acme" }), "tenant"),
        (json!({ "retry": { "factor": 0.5 } }), "retry.factor"),
        (json!({ "subscription": { "all": false } }), "subscription.event_types"),
        (json!({ "url": "https://127.0.0.1/" }), "url"),
        (json!({ "nmae": "b" }), "nmae"),
    ] {
        let (status, body) = t.call("PATCH", &path, Some(&patch.to_string())).await;
        assert_eq!((status, body["field"].as_str()), (422, Some(field)), "{patch}: {body}");
    }

    assert_eq!(t.call("DELETE", &path, None).await.0, 204);
    for (method, path) in [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/pause"))]
    {
        assert_eq!(t.call(method, &path, None).await.0, 404, "{method} {path}");
    }
    assert!(t.api.store.count_unsent().await.unwrap() == 3, "each change is told");
}

#[tokio::test]
async fn a_webhook_that_cannot_work_is_refused_by_name() {
    let t = Test::new().await;
    let long = "x".repeat(257);
    let headers: serde_json::Map<String, Value> = (0..21).map(|n| (format!("X-{n}"), json!("v"))).collect();
    for (change, field) in [
        (json!({ "name": "" }), "name"),
        (json!({ "name": "   " }), "name"),
        (json!({ "name": "a\u{0}b" }), "name"),
        (json!({ "name": "a\u{202e}b" }), "name"),
        (json!({ "name": long }), "name"),
        (json!({ "name": 5 }), "name"),
        (json!({ "url": "ftp://example.com/" }), "url"),
        (json!({ "url": "https://10.0.0.1/" }), "url"),
        (json!({ "url": "https://u:p@example.com/" }), "url"),
        (json!({ "notification_type": "sms" }), "notification_type"),
        (json!({ "profile": "upmind" }), "profile"),
        (json!({ "subscription": {} }), "subscription.event_types"),
        (json!({ "subscription": { "event_types": [" A"] } }), "subscription.event_types"),
        (json!({ "subscription": { "all": true, "groups": ["a"] } }), "subscription.groups"),
        (json!({ "subscription": { "all": true, "categories": ["a"] } }), "subscription.categories"),
        (json!({ "subscription": { "all": true, "filter": "x" } }), "subscription.filter"),
        (json!({ "subscription": { "al": true } }), "subscription.al"),
        (json!({ "api_key": { "in": "body", "name": "X", "value": "v" } }), "api_key.in"),
        (json!({ "api_key": { "in": "header", "name": "Host", "value": "v" } }), "api_key.name"),
        (json!({ "api_key": { "in": "header", "name": "X-Key", "value": "a\r\nb" } }), "api_key.value"),
        (json!({ "api_key": { "in": "header", "name": "X-Key" } }), "api_key.value"),
        (json!({ "headers": { "Cookie": "v" } }), "headers.Cookie"),
        (json!({ "headers": { "X-A": "v", "x-a": "w" } }), "headers.x-a"),
        (json!({ "headers": headers }), "headers"),
        (json!({ "retry": { "max_attempts": 0 } }), "retry.max_attempts"),
        (json!({ "retry": { "schedule_ms": [] } }), "retry.schedule_ms"),
        (json!({ "retry": { "initial_ms": -1 } }), "retry.initial_ms"),
        (json!({ "retry": { "tries": 1 } }), "retry.tries"),
        (json!({ "timeout_ms": 60_001 }), "timeout_ms"),
        (json!({ "max_in_flight": 0 }), "max_in_flight"),
        (json!({ "rate_per_second": 0 }), "rate_per_second"),
        (json!({ "rate_per_second": 1.5 }), "rate_per_second"),
        (json!({ "state": "sleeping" }), "state"),
        (json!({ "secret": "whsec_AAAA" }), "secret"),
        (json!({ "secret": "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" }), "secret"),
        (json!({ "tenant": "a.b" }), "tenant"),
        (json!({ "tenant": "nobody" }), "tenant"),
        (json!({ "colour": "red" }), "colour"),
    ] {
        let mut body =
            json!({ "name": "billing", "url": "https://example.com/", "subscription": { "all": true } });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, problem) = t.post("/v1/webhooks", body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{change}: {problem}");
        assert!(!problem.to_string().contains("a\\r\\nb"), "values are not quoted: {problem}");
    }
    let (status, problem) = t.post("/v1/webhooks", json!({ "url": "https://example.com/" })).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("name")));
    assert_eq!(t.call("GET", "/v1/webhooks", None).await.1["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn states_turn_as_they_may() {
    let t = Test::new().await;
    let id = t.webhook(json!({})).await["id"].as_str().unwrap().to_owned();
    for (verb, status, state) in [
        ("resume", 200, "active"),
        ("pause", 200, "paused"),
        ("pause", 200, "paused"),
        ("enable", 409, "paused"),
        ("resume", 200, "active"),
        ("disable", 200, "disabled"),
        ("pause", 409, "disabled"),
        ("resume", 409, "disabled"),
        ("enable", 200, "active"),
    ] {
        let before = t.api.store.revision().await.unwrap();
        let (got, body) = t.call("POST", &format!("/v1/webhooks/{id}/{verb}"), None).await;
        assert_eq!(got, status, "{verb}: {body}");
        let (_, webhook) = t.call("GET", &format!("/v1/webhooks/{id}"), None).await;
        assert_eq!(webhook["state"], state, "{verb}");
        let grown = t.api.store.revision().await.unwrap() - before;
        assert!(grown <= 1);
    }
}

#[tokio::test]
async fn tenants_come_and_go_and_do_not_see_each_other() {
    let t = Test::new().await;
    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.0, 201);
    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.1["code"], "tenant_exists");
    assert_eq!(t.post("/v1/tenants", json!({ "id": "a.b" })).await.1["field"], "id");
    let id = t.webhook(json!({ "tenant": "acme" })).await["id"].as_str().unwrap().to_owned();
    assert_eq!(t.call("GET", &format!("/v1/webhooks/{id}"), None).await.0, 404, "not the default tenant's");
    assert_eq!(t.call("GET", &format!("/v1/webhooks/{id}?tenant=acme"), None).await.0, 200);
    assert_eq!(t.call("GET", "/v1/webhooks", None).await.1["items"], json!([]));
    let (status, problem) =
        t.post("/v1/webhooks?tenant=default", json!({ "tenant": "acme", "name": "a", "url": "x" })).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("tenant")));
    assert_eq!(t.call("DELETE", "/v1/tenants/acme", None).await.1["code"], "tenant_in_use");
    assert_eq!(t.call("DELETE", "/v1/tenants/default", None).await.1["code"], "tenant_in_use");
    assert_eq!(t.call("DELETE", &format!("/v1/webhooks/{id}?tenant=acme"), None).await.0, 204);
    assert_eq!(t.call("DELETE", "/v1/tenants/acme", None).await.0, 204);
    assert_eq!(t.call("GET", "/v1/tenants/acme", None).await.0, 404);
    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.0, 201, "and comes back");
    let (_, page) = t.call("GET", "/v1/tenants?limit=1", None).await;
    assert_eq!(page["items"][0]["id"], "acme");
    let next = page["next"].as_str().unwrap();
    let (_, page) = t.call("GET", &format!("/v1/tenants?limit=1&cursor={next}"), None).await;
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&json!("default"), &Value::Null));
}

#[tokio::test]
async fn events_go_to_the_broker_as_they_were_written() {
    let t = Test::new().await;
    let text = r#" { "data" : [ 1.0, 1e400 ], "event_type":"USER_CREATED", "id":"e1" } "#;
    let mut one = request("POST", "/v1/events", Some(text));
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    one.headers_mut().insert("traceparent", traceparent.parse().unwrap());
    let (status, _, body) = read(t.send(one).await).await;
    assert_eq!(status, 202);
    assert_eq!(body, json!({ "items": [{ "id": "e1", "duplicate": false }], "revision": 1 }));
    let message = t.published().pop().unwrap();
    assert_eq!(String::from_utf8(message.body).unwrap(), text.trim());
    assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("postrider.events", "default"));
    assert_eq!((message.message_id.as_str(), message.content_type.as_str()), ("e1", "application/json"));
    let epoch = t.api.store.epoch().to_string();
    let headers: Vec<(&str, &str)> = message.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let expected =
        [("traceparent", traceparent), ("postrider-revision", "1"), ("postrider-epoch", epoch.as_str())];
    assert_eq!(headers, expected);

    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.0, 201);
    let several = json!([{ "event_type": "A" }, { "event_type": "B", "tenant": "acme", "id": "b" }]);
    let (status, body) = t.post("/v1/events", several).await;
    assert_eq!((status, body["revision"].as_u64()), (202, Some(2)));
    assert!(body["items"][0]["id"].as_str().unwrap().starts_with("evt_"));
    let keys: Vec<String> =
        t.published().iter().skip(1).map(|m| format!("{} {}", m.routing_key, m.message_id)).collect();
    assert_eq!(keys[1], "acme b");
    assert!(keys[0].starts_with("default evt_"));
}

#[tokio::test]
async fn a_batch_of_cloud_events_is_published_as_its_events() {
    let t = Test::new().await;
    let batch = |body: &str| {
        let mut request = request("POST", "/v1/events", Some(body));
        let content_type = "application/cloudevents-batch+json; charset=utf-8".parse().unwrap();
        request.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
        t.send(request)
    };
    let one = r#"{"specversion":"1.0","id":"ce","type":"A"}"#;
    let (status, _, body) = read(batch(&format!("[{one}]")).await).await;
    assert_eq!((status, &body["items"][0]["id"]), (202.try_into().unwrap(), &json!("ce")), "{body}");
    let message = t.published().pop().unwrap();
    assert_eq!((message.body, message.content_type.as_str()), (one.into(), intake::CLOUD_EVENT));
    let (status, _, problem) = read(batch(one).await).await;
    assert_eq!((status, &problem["code"]), (422.try_into().unwrap(), &json!("bad_body")), "{problem}");
}

#[tokio::test]
async fn actions_are_published_like_events() {
    let t = Test::new().await;
    let text = r#"{"action":"points.transferred","id":"transfer-17","data":{ "points" : 50 }}"#;
    let (status, body) = t.call("POST", "/v1/events", Some(text)).await;
    assert_eq!((status, &body["items"]), (202, &json!([{ "id": "transfer-17", "duplicate": false }])));
    let several = json!([{ "event_type": "A", "id": "e" }, { "action": "B", "id": "a" }]);
    assert_eq!(t.post("/v1/events", several).await.1["items"][1]["id"], "a");
    let published = t.published();
    let ids: Vec<&str> = published.iter().map(|message| message.message_id.as_str()).collect();
    assert_eq!(ids, ["transfer-17", "e", "a"]);
    assert_eq!(published[0].body, text.as_bytes());
}

#[tokio::test]
async fn events_that_are_none_are_refused_whole_and_by_name() {
    let t = Test::new().await;
    for (body, status, field, code) in [
        (r#"{"data":1}"#, 422, "event_type", "bad_event"),
        (r#"[{"event_type":"A"},{"event_type":" A"}]"#, 422, "[1].event_type", "bad_event"),
        (r#"[{"event_type":"A"},7]"#, 422, "[1]", "bad_event"),
        (r#"{"event_type":"A","event_time":"today"}"#, 422, "event_time", "bad_event"),
        (r#"{"event_type":"A","id":"ü"}"#, 422, "id", "bad_event"),
        (r#"{"event_type":"A","id":"own_1"}"#, 422, "id", "bad_event"),
        (r#"{"action":"transfer"}"#, 422, "id", "bad_event"),
        (r#"[{"action":"transfer ","id":"a"}]"#, 422, "[0].action", "bad_event"),
        (r#"{"action":"transfer","event_type":"A","id":"a"}"#, 422, "action", "bad_event"),
        (r#"{"event_type":"A","tenant":"nobody"}"#, 422, "tenant", "unknown_tenant"),
        (r#"{"event_type":"A","tenant":7}"#, 422, "tenant", "bad_body"),
        (r#"[{"event_type":"A","tenant":"a b"}]"#, 422, "[0].tenant", "bad_body"),
        ("[]", 422, "", "bad_body"),
        ("", 400, "", "bad_json"),
        ("[{", 400, "", "bad_json"),
    ] {
        let (got, problem) = t.call("POST", "/v1/events", Some(body)).await;
        let named = problem["field"].as_str().unwrap_or_default();
        assert_eq!(
            (got, named, problem["code"].as_str().unwrap()),
            (status, field, code),
            "{body}: {problem}"
        );
    }
    let many = format!("[{}]", vec![r#"{"event_type":"A"}"#; 1001].join(","));
    assert_eq!(t.call("POST", "/v1/events", Some(&many)).await.0, 422);
    let large = json!({ "event_type": "A", "data": "x".repeat(256 * 1024) }).to_string();
    assert_eq!(t.call("POST", "/v1/events", Some(&large)).await.1["reason"], "too_large");
    let deep = format!(r#"{{"event_type":"A","data":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(t.call("POST", "/v1/events", Some(&deep)).await.1["reason"], "too_deep");
    let larger = format!("[{}]", vec![large.as_str(); 17].join(","));
    let (status, problem) = t.call("POST", "/v1/events", Some(&larger)).await;
    assert_eq!((status, problem["code"].is_string()), (413, true), "{problem}");
    assert!(t.published().is_empty());
    let event = json!({ "event_type": "A", "data": "x".repeat(200 * 1024) }).to_string();
    let three_mib = format!("[{}]", vec![event.as_str(); 15].join(","));
    assert_eq!(t.call("POST", "/v1/events", Some(&three_mib)).await.0, 202);
}

#[tokio::test]
async fn without_confirms_the_answer_is_503_and_names_what_is_confirmed() {
    let t = Test::new().await;
    t.sheet.confirms.store(2, Ordering::SeqCst);
    let body = json!([{ "event_type": "A", "id": "a" }, { "event_type": "A", "id": "b" }, { "event_type": "A", "id": "c" }]);
    let (status, headers, problem) =
        read(t.send(request("POST", "/v1/events", Some(&body.to_string()))).await).await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("broker_unavailable")));
    assert_eq!(problem["confirmed"], json!(["a", "b"]));
    assert!(headers.contains_key(header::RETRY_AFTER));
    t.sheet.flowing.store(false, Ordering::SeqCst);
    let (status, problem) = t.post("/v1/events", json!({ "event_type": "A" })).await;
    assert_eq!((status, &problem["confirmed"]), (503, &json!([])));
    // What does not need the broker goes on.
    t.webhook(json!({})).await;
    let (status, body) = t.call("GET", "/v1/status", None).await;
    assert_eq!((status, body["broker"].as_str(), &body["workers"]), (200, Some("unreachable"), &Value::Null));
}

#[tokio::test]
async fn the_status_has_the_documented_shape() {
    let t = Test::new().await;
    let (_, mut status) = t.call("GET", "/v1/status", None).await;
    for added in ["drift_parts", "at_rest", "broker"] {
        status.as_object_mut().unwrap().remove(added).unwrap();
    }
    let bytes = status["store"]["bytes"].take().as_u64().unwrap();
    let files = std::fs::read_dir(t._dir.path().join("state")).unwrap();
    let on_disk: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes > 4096 && bytes <= on_disk, "{bytes} of {on_disk}");
    let expected = json!({
        "events": { "accepted": 0, "routed": 0, "unmatched": 0, "invalid": 0, "duplicate": 0, "waiting": null },
        "deliveries": { "owed": 0, "delivered": 0, "dead": 0, "cancelled": 0, "skipped": 0, "pending": 0, "held": 0,
            "dead_unresolved": 0 },
        "drift": 0, "revision": 1, "workers": null, "routers": null,
        "broker_session": { "connected": true, "blocked": false, "since": "2023-11-14T22:13:20Z" },
        "store": { "kind": "sqlite", "bytes": null, "up": true },
        "due": null, "version": env!("CARGO_PKG_VERSION"), "started_at": "2023-11-14T22:13:20Z"
    });
    assert_eq!(status, expected);
}

#[tokio::test]
async fn lists_take_only_what_they_know() {
    let t = Test::new().await;
    for (path, code) in [
        ("/v1/deliveries?limit=0", "bad_parameter"),
        ("/v1/deliveries?limit=-1", "bad_parameter"),
        ("/v1/deliveries?limit=201", "bad_parameter"),
        ("/v1/deliveries?limit=x", "bad_parameter"),
        ("/v1/deliveries?colour=red", "bad_parameter"),
        ("/v1/deliveries?state=gone", "bad_parameter"),
        ("/v1/deliveries?since=yesterday", "bad_parameter"),
        ("/v1/deliveries?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "bad_parameter"),
        ("/v1/deliveries?tenant=a.b", "bad_parameter"),
        ("/v1/deliveries?cursor=forged", "bad_cursor"),
        ("/v1/events?cursor=AAAAAAAAAAAAAAAAAAAA", "bad_cursor"),
        ("/v1/dead-letters?kind=x", "bad_parameter"),
        ("/v1/events/..%2f..%2fetc", "not_found"),
        ("/v1/deliveries/%27%3B--", "not_found"),
    ] {
        let (status, problem) = t.call("GET", path, None).await;
        assert!((400..500).contains(&status), "{path}");
        assert_eq!(problem["code"], code, "{path}: {problem}");
    }
    let (_, problem) = t.call("GET", "/v1/deliveries?limit=x", None).await;
    assert_eq!(problem["field"], "limit");
    let (_, problem) = t.call("GET", "/v1/deliveries?colour=red", None).await;
    assert_eq!(problem["field"], "colour");
}

#[tokio::test]
async fn a_request_that_comes_again_has_the_same_answer_and_one_effect() {
    let t = Test::new().await;
    let body = r#"{"name":"a","url":"https://example.com/","subscription":{"all":true}}"#;
    let first = read(t.send(with_key("/v1/webhooks", body, "k1")).await).await;
    let again = read(t.send(with_key("/v1/webhooks", body, "k1")).await).await;
    assert_eq!((first.0, &first.2), (201, &again.2), "with the secret in it");
    assert!(again.1.contains_key("idempotency-replayed") && !first.1.contains_key("idempotency-replayed"));
    let other = body.replace("\"a\"", "\"b\"");
    let (status, _, problem) = read(t.send(with_key("/v1/webhooks", &other, "k1")).await).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("idempotency_mismatch")));
    let elsewhere = read(t.send(with_key("/v1/events", r#"{"event_type":"A"}"#, "k1")).await).await;
    assert_eq!(elsewhere.0, 202, "a key belongs to its route");
    let again = read(t.send(with_key("/v1/events", r#"{"event_type":"A"}"#, "k1")).await).await;
    assert_eq!((elsewhere.2, t.published().len()), (again.2, 1));
    for bad in ["", &"k".repeat(256)] {
        assert_eq!(
            read(t.send(with_key("/v1/webhooks", body, bad)).await).await.2["code"],
            "bad_idempotency_key"
        );
    }
    // What failed is tried again.
    let refused = read(t.send(with_key("/v1/tenants", r#"{"id":"a.b"}"#, "k2")).await).await;
    assert_eq!(refused.0, 422);
    assert_eq!(read(t.send(with_key("/v1/tenants", r#"{"id":"ab"}"#, "k2")).await).await.0, 201);
    // The secret is not in the clear in the store.
    let secret = first.2["secret"].as_str().unwrap();
    let path = t._dir.path().join("state");
    for file in std::fs::read_dir(path).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(secret));
    }
}

/// Ids that are made here are the same when the request comes again after a crash: then nothing is accepted twice.
#[tokio::test]
async fn made_ids_follow_from_the_key() {
    let t = Test::new().await;
    t.sheet.confirms.store(1, Ordering::SeqCst);
    let body = r#"[{"event_type":"A"},{"event_type":"A"}]"#;
    let failed = read(t.send(with_key("/v1/events", body, "k")).await).await;
    assert_eq!(failed.0, 503);
    t.sheet.confirms.store(9, Ordering::SeqCst);
    let done = read(t.send(with_key("/v1/events", body, "k")).await).await;
    assert_eq!(done.0, 202);
    let ids: Vec<String> = t.published().into_iter().map(|message| message.message_id).collect();
    assert_eq!((ids.len(), &ids[0]), (3, &ids[1]));
    assert_ne!(ids[1], ids[2]);
}

#[tokio::test]
async fn requests_with_one_key_at_the_same_time_have_one_effect() {
    let t = Arc::new(Test::new().await);
    let body = r#"{"name":"a","url":"https://example.com/","subscription":{"all":true}}"#;
    let requests = (0..20).map(|_| {
        let t = t.clone();
        tokio::spawn(async move { read(t.send(with_key("/v1/webhooks", body, "k")).await).await })
    });
    let (mut made, mut busy) = (HashSet::new(), 0);
    for request in requests.collect::<Vec<_>>() {
        let (status, headers, body) = request.await.unwrap();
        match status {
            201 => {
                made.insert(body["id"].to_string());
            }
            _ => {
                assert_eq!(body["code"], "idempotency_in_progress");
                assert!(headers.contains_key(header::RETRY_AFTER));
                busy += 1;
            }
        }
    }
    assert_eq!(made.len(), 1, "{busy} were asked to come again");
    assert_eq!(t.call("GET", "/v1/webhooks", None).await.1["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn requests_and_problems_are_counted() {
    let t = Test::new().await;
    t.call("GET", "/v1/webhooks", None).await;
    t.call("GET", "/v1/webhooks/nothing", None).await;
    t.call("BREW", "/v1/coffee", None).await;
    let text = prometheus::TextEncoder::new().encode_to_string(&t.registry.gather()).unwrap();
    for line in [
        r#"postrider_http_requests_total{method="GET",route="/v1/webhooks",status="2xx"} 1"#,
        r#"postrider_http_requests_total{method="GET",route="/v1/webhooks/{id}",status="4xx"} 1"#,
        r#"postrider_http_requests_total{method="other",route="unmatched",status="4xx"} 1"#,
        r#"postrider_http_requests_total{method="POST",route="/v1/events",status="5xx"} 0"#,
        r#"postrider_http_problems_total{code="not_found"} 2"#,
        r#"postrider_http_problems_total{code="unauthorized"} 0"#,
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

/// A body without a length is bounded too.
#[tokio::test]
async fn bodies_without_a_length_are_bounded() {
    let t = Test::new().await;
    let streamed = |body: Body| {
        let mut request = request("POST", "/v1/webhooks", Some(""));
        *request.body_mut() = body;
        request
    };
    let pieces =
        stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 64 * 1024]))));
    let (status, _, problem) = read(t.send(streamed(Body::from_stream(pieces))).await).await;
    assert_eq!((status, problem["code"].as_str()), (413, Some("body_too_large")));
}

/// A handler that panics answers 500 without the words of the panic.
#[tokio::test]
async fn a_panic_is_a_problem() {
    let response = layers::panicked(Box::new("the secret is canary"));
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let (_, _, body) = read(response).await;
    assert!(!body.to_string().contains("canary"));
}

/// What publishers are told is what is declared on the broker, and what the router takes.
#[test]
fn publishers_are_told_what_is_on_the_broker() {
    use postrider_broker::topology::{DEFAULT_SHARDS, Routing};
    use postrider_core::TenantId;

    let told: HashSet<&str> = postrider_console::ASYNCAPI.lines().map(str::trim).collect();
    let names = Names::new("postrider", 1000);
    let topology = Topology::new(&names, DEFAULT_SHARDS);
    let exchange = topology.exchanges.iter().find(|exchange| exchange.name == names.events()).unwrap();
    assert_eq!(exchange.kind, Routing::Topic);
    // Every routing key leads to the one queue of events.
    let bound: Vec<&str> =
        topology.bindings.iter().filter(|it| it.from == exchange.name).map(|it| it.key.as_str()).collect();
    assert_eq!(bound, ["#"]);
    let name = format!("name: {}", exchange.name);
    let tenant = format!("default: {}", TenantId::DEFAULT);
    for line in [
        &name,
        "type: topic",
        "durable: true",
        "autoDelete: false",
        "address: \"{tenant}\"",
        &tenant,
        "deliveryMode: 2",
        "mandatory: true",
    ] {
        assert!(told.contains(line), "{line}");
    }
    let limits = format!(
        "At most {} bytes of UTF-8, nested at most {} deep",
        intake::MAX_MESSAGE_BYTES,
        intake::MAX_DEPTH
    );
    assert!(postrider_console::ASYNCAPI.contains(&limits), "{limits}");
    let most = format!("maxItems: {}", intake::MAX_PER_MESSAGE);
    assert_eq!(postrider_console::ASYNCAPI.matches(&most).count(), 2, "{most}");
    // Its example is taken as it stands.
    let event = br#"{"event_type":"USER_LOGIN","id":"login-17","data":{"sub":"u-1"}}"#;
    for line in ["event_type: USER_LOGIN", "id: login-17", "sub: u-1"] {
        assert!(told.contains(line), "{line}");
    }
    let envelope = intake::Envelope {
        routing_key: TenantId::DEFAULT,
        content_type: Some("application/json"),
        ..intake::Envelope::default()
    };
    let now = postrider_broker::now();
    assert!(intake::read(envelope, event, now, postrider_core::EventId::from_trusted("made")).is_ok());
}
