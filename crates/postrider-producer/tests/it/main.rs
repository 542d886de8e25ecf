//! The producer against a real broker.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use postrider_broker::{Incoming, Metrics, Session, topology};
use postrider_producer::{Error, EventId, NewAction, NewEvent, Producer, Settings};
use postrider_testkit::chaos::Proxy;
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// A vhost with the topology, and a session that can read the events. Their queue has a single active consumer, so
/// they cannot be fetched one by one.
async fn vhost(name: &str) -> (Vhost, Session) {
    postrider_testkit::logging();
    let vhost = Vhost::create(&Broker::shared().await, name).await;
    let metrics = Metrics::register(&prometheus::Registry::new(), "test").unwrap();
    let session =
        Session::open(&postrider_broker::Settings::new(vhost.url(), "test"), &metrics).await.unwrap();
    topology::apply(&session, Some(1)).await.unwrap();
    (vhost, session)
}

/// Events, until there are this many different ones.
async fn events(session: &Session, count: usize) -> BTreeMap<String, Incoming> {
    let mut consumer = session.consume("postrider.events", 1000).await.unwrap();
    let mut events = BTreeMap::new();
    while events.len() < count {
        let next = tokio::time::timeout(postrider_testkit::patience(), consumer.next());
        let event = next.await.expect("another event").unwrap();
        let body: Value = serde_json::from_slice(event.body()).unwrap();
        events.insert(body["id"].as_str().unwrap().to_owned(), event);
    }
    events
}

type Publishing = JoinHandle<Result<EventId, Error>>;

/// Publishes events, each in a task of its own, and returns when all of them are in line.
async fn in_line(producer: &Arc<Producer>, events: impl Iterator<Item = NewEvent>) -> Vec<Publishing> {
    let begun = Arc::new(AtomicUsize::new(0));
    let publishing = events.map(|event| {
        let (producer, begun) = (producer.clone(), begun.clone());
        tokio::spawn(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            producer.publish(event).await
        })
    });
    let publishing: Vec<Publishing> = publishing.collect();
    let all = async || begun.load(Ordering::SeqCst) == publishing.len();
    postrider_testkit::eventually("all are in line", all).await;
    publishing
}

async fn ended(publishing: Vec<Publishing>) -> Vec<Result<EventId, Error>> {
    let mut ended = Vec::new();
    for publishing in publishing {
        ended.push(publishing.await.unwrap());
    }
    ended
}

#[tokio::test]
async fn what_is_confirmed_is_in_the_queue() {
    let (vhost, session) = vhost("producer").await;
    let producer = Producer::connect(Settings::new(vhost.url())).await.unwrap();
    let id = producer.publish(NewEvent::new("USER_CREATED", &json!({ "a": 1 })).key("u-1")).await.unwrap();
    let action = NewAction::new("points.transferred", "transfer-17", &json!({ "points": 50 }));
    assert_eq!(producer.publish_action(action).await.unwrap().as_str(), "transfer-17");
    let events = events(&session, 2).await;
    let action: Value = serde_json::from_slice(events["transfer-17"].body()).unwrap();
    assert_eq!((&action["action"], &action["event_type"]), (&json!("points.transferred"), &Value::Null));
    let event = &events[id.as_str()];
    let body: Value = serde_json::from_slice(event.body()).unwrap();
    assert_eq!((&body["event_type"], &body["key"]), (&json!("USER_CREATED"), &json!("u-1")));
    assert_eq!((event.routing_key(), event.message_id()), ("default", Some(id.as_str())));
}

