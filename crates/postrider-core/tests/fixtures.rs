//! Real input: every event of the four products is read, every bad message has its reason.

#![allow(clippy::disallowed_methods, reason = "tests read their fixtures")]

use postrider_core::intake::{self, Envelope, Parts};
use postrider_core::{EventId, Timestamp};
use serde::Deserialize;

const NOW: Timestamp = Timestamp::from_millis(1_763_755_200_000);

fn fixtures() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

#[test]
fn every_event_of_the_four_products_is_read() {
    let mut read = 0;
    for product in ["upmind-client", "skillmine-auth", "open-loyalty", "entrust-idaas"] {
        let path = fixtures().join(format!("events/{product}.jsonl"));
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let envelope = Envelope { routing_key: "default", ..Envelope::default() };
            let report = intake::read(envelope, line.as_bytes(), NOW, EventId::from_trusted("made")).unwrap();
            assert_ne!(report.id().as_str(), "made", "every fixture has an id");
            assert!(report.event().is_some());
            read += 1;
        }
    }
    assert_eq!(read, 150);
}

#[test]
fn every_bad_message_has_its_reason() {
    #[derive(Deserialize)]
    struct Index {
        message: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        file: Option<String>,
        content_type: Option<String>,
        content_encoding: Option<String>,
        routing_key: Option<String>,
        reason: String,
    }
    let folder = fixtures().join("bad");
    let index: Index = toml::from_str(&std::fs::read_to_string(folder.join("index.toml")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for message in index.message {
        let Some(file) = message.file else { continue };
        let body = std::fs::read(folder.join(&file)).unwrap();
        let envelope = Envelope {
            routing_key: message.routing_key.as_deref().unwrap_or("default"),
            content_type: message.content_type.as_deref(),
            content_encoding: message.content_encoding.as_deref(),
            ..Envelope::default()
        };
        // As the router reads it.
        let parts = Parts::of(&envelope, &body);
        for (envelope, body) in parts.each(envelope, &body) {
            let reason = match intake::read(envelope, body, NOW, EventId::from_trusted("made")) {
                Ok(report) => format!("taken as {report:?}"),
                Err(refusal) => refusal.reason.as_str().to_owned(),
            };
            if reason != message.reason {
                wrong.push(format!("{file}: expected {}, got {reason}", message.reason));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
