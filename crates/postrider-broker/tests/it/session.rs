//! Losing the broker, being blocked by it, publishing into the void.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use postrider_broker::{
    BrokerError, Lane, Names, Outgoing, Readiness, Session, Settings, supervise, topology,
};
use postrider_testkit::rabbit::Node;
use postrider_testkit::{chaos::Proxy, eventually};
use tokio_util::sync::CancellationToken;

use crate::{metrics, open};

#[tokio::test]
async fn a_broker_that_is_not_there_is_one_clear_error_without_the_password() {
    let settings = Settings::new("amqp://user:canary@127.0.0.1:1/%2f", "test");
    let error = Session::open(&settings, &metrics()).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains("POSTRIDER_AMQP_URL"), "{error}");
    assert!(!error.contains("canary") && !format!("{settings:?}").contains("canary"), "{error}");
}

#[tokio::test]
async fn a_message_without_a_queue_is_an_error_and_ends_the_session() {
    let (_vhost, settings, session) = open("unroutable", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let message = Outgoing::json(settings.names().config(), "", b"{}".to_vec(), "m");
    session.publisher().publish(message).await.unwrap();
    // The deliveries exchange has an alternate, so nothing is lost there; a plain exchange has none.
    let missing = Outgoing::json("amq.direct", "nobody", b"{}".to_vec(), "m");
    let error = session.publisher().publish(missing).await.unwrap_err();
    assert!(matches!(error, BrokerError::Unroutable { .. }), "{error}");
    tokio::time::timeout(Duration::from_secs(5), session.lost()).await.expect("the session is over");
}

#[tokio::test]
async fn the_supervisor_comes_back_after_every_loss() {
    let (vhost, settings, session) = open("supervisor", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    session.close().await;
    let (readiness, shutdown, sessions) = (Readiness::new(), CancellationToken::new(), AtomicU32::new(0));
    let metrics = metrics();
    let life = supervise(&readiness, &shutdown, || async {
        let session = Session::open(&settings, &metrics).await?;
        let mut events = session.consume(&settings.names().events(), 10).await?;
        sessions.fetch_add(1, Ordering::Relaxed);
        readiness.set("broker", Ok(()));
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            message = events.next() => { assert!(message.is_none()); Err(BrokerError::Lost) }
        }
    });
    let breaking = async {
        for round in 1..=3 {
            eventually("a session", async || sessions.load(Ordering::Relaxed) >= round).await;
            // The management API lists a connection only some time after it was opened, and some that are gone.
            eventually("its connections are closed, and the loss shows", async || {
                vhost.close_all_connections().await;
                !readiness.is_ready() || sessions.load(Ordering::Relaxed) > round
            })
            .await;
        }
        eventually("the last session", async || sessions.load(Ordering::Relaxed) >= 4).await;
        shutdown.cancel();
    };
    tokio::join!(life, breaking);
}

#[tokio::test]
async fn a_line_that_goes_dead_is_noticed_by_a_late_confirm() {
    let (vhost, settings, session) = open("dead-line", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let proxy = Proxy::start(&vhost.broker().amqp_address()).await;
    let settings = Settings { url: vhost.url_through(proxy.addr()), ..settings };
    let through = Session::open(&settings, &metrics()).await.unwrap();
    let publisher = through.publisher();
    assert!(publisher.is_flowing());
    proxy.stall().await;
    let message = Outgoing::json(settings.names().journal(), "", b"{}".to_vec(), "m");
    let (published, ()) = tokio::join!(publisher.publish(message), async {
        eventually("a late confirm stops new work", async || !publisher.is_flowing()).await;
    });
    assert!(matches!(published, Err(BrokerError::Unconfirmed { .. })), "{published:?}");
    assert!(through.is_lost());
}

#[tokio::test]
async fn a_deleted_queue_ends_the_session() {
    let (vhost, settings, session) = open("deleted-queue", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let queue = settings.names().events();
    let mut events = session.consume(&queue, 10).await.unwrap();
    let channel = vhost.connect().await.create_channel().await.unwrap();
    channel.queue_delete(queue.as_str().into(), Default::default()).await.unwrap();
    let ended =
        tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("the consumer ends");
    assert!(ended.is_none() && session.is_lost());
}

#[tokio::test]
async fn a_full_queue_stops_new_work_and_ends_no_session() {
    let (vhost, settings, session) = open("full-queue", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let policy = format!("{}api/policies/{}/full", vhost.broker().management_url(), vhost.name());
    let client = postrider_testkit::http::client();
    let limit = r#"{"pattern":"journal$","apply-to":"queues","definition":{"max-length":3}}"#;
    let set =
        client.put(&policy).header("content-type", "application/json").body(limit).send().await.unwrap();
    assert!(set.status().is_success(), "{}", set.status());
    let publisher = session.publisher();
    // The policy takes effect a moment later, so messages go on coming until the queue refuses one.
    let mut publishes = Vec::new();
    eventually("nothing new may begin", async || {
        let message =
            Outgoing::json(settings.names().journal(), "", b"{}".to_vec(), publishes.len().to_string());
        let publisher = publisher.clone();
        publishes.push(tokio::spawn(async move { publisher.publish(message).await }));
        !session.publisher().is_flowing()
    })
    .await;
    let published = publishes.len();
    assert!(client.delete(&policy).send().await.unwrap().status().is_success());
    for publish in publishes {
        publish.await.unwrap().unwrap();
    }
    eventually("work may begin again", async || publisher.is_flowing()).await;
    assert!(!session.is_lost());
    assert_eq!(session.depth(&settings.names().journal()).await.unwrap().ready as usize, published);
}

#[tokio::test]
async fn a_blocked_connection_stops_new_work_and_loses_nothing() {
    let Some(node) = Node::start().await else { return };
    let settings = Settings::new(node.broker().url("%2f"), "test");
    let session = Session::open(&settings, &metrics()).await.unwrap();
    topology::apply(&session, Some(1)).await.unwrap();
    let publisher = session.publisher();
    if !node.block(true).await {
        return;
    }
    // The broker blocks a connection when it publishes.
    let message = || Outgoing::json(settings.names().journal(), "", b"{}".to_vec(), "m");
    let waiting = tokio::spawn({
        let (publisher, message) = (publisher.clone(), message());
        async move { publisher.publish(message).await }
    });
    eventually("publishing does not flow", async || !publisher.is_flowing()).await;
    // Probing goes on: it uses the other connection.
    let before = session.depth(&settings.names().journal()).await.unwrap().ready;
    assert!(!waiting.is_finished());
    node.block(false).await;
    waiting.await.unwrap().unwrap();
    eventually("publishing flows", async || publisher.is_flowing()).await;
    publisher.publish(message()).await.unwrap();
    let after = session.depth(&settings.names().journal()).await.unwrap().ready;
    assert_eq!(after, before + 2);
}

/// RabbitMQ's channels hand acks on to a quorum queue a few at a time, and lose the rest when they are closed.
#[tokio::test]
async fn what_was_acked_stays_acked_when_the_session_closes() {
    const MESSAGES: usize = 500;
    let (_vhost, settings, session) = open("acks", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let names = settings.names();
    let queue = names.delivery_queue(Lane::Fresh, 0);
    for round in 0..3 {
        let session = Session::open(&settings, &metrics()).await.unwrap();
        let publisher = session.publisher();
        let messages = (0..MESSAGES).map(|n| {
            let key = Names::destination(Lane::Fresh, 0);
            publisher.publish(Outgoing::json(names.deliveries(), key, b"{}".to_vec(), format!("m{n}")))
        });
        try_join_all(messages).await.unwrap();
        let mut consumer = session.consume(&queue, 1000).await.unwrap();
        let mut received = Vec::new();
        for _ in 0..MESSAGES {
            received.push(consumer.next().await.unwrap());
        }
        consumer.cancel().await.unwrap();
        for message in received {
            message.ack().await.unwrap();
        }
        assert!(consumer.flush().await.unwrap().is_empty());
        session.close().await;
        let session = Session::open(&settings, &metrics()).await.unwrap();
        // What comes back does so when the broker has noticed the end.
        let mut consumer = session.consume(&queue, 1).await.unwrap();
        let back = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await;
        assert!(back.is_err(), "round {round}: a message that was acked came back: {back:?}");
        session.close().await;
    }
}
