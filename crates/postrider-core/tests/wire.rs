//! What crosses the broker is read by every release: golden files of an earlier one and of this one.
//!
//! `tests/fixtures/wire/v1/earlier` is as an earlier state wrote it and is never written again. `current` is one of each
//! message with every member, as this release writes it, byte for byte: a test that fails here says that the wire has
//! changed. When the change is meant, and adds optional members alone, `POSTRIDER_GOLDEN=write` writes the files anew.

#![allow(clippy::disallowed_methods, reason = "tests read their fixtures")]
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::path::PathBuf;
use std::sync::Arc;

use postrider_core::books::End;
use postrider_core::directory::{Applied, Directory};
use postrider_core::event;
use postrider_core::wire::{
    self, ApiKeyRecord, AttemptFact, CancellationRecord, Cancelled, CatalogueRecord, ConfigKind,
    ConfigRecord, DeadMessage, DeliveryMessage, DeliveryRecord, DoneFact, EventFact, EventFate, EventRecord,
    Fact, HeldFact, JournalMessage, Owed, RequestTimes, RetryRecord, SCHEMA, SchemaMode, SecretRecord,
    TenantRecord, TenantSettings, TopologyRecord, UnknownTypes, WebhookRecord, WireError, Work,
};
use postrider_core::{DeliveryId, Epoch, EventId, EventType, TenantId, Timestamp, WebhookId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

fn folder(which: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wire/v1").join(which)
}

/// The files of a folder, by name.
fn files(which: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder(which))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap().trim_end().to_owned())
        })
        .collect();
    files.sort();
    files
}

/// Reads a file as what its name says, and writes it again.
fn again(name: &str, text: &str) -> Result<String, WireError> {
    fn pass<T: DeserializeOwned + Serialize>(text: &str) -> Result<String, WireError> {
        let message: T = wire::decode(text.as_bytes())?;
        Ok(String::from_utf8(wire::encode(&message)).unwrap())
    }
    /// A configuration record, and what is in it.
    fn record<T: DeserializeOwned + Serialize>(text: &str) -> Result<String, WireError> {
        let record: ConfigRecord = wire::decode(text.as_bytes())?;
        let body: T = serde_json::from_str(record.body.as_ref().map_or("null", |body| body.get()))?;
        let body = serde_json::value::to_raw_value(&body)?;
        Ok(String::from_utf8(wire::encode(&ConfigRecord { body: Some(body), ..record })).unwrap())
    }
    match name {
        "delivery" | "delivery_batch" => pass::<DeliveryMessage>(text),
        "journal_router" | "journal_worker" => pass::<JournalMessage>(text),
        "dead" => pass::<DeadMessage>(text),
        "config_tenant" => record::<TenantRecord>(text),
        "config_catalogue" => record::<CatalogueRecord>(text),
        "config_webhook" | "config_webhook_full" => record::<WebhookRecord>(text),
        "config_cancellation" | "config_cancellation_matching" => record::<CancellationRecord>(text),
        "config_topology" => record::<TopologyRecord>(text),
        "config_deleted" | "config_snapshot_begin" | "config_snapshot_end" => pass::<ConfigRecord>(text),
        other => panic!("no message is called {other}"),
    }
}

fn id(text: &str) -> WebhookId {
    WebhookId::from_trusted(text)
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_763_755_200_000 + ms)
}

