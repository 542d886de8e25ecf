//! Forms: what is right is done, what is wrong is said at its field, and nothing typed is lost.

use serde_json::json;

use super::chromium::Browser;
use super::{Desk, LOGIN};

const SUMMARY: &str = "[role=alert]";
const SAVE: &str = "[data-testid=save]";

/// Waits until a field is marked as wrong, and returns what is said of it.
async fn fault(browser: &Browser, field: &str) -> String {
    let field = format!("[name={field}][aria-invalid=true]");
    browser.sees(&field).await;
    let ids = browser.attribute(&field, "aria-describedby").await.expect("it says what describes the field");
    let mut said = String::new();
    for id in ids.split_whitespace() {
        said += &browser.text(&format!("#{id}")).await;
    }
    said
}

#[tokio::test]
async fn an_event_is_sent_by_hand_and_a_bad_one_is_not() {
    let Some(desk) = Desk::logged_in("console-send").await else { return };
    let Desk { browser, system, .. } = &desk;
    system.webhook("/hook", &json!({})).await;

    browser.open("/send").await;
    browser.fill("[name=event_type]", LOGIN).await;
    browser.fill("[name=data]", "{\"sub\": ").await;
    browser.fill("[name=id]", "by-hand").await;
    browser.click("[data-testid=send]").await;
    let said = fault(browser, "data").await;
    assert!(said.contains("not JSON"), "{said}");
    assert_eq!(browser.status().await, 422);
    browser.sees(SUMMARY).await;
    for (field, typed) in [("event_type", LOGIN), ("data", "{\"sub\": "), ("id", "by-hand")] {
        assert_eq!(browser.value(&format!("[name={field}]")).await, typed, "{field} is kept");
    }

    browser.fill("[name=data]", "{\"sub\": \"u-1\"}").await;
    browser.click("[data-testid=send]").await;
    browser.arrives_at("/send/by-hand").await;
    let requests = system.receiver.wait_for(1).await;
    assert_eq!(requests[0].json()["data"], json!({ "sub": "u-1" }));
    system.balanced(1).await;
    browser.reload().await;
    browser.reads("[data-testid=steps]", "1 of 1 were delivered").await;
}

#[tokio::test]
async fn a_webhook_is_created_and_changed_and_a_bad_one_is_not() {
    let Some(desk) = Desk::logged_in("console-form").await else { return };
    let Desk { browser, system, .. } = &desk;
    system.import("skillmine-auth").await;

    browser.open("/webhooks/new").await;
    browser.fill("[name=name]", "billing").await;
    browser.fill("[name=url]", "http://10.0.0.1/hook").await;
    browser.fill("[data-search]", LOGIN).await;
    browser.click(&format!("[name=event_type][value={LOGIN}]")).await;
    browser.click(SAVE).await;
    let said = fault(browser, "url").await;
    assert!(said.contains("10.0.0.1") || said.contains("private"), "{said}");
    assert_eq!(browser.status().await, 422);
    browser.sees(SUMMARY).await;
    assert_eq!(browser.value("[name=name]").await, "billing", "what was typed is kept");
    assert_eq!(browser.value("[name=url]").await, "http://10.0.0.1/hook");
    assert_eq!(browser.count("[name=event_type]:checked").await, 1, "what was ticked is kept");
    assert_eq!(system.get("/v1/webhooks").await["items"], json!([]), "nothing was made");
    browser.picture("webhook-refused").await;

    browser.fill("[name=url]", &system.receiver.url("/hook")).await;
    browser.click(SAVE).await;
    browser.sees("[data-testid=secret]").await;
    let webhook = desk.first("/v1/webhooks").await;
    assert_eq!(webhook["url"], system.receiver.url("/hook"));
    assert_eq!(webhook["subscription"]["event_types"], json!([LOGIN]));

    let id = webhook["id"].as_str().unwrap();
    browser.open(&format!("/webhooks/{id}/edit")).await;
    assert_eq!(browser.value("[name=name]").await, "billing");
    browser.fill("[name=name]", "billing-2").await;
    browser.click(SAVE).await;
    browser.reads("h1", "billing-2").await;
    let changed = system.get(&format!("/v1/webhooks/{id}")).await;
    assert_eq!(changed["name"], "billing-2");
    assert_eq!(changed["subscription"]["event_types"], json!([LOGIN]), "the rest stays as it was");
    assert_eq!(changed["url"], webhook["url"]);
}
