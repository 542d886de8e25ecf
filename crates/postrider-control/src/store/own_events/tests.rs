//! Own events and webhooks that fail, over a store and a data plane in small: events are read and routed by core, and
//! receivers answer as the test wants.

use std::collections::BTreeMap;
use std::sync::Arc;

use postrider_core::books::End;
use postrider_core::catalogue::{Catalogue, Category, Product, TypeEntry};
use postrider_core::directory::{Directory, Lookup};
use postrider_core::intake::{self, Envelope, Report};
use postrider_core::profile::ProfileSpec;
use postrider_core::webhook::WebhookState;
use postrider_core::wire::{
    AttemptFact, ConfigKind, ConfigRecord, DeadMessage, DeliveryRecord, DoneFact, EventFact, EventFate,
    EventRecord, Fact, JournalMessage, Owed, RequestTimes, SCHEMA,
};
use postrider_core::{DeliveryId, Epoch, WebhookId};
use serde_json::{Value, json};

use super::super::test_store::TestStore;
use super::super::{Entry, OutboxKind, OutboxLane, WebhookRow};
use super::*;

const START: i64 = 1_700_000_000_000;

#[test]
fn urls_are_shown_without_what_often_holds_a_secret() {
    assert_eq!(shown_url("https://user:pw@example.com:8443/a/b?token=x#y"), "https://example.com:8443/a/b");
    assert_eq!(shown_url("https://example.com"), "https://example.com/");
    assert_eq!(shown_url("no url"), "");
}

/// How a receiver ends a delivery.
type Answers = fn(&WebhookId, &Value) -> End;

struct World {
    t: TestStore,
    directory: Directory,
    now: Timestamp,
    written: BTreeMap<&'static str, u64>,
    /// Own events that went out, in order.
    said: Vec<Value>,
    answers: Answers,
}

impl World {
    async fn new(answers: Answers) -> Self {
        let t = TestStore::new().await;
        let mut directory = Directory::new();
        let epoch = t.store.epoch();
        let mut snapshot = t.store.snapshot(Timestamp::from_millis(START)).await.unwrap();
        directory.apply(&ConfigRecord::bare(&epoch, 1, ConfigKind::SnapshotBegin, ""));
        for record in snapshot.next().await.unwrap() {
            directory.apply(&record);
        }
        drop(snapshot);
        directory.apply(&ConfigRecord::bare(&epoch, 1, ConfigKind::SnapshotEnd, ""));
        let now = Timestamp::from_millis(START);
        Self { t, directory, now, written: BTreeMap::new(), said: Vec::new(), answers }
    }

    fn tick(&mut self) -> Timestamp {
        self.now = self.now.plus_ms(1000);
        self.now
    }

    /// Makes or changes a webhook, as the API does.
    async fn put(&mut self, record: &WebhookRecord) -> WebhookRow {
        let now = self.tick();
        let mut change = self.t.store.change().await.unwrap();
        let known = change.webhook(record.tenant.as_str(), record.id.as_str()).await.unwrap();
        let row = change.put_webhook(record, "", now).await.unwrap();
        let changed = ["name".to_owned()];
        let event = match known {
            Some(_) => OwnEvent::WebhookUpdated(record, &changed),
            None => OwnEvent::WebhookCreated(record),
        };
        change.own_event(event, now).await.unwrap();
        change.commit().await.unwrap();
        row
    }

    async fn delete(&mut self, record: &WebhookRecord) {
        let now = self.tick();
        let mut change = self.t.store.change().await.unwrap();
        change.delete_webhook(record.id.as_str(), now).await.unwrap();
        change.own_event(OwnEvent::WebhookDeleted(record), now).await.unwrap();
        change.commit().await.unwrap();
    }

    async fn webhook(&self, id: &str) -> WebhookRow {
        self.t.store.webhook("default", id).await.unwrap().unwrap()
    }

