//! The router against a real RabbitMQ, with configuration that the test kit publishes.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeSet;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use postrider_broker::{Lane, Readiness, Settings};
use postrider_core::wire::{self, DeliveryMessage, DeliveryRecord, EventFate, Fact, JournalMessage};
use postrider_router::Config;
use postrider_testkit::config::{Configuration, NewWebhook};
use postrider_testkit::rabbit::{Broker, Taken, Vhost};
use postrider_testkit::{eventually, eventually_some};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A router under test; aborted with the value, as if its process were killed.
struct Router {
    readiness: Readiness,
    shutdown: CancellationToken,
    registry: prometheus::Registry,
    task: JoinHandle<()>,
}

impl Router {
    fn start(settings: &Settings) -> Self {
        let (readiness, shutdown, registry) =
            (Readiness::new(), CancellationToken::new(), prometheus::Registry::new());
        let config = Config::new(Settings { role: "router", ..settings.clone() });
        let task = tokio::spawn({
            let (readiness, shutdown, registry) = (readiness.clone(), shutdown.clone(), registry.clone());
            async move { postrider_router::run(config, &registry, readiness, shutdown).await.unwrap() }
        });
        Self { readiness, shutdown, registry, task }
    }

    async fn ready(&self) {
        eventually("the router is ready", async || self.readiness.is_ready()).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    fn kill(self) {
        self.task.abort();
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

async fn setup(name: &str) -> (Vhost, Settings, Configuration) {
    postrider_testkit::logging();
    let vhost = Vhost::create(&Broker::shared().await, name).await;
    let settings = Settings { unit_ms: 100, ..Settings::new(vhost.url(), "test") };
    let configuration = Configuration::publish(&settings).await;
    (vhost, settings, configuration)
}

fn json() -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2)
}

async fn publish(vhost: &Vhost, settings: &Settings, body: &str) {
    vhost.publish(&settings.names().events(), "default", body.as_bytes(), json()).await;
}

/// Everything in the fresh lane, when there are this many deliveries in all.
async fn deliveries(vhost: &Vhost, settings: &Settings, count: usize) -> Vec<(String, DeliveryRecord)> {
    let queue = settings.names().delivery_queue(Lane::Fresh, 0);
    let mut found = Vec::new();
    eventually(&format!("{count} deliveries"), async || {
        for taken in vhost.take_ready(&queue).await {
            let message: DeliveryMessage = wire::decode(&taken.body).unwrap();
            for work in message.work {
                let id = work.event.id.to_string();
                found.extend(work.to.into_iter().map(|delivery| (id.clone(), delivery)));
            }
        }
        found.len() >= count
    })
    .await;
    found
}

async fn facts(vhost: &Vhost, settings: &Settings, count: usize) -> Vec<Fact> {
    let mut found = Vec::new();
    eventually(&format!("{count} facts"), async || {
        for taken in vhost.take_ready(&settings.names().journal()).await {
            found.extend(wire::decode::<JournalMessage>(&taken.body).unwrap().facts);
        }
        found.len() >= count
    })
    .await;
    found
}

#[tokio::test]
async fn events_become_deliveries_and_facts() {
    let (vhost, settings, mut configuration) = setup("routes").await;
    configuration.webhook(&NewWebhook::new("wh_all", "https://example.com/")).await;
    configuration.webhook(&NewWebhook::new("wh_login", "https://example.com/").takes(&["USER_LOGIN"])).await;
    let router = Router::start(&settings);
    router.ready().await;
    publish(&vhost, &settings, r#"{"event_type":"USER_LOGIN","id":"e1","data":{ "n" : 1.0 }}"#).await;
    publish(&vhost, &settings, r#"{"event_type":"OTHER","id":"e2"}"#).await;

    let found = deliveries(&vhost, &settings, 3).await;
    let pairs: BTreeSet<(String, String)> =
        found.iter().map(|(event, delivery)| (event.clone(), delivery.webhook.to_string())).collect();
    let expected = [("e1", "wh_all"), ("e1", "wh_login"), ("e2", "wh_all")];
    assert_eq!(pairs, expected.map(|(event, webhook)| (event.to_owned(), webhook.to_owned())).into());
    assert!(found.iter().all(|(_, delivery)| delivery.series == 1 && delivery.attempt == 1));

    let facts = facts(&vhost, &settings, 2).await;
    let owed: usize = facts
        .iter()
        .map(|fact| match fact {
            Fact::Event(event) => match &event.fate {
                EventFate::Routed(owed) => owed.len(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(owed, 3);
    router.stop().await;
    assert_eq!(vhost.queue_depth(&settings.names().events()).await, 0);
}

#[tokio::test]
async fn an_event_published_before_the_router_starts_is_not_lost() {
    let (vhost, settings, mut configuration) = setup("waiting").await;
    publish(&vhost, &settings, r#"{"event_type":"A","id":"early"}"#).await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let router = Router::start(&settings);
    assert_eq!(deliveries(&vhost, &settings, 1).await[0].0, "early");
    router.stop().await;
}

#[tokio::test]
async fn bad_messages_are_kept_with_a_reason_and_good_ones_flow() {
    let (vhost, settings, mut configuration) = setup("invalid").await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let router = Router::start(&settings);
    router.ready().await;
    let events = settings.names().events();
    let large = format!(r#"{{"event_type":"A","data":"{}"}}"#, "x".repeat(257 * 1024));
    let name = format!(r#"{{"event_type":"{}"}}"#, "x".repeat(129));
    let bad: Vec<(&str, &str, BasicProperties)> = vec![
        ("not_json", "{", json()),
        ("wrong_type", r#"{"event_type":5}"#, json()),
        ("missing_event_type", r#"{"data":{}}"#, json()),
        ("bad_event_type", &name, json()),
        ("too_large", &large, json()),
        ("unsupported_content_type", r#"{"event_type":"A"}"#, json().with_content_type("text/html".into())),
        ("unsupported_encoding", r#"{"event_type":"A"}"#, json().with_content_encoding("gzip".into())),
        ("action_without_id", r#"{"action":"transfer"}"#, json()),
        ("unknown_action", r#"{"action":"transfer","id":"a"}"#, json()),
        ("empty_body", "", json()),
    ];
    for (_, body, properties) in &bad {
        vhost.publish(&events, "default", body.as_bytes(), properties.clone()).await;
    }
    vhost.publish(&events, "nobody", br#"{"event_type":"A","id":"x"}"#, json()).await;
    publish(&vhost, &settings, r#"{"event_type":"A","id":"good"}"#).await;

    assert_eq!(deliveries(&vhost, &settings, 1).await[0].0, "good");
    let kept = vhost.take(&settings.names().invalid(), bad.len() + 1).await;
    let mut reasons: Vec<String> = kept.iter().map(|taken| header(taken, "reason")).collect();
    reasons.sort();
    let mut expected: Vec<&str> = bad.iter().map(|(reason, ..)| *reason).chain(["unknown_tenant"]).collect();
    expected.sort_unstable();
    assert_eq!(reasons, expected);
    for (reason, body, _) in &bad {
        let found = kept.iter().find(|taken| header(taken, "reason") == *reason).unwrap();
        assert_eq!(found.body, body.as_bytes(), "{reason}: kept as it came");
        assert_eq!(router.metric("postrider_events_refused_total", reason), 1, "{reason}");
    }
    assert_eq!(facts(&vhost, &settings, bad.len() + 2).await.len(), bad.len() + 2);
    router.stop().await;
}

fn header(taken: &Taken, name: &str) -> String {
    match taken.properties.headers().as_ref().unwrap().inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn a_repeated_id_is_taken_once_also_by_the_next_router() {
    let (vhost, settings, mut configuration) = setup("duplicates").await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let event = |n: usize| format!(r#"{{"event_type":"A","id":"e{n}"}}"#);
    let first = Router::start(&settings);
    first.ready().await;
    for n in [1, 2, 1] {
        publish(&vhost, &settings, &event(n)).await;
    }
    deliveries(&vhost, &settings, 2).await;
    eventually("the duplicate is counted", async || first.metric("postrider_events_total", "duplicate") == 1)
        .await;
    first.stop().await;

    let second = Router::start(&settings);
    second.ready().await;
    for n in [2, 3, 1] {
        publish(&vhost, &settings, &event(n)).await;
    }
    let found = deliveries(&vhost, &settings, 1).await;
    assert_eq!(found.iter().map(|(event, _)| event.as_str()).collect::<Vec<_>>(), ["e3"]);
    eventually("both are counted", async || second.metric("postrider_events_total", "duplicate") == 2).await;
    second.stop().await;
}

#[tokio::test]
async fn one_router_is_active_and_another_takes_over_at_once() {
    let (vhost, settings, mut configuration) = setup("takeover").await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let routers = [Router::start(&settings), Router::start(&settings)];
    for router in &routers {
        router.ready().await;
    }
    publish(&vhost, &settings, r#"{"event_type":"A","id":"e0"}"#).await;
    deliveries(&vhost, &settings, 1).await;
    let routed = |router: &Router| router.metric("postrider_events_total", "routed");
    let [a, b] = routers;
    let (active, standby) =
        eventually_some("one of them routed it", async || match (routed(&a), routed(&b)) {
            (1, 0) => Some((0, 1)),
            (0, 1) => Some((1, 0)),
            _ => None,
        })
        .await;
    let mut routers = [Some(a), Some(b)];
    routers[active].take().unwrap().kill();
    let standby = routers[standby].take().unwrap();
    for n in 0..20 {
        // e0 again: the standby knows it from the seen stream.
        publish(&vhost, &settings, &format!(r#"{{"event_type":"A","id":"e{n}"}}"#)).await;
    }
    let found = deliveries(&vhost, &settings, 19).await;
    let ids: BTreeSet<&str> = found.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!((found.len(), ids.len()), (19, 19));
    assert!(!ids.contains("e0"));
    standby.stop().await;
}

#[tokio::test]
async fn an_event_waits_for_the_configuration_that_its_publisher_knew() {
    let (vhost, settings, mut configuration) = setup("read-your-writes").await;
    let router = Router::start(&settings);
    router.ready().await;
    let next = configuration.revision() + 1;
    let mut headers = FieldTable::default();
    headers.insert("postrider-revision".into(), AMQPValue::LongString(next.to_string().into()));
    headers.insert("postrider-epoch".into(), AMQPValue::LongString(configuration.epoch().as_str().into()));
    let properties = json().with_headers(headers);
    vhost.publish(&settings.names().events(), "default", br#"{"event_type":"A","id":"e"}"#, properties).await;
    // The webhook is published after the event, and is routed to all the same.
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    assert_eq!(deliveries(&vhost, &settings, 1).await.len(), 1);
    router.stop().await;
}

#[tokio::test]
async fn without_configuration_nothing_is_consumed() {
    postrider_testkit::logging();
    let vhost = Vhost::create(&Broker::shared().await, "unconfigured").await;
    let settings = Settings::new(vhost.url(), "test");
    let configuration = Configuration::without_snapshot(&settings).await;
    publish(&vhost, &settings, r#"{"event_type":"A","id":"e"}"#).await;
    let router = Router::start(&settings);
    eventually("it says what it waits for", async || {
        router.readiness.parts().iter().any(|(part, state)| *part == "config" && state.is_err())
    })
    .await;
    assert_eq!(vhost.consumer_count(&settings.names().events()).await, 0);
    configuration.snapshot(&[NewWebhook::new("wh", "https://example.com/")]).await;
    assert_eq!(deliveries(&vhost, &settings, 1).await.len(), 1);
    router.stop().await;
}
