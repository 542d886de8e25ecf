//! How the worker authenticates: keys, headers, basic, bearer, OAuth 2.0, client certificates.

use std::time::Duration;

use postrider_core::books::End;
use postrider_core::webhook::{Auth, ClientTls, Oauth2, SecretKind, purpose};
use postrider_core::wire::{ApiKeyRecord, Fact, WebhookRecord};
use postrider_testkit::config::{Configuration, NewWebhook};
use postrider_testkit::receiver::Identity;
use postrider_testkit::{Answer, Authority, Log, Receiver, Request, TokenServer};

use crate::{Bench, Worker};

/// What must show nowhere but in requests.
const SECRET: &str = "hunter2-of-the-client";

fn sealed(record: &WebhookRecord, kind: SecretKind, secret: &str) -> String {
    let purpose = purpose(&record.tenant, &record.id, kind);
    Configuration::master_key().seal(&purpose, secret.as_bytes(), rand::random()).unwrap()
}

fn oauth2(server: &TokenServer) -> Oauth2 {
    Oauth2 {
        token_url: server.url(),
        client_id: "postrider".into(),
        client_secret: SECRET.to_owned().into(),
        scope: Some("hooks".into()),
        audience: None,
        in_body: false,
    }
}

fn with_token(bench: &Bench, id: &str, server: &TokenServer) -> NewWebhook {
    NewWebhook { auth: Some(Auth::Oauth2(oauth2(server))), ..bench.webhook(id) }
}