    /// Writes facts as a role would, and as a role may: everything twice.
    async fn journal(&mut self, writer: &'static str, facts: Vec<Fact>, letters: Vec<Entry>) {
        let first = self.written.entry(writer).or_default();
        let message =
            JournalMessage { schema: SCHEMA, writer: writer.into(), first: *first, duplicates: 0, facts };
        *first += message.facts.len() as u64;
        let mut entries = vec![Entry::Journal(message)];
        entries.extend(letters);
        for _ in 0..2 {
            self.t.store.record(&entries, self.now).await.unwrap();
        }
    }

    /// Reports an event as upstream does, and lets everything happen that follows from it.
    async fn happens(&mut self, id: &str, event_type: &str) {
        let body = json!({ "event_type": event_type, "id": id }).to_string();
        self.route(body.as_bytes(), "").await;
        self.settle().await;
    }

    /// Sends what the outbox has, until there is nothing more: bounded, so that a loop is seen.
    async fn settle(&mut self) {
        for _ in 0..1000 {
            let told = self.t.store.unsent(OutboxLane::Configuration, 100).await.unwrap();
            for row in &told {
                self.directory.apply(&serde_json::from_slice::<ConfigRecord>(&row.body).unwrap());
                self.t.store.mark_sent(OutboxKind::Config, row.seq, self.now).await.unwrap();
            }
            let events = self.t.store.unsent(OutboxLane::Events, 100).await.unwrap();
            if told.is_empty() && events.is_empty() {
                return;
            }
            for row in events {
                assert!(row.revision <= self.directory.revision(), "it is routed by what it is about");
                assert_eq!(row.tenant, "default");
                self.t.store.mark_sent(OutboxKind::Event, row.seq, self.now).await.unwrap();
                self.said.push(serde_json::from_slice(&row.body).unwrap());
                self.route(&row.body, &row.except_webhook).await;
            }
        }
        panic!("it does not come to rest: {:?}", self.said.last());
    }

    async fn route(&mut self, body: &[u8], except: &str) {
        let now = self.tick();
        let envelope = Envelope { routing_key: "default", ..Envelope::default() };
        let Report::Event(event) = intake::read(envelope, body, now, EventId::from_trusted("made")).unwrap()
        else {
            panic!("it is an event");
        };
        let mut targets = self.directory.route(&event).unwrap();
        targets.retain(|target| target.webhook.as_str() != except);
        let record = Arc::new(EventRecord::from(event));
        let owed: Vec<Owed> = targets
            .iter()
            .map(|t| Owed { delivery: t.delivery.clone(), webhook: t.webhook.clone() })
            .collect();
        let fate = if owed.is_empty() { EventFate::Unmatched } else { EventFate::Routed(owed.clone()) };
        let fact = Fact::Event(EventFact {
            tenant: record.tenant.clone(),
            event_id: record.id.clone(),
            at: now,
            fate,
            event: Some(record.clone()),
            marks: Vec::new(),
        });
        self.journal("router", vec![fact], Vec::new()).await;
        let body: Value = serde_json::from_slice(body).unwrap();
        for Owed { delivery, webhook } in owed {
            let state = match self.directory.webhook(&webhook) {
                Lookup::Known(known) => known.state,
                Lookup::Deleted | Lookup::Unknown => continue,
            };
            let end =
                if state == WebhookState::Disabled { End::Skipped } else { (self.answers)(&webhook, &body) };
            self.end(&record, &delivery, &webhook, end).await;
        }
    }

