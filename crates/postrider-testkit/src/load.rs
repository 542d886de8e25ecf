//! A publisher that loses nothing: what is not confirmed is published again under the same id, over any number of restarts
//! of the broker, and what is confirmed is in a ledger.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ledger::Published;
use crate::{must, patience};

/// How long a confirm may take before the connection is taken for dead.
const CONFIRM: Duration = Duration::from_secs(15);
/// Pause between tries to connect.
const RECONNECT: Duration = Duration::from_millis(100);

type Body = Arc<dyn Fn(u64) -> Value + Send + Sync>;

/// Events to publish.
#[derive(Clone)]
pub struct Load {
    url: String,
    exchange: String,
    tenant: String,
    ids: String,
    events: u64,
    per_second: Option<f64>,
    per_message: u64,
    window: usize,
    body: Body,
    ledger: Option<Published>,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").field("url", &self.url).field("events", &self.events).finish_non_exhaustive()
    }
}

impl Load {
    /// So many events of the default tenant to the vhost at this AMQP URL, as fast as it goes. Their ids are new for each
    /// load; their type is `LOAD`, and their data holds their number.
    pub fn new(url: impl Into<String>, events: u64) -> Self {
        Self {
            url: url.into(),
            exchange: "postrider.events".into(),
            tenant: "default".into(),
            ids: format!("load-{:08x}", rand::random::<u32>()),
            events,
            per_second: None,
            per_message: 1,
            window: 64,
            body: Arc::new(|n| json!({ "event_type": "LOAD", "data": { "n": n } })),
            ledger: None,
        }
    }

    /// Writes what is confirmed into this ledger.
    pub fn ledger(mut self, ledger: &Published) -> Self {
        self.ledger = Some(ledger.clone());
        self
    }

    /// Publishes for this tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Begins the ids with this; a hyphen and the number of the event follow.
    pub fn ids(mut self, prefix: impl Into<String>) -> Self {
        self.ids = prefix.into();
        self
    }

    /// Publishes at most so many a second.
    pub fn per_second(mut self, rate: f64) -> Self {
        self.per_second = Some(rate);
        self
    }

    /// Publishes so many in each message, as an array; one by one unless said otherwise.
    pub fn per_message(mut self, events: u64) -> Self {
        self.per_message = events.max(1);
        self
    }

    /// So many messages may be unconfirmed at a time; 64 unless said otherwise.
    pub fn window(mut self, unconfirmed: usize) -> Self {
        self.window = unconfirmed.max(1);
        self
    }

    /// Makes each event from its number, from 0. The id is added.
    pub fn body(mut self, body: impl Fn(u64) -> Value + Send + Sync + 'static) -> Self {
        self.body = Arc::new(body);
        self
    }

    /// The id of an event by its number.
    pub fn id(&self, n: u64) -> String {
        format!("{}-{n}", self.ids)
    }

    /// Publishes in the background.
    pub fn start(self) -> Loading {
        let progress = Arc::new(Progress::default());
        let stop = CancellationToken::new();
        let events = self.events;
        let task = tokio::spawn(self.run(progress.clone(), stop.clone()));
        Loading { events, progress, stop, task }
    }

    /// Publishes everything, and returns when all of it is confirmed and in the ledger.
    pub async fn publish(self) {
        self.start().finish().await;
    }

    async fn run(self, progress: Arc<Progress>, stop: CancellationToken) {
        let begun = Instant::now();
        let (mut next, mut again) = (0, Vec::new());
        while (next < self.events && !stop.is_cancelled()) || !again.is_empty() {
            let Some((_connection, channel)) = self.connect().await else {
                tokio::time::sleep(RECONNECT).await;
                continue;
            };
            let mut under_way = FuturesUnordered::new();
            let mut broken = false;
            loop {
                while under_way.len() < self.window && !broken {
                    let n = match again.pop() {
                        Some(n) => n,
                        None if next < self.events
                            && !stop.is_cancelled()
                            && self.is_time_for(next, begun) =>
                        {
                            let first = next;
                            next = (first + self.per_message).min(self.events);
                            first
                        }
                        None => break,
                    };
                    under_way.push(self.publish_message(&channel, n));
                }
                let step = Duration::from_millis(5);
                match tokio::time::timeout(step, under_way.next()).await {
                    Ok(Some((n, true))) => {
                        let events = self.message_from(n).count() as u64;
                        progress.confirmed.fetch_add(events, Ordering::Relaxed);
                        tracing::trace!(n, events, "confirmed");
                    }
                    // What became of it is not known: the same id goes out again, over a new connection.
                    Ok(Some((n, false))) => {
                        again.push(n);
                        progress.republished.fetch_add(1, Ordering::Relaxed);
                        broken = true;
                    }
                    Ok(None) if broken => break,
                    Ok(None) if (next >= self.events || stop.is_cancelled()) && again.is_empty() => return,
                    Ok(None) => tokio::time::sleep(step).await,
                    Err(_) => {}
                }
            }
        }
    }

