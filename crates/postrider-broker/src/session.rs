//! Two connections that live and die together: one publishes, one consumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::consume::{Attached, Consumer};
use crate::error::BrokerError;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::publish::{ConfirmedChannel, Publisher, within};
use crate::readiness::Readiness;
use crate::watchdog::{self, Consumed};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// Channels to publish over. The broker slows a channel with more than 32 unconfirmed commands to one queue, so
/// several are faster than one.
const PUBLISH_CHANNELS: usize = 4;
/// Heartbeat, seconds: a dead peer is noticed within twice this.
const HEARTBEAT_SECS: u16 = 15;

/// Where the broker is and how our things are called there.
#[derive(Clone)]
pub struct Settings {
    /// `amqp://user:password@host:5672/vhost` or `amqps://…`.
    pub url: String,
    /// Begins every name on the broker.
    pub prefix: String,
    /// The ladder's unit, milliseconds.
    pub unit_ms: u64,
    /// Whose connection it is: shown by the broker, label of metrics.
    pub role: &'static str,
}

impl Settings {
    /// Settings with the usual prefix and a ladder in seconds.
    pub fn new(url: impl Into<String>, role: &'static str) -> Self {
        Self { url: url.into(), prefix: "postrider".into(), unit_ms: 1000, role }
    }

    /// The names on the broker.
    pub fn names(&self) -> Names {
        Names::new(&self.prefix, self.unit_ms)
    }

    /// Host and port, without the password.
    pub fn address(&self) -> String {
        match self.url.parse::<AMQPUri>() {
            Ok(uri) => format!("{}:{}", uri.authority.host, uri.authority.port),
            Err(_) => "(unreadable address)".into(),
        }
    }

    /// Opens one connection.
    pub(crate) async fn connect(&self, what: &str) -> Result<Connection, BrokerError> {
        let mut uri: AMQPUri = self.url.parse().map_err(BrokerError::BadAddress)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
        let name = format!("postrider {} {what}", self.role);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let failed = |cause: String| BrokerError::Connect { address: self.address(), cause };
        match tokio::time::timeout(CONNECT, Connection::connect_uri(uri, properties)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", CONNECT.as_secs()))),
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Settings({} as {}, prefix {}, unit {} ms)",
            self.address(),
            self.role,
            self.prefix,
            self.unit_ms
        )
    }
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Messages that nobody holds.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// Looks at queues, without consuming. Clones share a channel.
#[derive(Clone, Debug)]
pub struct Prober {
    // The consuming connection, since a blocked publishing one would not answer.
    connection: Arc<Connection>,
    // A passive declare that fails closes its channel.
    channel: Arc<Mutex<Option<Channel>>>,
}

impl Prober {
    /// How full a queue is, by passive declare.
    ///
    /// # Errors
    /// [`BrokerError::Missing`] when there is no such queue.
    pub async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let mut probe = self.channel.lock().await;
        let channel = match probe.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => within("channel.open", self.connection.create_channel()).await?,
        };
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(ShortString::from(queue), options, FieldTable::default());
        match within("queue.declare", declare).await {
            Ok(state) => {
                *probe = Some(channel);
                Ok(Depth { ready: state.message_count(), consumers: state.consumer_count() })
            }
            Err(BrokerError::Missing { .. }) => Err(BrokerError::Missing { name: queue.to_owned() }),
            Err(error) => Err(error),
        }
    }
}

/// A publish connection and a consume connection. When either is lost, both are over: whatever was under way is done
/// again by the next session, with the same ids.
#[derive(Debug)]
pub struct Session {
    names: Names,
    publisher: Publisher,
    publishing: Connection,
    consuming: Arc<Connection>,
    prober: Prober,
    lost: CancellationToken,
    metrics: Metrics,
    consumed: Consumed,
    /// Whether declaring was not denied yet.
    may_declare: AtomicBool,
}

impl Session {
    /// Connects twice and opens the channels to publish over.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker cannot be reached, or refuses.
    pub async fn open(settings: &Settings, metrics: &Metrics) -> Result<Self, BrokerError> {
        let publishing = settings.connect("publish").await?;
        let consuming = Arc::new(settings.connect("consume").await?);
        let lost = CancellationToken::new();
        let mut channels = Vec::with_capacity(PUBLISH_CHANNELS);
        for _ in 0..PUBLISH_CHANNELS {
            let channel = within("channel.open", publishing.create_channel()).await?;
            channels.push(ConfirmedChannel::on(channel).await?);
        }
        let publisher = Publisher::new(channels, lost.clone(), metrics.clone());
        metrics.connected.set(1);
        metrics.sessions.inc();
        watch(&publishing, Some(publisher.clone()), lost.clone());
        watch(&consuming, None, lost.clone());
        let names = settings.names();
        let metrics = metrics.clone();
        let prober = Prober { connection: consuming.clone(), channel: Arc::default() };
        let consumed = Consumed::default();
        let may_declare = AtomicBool::new(true);
        Ok(Self { names, publisher, publishing, consuming, prober, lost, metrics, consumed, may_declare })
    }

