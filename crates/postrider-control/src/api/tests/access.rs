//! Who may do what: every operation of the API is tried from outside its tenant, without its scope, and with it.

use std::collections::{BTreeMap, HashMap};

use axum::extract::ConnectInfo;
use base64::Engine as _;
use postrider_core::books::End;
use postrider_core::wire::{DoneFact, EventFact, EventFate, EventRecord, Fact, JournalMessage, Owed, SCHEMA};
use postrider_core::{DeliveryId, EventId, EventType, TenantId, Timestamp, WebhookId, event};
use sqlx::Row as _;

use super::configuration::other;
use super::*;
use crate::api::rights::{OPERATIONS, Operation, operations};
use crate::api::wrong_tokens::Peer;
use crate::keys::KeyScope;
use crate::store::{Entry, Letter, LetterKind};

/// What stands in every secret that is given. None of it may be found where it does not belong.
const CANARY: &str = "canary";

/// A signing secret with a canary in it.
fn secret() -> String {
    let bytes = format!("{CANARY}-of-twenty-four-bytes-or-more");
    format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// A tenant with one of everything, most of it named after it.
struct Party {
    tenant: &'static str,
    /// Webhooks by what they are for.
    webhooks: HashMap<&'static str, String>,
    dead: String,
    pending: String,
    letter: String,
    replays: [String; 2],
    key: String,
}

impl Party {
    async fn new(t: &Test, tenant: &'static str) -> Self {
        let path = |path: &str| format!("/v1/{path}?tenant={tenant}");
        assert_eq!(t.post("/v1/tenants", json!({ "id": tenant })).await.0, 201);
        for catalogue in [other(tenant), other(&format!("{tenant}idle"))] {
            let product = catalogue["product"]["id"].as_str().unwrap();
            assert_eq!(t.put(&path(&format!("catalogues/{product}")), &catalogue).await.0, 201);
        }
        let mut webhooks = HashMap::new();
        for name in ["main", "paused", "disabled", "shown", "spare", "doomed"] {
            let mut body = json!({ "name": format!("{tenant} {name}"), "subscription": { "all": true },
                "url": format!("https://{tenant}.example/"), "headers": { "X-Old": CANARY } });
            match name {
                "paused" | "disabled" => body["state"] = name.into(),
                "shown" => body["profile"] = format!("{tenant}shop").into(),
                _ => {}
            }
            let (status, made) = t.post(&path("webhooks"), body).await;
            assert_eq!(status, 201, "{made}");
            webhooks.insert(name, made["id"].as_str().unwrap().to_owned());
        }
        let reminder = json!({ "event_type": format!("{tenant}MemberWillExpire"), "date": "2099-01-01" });
        let (status, answer) = t.put(&path(&format!("reminders/{tenant}-reminder")), &reminder).await;
        assert_eq!(status, 201, "{answer}");
        let mut replays = Vec::new();
        for _ in 0..2 {
            let (status, made) = t.post(&path("replays"), json!({})).await;
            assert_eq!(status, 202, "{made}");
            replays.push(made["id"].as_str().unwrap().to_owned());
        }
        let key = t.key(Some(tenant), &[KeyScope::Read]).await.0;
        let mut party = Self {
            tenant,
            webhooks,
            dead: String::new(),
            pending: String::new(),
            letter: String::new(),
            replays: replays.try_into().unwrap(),
            key,
        };
        party.happened(t).await;
        party
    }

    /// One delivery dies, one dies and is a dead letter, and one is under way.
    async fn happened(&mut self, t: &Test) {
        let tenant = TenantId::parse(self.tenant).unwrap();
        let at = Timestamp::from_millis(postrider_broker::now().as_millis() - 1000);
        let webhook = WebhookId::from_trusted(self.webhooks["main"].clone());
        let id = |name: &str| EventId::from_trusted(format!("{tenant}-{name}"));
        let delivery = |name: &str| DeliveryId::of(&tenant, &id(name), &webhook);
        let mut facts = Vec::new();
        for name in ["dead", "letter", "pending"] {
            let record = EventRecord {
                tenant: tenant.clone(),
                id: id(name),
                event_type: EventType::parse("A").unwrap(),
                time: "2026-11-21T20:00:00Z".into(),
                context: event::null(),
                data: event::null(),
                key: None,
                correlation_id: None,
                traceparent: None,
                accepted_at: at,
            };
            let owed = Owed { delivery: delivery(name), webhook: webhook.clone() };
            facts.push(Fact::Event(EventFact {
                tenant: tenant.clone(),
                event_id: record.id.clone(),
                at,
                fate: EventFate::Routed(vec![owed]),
                event: Some(Arc::new(record)),
                marks: Vec::new(),
            }));
            if name != "pending" {
                facts.push(Fact::Done(DoneFact {
                    delivery: delivery(name),
                    series: 1,
                    webhook: webhook.clone(),
                    end: End::Dead,
                    reason: "exhausted".into(),
                    attempts: 0,
                    at,
                    repeats: 0,
                }));
            }
        }
        let writer = format!("writer of {tenant}");
        let message = JournalMessage { schema: SCHEMA, writer, first: 0, duplicates: 0, facts };
        let letter = Letter {
            id: format!("dl_{tenant}"),
            kind: LetterKind::Dead,
            tenant: tenant.to_string(),
            reason: "exhausted".into(),
            detail: String::new(),
            class: String::new(),
            delivery: Some((delivery("letter"), 1)),
            webhook: webhook.to_string(),
            event_id: id("letter").to_string(),
            event_type: "A".into(),
            content_type: String::new(),
            body: None,
            attempts: 0,
            at,
        };
        let entries = [Entry::Journal(message), Entry::Letter(letter)];
        t.api.store.record(&entries, postrider_broker::now()).await.unwrap();
        self.dead = delivery("dead").to_string();
        self.pending = delivery("pending").to_string();
        self.letter = format!("dl_{tenant}");
    }

    /// Where an operation is asked for, about something of this tenant.
    fn path(&self, route: &str, operation: &str) -> String {
        let webhook = match operation {
            "resume_webhook" => "paused",
            "enable_webhook" => "disabled",
            "disable_webhook" => "spare",
            "get_secret" => "shown",
            "delete_webhook" => "doomed",
            _ => "main",
        };
        let tenant = self.tenant;
        let name = match route.split('/').nth(2).unwrap() {
            "webhooks" => self.webhooks[webhook].clone(),
            "events" => format!("{tenant}-dead"),
            "deliveries" if operation == "cancel_delivery" => self.pending.clone(),
            "deliveries" => self.dead.clone(),
            "dead-letters" => self.letter.clone(),
            "replays" => self.replays[usize::from(operation == "cancel_replay")].clone(),
            "catalogues" => format!("{tenant}idleshop"),
            "event-types" => format!("{tenant}order.paid"),
            "reminders" => format!("{tenant}-reminder"),
            "api-keys" => self.key.clone(),
            // One that nobody works with.
            "tenants" => "idle".to_owned(),
            "queues" => "postrider.events".to_owned(),
            _ => String::new(),
        };
        let placed = route.replace("{id}", &name).replace("{product}", &name).replace("{key}", &name);
        let path = placed.replace("{name}", &name);
        assert!(!path.contains('{'), "say what {route} is about");
        match operation {
            "list_webhook_stats" => format!("{path}?webhook={}", self.webhooks["main"]),
            _ => path,
        }
    }

    /// What an operation is asked for with. New operations with a body have to be said here.
    fn body(&self, operation: &str, described: &utoipa::openapi::path::Operation) -> Option<Value> {
        let tenant = self.tenant;
        Some(match operation {
            "publish_events" => json!({ "event_type": "A", "data": { "x": CANARY } }),
            "put_reminder" => {
                json!({ "event_type": format!("{tenant}MemberWillExpire"), "date": "2099-02-02",
                "data": { "x": CANARY } })
            }
            "explain_webhook" => json!({ "event": { "event_type": "A" } }),
            "create_webhook" => json!({ "name": "new", "url": format!("https://example.com/?token={CANARY}"),
                "subscription": { "all": true }, "secret": secret(), "headers": { "X-New": CANARY },
                "api_key": { "in": "header", "name": "X-Key", "value": CANARY },
                "auth": { "bearer": { "token": CANARY } } }),
            "update_webhook" => {
                json!({ "url": format!("https://example.com/?token={CANARY}-2"), "max_in_flight": 7,
                "headers": { "X-New": CANARY }, "api_key": { "in": "query", "name": "key", "value": CANARY },
                "auth": { "basic": { "username": CANARY, "password": CANARY } } })
            }
            "test_webhook" => json!({ "event_type": "A", "data": { "x": CANARY } }),
            "rotate_secret" => json!({ "secret": secret() }),
            "create_cancellation" => json!({ "webhook": self.webhooks["spare"] }),
            "resolve_dead_letter" => json!({ "reason": "seen" }),
            "put_catalogue" => {
                let mut catalogue = other(&format!("{tenant}idle"));
                catalogue["product"]["name"] = "Shop of today".into();
                catalogue
            }
            "update_settings" => json!({ "max_in_flight": 7 }),
            "plan_replay" => json!({ "webhook": self.webhooks["main"] }),
            "create_tenant" => json!({ "id": "gamma" }),
            "create_api_key" => json!({ "name": "ci", "scopes": ["read"] }),
            _ => {
                assert!(described.request_body.is_none(), "say what {operation} is asked for with");
                return None;
            }
        })
    }
}

/// An operation, and where it is.
struct Ask {
    method: http::Method,
    route: String,
    described: utoipa::openapi::path::Operation,
    operation: &'static Operation,
}

impl Ask {
    /// Every operation of the description.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (route, item) in described().into_openapi().paths.paths {
            for (method, described) in operations(&item) {
                let id = described.operation_id.as_deref().unwrap();
                let operation = OPERATIONS.iter().find(|operation| operation.id == id).unwrap();
                all.push(Self { method, route: route.clone(), described: described.clone(), operation });
            }
        }
        assert_eq!(all.len(), OPERATIONS.len());
        all
    }

    /// Those that a key of one tenant may ask for.
    fn of_tenants() -> impl Iterator<Item = Self> {
        Self::all().into_iter().filter(|ask| ask.operation.needs != Some(KeyScope::Admin))
    }

    fn id(&self) -> &'static str {
        self.operation.id
    }

    fn path(&self, party: &Party) -> String {
        party.path(&self.route, self.id())
    }

    fn body(&self, party: &Party) -> Option<Value> {
        party.body(self.id(), &self.described)
    }

    /// Whether it leaves a row in the audit log.
    fn is_audited(&self) -> bool {
        match self.id() {
            // Events are in the books, and nothing is changed by asking why.
            "publish_events" | "explain_webhook" => false,
            "get_secret" => true,
            _ => self.method != http::Method::GET,
        }
    }
}

