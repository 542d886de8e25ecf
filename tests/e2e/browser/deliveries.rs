//! The list of deliveries: filters, older pages, and what is done to all that match.

use postrider_testkit::{Answer, eventually};
use serde_json::{Value, json};

use super::keyboard::is_at;
use super::{Desk, LOGIN};
use crate::browser::chromium::{Browser, DOWN, named};

const ROWS: &str = "[data-testid=deliveries] tbody tr";
const OLDER: &str = "[data-testid=older]";
const MORE: &str = "[data-testid=more-filters]";
const BOX: &str = "input[name=q]";
const ASK: &str = "[data-testid=ask]";
const DRAWER: &str = "[data-testid=drawer]";

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
    browser.click(MORE).await;
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

    browser.click(MORE).await;
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
    // What it sent, each with how it ended.
    let lines = downloaded(browser, "[data-testid=export]").await;
    let ended =
        lines.iter().filter(|line| line["state"] == "delivered" || line["state"] == "pending").count();
    assert_eq!((ended, &lines.last().unwrap()["export"]["complete"]), (60, &json!(true)));

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

/// What a link downloads, line by line.
async fn downloaded(browser: &Browser, link: &str) -> Vec<Value> {
    let path = browser.attribute(link, "href").await.unwrap();
    let script = "const asked = new XMLHttpRequest(); asked.open('GET', PATH, false); asked.send();
        return [asked.getResponseHeader('content-disposition'), asked.responseText]";
    let answer = browser.run(&script.replace("PATH", &Value::from(path).to_string())).await;
    assert!(answer[0].as_str().unwrap().starts_with("attachment; filename="), "{answer}");
    answer[1].as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_line_of_words_becomes_filters_and_what_they_match_a_file() {
    let Some(desk) = Desk::logged_in("console-words").await else { return };
    give_up(&desk, 60).await;
    let Desk { browser, system, .. } = &desk;
    let (other, _) = system.webhook("/other", &json!({ "name": "crm prod" })).await;
    desk.send(LOGIN, "one-more").await;
    system.at_rest().await;

    browser.open("/deliveries").await;
    browser.fill(BOX, "state:dead code:5xx since:2h").await;
    browser.click(ASK).await;
    browser.arrives_at("/deliveries?state=dead&status=5xx&range=2h").await;
    browser.sees("a[aria-label=\"Remove status: 5xx\"]").await;
    browser.sees("a[aria-label=\"Remove range: last 2h\"]").await;
    assert_eq!(browser.value(BOX).await, "", "what became a chip is none of the box any more");
    assert_eq!(browser.count("[data-testid=redeliver-matching]").await, 0, "a replay knows no status");
    browser.picture("deliveries-words").await;
    // All of it, not only what is on the page; the second webhook delivered, and the last event was given up by the first as well.
    let lines = downloaded(browser, "[data-testid=export]").await;
    let (last, rows) = lines.split_last().unwrap();
    assert_eq!(last["export"], json!({ "lines": 61, "complete": true, "cut": null, "next": null }));
    assert!(rows.len() == 61 && rows.iter().all(|row| row["state"] == "dead"), "{}", rows.len());

    // More words are added to what is there, and take its place.
    browser.fill(BOX, "state:delivered status:2xx webhook:\"CRM prod\"").await;
    browser.click(ASK).await;
    browser.arrives_at(&format!("/deliveries?range=2h&state=delivered&status=2xx&webhook={other}")).await;
    assert_eq!(browser.count(ROWS).await, 1);
    browser.sees("a[aria-label=\"Remove webhook: crm prod\"]").await;

    // What is none of the words is said, and nothing is lost.
    browser.fill(BOX, "colour:red class:timeout").await;
    browser.click(ASK).await;
    browser.reads("[data-testid=mistyped]", "There is no filter “colour”. Known are state,").await;
    assert_eq!(browser.value(BOX).await, "colour:red class:timeout");
    assert_eq!(browser.attribute(BOX, "aria-invalid").await.as_deref(), Some("true"));
    assert_eq!(browser.count(ROWS).await, 1, "the list is as it was");

    // An id leads to what it names.
    let id = rows[0]["id"].as_str().unwrap();
    browser.fill(BOX, &format!("msg_{id}")).await;
    browser.click(ASK).await;
    browser.arrives_at(&format!("/deliveries/{id}")).await;
}

#[tokio::test]
async fn a_delivery_is_looked_at_beside_the_list() {
    let Some(desk) = Desk::logged_in("console-drawer").await else { return };
    give_up(&desk, 3).await;
    let Desk { browser, system, .. } = &desk;
    browser.open("/deliveries?state=dead").await;
    let id = async |row: usize| {
        let row = format!("[data-testid=deliveries] tbody tr:nth-child({row})");
        browser.attribute(&row, "id").await.unwrap().trim_start_matches("d-").to_owned()
    };
    let (first, second) = (id(1).await, id(2).await);
    browser.click(&format!("#d-{first} a.peek")).await;
    browser.arrives_at(&format!("/deliveries?state=dead&d={first}#drawer")).await;
    eventually("the drawer has the focus", async || is_at(browser, "#drawer").await).await;
    browser.reads(DRAWER, "Given up after 1 attempt").await;
    browser.reads(DRAWER, "500").await;
    assert_eq!(browser.count(ROWS).await, 3, "the list stays");
    assert_eq!(browser.count("[data-newer]").await, 0, "it is the newest");
    assert_eq!(browser.barriers().await, Vec::<String>::new());
    browser.picture("drawer").await;

    // Down leads to the next row; the way back leads to its row.
    browser.press(DOWN).await;
    browser.arrives_at(&format!("/deliveries?state=dead&d={second}#drawer")).await;
    browser.sees("[data-newer]").await;
    browser.click("[data-testid=close]").await;
    browser.arrives_at(&format!("/deliveries?state=dead#d-{second}")).await;
    browser.misses(DRAWER).await;

    // A refresh takes the focus away from nothing that is in it.
    browser.refreshes_every(2).await;
    browser.open(&format!("/deliveries?state=dead&d={second}")).await;
    browser.run("document.querySelector('#drawer [data-testid=whole]').focus()").await;
    let made = async || browser.attribute("#live", "data-made").await;
    let before = made().await;
    eventually("the page refreshes itself", async || made().await != before).await;
    assert!(is_at(browser, "#drawer [data-testid=whole]").await, "the refresh took the focus away");
    browser.refreshes_every(0).await;

    // What is done there leads back there.
    system.receiver.answer("/hook", [Answer::Status(200)]);
    browser.open(&format!("/deliveries?range=1h&d={second}")).await;
    browser.click(&format!("{DRAWER} [data-testid=redeliver]")).await;
    browser.reads("[data-testid=notice]", "Queued").await;
    browser.arrives_at(&format!("/deliveries?range=1h&d={second}")).await;
    system.at_rest().await;
    browser.reload().await;
    browser.reads(DRAWER, "Delivered after 1 attempt").await;

    browser.open("/deliveries?state=dead&d=0123").await;
    browser.reads("[data-testid=unknown]", "There is no delivery 0123").await;
    assert_eq!(browser.count(ROWS).await, 2, "the list stays");
    browser.click("[data-testid=close]").await;
    browser.arrives_at("/deliveries?state=dead").await;
}

#[tokio::test]
async fn several_webhooks_are_paused_and_resumed_at_once() {
    let Some(desk) = Desk::logged_in("console-selected").await else { return };
    let Desk { browser, system, .. } = &desk;
    let mut ids = Vec::new();
    for (name, state) in [("a", "active"), ("b", "active"), ("c", "disabled")] {
        ids.push(system.webhook(&format!("/{name}"), &json!({ "name": name, "state": state })).await.0);
    }
    let states = async || {
        let mut states = Vec::new();
        for id in &ids {
            states
                .push(system.get(&format!("/v1/webhooks/{id}")).await["state"].as_str().unwrap().to_owned());
        }
        states
    };
    browser.open("/webhooks").await;
    browser.click("[data-testid=pause-selected]").await;
    browser.reads("[data-testid=notice]", "no webhook was selected").await;

    browser.click("[data-select-all]").await;
    assert_eq!(browser.count("[data-select]:checked").await, 3);
    browser.picture("webhooks-selected").await;
    browser.click("[data-testid=pause-selected]").await;
    browser.reads("[data-testid=heading]", "Done with 2 of 3 webhooks").await;
    browser.reads("[data-testid=not-done] tbody", "disabled").await;
    assert_eq!(browser.count("[data-testid=not-done] tbody tr").await, 1);
    assert_eq!(browser.barriers().await, Vec::<String>::new());
    browser.picture("webhooks-not-done").await;
    assert_eq!(states().await, ["paused", "paused", "disabled"]);

    browser.open("/webhooks?state=paused").await;
    browser.click(&format!("[data-select][value={}]", ids[0])).await;
    browser.click("[data-testid=resume-selected]").await;
    browser.reads("[data-testid=notice]", "1 webhook is active").await;
    browser.arrives_at("/webhooks?state=paused").await;
    assert_eq!(states().await, ["active", "paused", "disabled"]);
    let log = system.get("/v1/audit?operation=pause_webhook").await;
    assert_eq!(log["items"].as_array().unwrap().len(), 2, "each is in the audit log: {log:#}");
}