    async fn end(&mut self, event: &Arc<EventRecord>, delivery: &DeliveryId, webhook: &WebhookId, end: End) {
        let now = self.tick();
        let mut facts = Vec::new();
        if end != End::Skipped {
            facts.push(Fact::Attempt(AttemptFact {
                delivery: delivery.clone(),
                series: 1,
                n: 1,
                webhook: webhook.clone(),
                at: now,
                duration_ms: 1,
                url: "".into(),
                class: if end == End::Dead { "http_5xx".into() } else { "none".into() },
                status: Some(if end == End::Dead { 503 } else { 200 }),
                error: None,
                response_body: None,
                response_headers: Vec::new(),
                next_at: None,
                worker: "worker".into(),
                repeats: 0,
                times: RequestTimes::default(),
                remote: None,
            }));
        }
        facts.push(Fact::Done(DoneFact {
            delivery: delivery.clone(),
            series: 1,
            webhook: webhook.clone(),
            end,
            reason: if end == End::Dead { "exhausted".into() } else { String::new() },
            attempts: 1,
            at: now,
            repeats: 0,
        }));
        let mut letters = Vec::new();
        if end == End::Dead {
            letters.push(Entry::Dead(DeadMessage {
                schema: SCHEMA,
                event: event.clone(),
                delivery: DeliveryRecord {
                    id: delivery.clone(),
                    webhook: webhook.clone(),
                    revision: 1,
                    epoch: Epoch::from_trusted(""),
                    series: 1,
                    attempt: 1,
                    born: now,
                    due: None,
                    crashes: 0,
                    unknown_since: None,
                    parked: 0,
                    asked: false,
                    test: false,
                },
                reason: "exhausted".into(),
                class: "http_5xx".into(),
                at: now,
            }));
        }
        self.journal("worker", facts, letters).await;
    }

    /// How often something was said.
    fn said(&self, name: &str) -> usize {
        self.said.iter().filter(|event| event["event_type"] == name).count()
    }
}

fn webhook(id: &str, takes: &[&str]) -> WebhookRecord {
    WebhookRecord {
        name: format!("{id} of billing"),
        event_types: takes.iter().map(|name| EventType::parse(name).unwrap()).collect(),
        ..WebhookRecord::new(
            WebhookId::from_trusted(id),
            TenantId::default_tenant(),
            "https://user:pw@example.com/hooks?token=canary",
        )
    }
}

const EVERYTHING: [&str; 6] = [
    "WEBHOOK_CREATED",
    "WEBHOOK_UPDATED",
    "WEBHOOK_DELETED",
    WEBHOOK_FAILING,
    WEBHOOK_DISABLED,
    DELIVERY_DEAD,
];

#[tokio::test]
async fn a_webhook_that_asks_hears_of_webhooks_and_others_do_not() {
    let mut world = World::new(|_, _| End::Delivered).await;
    let all = WebhookRecord { all: true, ..webhook("wh_all", &[]) };
    world.put(&all).await;
    world.settle().await;
    assert!(world.said.is_empty(), "nobody asked: {:?}", world.said);

    let listener = webhook("wh_1", &["WEBHOOK_CREATED", "WEBHOOK_DELETED"]);
    world.put(&listener).await;
    world.put(&WebhookRecord { name: "renamed".into(), ..all.clone() }).await;
    world.delete(&all).await;
    world.delete(&listener).await;
    world.settle().await;
    let said: Vec<_> = world
        .said
        .iter()
        .map(|event| (event["event_type"].as_str().unwrap(), event["key"].as_str().unwrap()))
        .collect();
    assert_eq!(
        said,
        [("WEBHOOK_CREATED", "wh_1"), ("WEBHOOK_DELETED", "wh_all")],
        "of its own creation, not of its own end, and not of what it did not ask for"
    );
    let event = &world.said[0];
    assert!(event["id"].as_str().unwrap().starts_with("own_"));
    assert_eq!(event["current_context"], json!({ "source": "postrider" }));
    assert_eq!(
        event["data"],
        json!({ "id": "wh_1", "name": "wh_1 of billing", "url": "https://example.com/hooks",
            "profile": "postrider", "state": "active" })
    );
    assert!(!world.said.iter().any(|event| event.to_string().contains("canary")));
}