fn as_key(token: &str, method: &http::Method, path: &str, body: Option<&Value>) -> Request<Body> {
    let mut request = request(method.as_str(), path, body.map(Value::to_string).as_deref());
    request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    request
}

impl Test {
    /// Makes a key: its id, and itself.
    async fn key(&self, tenant: Option<&str>, scopes: &[KeyScope]) -> (String, String) {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let body = json!({ "name": format!("key of {tenant:?}"), "tenant": tenant, "scopes": scopes });
        let (status, made) = self.post("/v1/api-keys", body).await;
        assert_eq!(status, 201, "{made}");
        (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
    }

    async fn by(&self, token: &str, method: &http::Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, _, answer) = read(self.send(as_key(token, method, path, body)).await).await;
        (status, answer)
    }

    async fn get_by(&self, token: &str, path: &str) -> (u16, Value) {
        self.by(token, &http::Method::GET, path, None).await
    }

    /// Every row of the store: by table, as text. Of a tenant: without what is known to be another's.
    async fn rows(&self, of: Option<&str>) -> BTreeMap<String, Vec<String>> {
        let writer = self.api.store.writer();
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '_sqlx%'",
        )
        .fetch_all(writer)
        .await
        .unwrap();
        let mut all = BTreeMap::new();
        for table in tables {
            let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info($1)")
                .bind(&table)
                .fetch_all(writer)
                .await
                .unwrap();
            let filter = match of {
                Some(tenant) if columns.iter().any(|column| column == "tenant") => {
                    format!(" WHERE tenant = '{tenant}'")
                }
                // These count what all tenants do.
                Some(_) if table == "counters" || table == "idempotency" => continue,
                _ => String::new(),
            };
            let quoted: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
            let sql = format!("SELECT {} AS row FROM {table}{filter} ORDER BY 1", quoted.join(" || ' ' || "));
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(writer).await.unwrap();
            all.insert(table, rows.iter().map(|row| row.get("row")).collect());
        }
        assert!(all.len() > 20, "{:?}", all.keys());
        all
    }

    async fn audit(&self) -> Vec<Value> {
        let (status, page) = self.call("GET", "/v1/audit?limit=200", None).await;
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().clone()
    }

    /// Everything in the files of the store, as text.
    fn on_disk(&self) -> String {
        let files = std::fs::read_dir(self._dir.path().join("state")).unwrap();
        let bytes = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap());
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }
}

