//! Nothing moves for somebody who asked for that.

use serde_json::{Value, json};

use super::{Desk, LOGIN};

/// What moves on the page, or would: animations that run, and everything that takes time to change.
const MOVING: &str = "
    const slow = (style, name) => style[name].split(', ').some((time) => parseFloat(time) > 0);
    const told = (one, part) => {
        const style = getComputedStyle(one, part);
        const moves = slow(style, 'transitionDuration') || (style.animationName !== 'none' && slow(style, 'animationDuration'));
        return moves ? [`${one.tagName.toLowerCase()}.${one.className}${part ?? ''}`] : [];
    };
    const all = [...document.querySelectorAll('*')];
    const parts = all.flatMap((one) => [null, '::before', '::after'].flatMap((part) => told(one, part)));
    return [...document.getAnimations().map((one) => `runs: ${one.animationName ?? one.transitionProperty}`), ...new Set(parts)]";

#[tokio::test]
async fn nothing_moves_where_less_motion_is_asked_for() {
    let Some(desk) = Desk::logged_in("console-motion").await else { return };
    let Desk { browser, system, .. } = &desk;
    system.webhook("/hook", &json!({})).await;
    desk.send(LOGIN, "still").await;
    system.balanced(1).await;
    browser.refreshes_every(2).await;

    browser.prefers_motion(true).await;
    browser.open("/deliveries").await;
    let moving = browser.run(MOVING).await;
    assert!(
        moving.as_array().is_some_and(|found| !found.is_empty()),
        "this test looks for nothing: {moving}"
    );

    browser.prefers_motion(false).await;
    for path in ["/", "/deliveries", "/webhooks/new", "/queues"] {
        browser.open(path).await;
        browser.sees("h1").await;
        assert_eq!(browser.run(MOVING).await, json!([]), "{path}");
    }
    // What changes by itself changes at once.
    browser.open("/deliveries").await;
    desk.send(LOGIN, "quick").await;
    let rows = "[data-testid=deliveries] tbody tr";
    postrider_testkit::eventually("the new one is listed", async || browser.count(rows).await == 2).await;
    assert_eq!(browser.run(MOVING).await, Value::Array(Vec::new()));
}