/// The secrets are in no fact and no line of the log, and it is the log of what happened, since it has `said`.
fn nothing_leaks(facts: &[Fact], log: &Log, said: &str, secrets: &[&str]) {
    let facts = serde_json::to_string(facts).unwrap();
    let log = log.text();
    assert!(log.contains(said), "{said:?} was not logged");
    for secret in secrets {
        assert!(!facts.contains(secret), "{secret} is in the facts: {facts}");
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

#[tokio::test]
async fn keys_headers_basic_and_bearer_reach_the_receiver_and_nobody_else() {
    let log = Log::capture();
    let mut bench = Bench::new("auth-static").await;
    let of = |id: &str, auth: Option<Auth>, change: fn(&mut WebhookRecord)| {
        let mut webhook = NewWebhook { auth, change, ..bench.webhook(id) }.attempts(1);
        webhook.url = format!("{}?shop=7", webhook.url);
        webhook
    };
    fn header_key(record: &mut WebhookRecord) {
        let value = sealed(record, SecretKind::ApiKey, SECRET);
        record.api_key = Some(ApiKeyRecord { place: "header".into(), name: "X-API-Key".into(), value });
    }
    fn query_key(record: &mut WebhookRecord) {
        let value = sealed(record, SecretKind::ApiKey, SECRET);
        record.api_key = Some(ApiKeyRecord { place: "query".into(), name: "api key".into(), value });
    }
    fn static_headers(record: &mut WebhookRecord) {
        let headers = format!(r#"{{"X-Shop":"7","X-Secret":"{SECRET}","webhook-id":"forged"}}"#);
        record.headers = Some(sealed(record, SecretKind::Headers, &headers));
    }
    let basic = Auth::Basic { username: "Aladdin".into(), password: "123£".to_owned().into() };
    let bearer = Auth::Bearer { token: SECRET.to_owned().into() };
    let webhooks = [
        of("header", None, header_key),
        of("query", None, query_key),
        of("static", None, static_headers),
        of("basic", Some(basic), |_| ()),
        of("bearer", Some(bearer), |_| ()),
    ];
    for webhook in &webhooks {
        bench.configuration.webhook(webhook).await;
        // The answer is no success, so that a line is logged and an error written down.
        bench.receiver.answer(&format!("/{}", webhook.id), [Answer::Status(400)]);
    }
    let worker = Worker::start(&bench.settings);
    for webhook in &webhooks {
        bench.deliver(&["e1"], &webhook.id).await;
    }
    bench.done(webhooks.len()).await;
    let request = |id: &str| bench.receiver.requests_to(&format!("/{id}")).remove(0);
    assert_eq!(request("header").header("x-api-key"), Some(SECRET));
    assert_eq!(request("query").target, format!("/query?shop=7&api+key={SECRET}"));
    assert_eq!(request("static").header("x-shop"), Some("7"));
    assert_eq!(request("static").header("x-secret"), Some(SECRET));
    let ours: Vec<String> = request("static")
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("webhook-id"))
        .map(|(_, value)| value.clone())
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_ne!(ours[0], "forged");
    assert_eq!(request("basic").header("authorization"), Some("Basic QWxhZGRpbjoxMjPCow=="));
    assert_eq!(request("bearer").header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
    nothing_leaks(&bench.facts, &log, "delivery given up", &[SECRET, "QWxhZGRpbjoxMjPCow", "123£"]);
    worker.stop().await;
}

#[tokio::test]
async fn fifty_deliveries_at_once_need_one_token() {
    let log = Log::capture();
    let mut bench = Bench::new("auth-one-token").await;
    let server = TokenServer::start().await;
    server.takes(Duration::from_millis(200));
    bench.configuration.webhook(&with_token(&bench, "wh", &server)).await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    for n in 0..50 {
        bench.deliver(&[&format!("e{n}")], "wh").await;
    }
    let done = bench.done(50).await;
    assert!(done.iter().all(|done| done.end == End::Delivered && done.attempts == 1));
    let asked = server.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].method, "POST");
    // base64 of `postrider:hunter2-of-the-client`.
    let basic = "Basic cG9zdHJpZGVyOmh1bnRlcjItb2YtdGhlLWNsaWVudA==";
    assert_eq!(asked[0].header("authorization"), Some(basic));
    assert_eq!(asked[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked[0].body.as_ref(), b"grant_type=client_credentials&scope=hooks");
    let requests = bench.receiver.requests();
    assert_eq!(requests.len(), 50);
    assert!(requests.iter().all(|request| request.header("authorization") == Some("Bearer token-1")));
    nothing_leaks(&bench.facts, &log, "delivered", &[SECRET, "cG9zdHJpZGVy", "token-1"]);
    worker.stop().await;
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    const LASTS_SECS: u64 = 8;
    let mut bench = Bench::new("auth-renewed").await;
    let server = TokenServer::start().await;
    server.expires_in(Some(LASTS_SECS));
    bench.configuration.webhook(&with_token(&bench, "wh", &server)).await;
    let worker = Worker::start(&bench.settings);
    let mut sent = 0;
    postrider_testkit::eventually("a second token is used", async || {
        bench.deliver(&[&format!("e{sent}")], "wh").await;
        sent += 1;
        bench
            .receiver
            .requests()
            .iter()
            .any(|request| request.header("authorization") == Some("Bearer token-2"))
    })
    .await;
    let asked = server.requests();
    assert_eq!(asked.len(), 2, "it was kept until then");
    let kept = asked[1].received_at.duration_since(asked[0].received_at).unwrap_or_default();
    // A tenth earlier, and some milliseconds between asking and being asked.
    assert!((7.1..7.9).contains(&kept.as_secs_f64()), "it lasts {LASTS_SECS} s and was kept for {kept:?}");
    bench.done(sent).await;
    assert!(bench.attempts().iter().all(|attempt| attempt.status == Some(200)));
    worker.stop().await;
}

#[tokio::test]
async fn a_token_that_the_receiver_refuses_is_not_used_again() {
    let mut bench = Bench::new("auth-refused").await;
    let server = TokenServer::start().await;
    bench.configuration.webhook(&with_token(&bench, "wh", &server)).await;
    bench.receiver.answer_by("/wh", |request: &Request| match request.header("authorization") {
        Some("Bearer token-1") => Answer::Status(401),
        _ => Answer::Status(200),
    });
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "wh").await;
    let done = bench.done(1).await;
    assert_eq!((done[0].end, done[0].attempts), (End::Delivered, 2));
    let requests = bench.receiver.requests();
    let tokens: Vec<_> = requests.iter().map(|request| request.header("authorization").unwrap()).collect();
    assert_eq!(tokens, ["Bearer token-1", "Bearer token-2"], "every request is an attempt");
    assert_eq!(bench.attempts().len(), 2);
    assert_eq!(server.requests().len(), 2);
    worker.stop().await;
}

#[tokio::test]
async fn another_revision_of_the_webhook_begins_with_another_token() {
    let mut bench = Bench::new("auth-revision").await;
    let server = TokenServer::start().await;
    let mut webhook = with_token(&bench, "wh", &server);
    bench.configuration.webhook(&webhook).await;
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "wh").await;
    bench.done(1).await;
    if let Some(Auth::Oauth2(oauth2)) = &mut webhook.auth {
        oauth2.in_body = true;
        oauth2.client_secret = "another secret".to_owned().into();
    }
    bench.configuration.webhook(&webhook).await;
    bench.deliver(&["e2"], "wh").await;
    bench.done(2).await;
    let requests = bench.receiver.requests();
    assert_eq!(requests[1].header("authorization"), Some("Bearer token-2"));
    let asked = server.requests();
    assert_eq!(asked[1].header("authorization"), None);
    let form = b"grant_type=client_credentials&scope=hooks&client_id=postrider&client_secret=another+secret";
    assert_eq!(asked[1].body.as_ref(), form);
    worker.stop().await;
}

