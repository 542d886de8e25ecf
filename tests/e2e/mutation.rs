//! The books can fail: a fact, a delivery, a believed confirm that is lost on purpose shows as drift.
//!
//! The loss is a fault of debug builds (`POSTRIDER_FAULT`): the publish is not made, and its confirm is believed.

use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Answer, eventually};
use serde_json::{Value, json};

use crate::system::System;

/// Sends five events through a system whose router or worker has this fault, and returns the books at rest.
async fn books_with(name: &str, faulty: &str, fault: &str, answers: &[Answer]) -> Value {
    let vhost = Vhost::create(&Broker::shared().await, name).await;
    let system = System::new(vhost.url()).await;
    let control = system.start("control").ready().await;
    let start = |role: &str| match role == faulty {
        true => system.start_with(role, &[("POSTRIDER_FAULT", fault)]),
        false => system.start(role),
    };
    let roles = [start("router").ready().await, start("worker").ready().await];
    system.webhook("/hook", &json!({ "timeout_ms": 1000 })).await;
    system.receiver.answer("/hook", answers.to_vec());
    for n in 0..5 {
        system.post("/v1/events", &json!({ "event_type": "A", "id": format!("e{n}") })).await;
        // One after the other, so that each makes messages of its own.
        eventually("the event is in the books", async || {
            system.status().await["events"]["accepted"].as_u64().is_some_and(|accepted| accepted > n)
        })
        .await;
    }
    let books = system.drifted().await;
    for role in roles.into_iter().chain([control]) {
        role.stop().await;
    }
    books
}

#[tokio::test]
async fn a_lost_fact_shows() {
    let books = books_with("lost-fact", "worker", "lose-publish:journal:2", &[Answer::Status(200)]).await;
    assert_ne!(books["drift_parts"]["missing_facts"], 0, "{books:#}");
    assert_ne!(books["drift_parts"]["at_rest"], 0, "{books:#}");
}

#[tokio::test]
async fn a_lost_delivery_shows() {
    let books =
        books_with("lost-delivery", "router", "lose-publish:deliveries:2", &[Answer::Status(200)]).await;
    assert_ne!(books["drift_parts"]["at_rest"], 0, "{books:#}");
}

#[tokio::test]
async fn a_confirm_that_was_believed_and_never_came_shows() {
    let answers = [Answer::Status(503), Answer::Status(200)];
    let books = books_with("lost-confirm", "worker", "lose-publish:delay:1", &answers).await;
    assert_eq!(books["drift_parts"]["at_rest"], 1, "{books:#}");
    assert_eq!(books["deliveries"]["pending"], 1, "{books:#}");
}
