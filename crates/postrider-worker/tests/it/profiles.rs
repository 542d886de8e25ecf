//! Every profile on the wire: exact bodies, exact headers, signatures that somebody else's code verifies, each product's
//! own idea of success and retry.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use postrider_broker::now;
use postrider_core::books::End;
use postrider_core::catalogue::Catalogue;
use postrider_core::webhook::{SecretKind, purpose};
use postrider_core::wire::{
    ApiKeyRecord, CatalogueRecord, ConfigKind, ConfigRecord, DeliveryMessage, EventRecord, Fact, RetryRecord,
    WebhookRecord,
};
use postrider_core::{EventId, EventType, TenantId};
use postrider_testkit::config::{Configuration, NewWebhook};
use postrider_testkit::process::{node_path, python};
use postrider_testkit::{Answer, Request, eventually, workspace_dir};
use serde_json::json;
use serde_json::value::RawValue;

use crate::{Bench, Worker};

/// Sets what there is in a webhook's record.
type Change = fn(&mut WebhookRecord);

impl Bench {
    /// Publishes a product's catalogue, with its profile.
    async fn catalogue(&mut self, product: &str) {
        let path = workspace_dir().join(format!("catalogues/{product}.toml"));
        let catalogue: Catalogue = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        self.publish(catalogue).await;
    }

    /// Publishes a catalogue, and then another tenant, so that the revision goes on: deliveries wait for it.
    async fn publish(&mut self, catalogue: Catalogue) {
        let (tenant, revision) = (TenantId::default_tenant(), self.configuration.revision() + 1);
        let id = format!("{tenant}/{}", catalogue.product.id);
        let body = CatalogueRecord { tenant, catalogue };
        let epoch = self.configuration.epoch();
        let record = ConfigRecord::of(epoch, revision, ConfigKind::Catalogue, &id, &body);
        self.configuration.write(&record).await;
        self.configuration.tenant("another").await;
    }

    /// A webhook with the retries of its profile. `change` says which profile that is.
    fn speaks(&self, id: &str, change: Change) -> NewWebhook {
        NewWebhook { retry: RetryRecord::default(), change, ..self.webhook(id) }
    }

    /// Delivers an event of this type, with its bytes, to one webhook.
    async fn deliver_event(&self, event_type: &str, context: &str, data: &str, webhook: &str) {
        let raw = |text: &str| Arc::<RawValue>::from(RawValue::from_string(text.into()).unwrap());
        let event = Arc::new(EventRecord {
            tenant: TenantId::default_tenant(),
            id: EventId::from_trusted(format!("evt_{webhook}")),
            event_type: EventType::parse(event_type).unwrap(),
            time: "2026-11-21T21:00:00.5+01:00".into(),
            context: raw(context),
            data: raw(data),
            key: Some("subject/ü".into()),
            correlation_id: None,
            traceparent: None,
            accepted_at: now(),
        });
        let delivery = self.delivery(&event, webhook);
        self.send(DeliveryMessage::single(event, delivery)).await;
    }

    /// The UUID of the delivery that such an event has.
    fn uuid(&self, webhook: &str) -> String {
        let event =
            EventRecord { id: EventId::from_trusted(format!("evt_{webhook}")), ..(*self.event("")).clone() };
        self.delivery(&event, webhook).id.uuid()
    }

    async fn request_to(&self, webhook: &str) -> Arc<Request> {
        let path = format!("/{webhook}");
        let requests = self
            .receiver
            .wait_until(&format!("a request to {path}"), |all| {
                all.iter().any(|request| request.path() == path)
            })
            .await;
        requests.into_iter().find(|request| request.path() == path).unwrap()
    }

    /// One line for a verifier.
    fn line(&self, request: &Request, body: &str) -> String {
        let headers: BTreeMap<String, &str> =
            request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
        let url = self.receiver.url(&request.target);
        json!({ "method": request.method, "url": url, "headers": headers, "body": body }).to_string()
    }

    /// A verifier takes the request as it came, and refuses it with another body.
    fn verifies(&self, verifier: &mut Command, request: &Request) {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        let said = run(verifier, &self.line(request, &body)).unwrap();
        assert_eq!(said, "1 verified");
        let other = body.replacen(['e', 'a'], "o", 1);
        assert_ne!(other, body);
        run(verifier, &self.line(request, &other)).expect_err("it verifies another body too");
    }
}

