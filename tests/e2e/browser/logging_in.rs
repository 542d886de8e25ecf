//! Who gets in, and who does not.

use serde_json::json;

use super::chromium::named;
use super::{Desk, LOGIN};
use crate::system::TOKEN;

const PROBLEM: &str = "[data-testid=problem]";
const ONE_DEAD: &str = "/deliveries?state=dead";

#[tokio::test]
async fn a_key_opens_the_console_until_somebody_logs_out() {
    let Some(Desk { browser, system, .. }) = &Desk::new("console-login").await else { return };
    let logins =
        async || system.get("/v1/audit?operation=create_login_link").await["items"].as_array().map(Vec::len);
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
    assert_eq!(logins().await, Some(1), "the audit log has the login, and not the attempt");
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

#[tokio::test]
async fn a_key_that_may_only_read_is_told_what_it_may_not() {
    let Some(Desk { browser, system, .. }) = &Desk::new("console-read").await else { return };
    let refused = json!({ "name": "of default", "retry": { "max_attempts": 1 } });
    let (webhook, _) = system.webhook("/hook", &refused).await;
    system.receiver.answer("/hook", [postrider_testkit::Answer::Status(500)]);
    system.post("/v1/events", &json!({ "event_type": LOGIN, "id": "seen" })).await;
    system.at_rest().await;
    system.post("/v1/tenants", &json!({ "id": "acme" })).await;
    let key = async |tenant: &str| {
        let made = json!({ "name": "reader", "scopes": ["read"], "tenant": tenant });
        system.post("/v1/api-keys", &made).await["key"].as_str().unwrap().to_owned()
    };

    browser.log_in(&key("default").await).await;
    browser.refreshes_every(0).await;
    for path in ["/settings/api-keys", "/settings/tenants", "/queues", "/queues/postrider.events"] {
        browser.open(path).await;
        browser.reads("h1", "Not allowed").await;
        browser.reads("[data-testid=refused]", "does not have the scope admin").await;
        assert_eq!(browser.status().await, 403, "{path}");
    }
    // It sees what there is, and may change nothing.
    browser.open("/deliveries").await;
    browser.reads("[data-testid=deliveries]", "of default").await;
    browser.click(&named(LOGIN)).await;
    browser.click("[data-testid=redeliver]").await;
    browser.reads("[data-testid=notice]", "Not done").await;
    browser.reads("[data-testid=notice]", "replay").await;
    browser.picture("not-allowed-notice").await;
    browser.open(&format!("/webhooks/{webhook}/edit")).await;
    browser.fill("[name=name]", "mine now").await;
    browser.click("[data-testid=save]").await;
    browser.reads("[role=alert]", "manage").await;
    assert_eq!(system.get(&format!("/v1/webhooks/{webhook}")).await["name"], "of default");
    assert_eq!(system.at_rest().await["deliveries"]["dead"], 1, "nothing was made again");

    // What is another tenant's is nowhere to be found.
    browser.click("[data-testid=login]").await;
    browser.click(&named("Log out")).await;
    browser.arrives_at("/login").await;
    browser.log_in(&key("acme").await).await;
    browser.open("/deliveries").await;
    browser.sees("[data-testid=first-use]").await;
    for path in [format!("/webhooks/{webhook}"), "/events/seen".to_owned()] {
        browser.open(&path).await;
        browser.reads("h1", "Not found").await;
        assert_eq!(browser.status().await, 404, "{path}");
    }
}
