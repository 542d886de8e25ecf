//! The profiles of the four catalogues: what their bodies are, for the example of every event type.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use postrider_core::catalogue::Catalogue;
use postrider_core::event::{Event, EventType};
use postrider_core::outcome::{Retried, Success};
use postrider_core::profile::{BUILT_IN, KeyForm, Profile, ProfileSpec, Rotation, Scheme, Shown, Subject};
use postrider_core::wire::RetryRecord;
use postrider_core::{DeliveryId, EventId, TenantId, Timestamp, WebhookId};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

fn catalogue(name: &str) -> (Catalogue, Profile) {
    let path = format!("{}/../../catalogues/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let catalogue: Catalogue = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let profile = Profile::new(catalogue.profile.clone().unwrap()).unwrap();
    (catalogue, profile)
}

#[derive(Deserialize)]
struct Example {
    event_type: EventType,
    event_time: String,
    current_context: Box<RawValue>,
    data: Box<RawValue>,
}

fn event(text: &str) -> Event {
    let example: Example = serde_json::from_str(text).unwrap();
    Event {
        tenant: TenantId::from_trusted("acme"),
        id: EventId::from_trusted("evt_1"),
        event_type: example.event_type,
        event_time: example.event_time.into(),
        current_context: example.current_context.into(),
        data: example.data.into(),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at: Timestamp::default(),
    }
}

fn delivery() -> DeliveryId {
    let (event, webhook) = (EventId::from_trusted("evt_1"), WebhookId::from_trusted("wh_1"));
    DeliveryId::of(&TenantId::from_trusted("acme"), &event, &webhook)
}

/// The body of the example of every event type, with that example.
fn bodies(name: &str) -> Vec<(String, Value, String)> {
    let (catalogue, profile) = catalogue(name);
    let delivery = delivery();
    let webhook = WebhookId::from_trusted("wh_1");
    let of = |entry: &postrider_core::catalogue::TypeEntry| {
        let example = entry.example.as_ref().unwrap();
        let event = event(example);
        let subject = Subject { event: &event, entry: Some(entry), delivery: &delivery, webhook: &webhook };
        let body = String::from_utf8(profile.body(None, &subject)).unwrap();
        (entry.name.to_string(), serde_json::from_str(example).unwrap(), body)
    };
    catalogue.event_types.iter().map(of).collect()
}

/// The members of a body, in the order in which they stand there.
fn members(body: &str) -> Vec<(String, Box<RawValue>)> {
    struct InOrder(Vec<(String, Box<RawValue>)>);
    impl<'de> Deserialize<'de> for InOrder {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Members;
            impl<'de> serde::de::Visitor<'de> for Members {
                type Value = InOrder;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                    let mut members = Vec::new();
                    while let Some(member) = map.next_entry()? {
                        members.push(member);
                    }
                    Ok(InOrder(members))
                }
            }
            deserializer.deserialize_map(Members)
        }
    }
    serde_json::from_str::<InOrder>(body).unwrap().0
}

fn names(body: &str) -> Vec<String> {
    members(body).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn upmind_has_the_fourteen_members_of_v1() {
    let bodies = bodies("upmind-client");
    assert_eq!(bodies.len(), 23);
    for (name, example, body) in &bodies {
        assert_eq!(
            names(body),
            [
                "webhook_event_id",
                "event_datetime",
                "version",
                "hook_category",
                "hook_code",
                "hook_log_id",
                "object_type",
                "object_id",
                "object",
                "actor_type",
                "actor_id",
                "actor",
                "brand_id",
                "brand"
            ]
        );
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["webhook_event_id"], "evt_1");
        assert_eq!(value["hook_log_id"], delivery().uuid());
        assert_eq!((&value["version"], &value["hook_category"]), (&"V1".into(), &"client".into()));
        for (member, of) in [
            ("object_type", "data"),
            ("object_id", "data"),
            ("object", "data"),
            ("actor_type", "current_context"),
            ("actor_id", "current_context"),
            ("actor", "current_context"),
            ("brand_id", "current_context"),
            ("brand", "current_context"),
        ] {
            assert_eq!(value[member], example[of][member], "{name}: {member}");
            assert!(member.starts_with("actor") || !value[member].is_null(), "{name}: {member}");
        }
        let time = example["event_time"].as_str().unwrap().replace('T', " ").replace('Z', "");
        assert_eq!(value["event_datetime"], time, "{name}");
        assert_eq!(value["hook_code"].is_null(), name != "Staff created unverified client", "{name}");
    }
    assert!(bodies.iter().any(|(_, example, _)| example["current_context"]["actor"].is_null()));

    let (_, profile) = catalogue("upmind-client");
    let spec = profile.spec();
    assert_eq!(
        (spec.name.as_str(), spec.success, spec.retried),
        ("upmind", Success::Only200, Retried::Default)
    );
    assert_eq!((spec.signature.scheme, spec.signature.key), (Scheme::BodyHex, KeyForm::Text));
    assert_eq!(spec.signature.header.as_deref(), Some("X-Webhook-Signature"));
    assert_eq!((spec.secret.shown, spec.secret.rotation), (Shown::Always, Rotation::AtOnce));
    assert_eq!(profile.retry(&RetryRecord::default()).max_attempts(), 12);
}