/// One of each, with every member that there is: a new member does not compile here until it has a value.
fn current() -> Vec<(&'static str, Vec<u8>)> {
    let tenant = TenantId::default_tenant();
    let epoch = Epoch::from_trusted("ep_1");
    let json = |text: &str| Arc::<RawValue>::from(RawValue::from_string(text.to_owned()).unwrap());
    let event = Arc::new(EventRecord {
        tenant: tenant.clone(),
        id: EventId::from_trusted("evt_1"),
        event_type: EventType::parse("USER_CREATED").unwrap(),
        time: "2026-11-21T20:00:00Z".into(),
        context: json(r#"{ "ip" : "192.0.2.7" }"#),
        data: json(r#"{"n":1.0}"#),
        key: Some("user-1".into()),
        correlation_id: Some("c1".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        accepted_at: at(123),
    });
    let bare = Arc::new(EventRecord {
        id: EventId::from_trusted("evt_2"),
        context: event::null(),
        data: event::null(),
        key: None,
        correlation_id: None,
        traceparent: None,
        ..(*event).clone()
    });
    let delivery = DeliveryRecord {
        id: DeliveryId::of(&tenant, &event.id, &id("wh_1")),
        webhook: id("wh_1"),
        revision: 7,
        epoch: epoch.clone(),
        series: 2,
        attempt: 3,
        born: at(123),
        due: Some(at(5_123)),
        crashes: 1,
        unknown_since: Some(at(200)),
        parked: 4,
        asked: true,
        test: true,
    };
    let attempt = AttemptFact {
        delivery: delivery.id.clone(),
        series: 2,
        n: 3,
        webhook: id("wh_1"),
        at: at(5_130),
        duration_ms: 12,
        url: "https://example.com/hooks".into(),
        class: "http_5xx".into(),
        status: Some(503),
        error: Some("the receiver answered 503".into()),
        response_body: Some("busy".into()),
        response_headers: vec![("retry-after".into(), "5".into())],
        next_at: Some(at(10_000)),
        worker: "worker-1".into(),
        repeats: 2,
        times: RequestTimes { dns_ms: Some(2), connect_ms: Some(5), first_byte_ms: Some(11) },
        remote: Some("192.0.2.7".parse().unwrap()),
    };
    let done = DoneFact {
        delivery: delivery.id.clone(),
        series: 2,
        webhook: id("wh_1"),
        end: End::Dead,
        reason: "exhausted".into(),
        attempts: 3,
        at: at(5_142),
        repeats: 1,
    };
    let held = HeldFact {
        delivery: delivery.id.clone(),
        series: 2,
        webhook: id("wh_1"),
        attempt: 3,
        at: at(5_142),
        repeats: 1,
    };
    let fact = |fate, event| {
        let (tenant, event_id) = (tenant.clone(), EventId::from_trusted("evt_1"));
        Fact::Event(EventFact { tenant, event_id, at: at(123), fate, event, marks: vec!["schema".into()] })
    };
    let owed = Owed { delivery: delivery.id.clone(), webhook: id("wh_1") };
    let refused = EventFate::Invalid { reason: "not_json".into(), detail: "expected value".into() };
    let journal = |writer: &str, duplicates, facts| {
        wire::encode(&JournalMessage { schema: SCHEMA, writer: writer.into(), first: 40, duplicates, facts })
    };
    let router = vec![
        fact(EventFate::Routed(vec![owed]), Some(event.clone())),
        fact(EventFate::Unmatched, None),
        fact(refused, None),
    ];
    let worker = vec![Fact::Attempt(attempt), Fact::Done(done), Fact::Held(held)];
    let work = vec![
        Work { event: event.clone(), to: vec![delivery.clone()] },
        Work { event: bare, to: vec![delivery.clone()] },
    ];
    let dead = DeadMessage {
        schema: SCHEMA,
        event: event.clone(),
        delivery: delivery.clone(),
        reason: "exhausted".into(),
        class: "http_5xx".into(),
        at: at(5_142),
    };
    let settings = TenantSettings {
        unknown_types: UnknownTypes::Refuse,
        schemas: SchemaMode::Warn,
        max_in_flight: Some(100),
        rate_per_second: Some(50),
    };
    let catalogue = serde_json::from_str(
        r#"{"schema":1,"product":{"id":"loyalty","name":"Loyalty"},
            "category":[{"id":"points","label":"Points"}],
            "group":[{"id":"balance","category":"points","label":"Balance"}],
            "event_type":[{"name":"PointsChanged","label":"Points","category":"points","group":"balance"}],
            "trigger":[{"action":"points.moved","when":"data.n > 0","emit":[{"event_type":"PointsChanged"}]}]}"#,
    );
    let series = Cancelled::Series { delivery: delivery.id.clone(), series: 2 };
    let matching = Cancelled::Matching {
        webhook: Some(id("wh_1")),
        event_type: Some(EventType::parse("USER_CREATED").unwrap()),
        born_since: Some(at(0)),
        born_before: at(10),
    };
    let cancellation = |what| CancellationRecord { tenant: tenant.clone(), at: at(9), what };
    let (series, matching) = (cancellation(series), cancellation(matching));
    let sealed = |name: &str| format!("s1.00000000.{name}");
    let webhook = WebhookRecord {
        id: id("wh_1"),
        tenant: tenant.clone(),
        name: "billing-prod".into(),
        url: "https://example.com/hooks".into(),
        profile: "postrider".into(),
        payload_version: Some("2".into()),
        all: true,
        event_types: [EventType::parse("USER_CREATED").unwrap()].into(),
        groups: ["balance".to_owned()].into(),
        categories: ["points".to_owned()].into(),
        filter: Some("data.n > 0".into()),
        unsigned: true,
        secrets: vec![
            SecretRecord::current(sealed("AAAA")),
            SecretRecord { value: sealed("BBBB"), until: Some(at(1_000)) },
        ],
        secret_version: 2,
        api_key: Some(ApiKeyRecord {
            place: "header".into(),
            name: "X-API-Key".into(),
            value: sealed("CCCC"),
        }),
        auth: Some(sealed("DDDD")),
        tls: Some(sealed("EEEE")),
        headers: Some(sealed("FFFF")),
        active_from: Some(at(0)),
        expires_at: Some(at(9_000)),
        retry: RetryRecord {
            initial_ms: Some(5_000),
            factor: Some(4.0),
            max_interval_ms: Some(60_000),
            max_attempts: Some(12),
            max_age_ms: Some(259_200_000),
            jitter: Some(0.2),
            schedule_ms: Some(vec![60_000]),
        },
        timeout_ms: Some(15_000),
        disable_after_failures: Some(100),
        disable_after_ms: Some(432_000_000),
        max_in_flight: 10,
        rate_per_second: Some(50),
        state: "active".into(),
    };
    let tenant_record = TenantRecord { id: tenant.clone(), settings };
    let catalogue = CatalogueRecord { tenant: tenant.clone(), catalogue: catalogue.unwrap() };
    let topology = TopologyRecord { shards: 2, most_shards: 4 };
    let bare = |kind, id| wire::encode(&ConfigRecord::bare(&epoch, 9, kind, id));
    vec![
        ("delivery", wire::encode(&DeliveryMessage::single(event, delivery))),
        ("delivery_batch", wire::encode(&DeliveryMessage { schema: SCHEMA, work })),
        ("journal_router", journal("router-1", 3, router)),
        ("journal_worker", journal("worker-1", 0, worker)),
        ("dead", wire::encode(&dead)),
        ("config_tenant", config(&epoch, ConfigKind::Tenant, "default", &tenant_record)),
        ("config_catalogue", config(&epoch, ConfigKind::Catalogue, "default/loyalty", &catalogue)),
        ("config_webhook", config(&epoch, ConfigKind::Webhook, "wh_1", &webhook)),
        ("config_cancellation", config(&epoch, ConfigKind::Cancellation, "cnl_1", &series)),
        ("config_cancellation_matching", config(&epoch, ConfigKind::Cancellation, "cnl_2", &matching)),
        ("config_topology", config(&Epoch::from_trusted(""), ConfigKind::Topology, "topology", &topology)),
        ("config_deleted", bare(ConfigKind::Webhook, "wh_1")),
        ("config_snapshot_begin", bare(ConfigKind::SnapshotBegin, "")),
        ("config_snapshot_end", bare(ConfigKind::SnapshotEnd, "")),
    ]
}

fn config<T: Serialize>(epoch: &Epoch, kind: ConfigKind, id: &str, body: &T) -> Vec<u8> {
    wire::encode(&ConfigRecord::of(epoch, 7, kind, id, body))
}

#[test]
fn what_this_release_writes_is_known_byte_for_byte() {
    if std::env::var("POSTRIDER_GOLDEN").is_ok_and(|value| value == "write") {
        for (name, bytes) in current() {
            std::fs::write(folder("current").join(format!("{name}.json")), [&bytes[..], b"\n"].concat())
                .unwrap();
        }
    }
    let mut written: Vec<(String, String)> = current()
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), String::from_utf8(bytes).unwrap()))
        .collect();
    written.sort();
    let golden = files("current");
    let names = |files: &[(String, String)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&written), names(&golden));
    for ((name, now), (_, golden)) in written.iter().zip(&golden) {
        assert_eq!(
            now, golden,
            "{name} is written otherwise than before; if that is meant, and older releases can still read it, run \
             this test once with POSTRIDER_GOLDEN=write"
        );
    }
}