#[tokio::test]
async fn many_are_published_at_once() {
    let (vhost, session) = vhost("producer-many").await;
    let producer = Producer::connect(Settings::new(vhost.url()).connections(2)).await.unwrap();
    let events = (0..500).map(|n| NewEvent::new("A", &n).id(format!("e{n}"))).collect();
    let confirmed = producer.publish_all(events).await.unwrap();
    let ids: Vec<String> = (0..500).map(|n| format!("e{n}")).collect();
    assert_eq!(
        confirmed.iter().map(EventId::as_str).collect::<Vec<_>>(),
        ids,
        "in the order they were given"
    );
    let mut consumer = session.consume("postrider.events", 1000).await.unwrap();
    let mut found = Vec::new();
    for _ in 0..5 {
        let next = tokio::time::timeout(postrider_testkit::patience(), consumer.next());
        let message = next.await.expect("another message").unwrap();
        let array: Vec<Value> = serde_json::from_slice(message.body()).unwrap();
        found.extend(array.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
    }
    found.sort_by_key(|id| id[1..].parse::<u32>().unwrap());
    assert_eq!(found, ids, "a hundred in each message");
}

#[tokio::test]
async fn of_many_those_that_fail_are_named() {
    let (vhost, _session) = vhost("producer-some").await;
    let producer = Producer::connect(Settings::new(vhost.url())).await.unwrap();
    let event = |id: &str| NewEvent::new("A", &()).id(id);
    let events = vec![event("a"), event(""), event("b"), NewEvent::new(" ", &())];
    let error = producer.publish_all(events).await.unwrap_err();
    assert_eq!(error.confirmed.iter().map(EventId::as_str).collect::<Vec<_>>(), ["a", "b"]);
    let failed: Vec<usize> = error.failed.iter().map(|(place, _)| *place).collect();
    assert_eq!(failed, [1, 3]);

    let elsewhere = Settings::new(vhost.url()).prefix("absent").patience(Duration::from_millis(300));
    let producer = Producer::connect(elsewhere).await.unwrap();
    let error = producer.publish_all(vec![event("c"), event("d")]).await.unwrap_err();
    assert!(error.confirmed.is_empty());
    let failed = error.failed.iter().map(|(place, error)| match error {
        Error::NotConfirmed { id, .. } => (*place, id.as_str()),
        other => panic!("{other}"),
    });
    assert!(failed.eq([(0, "c"), (1, "d")]), "{:?}", error.failed);
}

#[tokio::test]
async fn of_several_messages_each_is_confirmed_by_itself() {
    postrider_testkit::logging();
    let vhost = Vhost::create(&Broker::shared().await, "producer-part").await;
    // Takes the events of one tenant only.
    let connection = vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let (name, none) = ("part.events", FieldTable::default);
    let options = ExchangeDeclareOptions::default();
    channel.exchange_declare(name.into(), ExchangeKind::Direct, options, none()).await.unwrap();
    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), none()).await.unwrap();
    let options = QueueBindOptions::default();
    channel.queue_bind(name.into(), name.into(), "taken".into(), options, none()).await.unwrap();

    let settings = Settings::new(vhost.url()).prefix("part").patience(Duration::from_millis(300));
    let producer = Producer::connect(settings).await.unwrap();
    let event = |n: usize| {
        NewEvent::new("A", &n).id(format!("e{n}")).tenant(if n.is_multiple_of(2) {
            "taken"
        } else {
            "refused"
        })
    };
    let error = producer.publish_all((0..6).map(event).collect()).await.unwrap_err();
    assert_eq!(error.confirmed.iter().map(EventId::as_str).collect::<Vec<_>>(), ["e0", "e2", "e4"]);
    let failed = error.failed.iter().map(|(place, error)| match error {
        Error::NotConfirmed { id, .. } => (*place, id.as_str()),
        other => panic!("{other}"),
    });
    assert!(failed.eq([(1, "e1"), (3, "e3"), (5, "e5")]), "{:?}", error.failed);
}

#[tokio::test]
async fn a_lost_connection_is_tried_again_with_the_same_id() {
    let (vhost, session) = vhost("producer-lossy").await;
    let proxy = Proxy::start(&vhost.broker().amqp_address()).await;
    let settings = Settings::new(vhost.url_through(proxy.addr()));
    let producer = Producer::connect(settings).await.unwrap();
    let publishing = async {
        for n in 0..200 {
            producer.publish(NewEvent::new("A", &n).id(format!("e{n}"))).await.unwrap();
        }
    };
    let breaking = async {
        for _ in 0..3 {
            postrider_testkit::eventually("a connection", async || proxy.connections() > 0).await;
            proxy.cut().await;
            proxy.restore().await;
        }
    };
    tokio::join!(publishing, breaking);
    assert_eq!(events(&session, 200).await.len(), 200);
}