#[tokio::test]
async fn without_a_token_an_attempt_fails_with_its_own_class_and_is_retried() {
    let log = Log::capture();
    let mut bench = Bench::new("auth-down").await;
    let server = TokenServer::start().await;
    server.fails(503, "temporarily_unavailable");
    bench.configuration.webhook(&with_token(&bench, "wh", &server)).await;
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "wh").await;
    bench
        .facts_until("two attempts failed", |facts| {
            facts.iter().filter(|fact| matches!(fact, Fact::Attempt(_))).count() >= 2
        })
        .await;
    assert_eq!(bench.receiver.count(), 0, "the receiver is not asked without a token");
    server.recovers();
    let done = bench.done(1).await;
    assert_eq!(done[0].end, End::Delivered);
    let attempts = bench.attempts();
    let (last, failed) = attempts.split_last().unwrap();
    assert_eq!((last.status, &*last.class), (Some(200), "none"));
    for attempt in failed {
        assert_eq!((attempt.status, &*attempt.class), (None, "token"));
        let error = "the token server answered 503 (temporarily_unavailable)";
        assert_eq!(attempt.error.as_deref(), Some(error));
    }
    assert!(worker.metric("postrider_delivery_attempts_total", "token") >= 2);
    nothing_leaks(&bench.facts, &log, "no token for the webhook", &[SECRET]);
    worker.stop().await;
}