const OF_TENANTS: [KeyScope; 4] = [KeyScope::EventsWrite, KeyScope::Read, KeyScope::Manage, KeyScope::Replay];

/// A key of one tenant gets nothing of another one, whatever it asks for and however it names it, and changes nothing of it.
#[tokio::test]
async fn nobody_reaches_into_another_tenant() {
    let t = Test::new().await;
    let (alpha, beta) = (Party::new(&t, "alpha").await, Party::new(&t, "beta").await);
    let (_, key) = t.key(Some("alpha"), &OF_TENANTS).await;
    let mut tried = 0;
    for ask in Ask::of_tenants() {
        let (id, method) = (ask.id(), &ask.method);
        let named = |path: &str| format!("{path}{}tenant=beta", if path.contains('?') { '&' } else { '?' });
        let mut crossings: Vec<(String, Option<Value>, &[u16])> = vec![
            (named(&ask.path(&alpha)), ask.body(&alpha), &[403]),
            (named(&ask.path(&beta)), ask.body(&beta), &[403]),
        ];
        let is_about_one = ask.route.contains('{');
        // These make what is not there: in the tenant of the key.
        let makes = matches!(id, "put_reminder" | "put_catalogue");
        if is_about_one && !makes {
            crossings.push((ask.path(&beta), ask.body(&alpha), &[404]));
            crossings.push((ask.path(&beta), ask.body(&beta), &[404]));
        }
        if let Some(Value::Object(mut body)) = ask.body(&alpha) {
            body.insert("tenant".into(), "beta".into());
            let knows_tenant =
                ["publish_events", "create_webhook", "update_webhook", "create_cancellation", "plan_replay"];
            let expected: &[u16] = if knows_tenant.contains(&id) { &[403] } else { &[422] };
            crossings.push((ask.path(&alpha), Some(Value::Object(body)), expected));
        }
        let before = t.rows(None).await;
        for (path, body, expected) in crossings {
            tried += 1;
            let (status, answer) = t.by(&key, method, &path, body.as_ref()).await;
            assert!(expected.contains(&status), "{id} {path} {body:?}: {status} {answer}");
            let text = answer.to_string();
            assert!(!text.contains("beta"), "{id} {path}: {text}");
            if status == 403 {
                assert_eq!(answer["code"], "forbidden", "{id} {path}");
            }
        }
        if is_about_one && !makes {
            // What another tenant has is as what nobody has.
            let nothing = ask.path(&beta).split('/').take(3).collect::<Vec<_>>().join("/");
            let rest: String = ask.path(&beta).split('/').skip(4).map(|part| format!("/{part}")).collect();
            let nothing = format!("{nothing}/nothing{rest}");
            let theirs = t.by(&key, method, &ask.path(&beta), ask.body(&alpha).as_ref()).await;
            let nobodys = t.by(&key, method, &nothing, ask.body(&alpha).as_ref()).await;
            assert_eq!(theirs, nobodys, "{id}");
        }
        assert_eq!(t.rows(None).await, before, "{id} changed something that was refused");
        assert!(t.published().is_empty(), "{id}");

        if *method == http::Method::GET {
            let (status, own) = t.get_by(&key, &ask.path(&alpha)).await;
            let text = own.to_string();
            assert!(status == 200 && !text.contains("beta"), "{id}: {status} {text}");
            let (_, theirs) = t.call("GET", &named(&ask.path(&beta)), None).await;
            let shows_names = !matches!(
                id,
                "list_cancellations"
                    | "get_settings"
                    | "get_secret"
                    | "get_stats"
                    | "list_webhook_stats"
                    | "get_access"
                    // Nothing was sent.
                    | "export_replay"
            );
            assert!(
                !shows_names || theirs.to_string().contains("beta"),
                "{id}: this test sees nothing in {theirs}"
            );
        }
    }
    assert!(tried > 100, "{tried}");

    // Something of the same name is the own tenant's.
    for id in ["put_reminder", "put_catalogue"] {
        let ask = Ask::of_tenants().find(|ask| ask.id() == id).unwrap();
        let theirs = t.rows(Some("beta")).await;
        let mut body = ask.body(&beta).unwrap();
        if id == "put_reminder" {
            body["event_type"] = "alphaMemberWillExpire".into();
        }
        let (status, answer) = t.by(&key, &ask.method, &ask.path(&beta), Some(&body)).await;
        assert_eq!(status, 201, "{id}: {answer}");
        assert_eq!(t.rows(Some("beta")).await, theirs, "{id} changed what is another tenant's");
    }
    // What a body names beside the tenant.
    let before = t.rows(Some("beta")).await;
    for (path, body) in [
        ("/v1/replays", json!({ "webhook": beta.webhooks["main"] })),
        ("/v1/replays", json!({ "target": beta.webhooks["main"] })),
        ("/v1/cancellations", json!({ "webhook": beta.webhooks["main"] })),
        (
            "/v1/webhooks",
            json!({ "name": "n", "url": "https://example.com/", "profile": "betashop",
            "subscription": { "all": true } }),
        ),
        (
            "/v1/webhooks",
            json!({ "name": "n", "url": "https://example.com/",
            "subscription": { "groups": ["betanothing"] } }),
        ),
    ] {
        let (status, answer) = t.by(&key, &http::Method::POST, path, Some(&body)).await;
        assert_eq!(status, 422, "{path} {body}: {answer}");
    }
    let several = json!([{ "event_type": "A" }, { "event_type": "A", "tenant": "beta" }]);
    let (status, answer) = t.by(&key, &http::Method::POST, "/v1/events", Some(&several)).await;
    assert_eq!((status, &answer["field"]), (403, &json!("[1].tenant")));
    assert!(t.published().is_empty());
    let explained = format!("/v1/webhooks/{}/explain", alpha.webhooks["main"]);
    let event = json!({ "event_id": "beta-dead" });
    assert_eq!(t.by(&key, &http::Method::POST, &explained, Some(&event)).await.0, 404);
    let of_theirs = format!("/v1/deliveries?webhook={}", beta.webhooks["main"]);
    for path in [of_theirs.as_str(), "/v1/deliveries?event=beta-dead", "/v1/audit?subject=beta"] {
        assert_eq!(t.get_by(&key, path).await, (200, json!({ "items": [], "next": null })), "{path}");
    }
    let nothing = json!([{ "export": { "lines": 0, "complete": true, "cut": null, "next": null } }]);
    for filter in [format!("webhook={}", beta.webhooks["main"]), "event=beta-dead".to_owned()] {
        let path = format!("/v1/deliveries/export?{filter}");
        assert_eq!(t.get_by(&key, &path).await, (200, nothing.clone()), "{path}");
    }
    assert_eq!(t.rows(Some("beta")).await, before);
    numbers_stay_with_their_tenant(&t, &key, &beta).await;
    // A tenant that does not exist is forbidden in the same words.
    let theirs = t.get_by(&key, "/v1/webhooks?tenant=beta").await;
    assert_eq!(t.get_by(&key, "/v1/webhooks?tenant=nobody").await, theirs);
    // The own tenant may be named.
    assert_eq!(t.get_by(&key, "/v1/webhooks?tenant=alpha").await.0, 200);
}