#[test]
fn what_an_earlier_release_wrote_is_read_and_nothing_of_it_is_lost() {
    let earlier = files("earlier");
    assert!(earlier.len() >= 12, "{} files", earlier.len());
    for (name, text) in earlier {
        let again = again(&name, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again, text, "{name}");
    }
}

#[test]
fn what_this_release_writes_it_reads() {
    for (name, text) in files("current") {
        let again = again(&name, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again, text, "{name}");
    }
}

/// Puts a member that nobody knows into every object that is a record and not the name of a variant.
fn with_unknown_members(value: &mut Value) -> usize {
    const VARIANTS: [&str; 8] =
        ["event", "attempt", "done", "held", "routed", "invalid", "series", "matching"];
    match value {
        Value::Array(values) => values.iter_mut().map(with_unknown_members).sum(),
        Value::Object(members) => {
            let inner: usize = members
                .iter_mut()
                // What upstream put there is anything.
                .filter(|(name, _)| !matches!(name.as_str(), "context" | "data"))
                .map(|(_, value)| with_unknown_members(value))
                .sum();
            let variant = members.len() == 1 && members.keys().all(|name| VARIANTS.contains(&name.as_str()));
            if variant {
                return inner;
            }
            members.insert("of_a_newer_release".to_owned(), serde_json::json!({ "phase": ["full", 1] }));
            inner + 1
        }
        _ => 0,
    }
}