#[tokio::test]
async fn asking_by_alias_group_and_category_is_asking() {
    let mut world = World::new(|_, _| End::Delivered).await;
    let entry = |name: &str| TypeEntry {
        category: "webhook".into(),
        ..TypeEntry::new(EventType::parse(name).unwrap())
    };
    let catalogue = Catalogue {
        schema: 1,
        product: Product { id: "auth".into(), name: "Auth".into(), note: String::new() },
        categories: vec![Category {
            id: "webhook".into(),
            label: "Webhooks".into(),
            description: String::new(),
        }],
        groups: Vec::new(),
        event_types: vec![
            TypeEntry {
                group: Some("made".into()),
                aliases: vec![EventType::parse("Webhook created").unwrap()],
                ..entry("WEBHOOK_CREATED")
            },
            entry("WEBHOOK_UPDATED"),
        ],
        triggers: Vec::new(),
        profile: None,
    };
    let mut change = world.t.store.change().await.unwrap();
    change.put_catalogue(&TenantId::default_tenant(), &catalogue, world.now).await.unwrap();
    for (record, asks) in [
        (webhook("wh_1", &["Webhook created"]), [true, false, false]),
        (WebhookRecord { groups: ["made".into()].into(), ..webhook("wh_2", &[]) }, [true, false, false]),
        (
            WebhookRecord { categories: ["webhook".into()].into(), ..webhook("wh_3", &[]) },
            [true, true, false],
        ),
        (WebhookRecord { categories: [OWN.into()].into(), ..webhook("wh_4", &[]) }, [false, false, true]),
        (WebhookRecord { all: true, ..webhook("wh_5", &["OTHER"]) }, [false, false, false]),
    ] {
        change.put_webhook(&record, "", world.now).await.unwrap();
        for (name, asked) in ["WEBHOOK_CREATED", "WEBHOOK_UPDATED", DELIVERY_DEAD].into_iter().zip(asks) {
            assert_eq!(
                change.is_asked_for("default", name, None).await.unwrap(),
                asked,
                "{} {name}",
                record.id
            );
            assert!(!change.is_asked_for("acme", name, None).await.unwrap(), "another tenant");
        }
        change.delete_webhook(record.id.as_str(), world.now).await.unwrap();
    }
    drop(change);
    world.settle().await;
}

/// Webhooks that want to hear everything and take nothing, while people change them: as much is said as was done.
#[tokio::test]
async fn own_events_that_fail_cause_no_more_of_them() {
    let mut world = World::new(|_, _| End::Dead).await;
    let ids = ["wh_1", "wh_2", "wh_3"];
    for id in ids {
        world.put(&webhook(id, &EVERYTHING)).await;
        world.settle().await;
    }
    for round in 0..5 {
        for id in ids {
            world.put(&WebhookRecord { name: format!("{id} {round}"), ..webhook(id, &EVERYTHING) }).await;
            world.settle().await;
        }
    }
    let counts: Vec<_> = EVERYTHING.iter().map(|name| world.said(name)).collect();
    assert_eq!(counts, [3, 15, 0, 0, 0, 0], "18 changes were made");
    assert_eq!(world.t.rows("SELECT in_a_row FROM webhook_health WHERE webhook = 'wh_1'").await, 18);

    // Now something of upstream's fails as well, for one of them: that is said, once, to all, and nothing follows.
    let takes: Vec<&str> = EVERYTHING.into_iter().chain(["A"]).collect();
    let limited = WebhookRecord { disable_after_failures: Some(30), ..webhook("wh_1", &takes) };
    world.put(&limited).await;
    world.settle().await;
    for n in 0..3 {
        world.happens(&format!("e{n}"), "A").await;
    }
    // 19 own events and the first of these make 20 in a row; each of these also brings own events that fail.
    assert_eq!((world.said(DELIVERY_DEAD), world.said(WEBHOOK_FAILING)), (3, 1));
    world.delete(&webhook("wh_2", &[])).await;
    world.settle().await;
    assert_eq!(world.said.len(), 18 + 1 + 3 + 1 + 1, "{:#?}", world.said);
    let failing = world.said.iter().find(|event| event["event_type"] == WEBHOOK_FAILING).unwrap();
    assert_eq!(failing["data"]["disable_after_failures"], 30);
    assert_eq!(failing["data"]["last"]["event"], "e0", "never because of one of our own");
}

