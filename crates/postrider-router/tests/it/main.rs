//! The router against a real RabbitMQ, with configuration that the test kit publishes.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeSet;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use postrider_broker::{Lane, Readiness, Settings};
use postrider_core::wire::{
    self, ConfigKind, ConfigRecord, DeliveryMessage, DeliveryRecord, EventFate, Fact, JournalMessage,
    SchemaMode, TenantRecord, TenantSettings, UnknownTypes, WebhookRecord,
};
use postrider_core::{EventType, TenantId};
use postrider_router::Config;
use postrider_testkit::config::{Configuration, NewWebhook};
use postrider_testkit::rabbit::{Broker, Taken, Vhost};
use postrider_testkit::{eventually, eventually_some};
use serde_json::value::RawValue;
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

#[tokio::test]
async fn each_event_of_an_array_goes_its_own_way() {
    let (vhost, settings, mut configuration) = setup("array").await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let router = Router::start(&settings);
    router.ready().await;
    let array =
        r#"[{"event_type":"A","id":"a"}, {"event_type":"B"}, {"event_type":5} ,{"event_type":"A","id":"a"}]"#;
    let named = json().with_message_id("m".into());
    vhost.publish(&settings.names().events(), "default", array.as_bytes(), named).await;
    let cloud_events = br#"[{"specversion":"1.0","id":"ce","type":"A"}]"#;
    let batch = json().with_content_type("application/cloudevents-batch+json".into());
    vhost.publish(&settings.names().events(), "default", cloud_events, batch).await;
    let broken = r#"[{"event_type":"A","id":"lost"},"#;
    publish(&vhost, &settings, broken).await;

    let found: BTreeSet<String> =
        deliveries(&vhost, &settings, 3).await.into_iter().map(|(event, _)| event).collect();
    let made = found.iter().filter(|id| id.starts_with("part_")).count();
    assert!(found.len() == 3 && made == 1 && found.contains("a") && found.contains("ce"), "{found:?}");
    let kept = vhost.take(&settings.names().invalid(), 2).await;
    let kept: BTreeSet<(String, &[u8])> =
        kept.iter().map(|taken| (header(taken, "reason"), taken.body.as_slice())).collect();
    let expected: [(String, &[u8]); 2] =
        [("wrong_type".into(), br#"{"event_type":5}"#), ("not_json".into(), broken.as_bytes())];
    assert_eq!(kept, expected.into(), "what is refused is kept alone; what cannot be taken apart, whole");
    assert_eq!(facts(&vhost, &settings, 5).await.len(), 5);
    eventually("the repeated one is counted", async || {
        router.metric("postrider_events_total", "duplicate") == 1
    })
    .await;
    router.stop().await;
}

#[tokio::test]
async fn a_router_that_dies_over_arrays_loses_none_of_their_events() {
    const LENGTH: usize = 60;
    const EVENTS: usize = 100 * LENGTH;
    let (vhost, settings, mut configuration) = setup("array-killed").await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    for first in (0..EVENTS).step_by(LENGTH) {
        let events: Vec<String> =
            (first..first + LENGTH).map(|n| format!(r#"{{"event_type":"A","id":"e{n}"}}"#)).collect();
        publish(&vhost, &settings, &format!("[{}]", events.join(","))).await;
    }
    // In each round there is one message, and another is here that did not fit into it.
    for _ in 0..2 {
        let router = Router::start(&settings);
        eventually("the first is settled", async || router.metric("postrider_events_total", "routed") > 0)
            .await;
        router.kill();
    }
    let mut found: Vec<String> = Vec::new();
    let router = Router::start(&settings);
    eventually("every event has its delivery", async || {
        found.extend(deliveries(&vhost, &settings, 0).await.into_iter().map(|(id, _)| id));
        found.iter().collect::<BTreeSet<_>>().len() == EVENTS
    })
    .await;
    router.stop().await;
    let repeated = found.len() - EVENTS;
    assert!(repeated <= 2 * 100, "{repeated} were repeated over two crashes");
}

#[tokio::test]
async fn a_round_holds_whole_messages_and_no_more_than_a_hundred_events() {
    let (vhost, settings, mut configuration) = setup("rounds").await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let mut n = 0;
    for length in [60, 60, 30, 10, 1, 100, 1] {
        let events: Vec<String> =
            (n..n + length).map(|n| format!(r#"{{"event_type":"A","id":"e{n}"}}"#)).collect();
        n += length;
        publish(&vhost, &settings, &format!("[{}]", events.join(","))).await;
    }
    let router = Router::start(&settings);
    let found = deliveries(&vhost, &settings, n).await;
    let ids: BTreeSet<String> = found.iter().map(|(event, _)| event.clone()).collect();
    assert_eq!((found.len(), ids), (n, (0..n).map(|n| format!("e{n}")).collect()), "each once");
    let rounds = || {
        let families = router.registry.gather();
        let family = families.iter().find(|family| family.name() == "postrider_route_batch_events");
        let rounds = family.unwrap().get_metric()[0].get_histogram().clone();
        (rounds.get_sample_sum() as usize, rounds)
    };
    eventually("all are settled", async || rounds().0 == n).await;
    let (_, rounds) = rounds();
    let within = rounds.get_bucket().iter().find(|bucket| bucket.upper_bound() == 100.0).unwrap();
    assert_eq!(
        within.cumulative_count(),
        rounds.get_sample_count(),
        "none is larger than what a crash may repeat"
    );
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

/// The headers of a publisher that knows this revision.
fn knowing(configuration: &Configuration, revision: u64) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert("postrider-revision".into(), AMQPValue::LongString(revision.to_string().into()));
    headers.insert("postrider-epoch".into(), AMQPValue::LongString(configuration.epoch().as_str().into()));
    headers
}

#[tokio::test]
async fn an_event_waits_for_the_configuration_that_its_publisher_knew() {
    let (vhost, settings, mut configuration) = setup("read-your-writes").await;
    let router = Router::start(&settings);
    router.ready().await;
    let next = configuration.revision() + 1;
    let properties = json().with_headers(knowing(&configuration, next));
    vhost.publish(&settings.names().events(), "default", br#"{"event_type":"A","id":"e"}"#, properties).await;
    // The webhook is published after the event, and is routed to all the same.
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    assert_eq!(deliveries(&vhost, &settings, 1).await.len(), 1);
    router.stop().await;
}

/// What the default tenant's catalogue is in these tests: two groups of one category, and what a transfer triggers.
const CATALOGUE: &str = r#"{"schema":1,"product":{"id":"loyalty","name":"Loyalty"},
    "category":[{"id":"points","label":"Points"}],
    "group":[{"id":"balance","category":"points","label":"Balance"},{"id":"tier","category":"points","label":"Tier"}],
    "event_type":[
        {"name":"AvailablePointsAmountChanged","label":"Points","category":"points","group":"balance",
            "data_schema":{"type":"object","required":["memberId"]}},
        {"name":"CustomerLevelChanged","label":"Level","aliases":["LevelChanged"],"category":"points","group":"tier"}],
    "trigger":[
        {"action":"points.transferred","emit":[
            {"event_type":"AvailablePointsAmountChanged","for_each":["/data/sender","/data/recipient"]}]},
        {"action":"member.seen","when":"data.level != 'gold'","emit":[{"event_type":"CustomerLevelChanged"}]}]}"#;

/// Publishes [`CATALOGUE`] and how the default tenant wants its events.
async fn catalogue(configuration: &Configuration, settings: TenantSettings) {
    let (epoch, revision) = (configuration.epoch(), configuration.revision() + 1);
    let record = |kind, id: &str, body: String| ConfigRecord {
        body: Some(RawValue::from_string(body).unwrap()),
        ..ConfigRecord::bare(epoch, revision, kind, id)
    };
    let body = format!(r#"{{"tenant":"default","catalogue":{CATALOGUE}}}"#);
    configuration.write(&record(ConfigKind::Catalogue, "default/loyalty", body)).await;
    let tenant = TenantRecord { id: TenantId::default_tenant(), settings };
    let body = serde_json::to_string(&tenant).unwrap();
    configuration.write(&record(ConfigKind::Tenant, "default", body)).await;
}

#[tokio::test]
async fn an_action_becomes_its_events_once() {
    let (vhost, settings, mut configuration) = setup("actions").await;
    catalogue(&configuration, TenantSettings::default()).await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let router = Router::start(&settings);
    router.ready().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(trace.into()));
    let transfer = r#"{"action":"points.transferred","id":"t17","data":{
        "sender":{"memberId":"m1"},"recipient":{"memberId":"m2"}}}"#;
    for _ in 0..2 {
        let properties = json().with_headers(headers.clone());
        vhost.publish(&settings.names().events(), "default", transfer.as_bytes(), properties).await;
    }
    publish(&vhost, &settings, r#"{"action":"member.seen","id":"s1","data":{"level":"gold"}}"#).await;

    let mut found = Vec::new();
    eventually("two deliveries", async || {
        for taken in vhost.take_ready(&settings.names().delivery_queue(Lane::Fresh, 0)).await {
            found.extend(wire::decode::<DeliveryMessage>(&taken.body).unwrap().work);
        }
        found.len() >= 2
    })
    .await;
    let data: Vec<&str> = found.iter().map(|work| work.event.data.get()).collect();
    assert_eq!(data, [r#"{"memberId":"m1"}"#, r#"{"memberId":"m2"}"#], "sender, then recipient");
    assert_ne!(found[0].event.id, found[1].event.id);
    assert!(found.iter().all(|work| work.event.id.as_str().starts_with("act_")));
    assert!(found.iter().all(|work| work.event.correlation_id.as_deref() == Some("t17")));
    assert!(found.iter().all(|work| work.event.traceparent.as_deref() == Some(trace)));

    let facts = facts(&vhost, &settings, 3).await;
    let fates: Vec<(&str, bool)> = facts
        .iter()
        .map(|fact| match fact {
            Fact::Event(event) => (event.event_id.as_str(), event.fate == EventFate::Unmatched),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(fates.iter().filter(|(_, unmatched)| !unmatched).count(), 2);
    assert!(fates.contains(&("s1", true)), "{fates:?}");
    eventually("both of the repeated ones are counted", async || {
        router.metric("postrider_events_total", "duplicate") == 2
    })
    .await;
    assert_eq!(router.metric("postrider_actions_total", "derived"), 1);
    assert_eq!(router.metric("postrider_actions_total", "nothing"), 1);
    assert_eq!(router.metric("postrider_events_derived_total", ""), 2);
    router.stop().await;
    assert_eq!(vhost.queue_depth(&settings.names().delivery_queue(Lane::Fresh, 0)).await, 0);
}

#[tokio::test]
async fn an_action_is_refused_whole_kept_and_counted() {
    let (vhost, settings, mut configuration) = setup("refused-actions").await;
    let strict = TenantSettings { schemas: SchemaMode::Refuse, ..TenantSettings::default() };
    catalogue(&configuration, strict).await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let router = Router::start(&settings);
    router.ready().await;
    let bad = [
        (
            "subject_absent",
            r#"{"action":"points.transferred","id":"a1","data":{"sender":{"memberId":"m1"}}}"#,
        ),
        (
            "schema_violation",
            r#"{"action":"points.transferred","id":"a2","data":{"sender":{"memberId":"m1"},"recipient":{}}}"#,
        ),
        ("trigger_failed", r#"{"action":"member.seen","id":"a3","data":{}}"#),
        ("unknown_action", r#"{"action":"member.lost","id":"a4"}"#),
    ];
    for (_, body) in bad {
        publish(&vhost, &settings, body).await;
    }
    publish(&vhost, &settings, r#"{"action":"member.seen","id":"good","data":{"level":"iron"}}"#).await;
    let kept = vhost.take(&settings.names().invalid(), bad.len()).await;
    for (reason, body) in bad {
        let found = kept.iter().find(|taken| header(taken, "reason") == reason);
        let found = found.unwrap_or_else(|| panic!("nothing is refused as {reason}"));
        assert_eq!(found.body, body.as_bytes(), "{reason}: the action as it came");
        assert_eq!(router.metric("postrider_events_refused_total", reason), 1, "{reason}");
    }
    assert_eq!(deliveries(&vhost, &settings, 1).await.len(), 1, "of the good one alone");
    assert_eq!(facts(&vhost, &settings, bad.len() + 1).await.len(), bad.len() + 1);
    assert_eq!(router.metric("postrider_actions_total", "refused"), bad.len() as u64);
    router.stop().await;
}

#[tokio::test]
async fn subscriptions_name_groups_and_aliases_and_filter() {
    let (vhost, settings, mut configuration) = setup("subscriptions").await;
    catalogue(&configuration, TenantSettings::default()).await;
    let group =
        |record: &mut WebhookRecord| (record.all, record.groups) = (false, ["tier".to_owned()].into());
    let alias = |record: &mut WebhookRecord| {
        (record.all, record.event_types) = (false, [EventType::parse("LevelChanged").unwrap()].into());
    };
    let gold = |record: &mut WebhookRecord| record.filter = Some("data.level == 'gold'".to_owned());
    let absent = |record: &mut WebhookRecord| record.filter = Some("data.nothing == 1".to_owned());
    let webhook = |id: &str, change: fn(&mut WebhookRecord)| NewWebhook {
        change,
        ..NewWebhook::new(id, "https://example.com/")
    };
    for webhook in [
        webhook("wh_group", group),
        webhook("wh_alias", alias),
        webhook("wh_gold", gold),
        webhook("wh_absent", absent),
    ] {
        configuration.webhook(&webhook).await;
    }
    let router = Router::start(&settings);
    router.ready().await;
    let event = |event_type: &str, id: &str, level: &str| {
        format!(r#"{{"event_type":"{event_type}","id":"{id}","data":{{"level":"{level}","memberId":"m"}}}}"#)
    };
    publish(&vhost, &settings, &event("LevelChanged", "e1", "gold")).await;
    publish(&vhost, &settings, &event("CustomerLevelChanged", "e2", "iron")).await;
    publish(&vhost, &settings, &event("AvailablePointsAmountChanged", "e3", "gold")).await;
    let found = deliveries(&vhost, &settings, 6).await;
    let pairs: BTreeSet<(&str, &str)> =
        found.iter().map(|(event, delivery)| (event.as_str(), delivery.webhook.as_str())).collect();
    let expected = [
        ("e1", "wh_alias"),
        ("e1", "wh_gold"),
        ("e1", "wh_group"),
        ("e2", "wh_alias"),
        ("e2", "wh_group"),
        ("e3", "wh_gold"),
    ];
    assert_eq!((found.len(), pairs), (6, expected.into()));
    eventually("filters that cannot be judged are counted", async || {
        router.metric("postrider_filter_errors_total", "") == 3
    })
    .await;
    let facts = facts(&vhost, &settings, 3).await;
    let types: BTreeSet<&str> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Event(event) => Some(event.event.as_ref().unwrap().event_type.as_str()),
            _ => None,
        })
        .collect();
    let names = ["AvailablePointsAmountChanged", "CustomerLevelChanged"];
    assert_eq!(types, names.into(), "an alias is published under the name");
    router.stop().await;
}

#[tokio::test]
async fn unknown_types_are_marked_or_refused_as_the_tenant_wants() {
    let (vhost, settings, mut configuration) = setup("unknown-types").await;
    catalogue(&configuration, TenantSettings { schemas: SchemaMode::Warn, ..TenantSettings::default() })
        .await;
    configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
    let router = Router::start(&settings);
    router.ready().await;
    publish(&vhost, &settings, r#"{"event_type":"Surprise","id":"e1"}"#).await;
    publish(&vhost, &settings, r#"{"event_type":"AvailablePointsAmountChanged","id":"e2","data":{}}"#).await;
    assert_eq!(deliveries(&vhost, &settings, 2).await.len(), 2);
    let marks: BTreeSet<String> = facts(&vhost, &settings, 2)
        .await
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::Event(event) => Some(event.marks.join(",")),
            _ => None,
        })
        .collect();
    assert_eq!(marks, ["schema".to_owned(), "unknown_type".to_owned()].into());
    for mark in ["schema", "unknown_type"] {
        eventually(mark, async || router.metric("postrider_events_marked_total", mark) == 1).await;
    }

    let refuse = TenantSettings { unknown_types: UnknownTypes::Refuse, ..TenantSettings::default() };
    catalogue(&configuration, refuse).await;
    // A later record: an event that names its revision is routed when the tenant's wish is known too.
    for _ in 0..2 {
        configuration.webhook(&NewWebhook::new("wh_later", "https://example.com/").takes(&["LATER"])).await;
    }
    let properties = json().with_headers(knowing(&configuration, configuration.revision()));
    let body = br#"{"event_type":"Surprise","id":"e3"}"#;
    vhost.publish(&settings.names().events(), "default", body, properties).await;
    let kept = vhost.take(&settings.names().invalid(), 1).await;
    assert_eq!(header(&kept[0], "reason"), "unknown_event_type");
    assert!(header(&kept[0], "detail").contains("Surprise"));
    router.stop().await;
}

#[tokio::test]
async fn a_webhook_is_tried_alone_whatever_it_takes() {
    let (vhost, settings, mut configuration) = setup("tests").await;
    configuration.webhook(&NewWebhook::new("wh_all", "https://example.com/")).await;
    configuration.webhook(&NewWebhook::new("wh_tried", "https://example.com/").takes(&["OTHER"])).await;
    let router = Router::start(&settings);
    router.ready().await;
    let mut control = knowing(&configuration, configuration.revision());
    control.insert("only-webhook".into(), AMQPValue::LongString("wh_tried".into()));
    let mut upstream = FieldTable::default();
    upstream.insert("only-webhook".into(), AMQPValue::LongString("wh_tried".into()));
    for (id, headers) in [("own_test_0", &upstream), ("own_test_1", &control), ("forged", &upstream)] {
        let body = format!(r#"{{"event_type":"A","id":"{id}"}}"#);
        let properties = json().with_headers(headers.clone());
        vhost.publish(&settings.names().events(), "default", body.as_bytes(), properties).await;
    }
    let found = deliveries(&vhost, &settings, 2).await;
    let found: BTreeSet<(&str, &str, bool)> = found
        .iter()
        .map(|(event, delivery)| (event.as_str(), delivery.webhook.as_str(), delivery.test))
        .collect();
    let expected = [("own_test_1", "wh_tried", true), ("forged", "wh_all", false)];
    assert_eq!(found, expected.into(), "an event of upstream is an event like any other");
    let kept = vhost.take(&settings.names().invalid(), 1).await;
    assert_eq!(header(&kept[0], "reason"), "bad_event_id");
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
