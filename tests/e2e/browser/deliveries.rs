//! The list of deliveries: filters, older pages, and what is done to all that match.

use postrider_testkit::{Answer, eventually};
use serde_json::{Value, json};

use super::{Desk, LOGIN};
use crate::browser::chromium::named;

const ROWS: &str = "[data-testid=deliveries] tbody tr";
const OLDER: &str = "[data-testid=older]";

/// A webhook whose receiver refuses, and so many deliveries that were given up.
async fn give_up(desk: &Desk, count: usize) {
    desk.system.webhook("/hook", &json!({ "retry": { "max_attempts": 1 } })).await;
    desk.system.receiver.answer("/hook", [Answer::Status(500)]);
    let event = |n| json!({ "event_type": LOGIN, "id": format!("dead-{n}") });
    desk.system.post("/v1/events", &(0..count).map(event).collect::<Value>()).await;
    let books = desk.system.at_rest().await;
    assert_eq!(books["deliveries"]["dead"], count, "{books:#}");
}

#[tokio::test]
async fn deliveries_are_filtered_and_followed_to_older_ones() {
    let Some(desk) = Desk::logged_in("console-list").await else { return };
    give_up(&desk, 60).await;
    let Desk { browser, .. } = &desk;

    browser.open("/deliveries").await;
    browser.click(&named("Dead")).await;
    browser.arrives_at("/deliveries?state=dead").await;
    assert_eq!(browser.count(ROWS).await, 50);
    browser.click(OLDER).await;
    eventually("ten older ones are listed", async || browser.count(ROWS).await == 10).await;
    assert_eq!(browser.count(OLDER).await, 0, "these are the oldest");
    browser.click(&named("← Newest")).await;
    browser.arrives_at("/deliveries?state=dead").await;

    // Filters are in the address, beside the state that was chosen before.
    browser.fill("input[name=event_type]", LOGIN).await;
    browser.choose("select[name=range]", "1h").await;
    browser.click("[data-testid=apply]").await;
    eventually("the filters are in the address", async || {
        let place = browser.place().await;
        ["state=dead", "event_type=USER_LOGIN", "range=1h"].iter().all(|part| place.contains(part))
    })
    .await;
    assert_eq!(browser.count(ROWS).await, 50);
    browser.click("a[aria-label=\"Remove event type: USER_LOGIN\"]").await;
    browser.arrives_at("/deliveries?state=dead&range=1h").await;

    browser.fill("input[name=event_type]", "NONE").await;
    browser.click("[data-testid=apply]").await;
    browser.sees("[data-testid=no-match]").await;
    browser.click(&named("Clear")).await;
    browser.arrives_at("/deliveries").await;

    browser.open("/deliveries?since=yesterday").await;
    browser.reads("[data-testid=refused]", "since").await;
}

#[tokio::test]
async fn all_that_match_are_redelivered_over_several_pages() {
    let Some(desk) = Desk::logged_in("console-bulk").await else { return };
    give_up(&desk, 60).await;
    let Desk { browser, system, .. } = &desk;
    system.receiver.answer("/hook", [Answer::Status(200)]);
    browser.refreshes_every(2).await;

    browser.open("/deliveries?state=dead").await;
    browser.click("[data-testid=redeliver-matching]").await;
    // The plan says the number; nothing is sent before somebody has seen it.
    browser.reads("h1", "60 deliveries").await;
    assert_eq!(system.receiver.count(), 60, "nothing was sent again yet");
    browser.click("[data-testid=start]").await;
    browser.reads("[data-testid=state]", "Done").await;
    browser.picture("job-finished").await;

    let books = system.at_rest().await;
    assert_eq!(books["deliveries"]["delivered"], 60, "{books:#}");
    assert_eq!(books["deliveries"]["dead_unresolved"], 0, "{books:#}");
    browser.open("/deliveries?state=dead").await;
    browser.sees("[data-testid=no-match]").await;
    browser.open("/deliveries?state=delivered").await;
    assert_eq!(browser.count(ROWS).await, 50);
    browser.click(OLDER).await;
    eventually("ten older ones are listed", async || browser.count(ROWS).await == 10).await;
}

#[tokio::test]
async fn all_that_match_are_called_off() {
    let Some(desk) = Desk::logged_in("console-cancel").await else { return };
    let Desk { browser, system, .. } = &desk;
    // Three wait for their next attempt, three are held; those of another type are none of it.
    let slow = json!({ "retry": { "schedule_ms": [6_000, 6_000, 6_000, 6_000], "jitter": 0.0 }, "subscription": { "event_types": [LOGIN] } });
    system.webhook("/slow", &slow).await;
    system.receiver.answer("/slow", [Answer::Status(503)]);
    let (held, _) = system.webhook("/held", &json!({ "state": "paused" })).await;
    for (n, event_type) in [LOGIN, LOGIN, LOGIN, "OTHER"].into_iter().enumerate() {
        desk.send(event_type, &format!("off-{n}")).await;
    }
    let pending = async || system.status().await["deliveries"]["pending"] == 7;
    eventually("seven deliveries wait", pending).await;
    eventually("each was tried", async || system.receiver.count() >= 3).await;

    browser.open(&format!("/deliveries?event_type={LOGIN}")).await;
    browser.click(&named("Cancel matching…")).await;
    browser.reads("[data-testid=plan]", "6 deliveries").await;
    browser.reads("main", "3 of them are held").await;
    assert!(pending().await, "nothing is called off before somebody has seen the number");
    browser.click("button.danger").await;
    browser.arrives_at("/jobs").await;
    browser.reads("[data-testid=notice]", "Called off").await;
    browser.reads("[data-testid=jobs] tbody tr", "6 deliveries, 3 of them held").await;

    // What was held ends at once, the rest when its turn comes.
    browser.refreshes_every(2).await;
    browser.open("/deliveries?state=cancelled").await;
    eventually("six were called off", async || browser.count(ROWS).await == 6).await;
    browser.picture("deliveries-called-off").await;
    browser.open(&format!("/deliveries?state=held&webhook={held}")).await;
    browser.reads(ROWS, "OTHER").await;
    assert_eq!(browser.count(ROWS).await, 1, "the other type was not meant");
}
