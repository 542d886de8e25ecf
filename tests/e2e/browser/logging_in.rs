//! Who gets in, and who does not.

use super::Desk;
use super::chromium::named;
use crate::system::TOKEN;

const PROBLEM: &str = "[data-testid=problem]";
const ONE_DEAD: &str = "/deliveries?state=dead";

#[tokio::test]
async fn a_key_opens_the_console_until_somebody_logs_out() {
    let Some(Desk { browser, .. }) = &Desk::new("console-login").await else { return };
    browser.open(ONE_DEAD).await;
    browser.arrives_at("/login?next=%2Fdeliveries%3Fstate%3Ddead").await;

    browser.fill("input[name=token]", "no-key-that-opens-anything").await;
    browser.click(&named("Log in")).await;
    browser.reads(PROBLEM, "no key that opens anything").await;
    assert_eq!(browser.status().await, 401);
    assert_eq!(browser.value("input[name=token]").await, "", "what was typed is not sent back");

    browser.fill("input[name=token]", TOKEN).await;
    browser.click(&named("Log in")).await;
    browser.arrives_at(ONE_DEAD).await;
    let kept = browser.run("return document.cookie + JSON.stringify(localStorage)").await;
    assert!(!kept.to_string().contains(TOKEN), "{kept}");
    assert!(!kept.to_string().contains("postrider"), "scripts see no login: {kept}");

    browser.click("[data-testid=login]").await;
    browser.click(&named("Log out")).await;
    browser.arrives_at("/login").await;
    browser.open("/deliveries").await;
    browser.arrives_at("/login?next=%2Fdeliveries").await;
}

#[tokio::test]
async fn a_link_logs_in_once() {
    let Some(Desk { browser, system, .. }) = &Desk::new("console-link").await else { return };
    let link = system.post("/v1/login-links", &serde_json::Value::Null).await;
    let link = link["path"].as_str().unwrap().to_owned() + "&next=%2Fdeliveries";

    browser.open(&link).await;
    assert_eq!(browser.count("input[name=token]").await, 0, "no key is asked for");
    browser.click(&named("Log in")).await;
    browser.arrives_at("/deliveries").await;

    // Somebody else who found the link.
    browser.open("/login").await;
    browser.click("[data-testid=login]").await;
    browser.click(&named("Log out")).await;
    browser.arrives_at("/login").await;
    browser.open(&link).await;
    browser.click(&named("Log in")).await;
    browser.reads(PROBLEM, "This link was followed before").await;
    browser.open("/deliveries").await;
    browser.arrives_at("/login?next=%2Fdeliveries").await;
}

#[tokio::test]
async fn a_form_without_its_proof_is_refused() {
    let Some(Desk { browser, .. }) = &Desk::logged_in("console-proof").await else { return };
    for change in ["field.remove()", "field.value = 'another'", "field.value = ''"] {
        browser.open("/deliveries").await;
        browser.sees("h1").await;
        let script = format!(
            "const form = document.querySelector('form[action=\"/logout\"]');
             const field = form.querySelector('[name=csrf]'); {change}; form.submit();"
        );
        browser.run(&script).await;
        browser.reads("body", "This form is of another login").await;
        assert_eq!(browser.status().await, 403);
    }
    browser.open("/deliveries").await;
    browser.reads("h1", "Deliveries").await;
}