/// Figures of another tenant's webhook are as those of none.
async fn numbers_stay_with_their_tenant(t: &Test, key: &str, theirs: &Party) {
    assert!(!t.api.store.roll_up(postrider_broker::now()).await.unwrap());
    let webhook = &theirs.webhooks["main"];
    for (path, dead) in [
        (format!("/v1/stats?webhook={webhook}"), "/totals/dead"),
        (format!("/v1/stats/webhooks?webhook={webhook}"), ""),
    ] {
        let (status, own) = t.get_by(key, &path).await;
        assert_eq!(status, 200, "{own}");
        let (_, nobodys) = t.get_by(key, &path.replace(webhook.as_str(), "wh_none")).await;
        assert_eq!(own.to_string().replace(webhook.as_str(), "wh_none"), nobodys.to_string());
        let seen = t.get(&format!("{path}&tenant={}", theirs.tenant)).await;
        assert!(dead.is_empty() || seen.pointer(dead) == Some(&json!(1)), "this test sees nothing in {seen}");
    }
    let (_, all) = t.get_by(key, "/v1/stats").await;
    assert_eq!((&all["totals"]["accepted"], &all["totals"]["dead"]), (&json!(3), &json!(1)), "only its own");
}

/// With every scope but the one that is needed nothing can be had, and nothing changes.
#[tokio::test]
async fn without_its_scope_an_operation_answers_nobody() {
    let t = Test::new().await;
    let alpha = Party::new(&t, "alpha").await;
    assert_eq!(t.post("/v1/tenants", json!({ "id": "idle" })).await.0, 201);
    let mut keys = Vec::new();
    for needed in KeyScope::ALL {
        let others: Vec<KeyScope> = OF_TENANTS.into_iter().filter(|scope| *scope != needed).collect();
        keys.push((needed, t.key(Some("alpha"), &others).await.1));
    }
    let before = t.rows(None).await;
    for ask in Ask::all() {
        let Some(needs) = ask.operation.needs else {
            for (_, key) in &keys {
                assert_eq!(t.by(key, &ask.method, &ask.path(&alpha), None).await.0, 200, "{}", ask.id());
            }
            continue;
        };
        let (_, key) = keys.iter().find(|(needed, _)| *needed == needs).unwrap();
        let (status, answer) = t.by(key, &ask.method, &ask.path(&alpha), ask.body(&alpha).as_ref()).await;
        assert_eq!((status, &answer["code"]), (403, &json!("forbidden")), "{}: {answer}", ask.id());
        assert_eq!(answer["scope"], needs.as_str(), "{}", ask.id());
        assert!(answer["detail"].as_str().unwrap().ends_with(needs.as_str()), "{answer}");
    }
    assert_eq!(t.rows(None).await, before);
    assert!(t.published().is_empty());
    // Whoever may GET may HEAD, and nobody else.
    let (_, reader) = t.key(Some("alpha"), &[KeyScope::Read]).await;
    for (token, status) in [(&reader, 200), (&keys[1].1, 403)] {
        let head = t.send(as_key(token, &http::Method::HEAD, "/v1/webhooks", None)).await;
        assert_eq!(head.status(), status);
    }
}