/// What a verifier says of one request, or complains.
fn run(verifier: &mut Command, line: &str) -> Result<String, String> {
    let verifier = verifier.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = verifier.spawn().unwrap();
    // It may end before it has read everything.
    writeln!(process.stdin.take().unwrap(), "{line}").ok();
    let output = process.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn script(python: &std::path::Path, name: &str, secret: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(workspace_dir().join("tests/python").join(name)).arg(secret);
    command
}

/// The lines that `docs/profiles.md` has under this heading.
fn documented(python: &std::path::Path, heading: &str, secret: &str) -> Command {
    let mut command = script(python, "verify_documented.py", heading);
    command.arg(secret);
    command
}

/// The names of all headers, but for those of every HTTP request, in order.
fn names(request: &Request) -> Vec<String> {
    let own = |name: &String| !["host", "content-length", "accept"].contains(&name.as_str());
    let mut names: Vec<String> =
        request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).filter(own).collect();
    names.sort();
    names
}

/// What every request of every profile has, and these beside.
fn with_ours(more: &[&str]) -> Vec<String> {
    let ours = [
        "content-type",
        "user-agent",
        "webhook-attempt",
        "webhook-event-id",
        "webhook-id",
        "webhook-timestamp",
    ];
    let mut names: Vec<String> = ours.iter().chain(more).map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

fn body(request: &Request) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

const CONTEXT: &str = r#"{ "source":"/shop", "n": 1.0 }"#;
const DATA: &str = "{\"data\" : [1e0, \"\\u00e9 é\"]}";
const TYPE: &str = "Client added \"two\" factor auth";

#[tokio::test]
async fn the_built_in_profiles_are_verified_by_the_libraries_of_standard_webhooks() {
    let mut bench = Bench::new("built-in").await;
    let webhooks: [(&str, Change); 4] = [
        ("postrider", |record| record.profile = "postrider".into()),
        ("standard", |record| record.profile = "standard".into()),
        ("structured", |record| record.profile = "cloudevents".into()),
        ("binary", |record| record.profile = "cloudevents-binary".into()),
    ];
    for (id, change) in webhooks {
        let webhook = bench.speaks(id, change);
        bench.configuration.webhook(&webhook).await;
    }
    let worker = Worker::start(&bench.settings);
    for (id, _) in webhooks {
        bench.deliver_event(TYPE, CONTEXT, DATA, id).await;
    }
    let time = "2026-11-21T21:00:00.5+01:00";
    let name = r#""Client added \"two\" factor auth""#;
    for (id, content_type, expected, headers) in [
        (
            "postrider",
            "application/json",
            format!(
                r#"{{"event_time":"{time}","event_type":{name},"current_context":{CONTEXT},"data":{DATA}}}"#
            ),
            &[][..],
        ),
        (
            "standard",
            "application/json",
            format!(r#"{{"type":{name},"timestamp":"{time}","data":{DATA}}}"#),
            &[],
        ),
        (
            "structured",
            "application/cloudevents+json",
            format!(
                r#"{{"specversion":"1.0","id":"evt_structured","source":"/shop","type":{name},"time":"{time}","subject":"subject/ü","datacontenttype":"application/json","data":{DATA}}}"#
            ),
            &[],
        ),
        (
            "binary",
            "application/json",
            DATA.to_owned(),
            &["ce-id", "ce-source", "ce-specversion", "ce-subject", "ce-time", "ce-type"],
        ),
    ] {
        let request = bench.request_to(id).await;
        assert_eq!(body(&request), expected, "{id}");
        assert_eq!(request.header("content-type"), Some(content_type), "{id}");
        assert_eq!(request.header("webhook-event-id"), Some(format!("evt_{id}").as_str()));
        assert_eq!(names(&request), with_ours(&[&["webhook-signature"][..], headers].concat()), "{id}");
    }
    let binary = bench.request_to("binary").await;
    assert_eq!(binary.header("ce-type"), Some("Client%20added%20%22two%22%20factor%20auth"));
    assert_eq!(binary.header("ce-subject"), Some("subject/%C3%BC"));

    let (Some(python), Some(node_path)) = (python(), node_path()) else { return };
    for (id, _) in webhooks {
        let request = bench.request_to(id).await;
        bench.verifies(&mut script(&python, "verify.py", &Configuration::secret()), &request);
        bench.verifies(&mut documented(&python, "Standard Webhooks", &Configuration::secret()), &request);
        let mut node = Command::new("node");
        node.arg(workspace_dir().join("tests/node/verify.js")).arg(Configuration::secret());
        bench.verifies(node.env("NODE_PATH", &node_path), &request);
    }
    worker.stop().await;
}

#[tokio::test]
async fn upmind_is_fourteen_members_and_the_hex_of_the_body() {
    let mut bench = Bench::new("upmind").await;
    bench.catalogue("upmind-client").await;
    let secret = "an upmind secret".replace(' ', "-");
    let webhook = NewWebhook {
        secret: secret.clone(),
        ..bench.speaks("up", |record| record.profile = "upmind".into())
    };
    bench.configuration.webhook(&webhook).await;
    let worker = Worker::start(&bench.settings);
    let context =
        r#"{"actor_type":null,"actor_id":null,"actor":null,"brand_id":"b","brand":{ "id":"b" },"ip":1}"#;
    let data = r#"{"object_type":"client","object_id":"c","object":{"id" : "c"},"more":1}"#;
    bench.deliver_event("Staff created unverified client", context, data, "up").await;
    let request = bench.request_to("up").await;
    assert_eq!(
        body(&request),
        format!(
            r#"{{"webhook_event_id":"evt_up","event_datetime":"2026-11-21 20:00:00","version":"V1","hook_category":"client","hook_code":"user_created_unverified_client_hook","hook_log_id":"{}","object_type":"client","object_id":"c","object":{{"id" : "c"}},"actor_type":null,"actor_id":null,"actor":null,"brand_id":"b","brand":{{ "id":"b" }}}}"#,
            bench.uuid("up")
        )
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(names(&request), with_ours(&["x-webhook-signature"]));
    if let Some(python) = python() {
        bench.verifies(&mut script(&python, "verify_body_hex.py", &secret), &request);
        bench.verifies(&mut documented(&python, "Hex of the body", &secret), &request);
    }
    worker.stop().await;
}

#[tokio::test]
async fn skillmine_is_four_members_an_api_key_and_200_alone() {
    let mut bench = Bench::new("skillmine").await;
    bench.catalogue("skillmine-auth").await;
    // The product waits minutes; a test does not.
    let webhook = bench.speaks("sk", |record| {
        record.profile = "skillmine".into();
        record.retry.schedule_ms = Some(vec![50, 50, 50]);
        let purpose = purpose(&record.tenant, &record.id, SecretKind::ApiKey);
        let value = Configuration::master_key().seal(&purpose, b"the key", rand::random()).unwrap();
        record.api_key = Some(ApiKeyRecord { place: "header".into(), name: "X-API-Key".into(), value });
    });
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/sk", [204, 410, 404, 200].map(Answer::Status));
    let worker = Worker::start(&bench.settings);
    bench.deliver_event("USER_LOGIN", "[]", "null", "sk").await;
    let done = bench.done(1).await;
    assert_eq!((done[0].end, done[0].attempts), (End::Delivered, 4), "all but 200 is tried again");
    let classes: Vec<String> =
        bench.attempts().into_iter().map(|attempt| attempt.class.into_owned()).collect();
    assert_eq!(classes, ["http_2xx", "http_410", "http_4xx", "none"]);
    let request = bench.request_to("sk").await;
    assert_eq!(
        body(&request),
        r#"{"event_time":"2026-11-21T20:00:00.500Z","event_type":"USER_LOGIN","current_context":[],"data":null}"#
    );
    assert_eq!(names(&request), with_ours(&["webhook-signature", "x-api-key"]));
    assert_eq!(request.header("x-api-key"), Some("the key"));
    if let Some(python) = python() {
        bench.verifies(&mut script(&python, "verify.py", &Configuration::secret()), &request);
    }
    worker.stop().await;
}

#[tokio::test]
async fn open_loyalty_is_type_and_data_and_a_canonical_string() {
    let mut bench = Bench::new("open-loyalty").await;
    bench.catalogue("open-loyalty").await;
    let secret = "whsec_an-open-loyalty-secret";
    let rotated = |record: &mut WebhookRecord| {
        record.profile = "open-loyalty".into();
        record.secret_version = 3;
    };
    let mut webhook = NewWebhook { secret: secret.into(), ..bench.speaks("ol", rotated) };
    webhook.url = bench.receiver.url("/ol?store=DEFAULT");
    bench.configuration.webhook(&webhook).await;
    webhook.id = "moved".into();
    webhook.url = bench.receiver.url("/moved");
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/ol", [Answer::Status(404)]);
    bench.receiver.answer("/moved", [Answer::Status(302)]);
    let worker = Worker::start(&bench.settings);
    for id in ["ol", "moved"] {
        bench.deliver_event("TransactionRegistered", CONTEXT, DATA, id).await;
    }
    let done = bench.done(2).await;
    let of = |webhook: &str| done.iter().find(|done| done.webhook.as_str() == webhook).unwrap();
    assert_eq!((of("ol").end, of("ol").reason.as_str(), of("ol").attempts), (End::Dead, "exhausted", 2));
    assert_eq!((of("moved").end, of("moved").attempts), (End::Delivered, 1));

    let requests = bench.receiver.requests_to("/ol");
    for request in &requests {
        assert_eq!(body(request), format!(r#"{{"type":"TransactionRegistered","data":{DATA}}}"#));
        assert_eq!(
            names(request),
            with_ours(&[
                "x-webhook-request-id",
                "x-webhook-signature",
                "x-webhook-signature-algorithm",
                "x-webhook-signature-version",
                "x-webhook-timestamp",
            ])
        );
        assert_eq!(request.header("x-webhook-request-id"), Some(bench.uuid("ol").as_str()));
        assert_eq!(request.header("x-webhook-signature-version"), Some("3"));
        assert_eq!(request.header("x-webhook-timestamp"), request.header("webhook-timestamp"));
        if let Some(python) = python() {
            bench.verifies(&mut script(&python, "verify_canonical.py", secret), request);
            bench.verifies(&mut documented(&python, "Canonical string", secret), request);
        }
    }
    worker.stop().await;
}

#[tokio::test]
async fn entrust_is_five_members_and_rfc_9421_over_the_whole_target() {
    let mut bench = Bench::new("entrust").await;
    bench.catalogue("entrust-idaas").await;
    let secret = "an-entrust-webhook-token";
    let with_key = |record: &mut WebhookRecord| {
        record.profile = "entrust".into();
        record.timeout_ms = None;
    };
    for id in ["en", "other", "refused", "failing", "slow"] {
        let mut webhook = NewWebhook { secret: secret.into(), ..bench.speaks(id, with_key) };
        webhook.url = bench.receiver.url(&format!("/{id}?a=1&b=%20"));
        bench.configuration.webhook(&webhook).await;
    }
    bench.receiver.answer("/refused", [Answer::Status(429).with_header("retry-after", "1")]);
    bench.receiver.answer("/failing", [Answer::Status(502), Answer::Status(202)]);
    bench.receiver.answer("/slow", [Answer::Hang]);
    let worker = Worker::start(&bench.settings);
    let context = r#"{"accountId":"acc"}"#;
    for id in ["en", "refused", "failing", "slow"] {
        bench.deliver_event("grid.password.email.sent", context, DATA, id).await;
    }
    bench.deliver_event("user.created", "null", DATA, "other").await;
    let done = bench.done(5).await;
    let end = |webhook: &str| {
        let done = done.iter().find(|done| done.webhook.as_str() == webhook).unwrap();
        (done.end, done.reason.clone(), done.attempts)
    };
    assert_eq!(end("en"), (End::Delivered, String::new(), 1));
    assert_eq!(end("refused"), (End::Dead, "not_retried".into(), 1));
    assert_eq!(end("slow"), (End::Dead, "not_retried".into(), 1));
    assert_eq!(end("failing"), (End::Delivered, String::new(), 2));
    let slow = bench.attempts().into_iter().find(|attempt| attempt.webhook.as_str() == "slow").unwrap();
    assert_eq!(slow.class, "timeout");
    assert!((3_000..4_500).contains(&slow.duration_ms), "{} ms", slow.duration_ms);

    let request = bench.request_to("en").await;
    let expected = |webhook: &str, event_type: &str, account: &str| {
        format!(
            r#"{{"id":"{}","type":"{event_type}","accountId":"{account}","eventTime":"2026-11-21T21:00:00.5+01:00","data":{DATA}}}"#,
            bench.uuid(webhook)
        )
    };
    assert_eq!(body(&request), expected("en", "grid.password.email.sent", "acc"));
    assert_eq!(body(&*bench.request_to("other").await), expected("other", "user.created", "default"));
    assert_eq!(request.target, "/en?a=1&b=%20");
    assert_eq!(names(&request), with_ours(&["content-digest", "signature", "signature-input"]));
    let created = request.header("webhook-timestamp").unwrap();
    assert_eq!(
        request.header("signature-input").unwrap(),
        format!(
            r#"sig=("@method" "@target-uri" "content-digest");created={created};keyid="en";alg="hmac-sha256""#
        )
    );
    let both = bench.receiver.requests_to("/failing");
    assert_eq!(both.len(), 2);
    assert_ne!(both[0].header("signature"), both[1].header("signature"), "each attempt is signed anew");
    if let Some(python) = python() {
        for request in [&request, &both[0], &both[1]] {
            bench.verifies(&mut script(&python, "verify_http_message.py", secret), request);
            bench.verifies(&mut documented(&python, "RFC 9421", secret), request);
        }
        // The query is part of what is signed.
        let line = bench.line(&request, body(&request)).replace("a=1", "a=2");
        run(&mut script(&python, "verify_http_message.py", secret), &line).unwrap_err();
    }
    worker.stop().await;
}

#[tokio::test]
async fn an_old_secret_signs_until_its_time() {
    let mut bench = Bench::new("overlap").await;
    let both = bench.speaks("both", |record| {
        let mut old = record.secrets[0].clone();
        old.until = Some(now().plus_ms(3_600_000));
        record.secrets.push(old);
    });
    bench.configuration.webhook(&both).await;
    let past = bench.speaks("past", |record| {
        let mut old = record.secrets[0].clone();
        old.until = Some(postrider_core::Timestamp::from_millis(1));
        record.secrets.push(old);
    });
    bench.configuration.webhook(&past).await;
    let worker = Worker::start(&bench.settings);
    for (id, signatures) in [("both", 2), ("past", 1)] {
        bench.deliver(&["e"], id).await;
        let request = bench.request_to(id).await;
        assert_eq!(request.header("webhook-signature").unwrap().split(' ').count(), signatures, "{id}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_webhook_may_ask_for_another_version_and_the_profile_may_change() {
    let mut bench = Bench::new("versions").await;
    let catalogue = |key: &str| -> Catalogue {
        let text = format!(
            r#"
            schema = 1
            product = {{ id = "shop", name = "Shop" }}
            [profile]
            name = "shop"
            version = "2"
            member = [{{ name = "type", event_type = "name" }}]
            other_version = [{{ name = "legacy", member = [{{ name = "eventName", event_type = "name" }}] }}]
            signature = {{ scheme = "body_hex", header = "X-Shop-Sign", key = "{key}" }}
            secret = {{ rotation = "at_once" }}
            "#
        );
        toml::from_str(&text).unwrap()
    };
    bench.publish(catalogue("text")).await;
    let of: [(&str, Change, &str); 3] = [
        ("own", |record| record.profile = "shop".into(), "type"),
        (
            "legacy",
            |record| {
                record.profile = "shop".into();
                record.payload_version = Some("legacy".into());
            },
            "eventName",
        ),
        (
            "no-such",
            |record| {
                record.profile = "shop".into();
                record.payload_version = Some("9".into());
            },
            "type",
        ),
    ];
    for (id, change, _) in of {
        let webhook = bench.speaks(id, change);
        bench.configuration.webhook(&webhook).await;
    }
    let worker = Worker::start(&bench.settings);
    for (id, _, member) in of {
        bench.deliver(&["e"], id).await;
        let request = bench.request_to(id).await;
        assert_eq!(body(&request), format!(r#"{{"{member}":"USER_LOGIN"}}"#), "{id}");
        assert_eq!(names(&request), with_ours(&["x-shop-sign"]), "{id}");
    }
    // The secret is now read in another way, though no webhook changed.
    bench.publish(catalogue("text_after_prefix")).await;
    let legacy = bench.request_to("legacy").await;
    let event = bench.event("e");
    bench.send(DeliveryMessage::single(event.clone(), bench.delivery(&event, "legacy"))).await;
    let requests = bench.receiver.wait_until("it is sent again", |all| all.len() >= 4).await;
    assert_eq!(requests[3].body, legacy.body);
    assert_ne!(requests[3].header("x-shop-sign"), legacy.header("x-shop-sign"));
    worker.stop().await;
}

#[tokio::test]
async fn an_unsigned_webhook_and_one_whose_secret_does_not_fit() {
    let mut bench = Bench::new("unsigned").await;
    let unsigned = NewWebhook { change: |record| record.unsigned = true, ..bench.webhook("unsigned") };
    bench.configuration.webhook(&unsigned).await;
    let misfit = NewWebhook { secret: "short".into(), ..bench.webhook("misfit") }.attempts(1);
    bench.configuration.webhook(&misfit).await;
    let nobody =
        NewWebhook { change: |record| record.profile = "hologram".into(), ..bench.webhook("nobody") };
    bench.configuration.webhook(&nobody.attempts(1)).await;
    let worker = Worker::start(&bench.settings);
    for id in ["unsigned", "misfit", "nobody"] {
        bench.deliver(&["e"], id).await;
    }
    let done = bench.done(3).await;
    assert_eq!(names(&*bench.request_to("unsigned").await), with_ours(&[]));
    assert_eq!(
        bench.receiver.count(),
        1,
        "nothing goes out unsigned that should be signed, nor in another shape"
    );
    assert_eq!(done.iter().filter(|done| done.end == End::Dead).count(), 2);
    for (id, why) in [("misfit", "rotate its secret"), ("nobody", "profile")] {
        let attempts = bench.attempts();
        let attempt = attempts.iter().find(|attempt| attempt.webhook.as_str() == id).unwrap();
        assert_eq!(attempt.class, "internal");
        assert!(attempt.error.as_ref().unwrap().contains(why), "{:?}", attempt.error);
    }
    worker.stop().await;
}

#[tokio::test]
async fn outside_its_time_a_webhook_receives_nothing_but_tests() {
    let mut bench = Bench::new("window").await;
    let changes: [(&str, Change); 4] = [
        ("early", |record| record.active_from = Some(now().plus_ms(3_600_000))),
        ("late", |record| record.expires_at = Some(now())),
        ("disabled", |record| record.state = "disabled".into()),
        ("paused", |record| record.state = "paused".into()),
    ];
    for (id, change) in changes {
        let webhook = NewWebhook { change, ..bench.webhook(id) };
        bench.configuration.webhook(&webhook).await;
    }
    let worker = Worker::start(&bench.settings);
    for id in ["early", "late", "disabled"] {
        bench.deliver(&["e"], id).await;
    }
    let done = bench.done(3).await;
    let mut ends: Vec<_> =
        done.iter().map(|done| (done.webhook.to_string(), done.end, done.reason.clone())).collect();
    ends.sort_by(|a, b| a.0.cmp(&b.0));
    let expected =
        [("disabled", "webhook_disabled"), ("early", "webhook_not_yet_active"), ("late", "webhook_expired")];
    assert_eq!(ends, expected.map(|(id, reason)| (id.to_owned(), End::Skipped, reason.to_owned())));
    assert_eq!(bench.receiver.count(), 0);

    bench.receiver.answer("/late", [Answer::Status(500)]);
    for id in ["early", "late", "disabled", "paused"] {
        let event = bench.event("own_test_1");
        let delivery = postrider_core::wire::DeliveryRecord { test: true, ..bench.delivery(&event, id) };
        bench.send(DeliveryMessage::single(event, delivery)).await;
    }
    let done = bench.done(7).await;
    let tests: Vec<_> = done.iter().filter(|done| done.attempts == 1).collect();
    assert_eq!(tests.len(), 4);
    for done in tests {
        let expected =
            if done.webhook.as_str() == "late" { (End::Dead, "test") } else { (End::Delivered, "") };
        assert_eq!((done.end, done.reason.as_str()), expected, "{}", done.webhook);
    }
    assert_eq!(bench.receiver.count(), 4, "one attempt each");
    assert!(bench.receiver.requests().iter().all(|request| request.header("webhook-test") == Some("true")));
    bench.settled().await;
    let dead = bench.names().dead();
    eventually("no dead letter", async || bench.vhost.queue_depth(&dead).await == 0).await;
    assert!(!bench.facts.iter().any(|fact| matches!(fact, Fact::Held(_))));
    worker.stop().await;
}
