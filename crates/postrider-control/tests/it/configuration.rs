//! What control tells the data plane.

use postrider_broker::config_stream::{ConfigStream, Read};
use postrider_core::directory::{Directory, Lookup};
use postrider_core::intake::{self, Envelope};
use postrider_core::wire::{ConfigKind, ConfigRecord};
use postrider_core::{EventId, EventType, TenantId, Timestamp, WebhookId};
use postrider_testkit::patience;
use serde_json::{Value, json};

use crate::Place;

/// Reads the stream from its beginning until it has given what is looked for.
async fn read_until(
    place: &Place,
    found: impl Fn(&Directory, &[ConfigRecord]) -> bool,
) -> (Directory, Vec<ConfigRecord>) {
    let reading = async {
        let mut stream = ConfigStream::open(&place.session).await.unwrap();
        let (mut directory, mut records) = (Directory::new(), Vec::new());
        while !found(&directory, &records) {
            if let Read::Record(record) = stream.next().await.unwrap() {
                directory.apply(&record);
                records.push(*record);
            }
        }
        (directory, records)
    };
    tokio::time::timeout(patience(), reading).await.expect("the stream gives what was waited for")
}

/// A catalogue with one event type and one trigger.
fn catalogue(product: &str) -> Value {
    json!({
        "schema": 1,
        "product": { "id": product, "name": product },
        "category": [{ "id": format!("{product}-orders"), "label": "Orders" }],
        "event_type": [{ "name": format!("{product}.placed"), "label": "Placed", "aliases": [format!("{product}_placed")],
                         "category": format!("{product}-orders") }],
        "trigger": [{ "action": format!("{product}.checkout"), "emit": [{ "event_type": format!("{product}.placed") }] }],
    })
}

