//! Every event type of the four products goes through, byte for byte; every bad message is kept and counted.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::workspace_dir;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::system::System;

const PRODUCTS: [(&str, usize); 4] =
    [("upmind-client", 23), ("skillmine-auth", 92), ("open-loyalty", 19), ("entrust-idaas", 16)];

#[derive(Deserialize)]
struct Published {
    event_type: String,
    event_time: Option<String>,
    current_context: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
}

impl Published {
    /// The body that the receiver must get, put together from the bytes that were published.
    fn expected(&self, arrived: &[u8]) -> String {
        let text = |value: &str| serde_json::to_string(value).unwrap();
        let raw = |value: &Option<Box<RawValue>>| {
            value.as_ref().map_or("null".to_owned(), |raw| raw.get().to_owned())
        };
        let time = match &self.event_time {
            Some(time) => time.clone(),
            // The time of arrival, which only the receiver's copy knows.
            None => {
                let arrived: serde_json::Value = serde_json::from_slice(arrived).unwrap();
                let time = arrived["event_time"].as_str().unwrap().to_owned();
                assert!(postrider_core::Timestamp::parse_rfc3339(&time).is_some(), "{time}");
                time
            }
        };
        format!(
            r#"{{"event_time":{},"event_type":{},"current_context":{},"data":{}}}"#,
            text(&time),
            text(&self.event_type),
            raw(&self.current_context),
            raw(&self.data)
        )
    }
}

fn json_message() -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2)
}

#[tokio::test]
async fn one_event_of_every_type_arrives_byte_for_byte() {
    let vhost = Vhost::create(&Broker::shared().await, "catalogue").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    system.webhook("/hook", &json!({})).await;
    system.configured(&router).await;

    let mut published = BTreeMap::new();
    for (product, count) in PRODUCTS {
        let path = workspace_dir().join(format!("tests/fixtures/events/{product}.jsonl"));
        let lines = std::fs::read_to_string(path).unwrap();
        assert_eq!(lines.lines().count(), count, "{product}");
        for line in lines.lines() {
            let event: Published = serde_json::from_str(line).unwrap();
            vhost.publish("postrider.events", "default", line.as_bytes(), json_message()).await;
            published.insert(event.event_type.clone(), event);
        }
    }
    assert_eq!(published.len(), 150);
    let requests = system.receiver.wait_for(150).await;
    for request in &requests {
        let event_type = request.json()["event_type"].as_str().unwrap().to_owned();
        let event = &published[&event_type];
        assert_eq!(String::from_utf8_lossy(&request.body), event.expected(&request.body), "{event_type}");
    }
    system.balanced(150).await;
    let event = system.get("/v1/events/evt-upmind-client-0001").await;
    assert_eq!(event["event_type"], "Client added two factor auth");
    for role in [control, router, worker] {
        role.stop().await;
    }
}

#[tokio::test]
async fn every_bad_message_is_refused_with_its_reason_kept_and_counted() {
    #[derive(Deserialize)]
    struct Index {
        message: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        file: Option<String>,
        generate: Option<String>,
        content_type: Option<String>,
        content_encoding: Option<String>,
        routing_key: Option<String>,
        reason: String,
    }
    let vhost = Vhost::create(&Broker::shared().await, "bad-messages").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    system.webhook("/hook", &json!({})).await;
    system.configured(&router).await;

    let fixtures = workspace_dir().join("tests/fixtures/bad");
    let index: Index =
        toml::from_str(&std::fs::read_to_string(fixtures.join("index.toml")).unwrap()).unwrap();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for message in &index.message {
        let (body, tenant) = match (&message.file, message.generate.as_deref()) {
            (Some(file), _) => (std::fs::read(fixtures.join(file)).unwrap(), "default"),
            (None, Some("too_large")) => (
                format!(r#"{{"event_type":"A","data":"{}"}}"#, "x".repeat(257 * 1024)).into_bytes(),
                "default",
            ),
            (None, Some("unknown_tenant")) => (br#"{"event_type":"A","id":"lost"}"#.to_vec(), "nobody"),
            other => panic!("{other:?}"),
        };
        let mut properties = BasicProperties::default().with_delivery_mode(2);
        if let Some(content_type) = &message.content_type {
            properties = properties.with_content_type(content_type.as_str().into());
        }
        if let Some(encoding) = &message.content_encoding {
            properties = properties.with_content_encoding(encoding.as_str().into());
        }
        let key = message.routing_key.as_deref().unwrap_or(tenant);
        vhost.publish("postrider.events", key, &body, properties).await;
        *expected.entry(message.reason.clone()).or_default() += 1;
    }
    vhost.publish("postrider.events", "default", br#"{"event_type":"A","id":"good"}"#, json_message()).await;
    system.receiver.wait_for(1).await;
    let books = system.balanced(1).await;
    let metrics = router.metrics().await;
    for (reason, count) in &expected {
        let line = format!("postrider_events_refused_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(books["events"]["invalid"], index.message.len() as u64);
    let kept = system.get("/v1/dead-letters?kind=invalid&limit=200").await;
    assert_eq!(kept["items"].as_array().unwrap().len(), index.message.len());
    for role in [control, router, worker] {
        role.stop().await;
    }
}