#[tokio::test]
async fn a_token_server_that_fails_is_left_alone_for_a_moment() {
    let mut bench = Bench::new("auth-pause").await;
    let server = TokenServer::start().await;
    server.fails(401, "invalid_client");
    bench.configuration.webhook(&with_token(&bench, "wh", &server).attempts(5)).await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    for n in 0..10 {
        bench.deliver(&[&format!("e{n}")], "wh").await;
    }
    assert!(bench.done(10).await.iter().all(|done| done.end == End::Dead));
    assert_eq!(bench.attempts().len(), 50);
    let asked = server.requests();
    assert!(asked.len() >= 2, "the attempts went on for longer than the pause");
    for pair in asked.windows(2) {
        let between = pair[1].received_at.duration_since(pair[0].received_at).unwrap_or_default();
        assert!(between >= Duration::from_millis(950), "asked again after {between:?}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn the_token_counts_into_the_deadline_and_goes_nowhere_it_may_not() {
    let mut bench = Bench::new("auth-bounds").await;
    let (slow, flood, moved) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    slow.answer("/token", [Answer::Hang]);
    let endless = Answer::Endless { chunk: "x".repeat(16 * 1024).into(), pause: Duration::ZERO };
    flood.answer("/token", [endless]);
    let elsewhere = bench.receiver.url("/elsewhere");
    moved.answer("/token", [Answer::Status(307).with_header("location", &elsewhere)]);
    let closed = postrider_testkit::process::free_port();
    let cases = [
        ("slow", slow.url("/token"), "the token server: no answer within 400 ms"),
        ("flood", flood.url("/token"), "the token server answered 200 without access_token"),
        ("moved", moved.url("/token"), "the token server answered 307"),
        (
            "closed",
            format!("http://127.0.0.1:{closed}/token"),
            "the token server: no connection could be made",
        ),
        (
            "private",
            format!("http://[::1]:{closed}/token"),
            "the token server has a private or reserved address",
        ),
    ];
    for (id, token_url, _) in &cases {
        let oauth2 = Oauth2 {
            token_url: token_url.clone(),
            client_id: "postrider".into(),
            client_secret: SECRET.to_owned().into(),
            scope: None,
            audience: None,
            in_body: true,
        };
        let mut webhook = NewWebhook { auth: Some(Auth::Oauth2(oauth2)), ..bench.webhook(id) }.attempts(1);
        webhook.timeout_ms = 400;
        bench.configuration.webhook(&webhook).await;
    }
    let worker = Worker::start(&bench.settings);
    for (id, ..) in &cases {
        bench.deliver(&["e1"], id).await;
    }
    bench.done(cases.len()).await;
    for (id, _, error) in cases {
        let attempts = bench.attempts();
        let attempt = attempts.iter().find(|attempt| attempt.webhook.as_str() == id).unwrap();
        let said = attempt.error.as_deref().unwrap();
        assert!(attempt.class == "token" && said.starts_with(error), "{id}: {} {said}", attempt.class);
        assert!(attempt.duration_ms < 5_000, "{id}: {} ms", attempt.duration_ms);
    }
    assert_eq!(bench.receiver.count(), 0, "credentials follow no redirect");
    worker.stop().await;
}

fn tls(ca: Option<&Authority>, identity: Option<&Identity>) -> ClientTls {
    ClientTls {
        certificate_pem: identity.map(|identity| identity.certificate_pem.clone()),
        key_pem: identity.map(|identity| identity.key_pem.clone().into()),
        ca_pem: ca.map(|authority| authority.pem().to_owned()),
    }
}

#[tokio::test]
async fn a_private_authority_and_a_client_certificate() {
    let mut bench = Bench::new("auth-tls").await;
    let (servers, clients, strangers) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("strangers"));
    let receiver = Receiver::start_tls(&servers, Some(&clients)).await;
    let open = Receiver::start_tls(&servers, None).await;
    let (ours, theirs) = (clients.issue("postrider"), strangers.issue("postrider"));
    let mismatched = Identity { key_pem: theirs.key_pem.clone(), ..ours.clone() };
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let garbage = Identity { certificate_pem: pem.into(), ..ours.clone() };
    // Who, where, with what, and what is said if it fails.
    let cases = [
        ("mutual", receiver.url("/mutual"), tls(Some(&servers), Some(&ours)), None),
        ("private-ca", open.url("/private-ca"), tls(Some(&servers), None), None),
        (
            "none",
            receiver.url("/none"),
            tls(Some(&servers), None),
            Some("the receiver wants a client certificate"),
        ),
        (
            "stranger",
            receiver.url("/stranger"),
            tls(Some(&servers), Some(&theirs)),
            Some("the receiver does not accept the client certificate"),
        ),
        (
            "other-ca",
            receiver.url("/other-ca"),
            tls(Some(&strangers), Some(&ours)),
            Some("no authority that is trusted for this webhook"),
        ),
        (
            "public-ca",
            receiver.url("/public-ca"),
            tls(None, Some(&ours)),
            Some("no authority that is trusted for this webhook"),
        ),
        (
            "mismatched",
            receiver.url("/mismatched"),
            tls(Some(&servers), Some(&mismatched)),
            Some("the webhook's certificates or key cannot be used"),
        ),
        (
            "garbage",
            receiver.url("/garbage"),
            tls(Some(&servers), Some(&garbage)),
            Some("the webhook's certificates or key cannot be used"),
        ),
    ];
    for (id, url, tls, _) in &cases {
        let webhook = NewWebhook { tls: Some(tls.clone()), ..NewWebhook::new(*id, url.clone()) };
        bench.configuration.webhook(&webhook.attempts(1)).await;
    }
    let plain = NewWebhook::new("plain", open.url("/plain")).attempts(1);
    bench.configuration.webhook(&plain).await;
    let worker = Worker::start(&bench.settings);
    for id in cases.iter().map(|(id, ..)| *id).chain(["plain"]) {
        bench.deliver(&["e1"], id).await;
    }
    bench.done(cases.len() + 1).await;
    let attempts = bench.attempts();
    let attempt = |id: &str| attempts.iter().find(|attempt| attempt.webhook.as_str() == id).unwrap();
    for (id, _, _, error) in &cases {
        let attempt = attempt(id);
        let said = attempt.error.as_deref().unwrap_or_default();
        match error {
            None => assert_eq!((attempt.status, said), (Some(200), ""), "{id}"),
            Some(error) => {
                assert!(attempt.class == "tls" && said.starts_with(error), "{id}: {} {said}", attempt.class);
            }
        }
    }
    assert_eq!(attempt("plain").class, "tls", "what one webhook trusts, another does not");
    let shown = receiver.requests().remove(0).client_certificate.clone();
    assert!(shown.is_some_and(|der| der == ours.certificate_der()), "our certificate was shown");
    assert_eq!((receiver.count(), open.count()), (1, 1));
    worker.stop().await;
}

#[tokio::test]
async fn connections_are_made_anew_when_certificates_change() {
    let mut bench = Bench::new("auth-tls-change").await;
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let receiver = Receiver::start_tls(&servers, Some(&clients)).await;
    let (first, second) = (clients.issue("first"), clients.issue("second"));
    let of = |identity| NewWebhook {
        tls: Some(tls(Some(&servers), Some(identity))),
        ..NewWebhook::new("wh", receiver.url("/wh"))
    };
    bench.configuration.webhook(&of(&first)).await;
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "wh").await;
    bench.done(1).await;
    bench.configuration.webhook(&of(&second)).await;
    bench.deliver(&["e2"], "wh").await;
    bench.done(2).await;
    let shown: Vec<_> =
        receiver.requests().iter().map(|request| request.client_certificate.clone()).collect();
    assert_eq!(shown, [Some(first.certificate_der()), Some(second.certificate_der())]);
    worker.stop().await;
}