    /// The names on the broker.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Publishes over this session.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Receives from a queue, at most `prefetch` messages unsettled.
    ///
    /// # Errors
    /// [`BrokerError::Missing`] when there is no such queue.
    pub async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        let (channel, stream) = self.attach(queue, prefetch, FieldTable::default()).await?;
        let one_at_a_time = queue == self.names.events();
        let attached = Attached::new(self.consumed.add(queue, one_at_a_time), self.metrics.clone());
        Ok(self.consumer(queue, channel, stream, Some(attached)))
    }

    /// Receives from a stream.
    pub(crate) async fn consume_stream(
        &self,
        stream: &str,
        prefetch: u16,
        arguments: FieldTable,
    ) -> Result<Consumer, BrokerError> {
        let (channel, records) = self.attach(stream, prefetch, arguments).await?;
        Ok(self.consumer(stream, channel, records, None))
    }

    fn consumer(
        &self,
        queue: &str,
        channel: Channel,
        stream: lapin::Consumer,
        attached: Option<Attached>,
    ) -> Consumer {
        let (lost, metrics) = (self.lost.clone(), self.metrics.clone());
        Consumer::new(channel, stream, queue.to_owned(), lost, metrics, attached)
    }

    async fn attach(
        &self,
        queue: &str,
        prefetch: u16,
        arguments: FieldTable,
    ) -> Result<(Channel, lapin::Consumer), BrokerError> {
        let channel = within("channel.open", self.consuming.create_channel()).await?;
        within("basic.qos", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let tag = format!("{}-{}", queue, uuid::Uuid::new_v4().simple());
        let consume = channel.basic_consume(
            ShortString::from(queue),
            ShortString::from(tag.as_str()),
            BasicConsumeOptions::default(),
            arguments,
        );
        let stream = match within("basic.consume", consume).await {
            Err(BrokerError::Missing { .. }) => return Err(BrokerError::Missing { name: queue.to_owned() }),
            other => other?,
        };
        Ok((channel, stream))
    }

    /// How full a queue is, by passive declare.
    ///
    /// # Errors
    /// [`BrokerError::Missing`] when there is no such queue.
    pub async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        self.prober.depth(queue).await
    }

    /// The metrics of its role's traffic.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Looks at queues for as long as the session lasts.
    pub fn prober(&self) -> Prober {
        self.prober.clone()
    }

    /// A channel for declaring things: on the consuming connection, which the broker never blocks.
    pub(crate) async fn declaring_channel(&self) -> Result<Channel, BrokerError> {
        within("channel.open", self.consuming.create_channel()).await
    }

    /// Whether declaring may be tried: it was not denied to this session.
    pub(crate) fn may_declare(&self) -> bool {
        self.may_declare.load(Ordering::Relaxed)
    }

    /// Declaring was denied: it is not tried again, since RabbitMQ logs each denial.
    pub(crate) fn only_look(&self) {
        self.may_declare.store(false, Ordering::Relaxed);
    }

    /// For as long as the session lasts: says in the part `publishing` of `readiness` whether publishing flows, and shows
    /// the watchdog whether anything gets done.
    pub fn report_flow(&self, readiness: &Readiness) {
        let (prober, metrics) = (self.prober(), self.metrics.clone());
        watchdog::show(self.consumed.clone(), prober, metrics, readiness.clone(), self.lost.clone());
        let (publisher, lost, readiness) = (self.publisher(), self.lost.clone(), readiness.clone());
        tokio::spawn(async move {
            loop {
                readiness.set(
                    "publishing",
                    match publisher.is_flowing() {
                        true => Ok(()),
                        false => Err(
                            "RabbitMQ takes no messages: it blocks us, a queue is full, or confirms are late"
                                .into(),
                        ),
                    },
                );
                tokio::select! {
                    () = lost.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(250)) => {}
                }
            }
        });
    }

    /// Waits until the session is over.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether the session is over.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Closes both connections. Unsettled messages go back to their queues.
    pub async fn close(&self) {
        self.lost.cancel();
        self.metrics.connected.set(0);
        self.metrics.blocked.set(0);
        for connection in [&*self.consuming, &self.publishing] {
            let close = connection.close(200, ShortString::from("closing"));
            if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(2), close).await {
                tracing::debug!(%error, "closing the connection");
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

/// Ends the session when the connection is gone, and tells the publisher when the broker blocks it.
fn watch(connection: &Connection, publisher: Option<Publisher>, lost: CancellationToken) {
    let mut events = Box::pin(connection.events_listener());
    let status = connection.status().clone();
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                () = lost.cancelled() => return,
                event = events.next() => event,
            };
            match (event, &publisher) {
                (Some(Event::ConnectionBlocked(reason)), Some(publisher)) => {
                    tracing::warn!(reason, "the broker blocks publishing");
                    publisher.set_blocked(true);
                }
                (Some(Event::ConnectionUnblocked), Some(publisher)) => {
                    tracing::info!("the broker takes messages again");
                    publisher.set_blocked(false);
                }
                // Errors of a single channel come here too; whoever uses that channel deals with them.
                (Some(Event::Error(_)), _) if status.connected() => {}
                (Some(Event::Error(error)), _) => {
                    tracing::warn!(%error, "the connection to the broker failed");
                    lost.cancel();
                    return;
                }
                (Some(_), _) => {}
                (None, _) => {
                    lost.cancel();
                    return;
                }
            }
        }
    });
}