    fn is_time_for(&self, n: u64, begun: Instant) -> bool {
        self.per_second.is_none_or(|rate| begun.elapsed().as_secs_f64() * rate >= n as f64)
    }

    async fn connect(&self) -> Option<(Connection, Channel)> {
        let connecting = async {
            let properties = ConnectionProperties::default().with_connection_name("load".into());
            let connection = Connection::connect(&self.url, properties).await.ok()?;
            let channel = connection.create_channel().await.ok()?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
            Some((connection, channel))
        };
        tokio::time::timeout(CONFIRM, connecting).await.ok().flatten()
    }

    /// The events of the message that begins with one.
    fn message_from(&self, first: u64) -> Range<u64> {
        first..(first + self.per_message).min(self.events)
    }

    /// Publishes the message that begins with an event; whether it was confirmed, and its events are in the ledger.
    async fn publish_message(&self, channel: &Channel, first: u64) -> (u64, bool) {
        let event = |n| {
            let mut body = (self.body)(n);
            body["id"] = json!(self.id(n));
            body
        };
        let body = match self.per_message {
            1 => event(first),
            _ => self.message_from(first).map(event).collect(),
        };
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id(self.id(first).into())
            .with_delivery_mode(2);
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        let (exchange, key) = (self.exchange.as_str().into(), self.tenant.as_str().into());
        let publish = async {
            let body = body.to_string();
            let confirm =
                channel.basic_publish(exchange, key, mandatory, body.as_bytes(), properties).await.ok()?;
            confirm.await.ok()
        };
        let confirmed = tokio::time::timeout(CONFIRM, publish).await;
        if !matches!(confirmed, Ok(Some(Confirmation::Ack(None)))) {
            return (first, false);
        }
        if let Some(ledger) = &self.ledger {
            let ids: Vec<String> = self.message_from(first).map(|n| self.id(n)).collect();
            join_all(ids.iter().map(|id| ledger.append(&self.tenant, id))).await;
        }
        (first, true)
    }
}

#[derive(Debug, Default)]
struct Progress {
    confirmed: AtomicU64,
    republished: AtomicU64,
}

/// A load that is being published. It ends with the value.
#[derive(Debug)]
pub struct Loading {
    events: u64,
    progress: Arc<Progress>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Loading {
    /// How many events it is made of.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many events are confirmed so far.
    pub fn confirmed(&self) -> u64 {
        self.progress.confirmed.load(Ordering::Relaxed)
    }

    /// How often an event was published again, since its confirm did not come.
    pub fn republished(&self) -> u64 {
        self.progress.republished.load(Ordering::Relaxed)
    }

    /// Waits until so many are confirmed; panics when patience ends without any more.
    pub async fn reached(&self, events: u64) {
        let (mut before, mut since) = (self.confirmed(), Instant::now());
        while self.confirmed() < events {
            if self.confirmed() > before {
                (before, since) = (self.confirmed(), Instant::now());
            }
            assert!(since.elapsed() < patience(), "{before} of {events} events are confirmed, and no more");
            assert!(!self.task.is_finished(), "the load has ended with {before} of {events} events");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Publishes no new events, and returns how many are confirmed when all that were begun are.
    pub async fn stop(mut self) -> u64 {
        self.stop.cancel();
        must("publish a load", (&mut self.task).await);
        self.confirmed()
    }

    /// Waits until everything is confirmed and in the ledger; returns how many events that are.
    pub async fn finish(mut self) -> u64 {
        must("publish a load", (&mut self.task).await);
        self.confirmed()
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.task.abort();
    }
}
