//! Everything can be read and every form can be sent without JavaScript.

use postrider_testkit::Answer;
use serde_json::json;

use super::{Desk, LOGIN};
use crate::browser::chromium::named;
use crate::system::TOKEN;

#[tokio::test]
async fn lists_forms_and_a_delivery_work_without_scripts() {
    let Some(desk) = Desk::with_scripts("console-plain", false).await else { return };
    let Desk { browser, system, .. } = &desk;
    system.webhook("/hook", &json!({ "retry": { "max_attempts": 1 } })).await;
    system.receiver.answer("/hook", [Answer::Status(500), Answer::Status(200)]);
    desk.send(LOGIN, "plain-1").await;
    system.at_rest().await;

    browser.log_in(TOKEN).await;
    browser.open("/deliveries").await;
    browser.reads("[data-testid=deliveries]", "Dead").await;
    assert!(!browser.shows("[data-theme-switch]").await, "scripts run, and this test shows nothing");

    // A form that reads, in words and by field.
    browser.fill("input[name=q]", "state:delivered").await;
    browser.click("[data-testid=ask]").await;
    browser.arrives_at("/deliveries?state=delivered").await;
    browser.open("/deliveries").await;
    browser.click("[data-testid=more-filters]").await;
    browser.fill("input[name=event_type]", "NOTHING_LIKE_IT").await;
    browser.click("[data-testid=apply]").await;
    browser.sees("[data-testid=no-match]").await;
    browser.click(&named("Clear")).await;
    browser.arrives_at("/deliveries").await;

    // What is open beside the list, and closed again.
    browser.click("[data-testid=deliveries] a.peek").await;
    browser.reads("[data-testid=drawer]", "Given up after 1 attempt").await;
    assert!(browser.shows("[data-testid=export]").await);
    browser.click("[data-testid=close]").await;
    browser.misses("[data-testid=drawer]").await;

    // Boxes of a list, all in one form.
    browser.open("/webhooks").await;
    assert!(!browser.shows("[data-select-all]").await, "only a script can tick them all");
    browser.click("[data-select]").await;
    browser.click("[data-testid=pause-selected]").await;
    browser.reads("[data-testid=notice]", "1 webhook is paused").await;
    browser.click("[data-select]").await;
    browser.click("[data-testid=resume-selected]").await;
    browser.reads("[data-testid=notice]", "1 webhook is active").await;
    browser.open("/deliveries").await;

    // A link, and a form that changes something.
    browser.click(&named(LOGIN)).await;
    browser.reads("[data-testid=state]", "Dead").await;
    browser.click("[data-testid=redeliver]").await;
    browser.reads("[data-testid=notice]", "Queued").await;
    system.balanced(1).await;
    browser.reload().await;
    browser.reads("[data-testid=state]", "Delivered").await;
    assert_eq!(browser.count("[data-testid=notice]").await, 0, "a notice is shown once");
}