#[tokio::test]
async fn what_comes_while_many_messages_are_under_way_shares_the_next() {
    let (vhost, session) = vhost("producer-together").await;
    let proxy = Proxy::start(&vhost.broker().amqp_address()).await;
    let producer = Producer::connect(Settings::new(vhost.url_through(proxy.addr()))).await.unwrap();
    let producer = Arc::new(producer);
    proxy.stall().await;
    let publishing = in_line(&producer, (0..308).map(|n| NewEvent::new("A", &n).id(format!("e{n}")))).await;
    proxy.restore().await;
    let confirmed = ended(publishing).await.into_iter().map(|id| id.unwrap().to_string());
    let confirmed: BTreeSet<String> = confirmed.collect();
    assert_eq!(confirmed.len(), 308);
    let mut consumer = session.consume("postrider.events", 1000).await.unwrap();
    let (mut found, mut messages) = (Vec::new(), 0);
    while found.len() < 308 {
        let next = tokio::time::timeout(postrider_testkit::patience(), consumer.next());
        let message = next.await.expect("another message").unwrap();
        let body: Value = serde_json::from_slice(message.body()).unwrap();
        let events = body.as_array().map_or(std::slice::from_ref(&body), Vec::as_slice);
        found.extend(events.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
        messages += 1;
    }
    assert_eq!(messages, 8 + 3, "eight alone, and a hundred in each after them");
    assert_eq!((found.len(), found.into_iter().collect::<BTreeSet<_>>()), (308, confirmed), "each once");
    // Alone it is sent alone, and at once.
    producer.publish(NewEvent::new("A", &()).id("alone")).await.unwrap();
    let next = tokio::time::timeout(postrider_testkit::patience(), consumer.next());
    let message = next.await.expect("another message").unwrap();
    assert_eq!((message.message_id(), message.body()[0]), (Some("alone"), b'{'));
}

#[tokio::test]
async fn however_many_tenants_there_are_so_many_messages_are_under_way() {
    let (vhost, session) = vhost("producer-tenants").await;
    let proxy = Proxy::start(&vhost.broker().amqp_address()).await;
    let producer = Producer::connect(Settings::new(vhost.url_through(proxy.addr()))).await.unwrap();
    let producer = Arc::new(producer);
    proxy.stall().await;
    let event = |n: usize| NewEvent::new("A", &n).id(format!("e{n}")).tenant(format!("t{}", n % 100));
    let publishing = in_line(&producer, (0..400).map(event)).await;
    proxy.restore().await;
    let published = ended(publishing).await;
    assert!(published.iter().all(Result::is_ok), "{:?}", published.iter().find(|result| result.is_err()));
    let mut consumer = session.consume("postrider.events", 1000).await.unwrap();
    let mut messages = Vec::new();
    while messages.iter().sum::<usize>() < 400 {
        let next = tokio::time::timeout(postrider_testkit::patience(), consumer.next());
        let message = next.await.expect("another message").unwrap();
        let body: Value = serde_json::from_slice(message.body()).unwrap();
        messages.push(body.as_array().map_or(1, Vec::len));
    }
    // 64 tenants had their first event under way; what came later of them, and all of the other 36, waited and shared.
    let of_length = |length| messages.iter().filter(|events| **events == length).count();
    assert_eq!((of_length(1), of_length(3), of_length(4)), (64, 64, 36), "{messages:?}");
}

#[tokio::test]
async fn who_leaves_or_gives_up_takes_nobody_along() {
    let (vhost, _session) = vhost("producer-leaving").await;
    let proxy = Proxy::start(&vhost.broker().amqp_address()).await;
    let url = vhost.url_through(proxy.addr());
    let connect =
        async |patience| Arc::new(Producer::connect(Settings::new(&url).patience(patience)).await.unwrap());
    let (patient, hasty) =
        (connect(postrider_testkit::patience()).await, connect(Duration::from_millis(300)).await);
    proxy.cut().await;
    let event = |n: usize| NewEvent::new("A", &n).id(format!("e{n}"));
    let given_up = ended(in_line(&hasty, (0..300).map(event)).await).await;
    assert!(given_up.iter().all(|result| matches!(result, Err(Error::NotConfirmed { .. }))));
    // Every other one leaves, so that those who stay share messages with them.
    let mut staying = Vec::new();
    for (n, publishing) in in_line(&patient, (0..600).map(event)).await.into_iter().enumerate() {
        if n % 2 == 0 {
            publishing.abort();
            assert!(publishing.await.unwrap_err().is_cancelled());
        } else {
            staying.push(publishing);
        }
    }
    proxy.restore().await;
    let stayed = ended(staying).await;
    assert!(stayed.iter().all(Result::is_ok), "{:?}", stayed.iter().find(|result| result.is_err()));
    // Nor is anything stuck in the one that gave up.
    let again = async || hasty.publish(NewEvent::new("A", &()).id("again")).await.is_ok();
    postrider_testkit::eventually("another event is published", again).await;
}

#[tokio::test]
async fn a_producer_whose_runtime_has_ended_says_so() {
    let (vhost, _session) = vhost("producer-runtime").await;
    let url = vhost.url();
    let begun = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(Producer::connect(Settings::new(url))).unwrap()
    });
    let producer = begun.await.unwrap();
    let publish = producer.publish(NewEvent::new("A", &()).id("e1"));
    let error = tokio::time::timeout(postrider_testkit::patience(), publish).await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::NotConfirmed { id, .. } if id.as_str() == "e1"), "{error}");
    assert_eq!(format!("{producer:?}"), "Producer");
}

#[tokio::test]
async fn a_broker_that_is_not_there_shows_at_once() {
    let error = Producer::connect(Settings::new("amqp://user:canary@127.0.0.1:1/%2f")).await.unwrap_err();
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[tokio::test]
async fn without_a_topology_the_error_names_the_event() {
    let vhost = Vhost::create(&Broker::shared().await, "producer-bare").await;
    let settings = Settings::new(vhost.url()).patience(Duration::from_millis(300));
    let producer = Producer::connect(settings).await.unwrap();
    let error = producer.publish(NewEvent::new("A", &()).id("e1")).await.unwrap_err();
    assert!(matches!(&error, Error::NotConfirmed { id, .. } if id.as_str() == "e1"), "{error}");
}