/// The catalogue of own events shows what is really said.
#[tokio::test]
async fn own_events_are_as_their_examples() {
    let mut world =
        World::new(|_, event| if event["event_type"] == "A" { End::Dead } else { End::Delivered }).await;
    world.put(&WebhookRecord { disable_after_failures: Some(2), ..webhook("wh_1", &["A"]) }).await;
    world.put(&webhook("wh_2", &EVERYTHING)).await;
    world.settle().await;
    for n in 0..2 {
        world.happens(&format!("e{n}"), "A").await;
    }
    fn shape(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), shape(value))).collect()
            }
            Value::Null | Value::Bool(_) => json!("word"),
            Value::Number(_) => json!("number"),
            Value::String(_) => json!("text"),
            Value::Array(items) => items.iter().map(shape).collect(),
        }
    }
    for entry in own().event_types {
        let example: Value = serde_json::from_str(&entry.example.unwrap()).unwrap();
        let said = world.said.iter().find(|event| event["event_type"] == entry.name.as_str());
        let said = said.unwrap_or_else(|| panic!("{} was said", entry.name));
        for member in ["event_type", "event_time", "current_context", "data"] {
            assert_eq!(shape(&said[member]), shape(&example[member]), "{} {member}", entry.name);
        }
    }
}

/// As before, with webhooks that failures disable: an own event counts, and is not what anything is said of.
#[tokio::test]
async fn own_events_that_fail_disable_a_webhook_without_a_word() {
    let mut world =
        World::new(|webhook, _| if webhook.as_str() == "wh_1" { End::Dead } else { End::Delivered }).await;
    world.put(&webhook("wh_2", &EVERYTHING)).await;
    let failing = WebhookRecord { disable_after_failures: Some(4), ..webhook("wh_1", &EVERYTHING) };
    world.put(&failing).await;
    world.settle().await;
    for n in 0..10 {
        world.put(&WebhookRecord { name: format!("{n}"), ..webhook("wh_2", &EVERYTHING) }).await;
        world.settle().await;
    }
    let row = world.webhook("wh_1").await;
    assert_eq!((row.record.state.as_str(), row.disabled_at.is_some()), ("disabled", true));
    assert_eq!(world.said.len(), 2 + 10, "{:#?}", world.said);
}

#[tokio::test]
async fn a_webhook_is_disabled_after_its_number_of_failures_in_a_row() {
    let mut world = World::new(|webhook, event| match (webhook.as_str(), &event["event_type"]) {
        ("wh_1", event_type) if event_type != "GOOD" => End::Dead,
        _ => End::Delivered,
    })
    .await;
    let record = WebhookRecord { disable_after_failures: Some(4), ..webhook("wh_1", &["BAD", "GOOD"]) };
    world.put(&record).await;
    world.put(&webhook("wh_2", &[WEBHOOK_FAILING, WEBHOOK_DISABLED])).await;
    world.settle().await;
    for n in 0..3 {
        world.happens(&format!("a{n}"), "BAD").await;
    }
    world.happens("good", "GOOD").await;
    assert_eq!(world.said(WEBHOOK_FAILING), 1);
    for n in 0..3 {
        world.happens(&format!("b{n}"), "BAD").await;
    }
    assert_eq!(
        world.webhook("wh_1").await.record.state,
        "active",
        "never four in a row, though each was told twice"
    );
    assert_eq!((world.said(WEBHOOK_FAILING), world.said(WEBHOOK_DISABLED)), (2, 0), "again after a success");

    world.happens("b3", "BAD").await;
    let row = world.webhook("wh_1").await;
    assert_eq!(row.record.state, "disabled");
    assert_eq!(row.disabled_reason, "4 deliveries in a row were given up; last: exhausted: http_5xx 503");
    assert!(row.disabled_at.is_some());
    assert!(
        matches!(world.directory.webhook(&record.id), Lookup::Known(known) if known.state == WebhookState::Disabled),
        "the data plane was told"
    );
    let disabled = world.said.iter().find(|event| event["event_type"] == WEBHOOK_DISABLED).unwrap();
    assert_eq!(disabled["data"]["webhook"]["state"], "disabled");
    assert_eq!(disabled["data"]["given_up_in_a_row"], 4);
    assert_eq!(
        disabled["data"]["last"],
        json!({ "delivery": disabled["data"]["last"]["delivery"], "event": "b3", "event_type": "BAD", "attempts": 1,
            "reason": "exhausted", "class": "http_5xx", "status": 503 })
    );
    // What comes now is skipped and counts for nothing.
    world.happens("c", "BAD").await;
    assert_eq!(world.said(WEBHOOK_DISABLED), 1);

    // Enabled by hand, it has all of them again.
    world.put(&record).await;
    world.settle().await;
    let row = world.webhook("wh_1").await;
    assert_eq!((row.disabled_reason.as_str(), row.disabled_at), ("", None));
    for n in 0..3 {
        world.happens(&format!("d{n}"), "BAD").await;
    }
    assert_eq!(world.webhook("wh_1").await.record.state, "active");
    world.happens("d3", "BAD").await;
    assert_eq!(world.webhook("wh_1").await.record.state, "disabled");
    assert_eq!(world.said(WEBHOOK_DISABLED), 2);
}