#[test]
fn skillmine_has_four_members_and_a_time_like_javascripts() {
    let bodies = bodies("skillmine-auth");
    assert_eq!(bodies.len(), 92);
    for (name, example, body) in &bodies {
        assert_eq!(names(body), ["event_time", "event_type", "current_context", "data"], "{name}");
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["event_time"], example["event_time"].as_str().unwrap().replace('Z', ".000Z"));
        assert_eq!(value["event_type"], name.as_str());
        assert_eq!(
            (&value["current_context"], &value["data"]),
            (&example["current_context"], &example["data"])
        );
    }
    let (_, profile) = catalogue("skillmine-auth");
    let spec = profile.spec();
    assert_eq!((spec.name.as_str(), spec.success), ("skillmine", Success::Only200));
    assert_eq!((spec.retried, spec.signature.scheme), (Retried::Everything, Scheme::StandardWebhooks));
    let policy = profile.retry(&RetryRecord::default());
    let minutes: Vec<u64> = (1..policy.max_attempts()).map(|n| policy.interval_ms(n) / 60_000).collect();
    assert_eq!(minutes, [1, 5, 10]);
}

#[test]
fn open_loyalty_has_type_and_data() {
    let bodies = bodies("open-loyalty");
    assert_eq!(bodies.len(), 19);
    for (name, example, body) in &bodies {
        assert_eq!(names(body), ["type", "data"], "{name}");
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&value["type"], &value["data"]), (&Value::from(name.as_str()), &example["data"]));
    }
    let (_, profile) = catalogue("open-loyalty");
    let spec = profile.spec();
    assert_eq!((spec.name.as_str(), spec.success), ("open-loyalty", Success::Below400));
    assert_eq!((spec.retried, spec.signature.scheme), (Retried::Everything, Scheme::Canonical));
    assert_eq!((spec.signature.key, spec.secret.rotation), (KeyForm::TextAfterPrefix, Rotation::AtOnce));
    assert_eq!((spec.secret.shown, spec.secret.rotation_interval_secs), (Shown::Once, Some(300)));
    assert_eq!(profile.retry(&RetryRecord::default()).max_attempts(), 2);
}

#[test]
fn entrust_has_five_members_and_an_id_of_the_delivery() {
    let bodies = bodies("entrust-idaas");
    assert_eq!(bodies.len(), 16);
    for (name, example, body) in &bodies {
        assert_eq!(names(body), ["id", "type", "accountId", "eventTime", "data"], "{name}");
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["id"], delivery().uuid());
        assert_eq!(value["type"], name.as_str());
        assert_eq!(value["accountId"], example["current_context"]["accountId"]);
        assert_eq!((&value["eventTime"], &value["data"]), (&example["event_time"], &example["data"]));
    }
    let (_, profile) = catalogue("entrust-idaas");
    let plain = event(
        r#"{"event_type":"user.created","event_time":"2026-11-21T20:00:00Z","current_context":null,"data":[]}"#,
    );
    let (delivery, webhook) = (delivery(), WebhookId::from_trusted("wh_1"));
    let subject = Subject { event: &plain, entry: None, delivery: &delivery, webhook: &webhook };
    assert_eq!(
        String::from_utf8(profile.body(None, &subject)).unwrap(),
        format!(
            r#"{{"id":"{}","type":"user.created","accountId":"acme","eventTime":"2026-11-21T20:00:00Z","data":[]}}"#,
            delivery.uuid()
        )
    );
    let spec = profile.spec();
    assert_eq!((spec.name.as_str(), spec.success), ("entrust", Success::Any2xx));
    assert_eq!((spec.retried, spec.signature.scheme), (Retried::ServerErrors, Scheme::HttpMessage));
    assert_eq!((spec.timeout_ms, spec.https_only), (Some(3000), true));
    assert_eq!((spec.disable_after_failures, spec.max_active_webhooks), (Some(100), Some(20)));
    assert_eq!((spec.secret.shown, spec.secret.rotation), (Shown::Once, Rotation::AtOnce));
    let policy = profile.retry(&RetryRecord::default());
    assert_eq!((policy.max_attempts(), policy.interval_ms(1), policy.interval_ms(2)), (3, 2000, 4000));
}

/// The tables of `docs/profiles.md` name every member and header of every profile, in order, and no others.
#[test]
fn the_documentation_lists_every_member() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/profiles.md");
    let document = std::fs::read_to_string(path).unwrap();
    let products = ["upmind-client", "skillmine-auth", "open-loyalty", "entrust-idaas"];
    let built_in = BUILT_IN.iter().map(|name| Profile::built_in(name).unwrap());
    for profile in built_in.chain(products.iter().map(|product| catalogue(product).1)) {
        let spec = profile.spec();
        let heading = format!("\n### `{}`\n", spec.name);
        let section = document.split(&heading).nth(1).unwrap_or_else(|| panic!("{heading}"));
        let section = section.split("\n##").next().unwrap();
        let rows: Vec<&str> =
            section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let members: Vec<&str> =
            spec.members.iter().chain(&spec.headers).map(|member| member.name.as_str()).collect();
        assert_eq!(rows, members, "{}", spec.name);
        assert!(document.contains(&format!("\n| `{}` | ", spec.name)), "{} is in the first table", spec.name);
    }
}

/// What the documentation shows is a profile, and the members of it that can be set are all there.
#[test]
fn the_documented_example_is_a_profile() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/profiles.md");
    let document = std::fs::read_to_string(path).unwrap();
    let example = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let table: toml::Table = toml::from_str(example).unwrap();
    let spec: ProfileSpec = table["profile"].clone().try_into().unwrap();
    let profile = Profile::new(spec).unwrap();
    assert!(profile.has_version("1") && profile.has_version("2"));
    let written = serde_json::to_value(profile.spec()).unwrap();
    for (member, value) in table["profile"].as_table().unwrap() {
        assert!(written.get(member).is_some(), "{member} = {value} is no member of a profile");
    }
}
