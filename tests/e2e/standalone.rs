//! The data plane stands alone: control and its store may be down.

use lapin::BasicProperties;
use postrider_testkit::Answer;
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::json;

use crate::system::System;

#[tokio::test]
async fn a_fresh_router_and_worker_deliver_without_control_and_its_books_are_right_afterwards() {
    let vhost = Vhost::create(&Broker::shared().await, "standalone").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    system.webhook("/hook", &json!({})).await;
    for role in [control, router, worker] {
        role.stop().await;
    }
    // The store is not just unused: it is not there.
    let (store, aside) = (system.store_path(), system.store_path().with_extension("aside"));
    std::fs::rename(&store, &aside).unwrap();

    let (router, worker) = (system.start("router").ready().await, system.start("worker").ready().await);
    system.receiver.answer("/hook", [Answer::Status(503), Answer::Status(200)]);
    for n in 0..50 {
        let body = json!({ "event_type": "USER_LOGIN", "id": format!("e{n}") }).to_string();
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
        vhost.publish("postrider.events", "default", body.as_bytes(), properties).await;
    }
    // One of them was answered with 503 and came again.
    system.receiver.wait_for(51).await;

    std::fs::rename(&aside, &store).unwrap();
    let control = system.start("control").ready().await;
    let books = system.balanced(50).await;
    assert_eq!(books["events"]["routed"], 50);
    let deliveries = system.get("/v1/deliveries?limit=200").await;
    assert_eq!(deliveries["items"].as_array().unwrap().len(), 50);
    for role in [control, router, worker] {
        role.stop().await;
    }
}
