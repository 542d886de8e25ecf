//! The configuration and the deduplication streams.

use std::time::Duration;

use postrider_broker::config_stream::{ConfigStream, Read};
use postrider_broker::seen_stream::{self, SeenRecord};
use postrider_broker::{DirectoryFeed, Outgoing, Readiness, Session, now, topology};
use postrider_core::{EventId, TenantId, Timestamp};
use postrider_testkit::config::{Configuration, NewWebhook};
use postrider_testkit::eventually;

use crate::{metrics, open};

#[tokio::test]
async fn a_reader_has_everything_before_it_says_so() {
    let (_vhost, settings, session) = open("config", 1000).await;
    let mut configuration = Configuration::publish(&settings).await;
    for n in 0..300 {
        configuration.webhook(&NewWebhook::new(format!("wh_{n}"), "https://example.com/")).await;
    }
    let feed = DirectoryFeed::new();
    let readiness = Readiness::new();
    feed.catch_up(&session, &readiness).await.unwrap();
    assert_eq!(feed.read().webhook_count(), 300);
    assert_eq!(feed.read().revision(), configuration.revision());
    configuration.delete("wh_7").await;
    assert!(feed.at_least(configuration.epoch(), configuration.revision(), Duration::from_secs(5)).await);
    assert_eq!(feed.read().webhook_count(), 299);
    assert!(readiness.is_ready());
}

#[tokio::test]
async fn without_a_snapshot_a_reader_waits_and_says_what_for() {
    let (_vhost, settings, session) = open("no-snapshot", 1000).await;
    let configuration = Configuration::without_snapshot(&settings).await;
    let (feed, readiness) = (DirectoryFeed::new(), Readiness::new());
    let reading = tokio::spawn({
        let (feed, readiness) = (feed.clone(), readiness.clone());
        async move { feed.catch_up(&session, &readiness).await }
    });
    eventually("it says what it waits for", async || {
        readiness.parts().iter().any(|(part, state)| {
            *part == "config" && state.as_ref().is_err_and(|why| why.contains("postrider serve control"))
        })
    })
    .await;
    assert!(!reading.is_finished());
    configuration.snapshot(&[NewWebhook::new("wh_1", "https://example.com/")]).await;
    reading.await.unwrap().unwrap();
    assert_eq!(feed.read().webhook_count(), 1);
}

#[tokio::test]
async fn a_record_of_a_newer_schema_is_said_and_skipped() {
    let (_vhost, settings, session) = open("newer-schema", 1000).await;
    let configuration = Configuration::publish(&settings).await;
    let newer = br#"{"schema":99,"all":"different"}"#.to_vec();
    let message = Outgoing::json(settings.names().config(), "", newer, "newer");
    configuration.session().publisher().publish(message).await.unwrap();
    let mut stream = ConfigStream::open(&session).await.unwrap();
    let mut said = Vec::new();
    loop {
        match stream.next().await.unwrap() {
            Read::Unreadable(why) => said.push(why),
            Read::CaughtUp => break,
            Read::Record(_) | Read::Damaged(_) => {}
        }
    }
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("schema 99") && said[0].contains("upgrade"), "{said:?}");
}

#[tokio::test]
async fn the_empty_stream_has_an_end() {
    let (_vhost, _settings, session) = open("empty-stream", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let mut records = Vec::new();
    seen_stream::read_since(&session, Timestamp::from_millis(0), |record| records.push(record))
        .await
        .unwrap();
    assert_eq!(records, []);
}

#[tokio::test]
async fn ids_that_were_seen_are_read_back_by_another_session() {
    let (_vhost, settings, session) = open("seen", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let ids = |n: u32| vec![(TenantId::default_tenant(), EventId::from_trusted(format!("e{n}")))];
    for n in 0..50 {
        let record = SeenRecord::new(now(), ids(n));
        seen_stream::write(&session.publisher(), &settings.names(), &record).await.unwrap();
    }
    let other = Session::open(&settings, &metrics()).await.unwrap();
    let hour_ago = Timestamp::from_millis(now().as_millis() - 3_600_000);
    let mut read = Vec::new();
    seen_stream::read_since(&other, hour_ago, |record| read.extend(record.ids)).await.unwrap();
    let written: Vec<_> = (0..50).flat_map(ids).collect();
    assert_eq!(read, written);
    // Everything on the stream is older than what is asked for, as after a quiet night.
    let reading = seen_stream::read_since(&other, now(), |_| {});
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("it ends at its own marker").unwrap();
}
