//! The worker against a real RabbitMQ and a real receiver, with configuration that the test kit publishes.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod auth;
mod bounds;
mod endings;
mod isolation;
mod life;
mod outcomes;
mod profiles;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use postrider_broker::{Lane, Names, Outgoing, Readiness, Settings, now};
use postrider_core::address::EgressPolicy;
use postrider_core::event;
use postrider_core::wire::{
    self, AttemptFact, DeliveryMessage, DeliveryRecord, DoneFact, EventRecord, Fact, JournalMessage, SCHEMA,
    Work,
};
use postrider_core::{DeliveryId, EventId, EventType, TenantId, WebhookId};
use postrider_testkit::config::{Configuration, NewWebhook};
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Receiver, eventually};
use postrider_worker::Config;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A vhost with configuration, a receiver, and what the journal said so far.
struct Bench {
    vhost: Vhost,
    settings: Settings,
    configuration: Configuration,
    receiver: Receiver,
    facts: Vec<Fact>,
}

impl Bench {
    async fn new(name: &str) -> Self {
        postrider_testkit::logging();
        let vhost = Vhost::create(&Broker::shared().await, name).await;
        let settings = Settings { unit_ms: 50, ..Settings::new(vhost.url(), "test") };
        let configuration = Configuration::publish(&settings).await;
        Self { vhost, settings, configuration, receiver: Receiver::start().await, facts: Vec::new() }
    }

    fn webhook(&self, id: &str) -> NewWebhook {
        NewWebhook::new(id, self.receiver.url(&format!("/{id}")))
    }

    fn names(&self) -> Names {
        self.settings.names()
    }

    fn event(&self, id: &str) -> Arc<EventRecord> {
        Arc::new(EventRecord {
            tenant: TenantId::default_tenant(),
            id: EventId::from_trusted(id),
            event_type: EventType::parse("USER_LOGIN").unwrap(),
            time: "2026-11-21T20:00:00Z".into(),
            context: event::null(),
            data: event::null(),
            key: None,
            correlation_id: None,
            traceparent: None,
            accepted_at: now(),
        })
    }

    fn delivery(&self, event: &EventRecord, webhook: &str) -> DeliveryRecord {
        let webhook = WebhookId::from_trusted(webhook);
        DeliveryRecord {
            id: DeliveryId::of(&event.tenant, &event.id, &webhook),
            webhook,
            revision: self.configuration.revision(),
            epoch: self.configuration.epoch().clone(),
            series: 1,
            attempt: 1,
            born: now(),
            due: None,
            crashes: 0,
            unknown_since: None,
            parked: 0,
            asked: false,
            test: false,
        }
    }

    /// Publishes deliveries of these events to one webhook, in one message.
    async fn deliver(&self, events: &[&str], webhook: &str) {
        let work = events.iter().map(|id| {
            let event = self.event(id);
            let to = vec![self.delivery(&event, webhook)];
            Work { event, to }
        });
        self.send(DeliveryMessage { schema: SCHEMA, work: work.collect() }).await;
    }

    async fn send(&self, message: DeliveryMessage) {
        let count = message.len().to_string();
        self.send_raw(wire::encode(&message), &count).await;
    }

    async fn send_raw(&self, body: Vec<u8>, deliveries: &str) {
        let key = Names::destination(Lane::Fresh, 0);
        let message =
            Outgoing::json(self.names().deliveries(), key, body, "test").header("deliveries", deliveries);
        self.configuration.session().publisher().publish(message).await.unwrap();
    }

    /// Reads the journal until the facts satisfy a condition.
    async fn facts_until(&mut self, what: &str, enough: impl Fn(&[Fact]) -> bool) {
        let (vhost, journal) = (&self.vhost, self.settings.names().journal());
        let facts = &mut self.facts;
        eventually(what, async || {
            for taken in vhost.take_ready(&journal).await {
                facts.extend(wire::decode::<JournalMessage>(&taken.body).unwrap().facts);
            }
            enough(facts)
        })
        .await;
    }

    async fn done(&mut self, count: usize) -> Vec<DoneFact> {
        self.facts_until(&format!("{count} series ended"), |facts| done(facts).len() >= count).await;
        done(&self.facts)
    }

    fn attempts(&self) -> Vec<AttemptFact> {
        let attempt = |fact: &Fact| match fact {
            Fact::Attempt(attempt) => Some(attempt.clone()),
            _ => None,
        };
        self.facts.iter().filter_map(attempt).collect()
    }

    /// Nothing is left anywhere on the broker but where a test put it.
    async fn settled(&self) {
        for lane in Lane::ALL {
            let queue = self.names().delivery_queue(lane, 0);
            eventually(&format!("{queue} is empty"), async || self.vhost.queue_depth(&queue).await == 0)
                .await;
        }
    }
}

fn done(facts: &[Fact]) -> Vec<DoneFact> {
    let done = |fact: &Fact| match fact {
        Fact::Done(done) => Some(done.clone()),
        _ => None,
    };
    facts.iter().filter_map(done).collect()
}

/// A worker under test; aborted with the value, as if its process were killed.
struct Worker {
    readiness: Readiness,
    shutdown: CancellationToken,
    registry: prometheus::Registry,
    task: JoinHandle<()>,
}

impl Worker {
    /// A worker that may reach the loopback.
    fn start(settings: &Settings) -> Self {
        let egress = EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        Self::with(settings, |config| config.egress = egress)
    }

    fn with(settings: &Settings, change: impl FnOnce(&mut Config)) -> Self {
        postrider_testkit::http::client();
        let (readiness, shutdown, registry) =
            (Readiness::new(), CancellationToken::new(), prometheus::Registry::new());
        let broker = Settings { role: "worker", ..settings.clone() };
        let mut config = Config::new(broker, Configuration::master_key());
        change(&mut config);
        let task = tokio::spawn({
            let (readiness, shutdown, registry) = (readiness.clone(), shutdown.clone(), registry.clone());
            async move { postrider_worker::run(config, &registry, readiness, shutdown).await.unwrap() }
        });
        Self { readiness, shutdown, registry, task }
    }

    async fn ready(&self) {
        eventually("the worker is ready", async || self.readiness.is_ready()).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task)
            .await
            .expect("it ends within its drain")
            .unwrap();
    }

    /// The value of a gauge.
    fn gauge(&self, name: &str) -> i64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0, |family| family.get_metric()[0].get_gauge().get_value() as i64)
    }

    fn metric(&self, name: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        // It is registered when the role has begun.
        let Some(family) = families.iter().find(|family| family.name() == name) else { return 0 };
        let has = |metric: &prometheus::proto::Metric| {
            label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
        };
        family
            .get_metric()
            .iter()
            .filter(|metric| has(metric))
            .map(|metric| metric.get_counter().get_value() as u64)
            .sum()
    }
}
