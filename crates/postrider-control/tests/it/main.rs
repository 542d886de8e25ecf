//! Control against a real RabbitMQ and a real store.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod books;
mod configuration;
mod events;
mod outages;
mod own_events;
mod queues;
mod reminders;
mod webhooks;

use std::sync::Arc;

use postrider_broker::{Metrics, Outgoing, Readiness, Session, Settings, topology};
use postrider_control::{AdminToken, Config};
use postrider_core::address::EgressPolicy;
use postrider_core::wire::{self, EventFact, EventFate, EventRecord, Fact, JournalMessage, Owed, SCHEMA};
use postrider_core::{DeliveryId, EventId, EventType, TenantId, Timestamp, WebhookId, event};
use postrider_testkit::config::Configuration;
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{eventually, eventually_some, http};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "an-admin-token-of-a-test";

/// A vhost with a topology, and the directory of a store.
struct Place {
    vhost: Vhost,
    settings: Settings,
    session: Session,
    dir: tempfile::TempDir,
}

impl Place {
    async fn new(name: &str) -> Self {
        postrider_testkit::logging();
        let vhost = Vhost::create(&Broker::shared().await, name).await;
        let settings = Settings { unit_ms: 100, ..Settings::new(vhost.url(), "test") };
        let metrics = Metrics::register(&prometheus::Registry::new(), "test").unwrap();
        let session = Session::open(&settings, &metrics).await.unwrap();
        topology::apply(&session, Some(2)).await.unwrap();
        Self { vhost, settings, session, dir: tempfile::tempdir().unwrap() }
    }

    fn store_url(&self) -> String {
        format!("sqlite:{}", self.dir.path().join("postrider.db").display())
    }

    /// Starts control here.
    async fn start(&self) -> Control {
        self.start_at(self.vhost.url()).await
    }

    /// Starts control here, with the broker at another address.
    async fn start_at(&self, url: String) -> Control {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let config = Config {
            broker: Settings { url, role: "control", ..self.settings.clone() },
            store_url: self.store_url(),
            listen: listener.into(),
            admin_token: AdminToken::new(TOKEN).unwrap(),
            master_key: Configuration::master_key(),
            egress: EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]),
            https_only: false,
            inbox: None,
            settings: Vec::new(),
        };
        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let registry = Arc::new(prometheus::Registry::new());
        let task = tokio::spawn({
            let (readiness, shutdown, registry) = (readiness.clone(), shutdown.clone(), registry.clone());
            async move { postrider_control::run(config, &registry, readiness, shutdown).await.unwrap() }
        });
        Control { base, readiness, shutdown, registry, task, http: http::client() }
    }

    /// Publishes to a queue by way of the exchange of its name.
    async fn publish(&self, exchange: &str, body: Vec<u8>) {
        self.session.publisher().publish(Outgoing::json(exchange, "", body, "m1")).await.unwrap();
    }

    /// Writes facts as a role would.
    async fn journal(&self, writer: &str, first: u64, facts: Vec<Fact>) {
        let message = JournalMessage { schema: SCHEMA, writer: writer.into(), first, duplicates: 0, facts };
        self.publish(&self.session.names().journal(), wire::encode(&message)).await;
    }
}

/// A control under test.
struct Control {
    base: String,
    readiness: Readiness,
    shutdown: CancellationToken,
    registry: Arc<prometheus::Registry>,
    task: JoinHandle<()>,
    http: reqwest::Client,
}

impl Control {
    async fn ready(self) -> Self {
        eventually("control is ready", async || self.readiness.is_ready()).await;
        self
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request =
            self.http.request(method.parse().unwrap(), format!("{}{path}", self.base)).bearer_auth(TOKEN);
        let request = match body {
            Value::Null => request,
            body => request.header("content-type", "application/json").body(body.to_string()),
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, value) = self.call("POST", path, body).await;
        assert!((200..300).contains(&status), "{path}: {value}");
        value
    }

    async fn webhook(&self, change: Value) -> Value {
        let mut body = json!({ "name": "n", "url": "https://example.com/", "subscription": { "all": true } });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.post("/v1/webhooks", body).await
    }

    /// Waits until the books say so, and returns them.
    async fn books(&self, what: &str, are: impl Fn(&Value) -> bool) -> Value {
        eventually_some(what, async || {
            let status = self.get("/v1/status").await;
            are(&status).then_some(status)
        })
        .await
    }

    fn part(&self, name: &str) -> Result<(), String> {
        let parts = self.readiness.parts();
        parts.into_iter().find(|(part, _)| *part == name).map_or(Err("unknown".into()), |(_, state)| state)
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// As if the process were killed; returns when everything of it is gone.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn delivery(event: &str, webhook: &str) -> DeliveryId {
    DeliveryId::of(
        &TenantId::default_tenant(),
        &EventId::from_trusted(event),
        &WebhookId::from_trusted(webhook),
    )
}

fn event_record(id: &str) -> Arc<EventRecord> {
    Arc::new(EventRecord {
        tenant: TenantId::default_tenant(),
        id: EventId::from_trusted(id),
        event_type: EventType::parse("A").unwrap(),
        time: "2026-11-21T20:00:00Z".into(),
        context: event::null(),
        data: Arc::from(serde_json::value::RawValue::from_string("{ \"n\" : 1.0 }".into()).unwrap()),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at: at(0),
    })
}

fn routed(id: &str, webhook: &str) -> Fact {
    let owed = Owed { delivery: delivery(id, webhook), webhook: WebhookId::from_trusted(webhook) };
    Fact::Event(EventFact {
        tenant: TenantId::default_tenant(),
        event_id: EventId::from_trusted(id),
        at: at(0),
        fate: EventFate::Routed(vec![owed]),
        event: Some(event_record(id)),
        marks: Vec::new(),
    })
}
