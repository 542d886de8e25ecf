//! The broker crate against a real RabbitMQ: each test has a vhost of its own.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod journal;
mod ladder;
mod session;
mod streams;
mod topology;

use postrider_broker::{Metrics, Session, Settings};
use postrider_testkit::rabbit::{Broker, Vhost};

/// A vhost, settings for it with a ladder of `unit_ms`, and an open session.
async fn open(name: &str, unit_ms: u64) -> (Vhost, Settings, Session) {
    postrider_testkit::logging();
    let vhost = Vhost::create(&Broker::shared().await, name).await;
    let settings = Settings { unit_ms, ..Settings::new(vhost.url(), "test") };
    let session = Session::open(&settings, &metrics()).await.unwrap();
    (vhost, settings, session)
}

fn metrics() -> Metrics {
    Metrics::register(&prometheus::Registry::new(), "test").unwrap()
}