/// With its scope alone every operation does its work, and each that changes something says so in the audit log: once, and
/// without the secrets that it was given or gave.
#[tokio::test]
async fn with_its_scope_an_operation_works_and_is_in_the_audit_log_once() {
    let t = Test::new().await;
    let alpha = Party::new(&t, "alpha").await;
    assert_eq!(t.post("/v1/tenants", json!({ "id": "idle" })).await.0, 201);
    let mut keys = Vec::new();
    for scope in KeyScope::ALL {
        let tenant = (scope != KeyScope::Admin).then_some("alpha");
        keys.push((scope, t.key(tenant, &[scope]).await));
    }
    let mut secrets = vec![CANARY.to_owned(), secret()];
    let mut logged = t.audit().await.len();
    for ask in Ask::all() {
        let id = ask.id();
        let fits = |scope| ask.operation.needs.is_none_or(|needs| needs == scope);
        let (_, (key_id, key)) = keys.iter().find(|(scope, _)| fits(*scope)).unwrap();
        let path = ask.path(&alpha);
        let (status, answer) = t.by(key, &ask.method, &path, ask.body(&alpha).as_ref()).await;
        assert!((200..300).contains(&status), "{id} {path}: {status} {answer}");
        let shown = ["secret", "key"].iter().filter_map(|name| answer[name].as_str());
        // A reminder has a key too.
        secrets.extend(shown.filter(|text| !text.contains("reminder")).map(str::to_owned));
        let log = t.audit().await;
        assert_eq!(log.len() - logged, usize::from(ask.is_audited()), "{id}: {:?}", log.first());
        logged = log.len();
        if !ask.is_audited() {
            continue;
        }
        let row = &log[0];
        assert_eq!((&row["operation"], &row["actor"]["id"]), (&json!(id), &json!(key_id)), "{row}");
        assert!(row["actor"]["name"].as_str().unwrap().starts_with("key of "), "{row}");
        let whose = match id {
            "create_tenant" => json!("gamma"),
            "delete_tenant" => json!("idle"),
            "create_api_key" => json!("default"),
            _ => json!("alpha"),
        };
        assert_eq!(row["tenant"], whose, "{row}");
        let about = row["subject"]["id"].as_str().unwrap();
        let named = ask.route.contains('{') && !path.split('/').any(|part| part == about);
        assert!(!about.is_empty() && !named, "{row}");
    }
    assert!(logged > 30, "{logged}");
    let all = t.rows(None).await["audit"].join("\n");
    for secret in &secrets {
        assert!(!all.contains(secret.as_str()), "{secret} in {all}");
    }
    assert!(secrets.len() > 5, "{secrets:?}");

    // What a webhook's change says.
    let rows = t.audit().await;
    let patched = rows.iter().find(|row| row["operation"] == "update_webhook").unwrap();
    assert_eq!(patched["changes"]["max_in_flight"], json!({ "old": 10, "new": 7 }));
    assert_eq!(patched["changes"]["url"]["old"], "https://alpha.example/");
    assert_eq!(patched["changes"]["url"]["new"], "https://example.com/?********");
    assert_eq!(patched["changes"]["headers"]["new"], json!({ "X-Old": "********", "X-New": "********" }));
    assert_eq!(patched["changes"]["auth"]["new"]["basic"]["username"], "********");
    let members: Vec<&String> = patched["changes"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["api_key", "auth", "headers", "max_in_flight", "url"]);
}