#[tokio::test]
async fn the_number_is_the_profiles_unless_the_webhook_has_one_and_zero_is_never() {
    let mut world = World::new(|_, _| End::Dead).await;
    let catalogue = Catalogue {
        schema: 1,
        product: Product { id: "idaas".into(), name: "IDaaS".into(), note: String::new() },
        categories: Vec::new(),
        groups: Vec::new(),
        event_types: vec![TypeEntry::new(EventType::parse("BAD").unwrap())],
        triggers: Vec::new(),
        profile: Some(ProfileSpec {
            name: "entrust".into(),
            disable_after_failures: Some(3),
            ..ProfileSpec::default()
        }),
    };
    let mut change = world.t.store.change().await.unwrap();
    change.put_catalogue(&TenantId::default_tenant(), &catalogue, world.now).await.unwrap();
    change.commit().await.unwrap();
    let of_profile = WebhookRecord { profile: "entrust".into(), ..webhook("wh_profile", &["BAD"]) };
    let own = WebhookRecord { disable_after_failures: Some(5), ..webhook("wh_own", &["BAD"]) };
    let never = WebhookRecord {
        disable_after_failures: Some(0),
        profile: "entrust".into(),
        ..webhook("wh_never", &["BAD"])
    };
    let built_in = webhook("wh_built_in", &["BAD"]);
    for record in [&of_profile, &own, &never, &built_in] {
        world.put(record).await;
    }
    world.settle().await;
    let mut disabled_after = BTreeMap::new();
    for n in 1..=8 {
        world.happens(&format!("e{n}"), "BAD").await;
        for record in [&of_profile, &own, &never, &built_in] {
            if world.webhook(record.id.as_str()).await.record.state == "disabled" {
                disabled_after.entry(record.id.to_string()).or_insert(n);
            }
        }
    }
    assert_eq!(disabled_after, BTreeMap::from([("wh_profile".to_owned(), 3), ("wh_own".to_owned(), 5)]));
    let health = world.t.store.health("wh_never").await.unwrap();
    assert_eq!((health.streak.given_up, health.streak.failed_attempts), (8, 8));
    assert!(health.streak.since < health.streak.last_at && health.last_success_at.is_none());
}

/// A webhook over days: attempts at these hours, each with a class, each told twice.
struct Days {
    world: World,
    hour: i64,
    n: u64,
}

impl Days {
    async fn of(record: &WebhookRecord) -> Self {
        let mut world = World::new(|_, _| End::Delivered).await;
        world.put(record).await;
        world.put(&webhook("wh_owner", &[WEBHOOK_FAILING, WEBHOOK_DISABLED])).await;
        world.settle().await;
        Self { world, hour: 0, n: 0 }
    }

