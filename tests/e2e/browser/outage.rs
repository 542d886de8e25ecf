//! What people see while RabbitMQ is gone.

use postrider_testkit::rabbit::{Node, Vhost};
use serde_json::json;

use super::{LOGIN, chromium};
use crate::system::{System, TOKEN};

const BANNER: &str = "[data-testid=banner]";

#[tokio::test]
async fn a_banner_comes_when_the_broker_is_lost_and_goes_when_it_is_back() {
    let Some(node) = Node::start().await else { return };
    let vhost = Vhost::create(node.broker(), "console-outage").await;
    let system = System::new(vhost.url()).await;
    let Some(browser) = chromium::start(&system.url(""), true).await else { return };
    let _postrider = system.start("all").ready().await;
    node.settled().await;
    system.webhook("/hook", &json!({})).await;
    system.post("/v1/events", &json!({ "event_type": LOGIN, "id": "before" })).await;
    system.balanced(1).await;

    browser.log_in(TOKEN).await;
    browser.refreshes_every(2).await;
    browser.open("/deliveries").await;
    browser.sees("[data-testid=deliveries]").await;
    assert_eq!(browser.count(BANNER).await, 0);
    browser.run("window.loaded = 'once'").await;

    node.kill().await;
    browser.reads(BANNER, "RabbitMQ cannot be reached").await;
    browser.reads("[data-testid=deliveries]", LOGIN).await;
    browser.picture("deliveries-outage").await;

    // Every page that shows what is stored still does, and says so. What only the broker knows is said to be unknown.
    let delivery = system.get("/v1/deliveries").await["items"][0]["id"].as_str().unwrap().to_owned();
    let delivery = format!("/deliveries/{delivery}");
    for path in [
        "/",
        &delivery,
        "/events",
        "/events/before",
        "/webhooks",
        "/dead-letters",
        "/jobs",
        "/catalogue",
        "/queues",
    ] {
        browser.open(path).await;
        browser.reads(BANNER, "RabbitMQ cannot be reached").await;
        assert_eq!(browser.status().await, 200, "{path}");
        assert_eq!(browser.count("[data-testid=refused]").await, 0, "{path}");
    }
    browser.reads("main", "RabbitMQ").await;
    browser.picture("queues-outage").await;
    browser.open("/queues/postrider.events").await;
    browser.reads("[data-testid=unknown]", "How it is now is not known").await;
    assert_eq!(browser.status().await, 200);
    browser.picture("queue-outage").await;
    browser.open("/deliveries").await;
    browser.run("window.loaded = 'once'").await;

    node.start_again().await;
    browser.misses(BANNER).await;
    assert_eq!(browser.run("return window.loaded").await, "once", "the page was never loaded again");
    system.post("/v1/events", &json!({ "event_type": LOGIN, "id": "after" })).await;
    system.balanced(2).await;
}