#[test]
fn members_of_a_newer_release_are_ignored() {
    for (name, text) in files("earlier").into_iter().chain(files("current")) {
        let mut value: Value = serde_json::from_str(&text).unwrap();
        assert!(with_unknown_members(&mut value) > 0, "{name}");
        let newer = value.to_string();
        let read = again(&name, &newer).unwrap_or_else(|error| panic!("{name}: {error}: {newer}"));
        let known: Value = serde_json::from_str(&read).unwrap();
        if name != "config_catalogue" && !name.starts_with("config_") {
            assert_eq!(known, serde_json::from_str::<Value>(&text).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_newer_schema_is_never_taken_for_damage() {
    for (name, text) in files("current") {
        let newer = text.replacen("\"schema\":1", "\"schema\":2", 1);
        assert!(matches!(again(&name, &newer), Err(WireError::UnknownSchema(2))), "{name}");
    }
}

#[test]
fn a_kind_of_record_that_is_not_known_is_skipped() {
    let mut directory = Directory::default();
    for (name, text) in files("current").into_iter().filter(|(name, _)| name.starts_with("config_webhook")) {
        let newer = text.replacen("\"kind\":\"webhook\"", "\"kind\":\"moon\"", 1);
        let record: ConfigRecord = wire::decode(newer.as_bytes()).unwrap();
        assert_eq!(record.kind, ConfigKind::Other, "{name}");
        assert_eq!(directory.apply(&record), Applied::Unchanged, "{name}");
        assert!(directory.unreadable().is_none(), "{name}");
    }
}
