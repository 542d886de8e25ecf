//! Starting, stopping, losing the broker, dying.

use std::time::Duration;

use postrider_broker::Lane;
use postrider_core::address::EgressPolicy;
use postrider_core::books::End;
use postrider_testkit::{Answer, eventually};

use crate::{Bench, Worker};

#[tokio::test]
async fn at_the_shutdown_what_is_in_flight_ends_and_the_rest_is_given_back() {
    let mut bench = Bench::new("drain").await;
    let mut webhook = bench.webhook("wh");
    webhook.timeout_ms = 10_000;
    webhook.change = |record| record.max_in_flight = 100;
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/wh", [Answer::Status(200).after(Duration::from_millis(700))]);
    let worker = Worker::with(&bench.settings, |config| {
        config.egress = EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        (config.concurrency, config.slow_concurrency) = (16, 0);
    });
    worker.ready().await;
    for n in 0..40 {
        bench.deliver(&[&format!("e{n}")], "wh").await;
    }
    bench.receiver.wait_for(16).await;
    worker.stop().await;
    let sent = bench.receiver.count();
    let done = bench.done(sent).await;
    assert!(done.iter().all(|done| done.end == End::Delivered), "nothing in flight was abandoned");
    let fresh = bench.names().delivery_queue(Lane::Fresh, 0);
    assert_eq!(
        bench.vhost.queue_depth(&fresh).await as usize,
        40 - sent,
        "the rest waits for another worker"
    );

    let next = Worker::start(&bench.settings);
    bench.done(40).await;
    assert_eq!(bench.receiver.count(), 40, "no duplicates over a graceful restart");
    next.stop().await;
}

#[tokio::test]
async fn a_worker_that_loses_its_session_repeats_only_what_was_in_flight() {
    let mut bench = Bench::new("lost-session").await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/wh", [Answer::Status(200).after(Duration::from_millis(30))]);
    let few = |config: &mut postrider_worker::Config| {
        config.egress = EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        (config.concurrency, config.slow_concurrency) = (16, 0);
    };
    let worker = Worker::with(&bench.settings, few);
    worker.ready().await;
    for n in 0..100 {
        bench.deliver(&[&format!("e{n}")], "wh").await;
    }
    bench.receiver.wait_for(20).await;
    eventually("connections are cut", async || bench.vhost.close_all_connections().await > 0).await;
    bench
        .facts_until("every delivery ended", |facts| {
            let done = crate::done(facts);
            let ids: std::collections::BTreeSet<_> = done.iter().map(|done| done.delivery.as_str()).collect();
            ids.len() == 100
        })
        .await;
    let requests = bench.receiver.count();
    assert!((100..=100 + 16).contains(&requests), "{requests} requests for 100 deliveries, 16 at once");
    worker.stop().await;
}

#[tokio::test]
async fn after_the_broker_cut_its_connections_the_worker_goes_on() {
    let mut bench = Bench::new("reconnect").await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    bench.deliver(&["before"], "wh").await;
    bench.receiver.wait_for(1).await;
    eventually("connections are cut", async || bench.vhost.close_all_connections().await > 0).await;
    let webhook = bench.webhook("wh");
    let mut configuration = postrider_testkit::config::Configuration::publish(&bench.settings).await;
    configuration.webhook(&webhook).await;
    bench.configuration = configuration;
    bench.deliver(&["after"], "wh").await;
    bench.receiver.wait_until("the second event arrives", |requests| requests.len() >= 2).await;
    worker.stop().await;
}
