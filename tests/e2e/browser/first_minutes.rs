//! The first five minutes: from nothing to a delivery that was tried again, with the inbox as its receiver.

use postrider_testkit::process::{Postrider, free_port};
use postrider_testkit::{eventually, http};

use super::chromium::named;
use super::{Desk, LOGIN};

const CHECKLIST: &str = "[data-testid=checklist]";
const ROW: &str = "[data-testid=deliveries] tbody tr";

/// A running `postrider inbox`, and its address.
async fn inbox() -> (Postrider, String) {
    let listen = format!("127.0.0.1:{}", free_port());
    let inbox = Postrider::with(["inbox", "--listen", &listen]).start();
    let address = format!("http://{listen}");
    eventually("the inbox answers", async || {
        http::client().get(format!("{address}/_inbox/first")).send().await.is_ok()
    })
    .await;
    (inbox, address)
}

#[tokio::test]
async fn somebody_new_sees_a_delivery_and_a_retry_come_by_themselves() {
    let (_inbox, address) = inbox().await;
    let Some(desk) = Desk::beside_inbox("console-first", &address).await else { return };
    let Desk { browser, system, .. } = &desk;
    system.import("skillmine-auth").await;
    let to_do = format!("{CHECKLIST} .state.still");

    browser.open("/").await;
    browser.sees(CHECKLIST).await;
    assert_eq!(browser.count(&to_do).await, 4);
    browser.click(&named("Create webhook")).await;
    browser.arrives_at("/webhooks/new").await;
    browser.fill("[name=name]", "my first").await;
    browser.fill("[data-search]", LOGIN).await;
    browser.click(&format!("[name=event_type][value={LOGIN}]")).await;
    browser.fill("[name=url]", &format!("{address}/in/first")).await;
    browser.picture("first-1-form").await;
    browser.click("[data-testid=save]").await;
    let secret = browser.text("[data-testid=secret]").await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    browser.picture("first-2-created").await;
    browser.open("/inbox?name=first").await;
    browser.fill("input[name=secret]", &secret).await;
    browser.click("button[data-testid=secret]").await;
    browser.sees("[data-testid=notice]").await;

    browser.open("/").await;
    assert_eq!(browser.count(&to_do).await, 3);
    browser.refreshes_every(2).await;
    browser.click(&named("Send an event")).await;
    browser.fill("[name=event_type]", LOGIN).await;
    browser.fill("[name=data]", "{\"sub\": \"u-1\"}").await;
    browser.click("[data-testid=send]").await;
    browser.reads("[data-testid=steps]", "1 of 1 were delivered").await;
    browser.picture("first-3-sent").await;
    browser.open("/inbox?name=first").await;
    browser.reads("[data-testid=requests]", LOGIN).await;
    assert_eq!(browser.count("[data-testid=signature] .state.ok").await, 1);
    browser.picture("first-4-inbox").await;

    // The inbox fails once.
    browser.choose("select[name=answer]", "503").await;
    browser.fill("input[name=times]", "1").await;
    browser.click("button[data-testid=answer]").await;
    browser.sees("[data-testid=notice]").await;

    // From here on the page is never loaded: what happens comes to it.
    browser.open("/deliveries").await;
    browser.reads(ROW, "Delivered").await;
    browser.run("window.loaded = 'once'").await;
    desk.send(LOGIN, "second").await;
    browser.reads(ROW, "Retrying").await;
    browser.picture("first-5-retrying").await;
    browser.reads(ROW, "Delivered").await;
    assert_eq!(browser.count(ROW).await, 2);
    assert_eq!(browser.run("return window.loaded").await, "once", "the page was loaded again");
    system.balanced(2).await;

    browser.open("/").await;
    browser.sees("[data-testid=needs]").await;
    assert_eq!(browser.count(CHECKLIST).await, 0, "everything on it is done");
    browser.picture("first-6-done").await;
}
