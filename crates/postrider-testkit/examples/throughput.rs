//! How many deliveries a second this machine makes, beside a naked loop in the same run.
//!
//! ```text
//! cargo run -p postrider-testkit --example throughput [EVENTS]
//! ```
//!
//! The naked loop publishes to one quorum queue with confirms, consumes, POSTs and acks, and does nothing else: no
//! routing, no signature, no journal, no store. Postrider runs as three processes, all of them on this machine too.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints, and stops at the first trouble"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use postrider_testkit::process::{Postrider, free_port};
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const BODY_BYTES: usize = 1024;
const WINDOW: usize = 256;
const TOKEN: &str = "throughput-admin-token-of-32-characters";

#[tokio::main]
async fn main() {
    let events: usize = std::env::args().nth(1).map_or(5_000, |text| text.parse().unwrap());
    let sink = Sink::start().await;
    for round in 1..=2 {
        let naked = naked_loop(events, &sink).await;
        let one = pipeline(events, 1, &sink).await;
        let ten = pipeline(events / 5, 10, &sink).await;
        println!(
            "round {round}: naked loop {naked:.0}/s; one event to one webhook {one:.0}/s ({:.2}); \
             one event to ten webhooks {ten:.0}/s ({:.2})",
            one / naked,
            ten / naked
        );
    }
}

/// Answers 200 to everything, and counts.
struct Sink {
    port: u16,
    count: Arc<AtomicUsize>,
}

impl Sink {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                connection.set_nodelay(true).ok();
                tokio::spawn(answer(connection, counted.clone()));
            }
        });
        Self { port, count }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    async fn reach(&self, count: usize) {
        let begun = Instant::now();
        while self.count.load(Ordering::Relaxed) < count {
            assert!(
                begun.elapsed() < Duration::from_secs(300),
                "{} of {count}",
                self.count.load(Ordering::Relaxed)
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn answer(mut connection: TcpStream, count: Arc<AtomicUsize>) {
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if connection.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length =
            text.split("content-length:").nth(1).and_then(|rest| rest.lines().next()).unwrap().trim();
        let whole = head + length.parse::<usize>().unwrap();
        while buffer.len() < whole {
            if connection.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        buffer.drain(..whole);
        count.fetch_add(1, Ordering::Relaxed);
        if connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

fn body(n: usize) -> Vec<u8> {
    let data = "x".repeat(BODY_BYTES - 100);
    json!({ "event_type": "USER_LOGIN", "id": format!("{n}-{}", rand::random::<u64>()), "data": data })
        .to_string()
        .into()
}

/// Publishes over four channels, at most [`WINDOW`] unconfirmed.
async fn publish(vhost: &Vhost, exchange: &'static str, key: &'static str, count: usize) {
    let connection = vhost.connect().await;
    let mut channels: Vec<Channel> = Vec::new();
    for _ in 0..4 {
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channels.push(channel);
    }
    let window = Arc::new(Semaphore::new(WINDOW));
    for n in 0..count {
        let slot = window.clone().acquire_owned().await.unwrap();
        let properties =
            BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let channel = &channels[n % channels.len()];
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm =
            channel.basic_publish(exchange.into(), key.into(), options, &body(n), properties).await.unwrap();
        tokio::spawn(async move {
            assert!(confirm.await.unwrap().is_ack());
            drop(slot);
        });
    }
    window.acquire_many(WINDOW as u32).await.unwrap().forget();
    connection.close(200, "done".into()).await.unwrap();
}

async fn naked_loop(events: usize, sink: &Sink) -> f64 {
    use futures_util::StreamExt as _;
    let vhost = Vhost::create(&Broker::shared().await, "naked").await;
    let connection = vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("naked".into(), durable, arguments).await.unwrap();
    channel.basic_qos(WINDOW as u16, BasicQosOptions::default()).await.unwrap();
    let none = FieldTable::default();
    let mut consumer = channel
        .basic_consume("naked".into(), "naked".into(), BasicConsumeOptions::default(), none)
        .await
        .unwrap();
    let client = postrider_testkit::http::client();
    let (before, url) = (sink.count.load(Ordering::Relaxed), sink.url());
    let begun = Instant::now();
    let consuming = async {
        let acked = Arc::new(AtomicUsize::new(0));
        for _ in 0..events {
            let delivery = consumer.next().await.unwrap().unwrap();
            let (client, url, acked) = (client.clone(), url.clone(), acked.clone());
            tokio::spawn(async move {
                let response = client.post(url).body(delivery.data.clone()).send().await.unwrap();
                assert!(response.status().is_success());
                delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
                acked.fetch_add(1, Ordering::Relaxed);
            });
        }
        while acked.load(Ordering::Relaxed) < events {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::join!(publish(&vhost, "", "naked", events), consuming);
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(sink.count.load(Ordering::Relaxed) - before, events);
    events as f64 / took
}

async fn pipeline(events: usize, webhooks: usize, sink: &Sink) -> f64 {
    let vhost = Vhost::create(&Broker::shared().await, "pipeline").await;
    let store = tempfile::tempdir().unwrap();
    let api = format!("127.0.0.1:{}", free_port());
    let mut roles = Vec::new();
    for role in ["control", "router", "worker"] {
        let health = format!("127.0.0.1:{}", free_port());
        let process = Postrider::with(["serve", role])
            .env("POSTRIDER_AMQP_URL", vhost.url())
            .env("POSTRIDER_TOPOLOGY", "apply")
            .env("POSTRIDER_ADMIN_TOKEN", TOKEN)
            .env("POSTRIDER_MASTER_KEY", "cG9zdHJpZGVyIHRlc3Qga2V5IG9mIDMyIGJ5dGVzISE=")
            .env("POSTRIDER_STORE_URL", format!("sqlite:{}", store.path().join("postrider.db").display()))
            .env("POSTRIDER_LISTEN", &api)
            .env("POSTRIDER_METRICS_LISTEN", &health)
            .env("POSTRIDER_EGRESS_ALLOW", "127.0.0.0/8")
            .env("POSTRIDER_LOG", "warn")
            .start();
        roles.push((process, health));
    }
    for (process, health) in &roles {
        process.wait_ready(health).await;
    }
    let client = postrider_testkit::http::client();
    for n in 0..webhooks {
        let webhook = json!({ "name": n.to_string(), "url": sink.url(), "subscription": { "all": true } });
        let created =
            client.post(format!("http://{api}/v1/webhooks")).bearer_auth(TOKEN).json(&webhook).send().await;
        assert!(created.unwrap().status().is_success());
    }
    // An event over HTTP waits until the roles know the webhooks; the measured ones, over AMQP, would not.
    let before = sink.count.load(Ordering::Relaxed);
    let first = json!({ "event_type": "USER_LOGIN" });
    let sent = client.post(format!("http://{api}/v1/events")).bearer_auth(TOKEN).json(&first).send().await;
    assert!(sent.unwrap().status().is_success());
    sink.reach(before + webhooks).await;
    let before = sink.count.load(Ordering::Relaxed);
    let begun = Instant::now();
    tokio::join!(
        publish(&vhost, "postrider.events", "default", events),
        sink.reach(before + events * webhooks)
    );
    let took = begun.elapsed().as_secs_f64();
    (events * webhooks) as f64 / took
}