/// A reader knows the types of `shop`, no others, and that others are refused.
fn check_vocabulary(directory: &Directory) {
    let tenant = TenantId::default_tenant();
    let known = |name: &str| directory.type_entry(&tenant, &EventType::parse(name).unwrap());
    assert_eq!(known("shop_placed").unwrap().name.as_str(), "shop.placed");
    assert!(known("temporary.placed").is_none());
    let resolve = |json: &str| {
        let envelope = Envelope {
            routing_key: tenant.as_str(),
            content_type: Some("application/json"),
            ..Envelope::default()
        };
        let now = Timestamp::from_millis(0);
        let report = intake::read(envelope, json.as_bytes(), now, EventId::from_trusted("made")).unwrap();
        directory.resolve(report, None)
    };
    let routed = resolve(r#"{"action":"shop.checkout","id":"a"}"#).unwrap();
    assert_eq!(routed[0].event.event_type.as_str(), "shop.placed");
    let refused = resolve(r#"{"event_type":"temporary.placed"}"#).unwrap_err();
    assert_eq!(refused.reason.as_str(), "unknown_event_type");
}

#[tokio::test]
async fn changes_reach_the_stream_and_a_snapshot_carries_everything_on() {
    let place = Place::new("configuration").await;
    let control = place.start().await.ready().await;
    let made =
        control.webhook(json!({ "api_key": { "in": "header", "name": "X-Key", "value": "canary" } })).await;
    let gone = control.webhook(json!({ "name": "gone" })).await;
    control.post("/v1/tenants", json!({ "id": "acme" })).await;
    let (shop, temporary) = (catalogue("shop"), catalogue("temporary"));
    for (product, given) in [("shop", &shop), ("temporary", &temporary)] {
        let (status, answer) = control.call("PUT", &format!("/v1/catalogues/{product}"), given.clone()).await;
        assert_eq!(status, 201, "{answer}");
    }
    assert_eq!(control.call("DELETE", "/v1/catalogues/temporary", Value::Null).await.0, 204);
    let settings = json!({ "unknown_types": "refuse" });
    assert_eq!(control.call("PATCH", "/v1/settings", settings).await.0, 200);
    let id = |webhook: &Value| WebhookId::from_trusted(webhook["id"].as_str().unwrap());
    let path = format!("/v1/webhooks/{}", id(&gone));
    assert_eq!(control.call("DELETE", &path, Value::Null).await.0, 204);
    let newest = control.get("/v1/status").await["revision"].as_u64().unwrap();

    let (directory, records) = read_until(&place, |directory, _| directory.revision() == newest).await;
    assert!(directory.is_complete());
    assert_eq!(directory.topology().unwrap().shards, 2);
    assert!(matches!(directory.webhook(&id(&gone)), Lookup::Deleted));
    check_vocabulary(&directory);
    let Lookup::Known(webhook) = directory.webhook(&id(&made)) else { panic!("the webhook is known") };
    let credentials = webhook
        .open(
            &postrider_testkit::config::Configuration::master_key(),
            postrider_core::profile::KeyForm::Base64,
        )
        .unwrap();
    assert_eq!(credentials.api_key.unwrap().2.as_str(), "canary");
    let text = records.iter().map(|record| serde_json::to_string(record).unwrap()).collect::<String>();
    let secret = made["secret"].as_str().unwrap();
    assert!(!text.contains("canary") && !text.contains(secret), "secrets travel sealed");
    let revisions: Vec<u64> =
        records.iter().filter(|r| r.kind == ConfigKind::Webhook).map(|record| record.revision).collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
    control.stop().await;

    // The next start writes a snapshot, and the topology right behind it.
    let control = place.start().await.ready().await;
    let whole = |records: &[ConfigRecord]| {
        let marks = records.iter().filter(|record| record.kind == ConfigKind::SnapshotEnd).count();
        marks == 2 && records.last().is_some_and(|record| record.kind == ConfigKind::Topology)
    };
    let (_, records) = read_until(&place, |_, records| whole(records)).await;
    let begin = records.iter().rposition(|record| record.kind == ConfigKind::SnapshotBegin).unwrap();
    let mut directory = Directory::new();
    for record in &records[begin..] {
        directory.apply(record);
    }
    assert!(directory.is_complete());
    assert_eq!((directory.revision(), directory.topology().unwrap().shards), (newest, 2));
    assert!(directory.has_tenant(&TenantId::from_trusted("acme")));
    assert!(matches!(directory.webhook(&id(&made)), Lookup::Known(_)));
    assert!(matches!(directory.webhook(&id(&gone)), Lookup::Deleted), "tombstones stay");
    check_vocabulary(&directory);
    let order: Vec<ConfigKind> = records[begin..].iter().map(|record| record.kind).collect();
    let place_of = |kind| order.iter().position(|other| *other == kind).unwrap();
    assert!(place_of(ConfigKind::Tenant) < place_of(ConfigKind::Catalogue), "{order:?}");
    assert!(place_of(ConfigKind::Catalogue) < place_of(ConfigKind::Webhook), "{order:?}");
    control.stop().await;
}

#[tokio::test]
async fn a_restored_store_is_another_epoch_and_its_changes_count() {
    let place = Place::new("restored").await;
    let control = place.start().await.ready().await;
    let early = control.webhook(json!({ "name": "early" })).await;
    control.stop().await;
    let (store, backup) = (place.dir.path().join("postrider.db"), place.dir.path().join("backup.db"));
    std::fs::copy(&store, &backup).unwrap();

    // Work goes on, and then the backup is put back.
    let control = place.start().await.ready().await;
    let path = format!("/v1/webhooks/{}", early["id"].as_str().unwrap());
    for n in 0..5 {
        assert_eq!(control.call("PATCH", &path, json!({ "name": format!("later {n}") })).await.0, 200);
    }
    let late = control.webhook(json!({ "name": "late" })).await;
    control.stop().await;
    std::fs::copy(&backup, &store).unwrap();
    for leftover in ["postrider.db-wal", "postrider.db-shm"] {
        std::fs::remove_file(place.dir.path().join(leftover)).ok();
    }

    let control = place.start().await.ready().await;
    assert_eq!(control.call("DELETE", &path, Value::Null).await.0, 204);
    let id = |webhook: &Value| WebhookId::from_trusted(webhook["id"].as_str().unwrap());
    let deleted = |directory: &Directory| matches!(directory.webhook(&id(&early)), Lookup::Deleted);
    let (directory, _) = read_until(&place, |directory, _| deleted(directory)).await;
    assert!(
        matches!(directory.webhook(&id(&late)), Lookup::Unknown),
        "what the backup does not know is gone"
    );
    control.stop().await;
}