    /// One attempt of a new event's delivery in this series; nothing has ended.
    async fn attempt(&mut self, hours: i64, series: u32, id: &str, class: &str) {
        self.hour += hours;
        self.n += 1;
        let (tenant, event) = (TenantId::default_tenant(), EventId::from_trusted(format!("{id}{}", self.n)));
        let webhook = WebhookId::from_trusted("wh_1");
        let delivery = DeliveryId::of(&tenant, &event, &webhook);
        let at = Timestamp::from_millis(START + 60_000 + self.hour * 3_600_000);
        let event = Fact::Event(EventFact {
            tenant,
            event_id: event,
            at,
            fate: EventFate::Routed(vec![Owed { delivery: delivery.clone(), webhook: webhook.clone() }]),
            event: None,
            marks: Vec::new(),
        });
        let attempt = Fact::Attempt(AttemptFact {
            delivery,
            series,
            n: 1,
            webhook,
            at,
            duration_ms: 5,
            url: "".into(),
            class: class.to_owned().into(),
            status: None,
            error: None,
            response_body: None,
            response_headers: Vec::new(),
            next_at: None,
            worker: "worker".into(),
            repeats: 0,
            times: RequestTimes::default(),
            remote: None,
        });
        self.world.now = at;
        self.world.journal("worker", vec![event, attempt], Vec::new()).await;
        self.world.settle().await;
    }

    async fn state(&self) -> String {
        self.world.webhook("wh_1").await.record.state
    }

    fn said(&self) -> (usize, usize) {
        (self.world.said(WEBHOOK_FAILING), self.world.said(WEBHOOK_DISABLED))
    }
}

#[tokio::test]
async fn a_webhook_that_fails_for_days_is_disabled_before_anything_is_given_up() {
    let mut days = Days::of(&webhook("wh_1", &["A", WEBHOOK_FAILING, WEBHOOK_DISABLED])).await;
    for _ in 0..20 {
        days.attempt(6, 1, "e", "timeout").await;
    }
    assert_eq!((days.state().await.as_str(), days.said()), ("active", (2, 0)), "warned at 50 and at 90 %");
    let health = days.world.t.store.health("wh_1").await.unwrap();
    assert_eq!((health.streak.failed_attempts, health.streak.given_up), (20, 0));
    days.attempt(6, 1, "e", "timeout").await;
    assert_eq!((days.state().await.as_str(), days.said()), ("disabled", (2, 1)));
    let row = days.world.webhook("wh_1").await;
    assert_eq!(
        row.disabled_reason,
        "nothing has arrived since 2023-11-15T04:14:20.005Z, over 21 attempts; last: timeout"
    );
    let said: Vec<_> = days.world.said.iter().map(|event| &event["data"]).collect();
    let shares: Vec<_> = said.iter().map(|data| (&data["rule"], &data["share_percent"])).collect();
    let window = json!("window");
    assert_eq!(shares, [(&window, &json!(50)), (&window, &json!(90)), (&window, &json!(100))]);
    assert_eq!(said[0]["last"]["class"], "timeout");
    assert_eq!(said[0]["disable_after_ms"], 432_000_000);
    // It asks for these events itself, and was told none of them.
    assert_eq!(
        days.world
            .t
            .rows("SELECT COUNT(*) FROM deliveries WHERE webhook = 'wh_1' AND event_id LIKE 'own_%'")
            .await,
        0
    );
    assert_eq!(days.world.t.rows("SELECT COUNT(*) FROM deliveries WHERE webhook = 'wh_owner'").await, 3);
}

#[tokio::test]
async fn neither_a_blip_nor_time_nor_what_somebody_asked_for_disables_a_webhook() {
    let mut days = Days::of(&webhook("wh_1", &["A"])).await;
    for _ in 0..50 {
        days.attempt(0, 1, "e", "http_5xx").await;
    }
    // Days later there is one failure more: nothing in between says that it went on.
    days.attempt(24 * 6, 1, "e", "http_5xx").await;
    assert_eq!(days.state().await, "active");
    // What was asked for, tests, and our own faults are neither failures nor successes.
    for (series, id, class) in
        [(2, "e", "http_5xx"), (1, "own_test_", "http_5xx"), (1, "e", "internal"), (1, "e", "unknown")]
    {
        for _ in 0..3 {
            days.attempt(24, series, id, class).await;
        }
    }
    for (series, id) in [(2, "e"), (1, "own_test_")] {
        days.attempt(1, series, id, "none").await;
    }
    let health = days.world.t.store.health("wh_1").await.unwrap();
    assert_eq!((health.streak.failed_attempts, health.streak.moments), (51, 2));
    assert_eq!(days.state().await, "active");
    assert_eq!(days.world.t.store.judge_again(days.world.now).await.unwrap(), 0, "time alone says nothing");
    // A success clears it.
    days.attempt(1, 1, "e", "none").await;
    assert!(days.world.t.store.health("wh_1").await.unwrap().streak.is_clean());
}