/// What changes nothing is in no log: a plan, a dry run, what is so already, and what is asked for again.
#[tokio::test]
async fn what_changes_nothing_is_not_in_the_audit_log() {
    let t = Test::new().await;
    let alpha = Party::new(&t, "alpha").await;
    let main = &alpha.webhooks["main"];
    let once = with_key("/v1/tenants", r#"{"id":"once"}"#, "k");
    assert_eq!(t.send(once).await.status(), 201);
    let reminder = json!({ "event_type": "alphaMemberWillExpire", "date": "2099-01-01" });
    let catalogue = other("alphaidle");
    t.call("POST", &format!("/v1/dead-letters/{}/resolve?tenant=alpha", alpha.letter), None).await;
    t.call("POST", &format!("/v1/replays/{}/run?tenant=alpha", alpha.replays[0]), None).await;
    t.call("POST", &format!("/v1/deliveries/{}/cancel?tenant=alpha", alpha.pending), None).await;
    let before = t.audit().await.len();
    for (method, path, body) in [
        ("POST", "cancellations", json!({ "webhook": main, "plan": true })),
        ("POST", &format!("webhooks/{}/pause", alpha.webhooks["paused"]), Value::Null),
        ("POST", &format!("webhooks/{main}/enable"), Value::Null),
        ("POST", &format!("dead-letters/{}/resolve", alpha.letter), Value::Null),
        ("POST", &format!("replays/{}/run", alpha.replays[0]), Value::Null),
        ("POST", &format!("deliveries/{}/cancel", alpha.pending), Value::Null),
        ("PATCH", "settings", json!({})),
        ("PUT", "reminders/alpha-reminder", reminder),
        ("PUT", "catalogues/alphaidleshop", catalogue),
    ] {
        let body = (!body.is_null()).then(|| body.to_string());
        let (status, answer) = t.call(method, &format!("/v1/{path}?tenant=alpha"), body.as_deref()).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
    }
    let dry = other("alphadry").to_string();
    let path = "/v1/catalogues/alphadryshop?tenant=alpha&dry_run=true";
    assert_eq!(t.call("PUT", path, Some(&dry)).await.0, 200);
    let again = t.send(with_key("/v1/tenants", r#"{"id":"once"}"#, "k")).await;
    assert_eq!(again.status(), 201);
    assert_eq!(t.call("POST", "/v1/tenants", Some(r#"{"id":"once"}"#)).await.0, 409);
    assert_eq!(t.audit().await.len(), before);
    // Whoever has the admin token is called that.
    assert_eq!(t.audit().await[0]["actor"], json!({ "id": "admin token", "name": null }));
}

#[tokio::test]
async fn the_audit_log_is_asked_by_who_what_and_when() {
    let t = Test::new().await;
    let (_alpha, beta) = (Party::new(&t, "alpha").await, Party::new(&t, "beta").await);
    let (id, key) = t.key(Some("beta"), &[KeyScope::Manage, KeyScope::Read]).await;
    let main = format!("/v1/webhooks/{}", beta.webhooks["main"]);
    for _ in 0..2 {
        for verb in ["pause", "resume"] {
            assert_eq!(t.by(&key, &http::Method::POST, &format!("{main}/{verb}"), None).await.0, 200);
        }
    }
    let count = async |token: &str, query: &str| {
        let (status, page) = t.get_by(token, &format!("/v1/audit?limit=200&{query}")).await;
        assert_eq!(status, 200, "{query}: {page}");
        page["items"].as_array().unwrap().len()
    };
    let subject = format!("subject={}", beta.webhooks["main"]);
    for (query, expected) in [
        (format!("actor={id}"), 4),
        ("operation=pause_webhook".into(), 2),
        (format!("operation=pause_webhook&actor={id}&{subject}"), 2),
        ("operation=pause_webhook&actor=admin%20token".into(), 0),
        (subject, 5),
        ("since=2100-01-01T00:00:00Z".into(), 0),
        ("until=2100-01-01T00:00:00Z&operation=resume_webhook".into(), 2),
    ] {
        assert_eq!(count(&key, &query).await, expected, "{query}");
        assert_eq!(count(TOKEN, &query).await, expected, "{query}");
        assert_eq!(count(TOKEN, &format!("{query}&tenant=beta")).await, expected, "{query}");
        assert_eq!(count(TOKEN, &format!("{query}&tenant=alpha")).await, 0, "{query}");
    }
    let (own, all) = (count(&key, "").await, count(TOKEN, "").await);
    assert!(own > 4 && all > own, "{own} of {all}");
    // In pages, each row once, newest first.
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let (_, page) = t.get_by(&key, &format!("/v1/audit?limit=3{cursor}")).await;
        seen.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), own);
    assert_eq!(
        (&seen[0]["operation"], &seen[1]["operation"]),
        (&json!("resume_webhook"), &json!("pause_webhook"))
    );
    for (query, field) in [
        ("operation=everything", "operation"),
        ("since=x", "since"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
        ("colour=red", "colour"),
    ] {
        let (status, problem) = t.get_by(&key, &format!("/v1/audit?{query}")).await;
        assert_eq!((status, &problem["field"]), (422, &json!(field)), "{query}");
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_nowhere() {
    let t = Test::new().await;
    let body = r#"{"name":"ci","scopes":["read","events:write"],"expires_at":"2099-01-01T00:00:00Z"}"#;
    let (status, headers, made) = read(t.send(with_key("/v1/api-keys", body, "k")).await).await;
    assert_eq!((status, &headers[header::CACHE_CONTROL]), (201, &"no-store".parse().unwrap()));
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("ptr_") && key.len() == 47, "{key}");
    assert_eq!((&made["tenant"], &made["state"]), (&json!("default"), &json!("active")));
    assert_eq!(made["scopes"], json!(["events:write", "read"]));
    assert_eq!(made["hint"], format!("…{}", &key[43..]));
    assert_eq!((&made["expires_at"], &made["revoked_at"]), (&json!("2099-01-01T00:00:00Z"), &Value::Null));
    // Asked for again there is the same key, but nobody knows it any more.
    let (status, headers, again) = read(t.send(with_key("/v1/api-keys", body, "k")).await).await;
    assert!(status == 201 && headers.contains_key("idempotency-replayed"));
    assert_eq!((&again["id"], again.get("key")), (&made["id"], None));
    let one = format!("/v1/api-keys/{}", made["id"].as_str().unwrap());
    let mut shown = made.clone();
    shown.as_object_mut().unwrap().remove("key");
    assert_eq!(t.get(&one).await, shown);
    assert_eq!(t.get("/v1/api-keys").await["items"], json!([shown]));
    assert_eq!(t.get_by(key, "/v1/webhooks").await.0, 200);
    let (disk, random) = (t.on_disk(), &key[4..]);
    assert!(disk.contains(made["id"].as_str().unwrap()), "this looks where the key would be");
    assert!(!disk.contains(random), "the key is in the store");
}

#[tokio::test]
async fn a_key_that_cannot_be_is_refused_by_name() {
    let t = Test::new().await;
    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.0, 201);
    for (change, field) in [
        (json!({ "name": "" }), "name"),
        (json!({ "name": "  " }), "name"),
        (json!({ "name": "a\u{7}b" }), "name"),
        (json!({ "name": "x".repeat(129) }), "name"),
        (json!({ "scopes": [] }), "scopes"),
        (json!({ "scopes": ["write"] }), "scopes"),
        (json!({ "scopes": "read" }), "scopes"),
        (json!({ "tenant": "a b" }), "tenant"),
        (json!({ "tenant": "nobody" }), "tenant"),
        (json!({ "tenant": "acme", "scopes": ["admin"] }), "tenant"),
        (json!({ "expires_at": "soon" }), "expires_at"),
        (json!({ "expires_at": "2020-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "key": "ptr_mine" }), "key"),
    ] {
        let mut body = json!({ "name": "n", "scopes": ["read"] });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, problem) = t.post("/v1/api-keys", body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{change}: {problem}");
    }
    let admin = json!({ "name": "n", "scopes": ["admin"] });
    assert_eq!(t.post("/v1/api-keys?tenant=acme", admin).await.1["field"], "tenant");
    let acme = json!({ "name": "n", "scopes": ["read"], "tenant": "default" });
    assert_eq!(t.post("/v1/api-keys?tenant=acme", acme).await.1["field"], "tenant");
    assert_eq!(t.call("GET", "/v1/api-keys/key_none", None).await.0, 404);
    assert_eq!(t.call("DELETE", "/v1/api-keys/key_none", None).await.0, 404);
    assert_eq!(t.get("/v1/api-keys").await["items"], json!([]));
}

#[tokio::test]
async fn a_tenant_has_a_bounded_number_of_keys() {
    let t = Test::new().await;
    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.0, 201);
    sqlx::query(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
         INSERT INTO api_keys (id, hash, tenant, name, scopes, hint, created_at)
         SELECT 'key_' || n, CAST(n AS BLOB), 'acme', 'n', 'read', 'abcd', n FROM n",
    )
    .execute(t.api.store.writer())
    .await
    .unwrap();
    let body = json!({ "name": "n", "tenant": "acme", "scopes": ["read"] });
    let (status, problem) = t.post("/v1/api-keys", body.clone()).await;
    assert_eq!((status, &problem["code"]), (403, &json!("quota")), "{problem}");
    t.key(Some("default"), &[KeyScope::Read]).await;
    t.key(None, &[KeyScope::Admin]).await;
    assert_eq!(t.call("DELETE", "/v1/api-keys/key_7", None).await.0, 204);
    assert_eq!(t.post("/v1/api-keys", body).await.0, 201);
    // Every page of them, and of a tenant alone.
    let (mut cursor, mut ids) = (String::new(), HashSet::new());
    loop {
        let page = t.get(&format!("/v1/api-keys?limit=200{cursor}")).await;
        ids.extend(page["items"].as_array().unwrap().iter().map(|key| key["id"].to_string()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(ids.len(), 1003);
    assert_eq!(t.get("/v1/api-keys?tenant=default").await["items"].as_array().unwrap().len(), 1);
}

/// An expired and a revoked key are as a wrong one: the same answer, to the letter.
#[tokio::test]
async fn a_key_ends_by_time_by_hand_and_with_its_tenant() {
    let t = Test::new().await;
    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.0, 201);
    let (revoked, of_tenant) =
        (t.key(None, &[KeyScope::Admin]).await, t.key(Some("acme"), &[KeyScope::Read]).await);
    let expired = t.key(Some("default"), &[KeyScope::Read]).await;
    let live = t.key(Some("default"), &[KeyScope::Read]).await;
    for (_, key) in [&revoked, &of_tenant, &expired, &live] {
        assert_eq!(t.get_by(key, "/v1/webhooks").await.0, 200);
    }
    let path = format!("/v1/api-keys/{}", revoked.0);
    // Whoever has an admin key may revoke it too.
    assert_eq!(t.by(&revoked.1, &http::Method::DELETE, &path, None).await.0, 204);
    assert_eq!(t.call("DELETE", &path, None).await.0, 204, "it stays so");
    assert_eq!(t.call("DELETE", "/v1/tenants/acme", None).await.0, 204);
    let end = postrider_broker::now().as_millis();
    sqlx::query("UPDATE api_keys SET expires_at = $2 WHERE id = $1")
        .bind(&expired.0)
        .bind(end)
        .execute(t.api.store.writer())
        .await
        .unwrap();
    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.0, 201, "its name again, and no key");
    let answer = async |token: &str| {
        let (status, headers, body) =
            read(t.send(as_key(token, &http::Method::GET, "/v1/webhooks", None)).await).await;
        (status, headers[header::WWW_AUTHENTICATE].clone(), body)
    };
    let wrong = answer(&format!("ptr_{}", "A".repeat(43))).await;
    assert_eq!(wrong.0, 401);
    for (id, key) in [&revoked, &of_tenant, &expired] {
        assert_eq!(answer(key).await, wrong, "{id}");
    }
    assert_eq!(t.get_by(&live.1, "/v1/webhooks").await.0, 200);
    let state = async |id: &str| t.get(&format!("/v1/api-keys/{id}")).await["state"].clone();
    for ((id, _), expected) in
        [(&revoked, "revoked"), (&of_tenant, "revoked"), (&expired, "expired"), (&live, "active")]
    {
        assert_eq!(state(id).await, expected);
    }
    let log = t.audit().await;
    let ends: Vec<_> = log.iter().filter(|row| row["operation"] == "revoke_api_key").collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["actor"]["id"], json!(revoked.0));
    assert_eq!(ends[0]["tenant"], Value::Null, "a key for every tenant is nobody's");
}

#[tokio::test]
async fn the_last_use_of_a_key_is_written_once_a_minute_and_by_nobody_who_asks() {
    let t = Test::new().await;
    let (id, key) = t.key(Some("default"), &[KeyScope::Read]).await;
    let last_use = async || t.get(&format!("/v1/api-keys/{id}")).await["last_used_at"].clone();
    let before = t.rows(None).await;
    for _ in 0..5 {
        assert_eq!(t.get_by(&key, "/v1/webhooks").await.0, 200);
    }
    assert_eq!(t.rows(None).await, before, "no request writes");
    t.api.uses.write(&t.api.store).await;
    let first = last_use().await;
    assert!(first.is_string(), "{first}");
    assert_eq!(t.get_by(&key, "/v1/webhooks").await.0, 200);
    // Two requests that crossed with the writing.
    let now = postrider_broker::now();
    t.api.store.note_uses(&[(id.clone(), now.plus_ms(59_000))]).await.unwrap();
    t.api.uses.write(&t.api.store).await;
    assert_eq!(last_use().await, first, "within a minute it is not written again");
    sqlx::query("UPDATE api_keys SET last_used_at = last_used_at - 60000")
        .execute(t.api.store.writer())
        .await
        .unwrap();
    let older = last_use().await;
    assert_eq!(t.get_by(&key, "/v1/webhooks").await.0, 200);
    t.api.uses.write(&t.api.store).await;
    assert!(last_use().await.as_str() > older.as_str(), "a minute later it is");
    // A wrong one is no use of anything.
    let after = t.rows(None).await;
    assert_eq!(t.get_by(&format!("{}x", &key[..46]), "/v1/webhooks").await.0, 401);
    t.api.uses.write(&t.api.store).await;
    assert_eq!(t.rows(None).await, after);
}

#[tokio::test]
async fn an_admin_key_is_for_every_tenant() {
    let t = Test::new().await;
    let alpha = Party::new(&t, "alpha").await;
    let (id, key) = t.key(None, &[KeyScope::Admin]).await;
    assert_eq!(t.get(&format!("/v1/api-keys/{id}")).await["tenant"], Value::Null);
    let main = format!("/v1/webhooks/{}", alpha.webhooks["main"]);
    assert_eq!(t.get_by(&key, &main).await.0, 404, "without a tenant it is about the default tenant");
    let (status, webhook) = t.get_by(&key, &format!("{main}?tenant=alpha")).await;
    assert_eq!((status, &webhook["name"]), (200, &json!("alpha main")));
    for path in ["/v1/status", "/v1/tenants", "/v1/api-keys", "/v1/audit"] {
        assert_eq!(t.get_by(&key, path).await.0, 200, "{path}");
    }
    let event = json!({ "event_type": "A", "tenant": "alpha" });
    assert_eq!(t.by(&key, &http::Method::POST, "/v1/events", Some(&event)).await.0, 202);
    assert_eq!(t.published()[0].routing_key, "alpha");
    let body = json!({ "name": "n", "tenant": "alpha", "scopes": ["manage"] });
    let (status, made) = t.by(&key, &http::Method::POST, "/v1/api-keys", Some(&body)).await;
    assert_eq!((status, &made["tenant"]), (201, &json!("alpha")));
    // A row that says less than its scopes opens nothing.
    sqlx::query("UPDATE api_keys SET tenant = '' WHERE name = 'n'")
        .execute(t.api.store.writer())
        .await
        .unwrap();
    assert_eq!(t.get_by(made["key"].as_str().unwrap(), "/v1/webhooks").await.0, 503);
}

/// What needs no scope says nothing but what whoever asks has in hand.
#[tokio::test]
async fn whoever_has_a_token_may_ask_what_it_is_for() {
    let t = Test::new().await;
    assert_eq!(t.post("/v1/tenants", json!({ "id": "acme" })).await.0, 201);
    let scopeless: Vec<&str> = OPERATIONS
        .iter()
        .filter(|operation| operation.needs.is_none())
        .map(|operation| operation.id)
        .collect();
    assert_eq!(scopeless, ["get_access"]);
    let admin = json!({ "actor": "admin token", "name": null, "tenant": null, "scopes": ["admin"] });
    assert_eq!(t.get_by(TOKEN, "/v1/access").await, (200, admin));
    for scope in KeyScope::ALL {
        let tenant = (scope != KeyScope::Admin).then_some("acme");
        let (id, key) = t.key(tenant, &[scope]).await;
        let access = json!({ "actor": id, "name": format!("key of {tenant:?}"), "tenant": tenant,
            "scopes": [scope.as_str()] });
        assert_eq!(t.get_by(&key, "/v1/access").await, (200, access));
        assert_eq!(t.call("DELETE", &format!("/v1/api-keys/{id}"), None).await.0, 204);
        assert_eq!(t.get_by(&key, "/v1/access").await.0, 401, "a revoked key is nobody's");
    }
    for token in ["", "wrong"] {
        assert_eq!(t.get_by(token, "/v1/access").await.0, 401);
    }
    let described: Value = serde_json::from_str(&openapi()).unwrap();
    assert_eq!(described["paths"]["/v1/access"]["get"]["security"], json!([{ "token": [] }]));
}

/// What nobody listed answers nobody, and what has another method says which.
#[tokio::test]
async fn only_what_is_listed_is_answered() {
    let t = Test::new().await;
    let (_, key) = t.key(Some("default"), &OF_TENANTS).await;
    for token in [TOKEN, &key] {
        let (status, headers, body) =
            read(t.send(as_key(token, &http::Method::DELETE, "/v1/status", None)).await).await;
        assert_eq!((status, &body["code"]), (405, &json!("method_not_allowed")));
        assert_eq!(headers[header::ALLOW], "GET,HEAD");
        assert_eq!(t.get_by(token, "/v1/nothing").await.0, 404);
    }
    let described: Value = serde_json::from_str(&openapi()).unwrap();
    assert_eq!(described["paths"]["/v1/replays"]["post"]["security"], json!([{ "token": ["replay"] }]));
}

fn from(peer: &str, token: &str) -> Request<Body> {
    let mut request = as_key(token, &http::Method::GET, "/v1/webhooks", None);
    request.extensions_mut().insert(ConnectInfo(Peer(peer.parse().unwrap())));
    request
}

#[tokio::test]
async fn wrong_tokens_are_limited_and_right_ones_are_not() {
    let t = Test::new().await;
    let (_, key) = t.key(Some("default"), &[KeyScope::Read]).await;
    let (_, fresh) = t.key(Some("default"), &[KeyScope::Read]).await;
    assert_eq!(t.send(from("192.0.2.1", &key)).await.status(), 200);
    let mut refused = 0;
    for n in 0..130 {
        let (status, headers, body) = read(t.send(from("192.0.2.1", &format!("ptr_{n:043}"))).await).await;
        match status {
            401 => assert!(!headers.contains_key(header::RETRY_AFTER)),
            _ => {
                refused += 1;
                assert_eq!((status, &body["code"]), (429, &json!("wrong_tokens")), "{body}");
                let seconds: u64 = headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
                assert!((1..=60).contains(&seconds), "{seconds}");
            }
        }
    }
    assert!((20..=30).contains(&refused), "{refused}");
    assert_eq!(t.send(from("192.0.2.1", &key)).await.status(), 200, "who was right there goes on");
    assert_eq!(t.send(from("192.0.2.1", &fresh)).await.status(), 429, "nobody else there");
    assert_eq!(t.send(from("192.0.2.2", &fresh)).await.status(), 200, "and everybody elsewhere");
    let text = prometheus::TextEncoder::new().encode_to_string(&t.registry.gather()).unwrap();
    assert!(
        text.contains(&format!(r#"postrider_http_problems_total{{code="wrong_tokens"}} {}"#, refused + 1)),
        "{text}"
    );
}

/// Over a socket an address is what the socket says, whatever the headers say.
#[tokio::test]
async fn an_address_is_that_of_the_socket() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let t = Test::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(listen::serve(listener, t.router.clone(), stop.clone()));
    let ask = async |n: u8, token: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /v1/webhooks HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{n}\r\nForwarded: for=192.0.2.{n}\r\n\
             Authorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let mut answers = Vec::new();
    for n in 0..130 {
        answers.push(ask(n, "wrong").await);
    }
    assert_eq!((answers[0].as_str(), answers[129].as_str()), ("401", "429"));
    assert_eq!(ask(1, TOKEN).await, "429", "it was never right from here");
    // In memory, from nowhere: a sender of its own.
    assert_eq!(t.call("GET", "/v1/webhooks", None).await.0, 200);
    stop.cancel();
    serving.await.unwrap();
}
