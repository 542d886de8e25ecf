//! Kills, stops, and a store that does not work for a while.

use std::time::Duration;

use postrider_core::wire::Fact;
use postrider_testkit::eventually;
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};

use crate::{Place, routed};

/// Killed again and again while it records: nothing is lost and nothing counts twice.
#[tokio::test]
async fn kills_between_transactions_lose_nothing() {
    const MESSAGES: u64 = 600;
    let place = Place::new("kills").await;
    let writing = async {
        for n in 0..MESSAGES {
            place.journal("router-1", n, vec![routed(&format!("e{n}"), "wh_1")]).await;
        }
    };
    let killing = async {
        for round in 1..=4u64 {
            let control = place.start().await.ready().await;
            let some = round * MESSAGES / 8;
            control
                .books("some is recorded", |status| status["events"]["routed"].as_u64().unwrap() >= some)
                .await;
            control.kill().await;
        }
    };
    tokio::join!(writing, killing);
    let control = place.start().await.ready().await;
    let books =
        control.books("all of it is recorded", |status| status["events"]["routed"] == json!(MESSAGES)).await;
    assert_eq!((&books["deliveries"]["owed"], &books["drift"]), (&json!(MESSAGES), &json!(0)), "{books:#}");
    control.stop().await;
    let control = place.start().await.ready().await;
    assert_eq!(control.get("/v1/status").await["events"]["routed"], json!(MESSAGES));
    control.stop().await;
}

/// A stop acks what it has recorded and leaves the rest in the queue.
#[tokio::test]
async fn a_stop_is_clean() {
    let place = Place::new("stop").await;
    let control = place.start().await.ready().await;
    for n in 0..200 {
        place.journal("router-1", n, vec![routed(&format!("e{n}"), "wh_1")]).await;
    }
    let base = control.base.clone();
    control.stop().await;
    assert!(reqwest::Client::new().get(base).send().await.is_err(), "the socket is closed");
    let queue = place.session.names().journal();
    let mut left = 0;
    // The broker takes back what was not acked when it sees the connection closed.
    eventually("what is left is back in the queue", async || {
        let before = std::mem::replace(&mut left, place.vhost.queue_depth(&queue).await);
        before == left
    })
    .await;
    let control = place.start().await.ready().await;
    let books = control.books("all of it is recorded", |status| status["events"]["routed"] == 200).await;
    assert_eq!(books["drift"], 0);
    let repeated = control.metric("postrider_recorder_repeated_total");
    assert!(repeated.abs() < f64::EPSILON, "what was recorded was acked: {repeated} came again");
    control.stop().await;
}

/// While the store cannot write, nothing is acked, and control says so.
#[tokio::test]
async fn a_store_that_is_blocked_loses_nothing() {
    let place = Place::new("blocked").await;
    let control = place.start().await.ready().await;
    let mut other = SqliteConnection::connect(&place.store_url()).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let facts: Vec<Fact> = (0..10).map(|n| routed(&format!("e{n}"), "wh_1")).collect();
    place.journal("router-1", 0, facts).await;
    eventually("control says that its store fails", async || control.part("store").is_err()).await;
    assert!(control.metric("postrider_store_up").abs() < f64::EPSILON);
    assert_eq!(control.get("/v1/status").await["events"]["routed"], 0, "reading goes on");
    control.books("the status says it too", |status| status["store"]["up"] == false).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    control.books("all of it is recorded", |status| status["events"]["routed"] == 10).await;
    eventually("control is ready again", async || control.readiness.is_ready()).await;
    assert_eq!(control.get("/v1/status").await["drift"], 0);
    control.stop().await;
}

#[tokio::test]
async fn only_one_control_has_a_store() {
    let place = Place::new("two").await;
    let control = place.start().await.ready().await;
    let second = place.start().await;
    let ended = tokio::time::timeout(Duration::from_secs(10), second.task).await.unwrap().unwrap_err();
    let panic = ended.into_panic();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("InUse"), "{text}");
    assert!(control.readiness.is_ready());
    control.stop().await;
}