#[tokio::test]
async fn gone_disables_at_once_unless_somebody_asked_or_everything_is_tried_again() {
    for (series, id, profile, disabled) in [
        (1, "e", "postrider", true),
        (2, "e", "postrider", false),
        (1, "own_test_", "postrider", false),
        (1, "e", "patient", false),
    ] {
        let mut days = Days::of(&webhook("wh_1", &["A"])).await;
        let catalogue = Catalogue {
            schema: 1,
            product: Product { id: "p".into(), name: "P".into(), note: String::new() },
            categories: Vec::new(),
            groups: Vec::new(),
            event_types: vec![TypeEntry::new(EventType::parse("A").unwrap())],
            triggers: Vec::new(),
            profile: Some(ProfileSpec {
                name: "patient".into(),
                retried: postrider_core::outcome::Retried::Everything,
                ..ProfileSpec::default()
            }),
        };
        let mut change = days.world.t.store.change().await.unwrap();
        change.put_catalogue(&TenantId::default_tenant(), &catalogue, days.world.now).await.unwrap();
        change.commit().await.unwrap();
        days.world.put(&WebhookRecord { profile: profile.into(), ..webhook("wh_1", &["A"]) }).await;
        days.attempt(1, series, id, "http_410").await;
        let row = days.world.webhook("wh_1").await;
        assert_eq!(row.record.state == "disabled", disabled, "{series} {id} {profile}");
        if disabled {
            assert_eq!(row.disabled_reason, "the receiver answered 410: it wants no more deliveries");
            assert_eq!((days.said(), &days.world.said[0]["data"]["rule"]), ((0, 1), &json!("gone")));
        }
    }
}

#[tokio::test]
async fn a_shorter_window_counts_at_the_next_look_and_enabling_begins_anew() {
    let record = WebhookRecord { disable_after_ms: Some(0), ..webhook("wh_1", &["A"]) };
    let mut days = Days::of(&record).await;
    for _ in 0..40 {
        days.attempt(6, 1, "e", "dns").await;
    }
    assert_eq!((days.state().await.as_str(), days.said()), ("active", (0, 0)), "0 is never");
    let shorter = WebhookRecord { disable_after_ms: Some(24 * 3_600_000), ..record.clone() };
    days.world.put(&shorter).await;
    days.world.settle().await;
    assert_eq!(days.world.t.store.judge_again(days.world.now).await.unwrap(), 1);
    days.world.settle().await;
    assert_eq!((days.state().await.as_str(), days.said()), ("disabled", (0, 1)));
    let said = &days.world.said.last().unwrap()["data"];
    assert_eq!((&said["last"]["class"], &said["rule"]), (&json!("dns"), &json!("window")));
    assert_eq!(days.world.t.store.judge_again(days.world.now).await.unwrap(), 0, "once");
    days.world.put(&shorter).await;
    assert!(days.world.t.store.health("wh_1").await.unwrap().streak.is_clean());
    assert_eq!(days.state().await, "active");
}

#[tokio::test]
async fn failing_webhooks_are_found_by_an_index() {
    let t = TestStore::new().await;
    let plan: Vec<String> =
        sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", super::super::health::FAILING)))
            .bind("")
            .bind(1)
            .fetch_all(&t.store.readers)
            .await
            .unwrap()
            .iter()
            .map(|row| sqlx::Row::get(row, "detail"))
            .collect();
    let plan = plan.join("; ");
    assert!(plan.contains("webhook_health_failing") && !plan.contains("TEMP B-TREE"), "{plan}");
}
