//! The broker's queues, and the session with it, as the API shows them.

use postrider_broker::topology;
use postrider_broker::{Lane, Names, Outgoing};
use postrider_core::Timestamp;
use postrider_testkit::{eventually, eventually_some};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{Control, Place};

/// What is said of a queue.
fn of(list: &Value, name: &str) -> Value {
    let items = list["items"].as_array().unwrap();
    items.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("{name} in {list}")).clone()
}

impl Control {
    /// Waits until a look says so, and returns it: a look stands for two seconds, and a busy machine has none in six.
    async fn queues(&self, what: &str, are: impl Fn(&Value) -> bool) -> Value {
        eventually_some(what, async || {
            let (status, list) = self.call("GET", "/v1/queues", Value::Null).await;
            assert!(status == 200 || list["code"] == "broker_unavailable", "{status} {list}");
            (status == 200 && are(&list)).then_some(list)
        })
        .await
    }
}

impl Place {
    async fn manage_queue(&self, method: Method, queue: &str, body: Option<Value>) {
        let path = format!("queues/{}/{queue}", self.vhost.name());
        self.vhost.broker().manage(method, &path, body).await.unwrap();
    }
}

#[tokio::test]
async fn queues_are_shown_as_they_are_and_what_differs_is_named() {
    let place = Place::new("queues").await;
    let names = place.session.names().clone();
    let message =
        Outgoing::json(names.deliveries(), Names::destination(Lane::Fresh, 1), b"{}".to_vec(), "m1");
    place.session.publisher().publish(message).await.unwrap();
    let control = place.start().await.ready().await;
    let list = control.queues("the topology is known", |list| list["shards"] == 2).await;
    let mut shown: Vec<String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| queue["name"].as_str().unwrap().into())
        .collect();
    shown.sort();
    let there: Vec<String> = place.vhost.queues().await.into_iter().map(|queue| queue.name).collect();
    assert_eq!(shown, there);
    let drifting: Vec<&Value> =
        list["items"].as_array().unwrap().iter().filter(|queue| !queue["drift"].is_null()).collect();
    assert!(drifting.is_empty(), "{drifting:?}");
    assert_eq!(list["arguments_compared"], true);
    let fresh = of(&list, &names.delivery_queue(Lane::Fresh, 1));
    assert_eq!((&fresh["ready"], &fresh["consumers"]), (&json!(1), &json!(0)));
    let one = eventually_some("it is measured", async || {
        let one = control.get(&format!("/v1/queues/{}", names.delivery_queue(Lane::Fresh, 1))).await;
        (one["history"]["points"][0]["ready"] == 1).then_some(one)
    })
    .await;
    assert_eq!((&one["type"], &one["readers"][0]["to"]), (&json!("quorum"), &json!("worker")), "{one}");
    let list = control.queues("so are all", |list| !list["history"]["since"].is_null()).await;
    let measured = &list["history"]["points"][0]["ready"];
    assert_eq!((&measured["fresh"], &measured["delay"]), (&json!(1), &json!(0)), "{measured}");
    assert_eq!(control.call("GET", "/v1/queues/nothing", Value::Null).await.0, 404);
    control.queues("control consumes the journal", |list| of(list, &names.journal())["consumers"] == 1).await;

    let (gone, other) = (names.ladder(7), names.park_queue(5));
    place.manage_queue(Method::DELETE, &gone, None).await;
    place.manage_queue(Method::DELETE, &other, None).await;
    let arguments = json!({ "durable": true, "arguments": { "x-queue-type": "quorum", "x-message-ttl": 1 } });
    place.manage_queue(Method::PUT, &other, Some(arguments)).await;
    let list = control
        .queues("both show", |list| {
            !of(list, &gone)["drift"].is_null() && !of(list, &other)["drift"].is_null()
        })
        .await;
    assert_eq!(of(&list, &gone)["drift"]["kind"], "missing");
    let drift = of(&list, &other)["drift"].clone();
    assert_eq!(drift["kind"], "arguments");
    let argument = drift["argument"].as_str().unwrap();
    assert!(of(&list, &other)["expected"].get(argument).is_some(), "{drift}");
    assert!(drift["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{drift}");
    // A look changes nothing.
    let there: Vec<String> = place.vhost.queues().await.into_iter().map(|queue| queue.name).collect();
    assert!(!there.contains(&gone) && there.contains(&other));

    place.manage_queue(Method::DELETE, &other, None).await;
    topology::apply(&place.session, None).await.unwrap();
    control
        .queues("all is as it should be", |list| {
            list["items"].as_array().unwrap().iter().all(|queue| queue["drift"].is_null())
        })
        .await;
    control.stop().await;
}

/// As control runs where each role has a user with no more rights than it needs.
#[tokio::test]
async fn a_user_that_may_not_configure_sees_what_is_missing() {
    let place = Place::new("least").await;
    let names = place.session.names().clone();
    let (broker, user) = (place.vhost.broker(), place.vhost.name());
    let account = format!("users/{user}");
    broker.manage(Method::PUT, &account, Some(json!({ "password": "p", "tags": "" }))).await.unwrap();
    let rights = json!({ "configure": "^$", "write": ".*", "read": ".*" });
    broker.manage(Method::PUT, &format!("permissions/{user}/{user}"), Some(rights)).await.unwrap();
    place.manage_queue(Method::DELETE, &names.ladder(7), None).await;
    let (_, address) = place.vhost.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let control = place.start_at(format!("amqp://{user}:p@{address}")).await.ready().await;
    let list = control.queues("the topology is known", |list| list["shards"] == 2).await;
    assert_eq!(list["arguments_compared"], false);
    assert_eq!(of(&list, &names.ladder(7))["drift"]["kind"], "missing");
    for queue in list["items"].as_array().unwrap() {
        let known = queue["type"] == "stream" || queue["ready"].is_u64() || !queue["drift"].is_null();
        assert!(known, "{queue}");
        assert!(queue["drift"].is_null() || queue["name"] == json!(names.ladder(7)), "{queue}");
    }
    // The session lives on.
    assert_eq!(control.get("/v1/status").await["broker_session"]["connected"], true);
    assert!(control.readiness.is_ready());
    control.stop().await;
    broker.manage(Method::DELETE, &account, None).await.unwrap();
}

#[tokio::test]
async fn the_status_says_since_when_there_is_a_session() {
    let place = Place::new("since").await;
    let control = place.start().await.ready().await;
    let before = control.get("/v1/status").await;
    assert_eq!(before["broker_session"]["connected"], true, "{before}");
    let time = |value: &Value| Timestamp::parse_rfc3339(value.as_str().unwrap()).unwrap();
    let since = |status: &Value| time(&status["broker_session"]["since"]);
    assert!(time(&before["started_at"]) <= since(&before), "{before}");
    // The broker's list is old: it may name a connection that is gone, and not yet the one that is meant.
    eventually("the session is over", async || {
        place.vhost.close_all_connections().await;
        since(&control.get("/v1/status").await) > since(&before)
    })
    .await;
    control
        .books("there is another session", |status| {
            status["broker_session"]["connected"] == true && since(status) > since(&before)
        })
        .await;
    control.stop().await;
}
