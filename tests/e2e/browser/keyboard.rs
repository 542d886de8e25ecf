//! The console with nothing but keys: from the login to a delivery, and the focus in sight all the way.

use postrider_testkit::eventually;
use serde_json::{Value, json};

use super::chromium::{Browser, ENTER, SPACE, TAB};
use super::{Desk, LOGIN};

/// How often Tab is pressed at most before something must have been reached.
const MOST_STOPS: usize = 250;
/// What has the focus: what it is, whether it can be seen, and how it shows. Nothing where it is the page as a whole.
const FOCUS: &str = "
    const one = document.activeElement;
    if (!one || one === document.body || one === document.documentElement) return null;
    const style = getComputedStyle(one);
    const box = one.getBoundingClientRect();
    const name = one.getAttribute('aria-label') ?? one.name ?? '';
    return {
        what: `${one.tagName.toLowerCase()} ${name} ${one.textContent.trim().slice(0, 40)}`,
        outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
        inside: box.width > 0 && box.height > 0 && box.right > 0 && box.left < innerWidth
            && box.bottom > 0 && box.top < innerHeight,
    };";

/// What has the focus, once it can be seen there.
async fn focus(browser: &Browser) -> Option<String> {
    let focus = browser.run(FOCUS).await;
    if focus.is_null() {
        return None;
    }
    let what = focus["what"].as_str().unwrap().to_owned();
    assert!(focus["outline"] == true, "nothing shows that the focus is at {what:?}");
    assert!(focus["inside"] == true, "the focus is out of sight, at {what:?}");
    Some(what)
}

/// Whether the focus is at this.
pub(super) async fn is_at(browser: &Browser, target: &str) -> bool {
    let target = Value::from(target);
    browser.run(&format!("return document.activeElement?.matches({target}) ?? false")).await == true
}

/// Presses Tab until the focus is at this.
async fn tab_to(browser: &Browser, target: &str) {
    browser.sees(target).await;
    let mut passed = Vec::new();
    for _ in 0..MOST_STOPS {
        browser.press(TAB).await;
        // Behind the last one the browser's own bar has it, and the page as a whole.
        passed.extend(focus(browser).await);
        if is_at(browser, target).await {
            return;
        }
    }
    panic!("Tab does not lead to {target}, but to {passed:#?}");
}

async fn follow(browser: &Browser, target: &str) {
    tab_to(browser, target).await;
    browser.press(ENTER).await;
}

async fn write(browser: &Browser, field: &str, text: &str) {
    tab_to(browser, field).await;
    browser.types(text).await;
}

#[tokio::test]
async fn a_delivery_is_reached_with_nothing_but_keys() {
    let Some(desk) = Desk::new("console-keys").await else { return };
    let Desk { browser, system, .. } = &desk;
    system.import("skillmine-auth").await;
    let link = system.post("/v1/login-links", &Value::Null).await;

    // The button has the focus without a key: the browser gives it a moment after the page is loaded.
    browser.open(link["path"].as_str().unwrap()).await;
    eventually("the button has the focus", async || is_at(browser, "form button").await).await;
    browser.press(ENTER).await;
    browser.reads("h1", "Overview").await;

    // The first stop leads past the bar.
    browser.press(TAB).await;
    assert_eq!(focus(browser).await.as_deref(), Some("a  Skip to the content"));
    browser.press(ENTER).await;
    eventually("the content has the focus", async || is_at(browser, "main").await).await;
    focus(browser).await;

    follow(browser, "[data-testid=checklist] a[href='/webhooks/new']").await;
    browser.arrives_at("/webhooks/new").await;
    eventually("the name has the focus", async || is_at(browser, "[name=name]").await).await;
    browser.types("by keys").await;
    write(browser, "[data-search]", LOGIN).await;
    tab_to(browser, &format!("[name=event_type][value={LOGIN}]")).await;
    browser.press(SPACE).await;
    write(browser, "[name=url]", &system.receiver.url("/hook")).await;
    follow(browser, "[data-testid=save]").await;
    browser.sees("[data-testid=secret]").await;
    let webhook = desk.first("/v1/webhooks").await;
    assert_eq!(
        (&webhook["name"], &webhook["subscription"]["event_types"]),
        (&json!("by keys"), &json!([LOGIN]))
    );

    follow(browser, ".bar a[href='/events']").await;
    browser.arrives_at("/events").await;
    follow(browser, "main .head a[href='/send']").await;
    browser.arrives_at("/send").await;
    write(browser, "form[method=post] [name=event_type]", LOGIN).await;
    follow(browser, "[data-testid=send]").await;
    // The page comes to say so by itself, and the focus is not lost by that.
    browser.reads("[data-testid=steps]", "1 of 1 were delivered").await;
    follow(browser, "main a[href^='/deliveries/']").await;
    browser.reads("[data-testid=state]", "Delivered").await;
    system.balanced(1).await;
}

/// Every control that takes part in Tab's round. Of the radio buttons of one name one does.
const TABBABLE: &str = "
    return [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')]
        .filter((one) => one.tabIndex >= 0 && !one.disabled && one.type !== 'hidden'
            && one.checkVisibility({ visibilityProperty: true }))
        .length";
const MARK: &str = "
    const one = document.activeElement;
    if (one !== document.body) one.dataset.passed = '';
    return document.querySelectorAll('[data-passed]').length";

#[tokio::test]
async fn the_focus_passes_every_control_and_is_kept_when_a_page_refreshes() {
    let Some(desk) = Desk::logged_in("console-focus").await else { return };
    let Desk { browser, system, .. } = &desk;
    system.webhook("/hook", &json!({ "name": "billing" })).await;
    desk.send(LOGIN, "focus").await;
    system.balanced(1).await;

    for path in ["/", "/deliveries", "/webhooks", "/settings/api-keys"] {
        browser.open(path).await;
        browser.sees("h1").await;
        let all = browser.run(TABBABLE).await.as_u64().unwrap();
        let mut passed = 0;
        for _ in 0..=all {
            browser.press(TAB).await;
            focus(browser).await;
            passed = browser.run(MARK).await.as_u64().unwrap();
        }
        assert_eq!(passed, all, "{path}: Tab passes some and not others");
    }

    browser.refreshes_every(2).await;
    browser.open("/deliveries").await;
    let delivery = "[data-testid=deliveries] tbody a[href^='/deliveries/']";
    tab_to(browser, delivery).await;
    let made = async || browser.attribute("#live", "data-made").await;
    let before = made().await;
    eventually("the page refreshes itself", async || made().await != before).await;
    assert!(is_at(browser, delivery).await, "the refresh took the focus away");
    focus(browser).await;
}
