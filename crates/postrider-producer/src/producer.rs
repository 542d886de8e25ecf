//! Publishing over a pool of connections, with confirms.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_lapin::{Config, Pool, PoolConfig, Runtime, Timeouts};
use futures_util::StreamExt as _;
use lapin::ConnectionProperties;
use postrider_broker::{BrokerError, ConfirmedChannel, Names, Outgoing, now};
use postrider_core::EventId;
use postrider_core::intake::Refusal;
use tokio::time::Instant;

use crate::array::{self, Message};
use crate::event::{Encoded, NewAction, NewEvent};

/// Channels that are kept for the next publish.
const IDLE_CHANNELS: usize = 64;
/// Messages of [`Producer::publish_all`] that are under way at the same time.
const IN_FLIGHT: usize = IDLE_CHANNELS;

/// Where to publish.
#[derive(Clone)]
pub struct Settings {
    url: String,
    prefix: String,
    connections: usize,
    patience: Duration,
}

impl Settings {
    /// RabbitMQ at `amqp://user:password@host:5672/vhost`, two connections, 30 s of patience.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "postrider".into(),
            connections: 2,
            patience: Duration::from_secs(30),
        }
    }

    /// Another prefix of names on the broker: `POSTRIDER_PREFIX` of the installation.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How many connections the pool holds, from 1 to 16.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 16);
        self
    }

    /// How long one publish is tried again, with the same id, before it fails.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL holds a password.
        write!(f, "Settings(prefix {}, {} connections)", self.prefix, self.connections)
    }
}

/// Why an event was not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postrider would refuse it; nothing was sent.
    #[error("the event is refused: {0}")]
    Refused(Refusal),
    /// It is not confirmed. It may have arrived: publish it again with the same id.
    #[error("{id} is not confirmed ({cause}); publish it again with the same id")]
    NotConfirmed {
        /// The event's id.
        id: EventId,
        /// What the last try said.
        cause: BrokerError,
    },
    /// The broker cannot be reached.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Why some events of many were not published.
#[derive(Debug, thiserror::Error)]
#[error("{} of {} events are not confirmed; the first: {}", failed.len(), failed.len() + confirmed.len(),
    failed.first().map(|(_, e)| e.to_string()).unwrap_or_default())]
pub struct PublishAllError {
    /// These are accepted.
    pub confirmed: Vec<EventId>,
    /// These are not known to be, by their position in the list that was given.
    pub failed: Vec<(usize, Error)>,
}

/// Publishes events. Cheap to share behind an `Arc`; one for each process is enough.
#[derive(Debug)]
pub struct Producer {
    pool: Pool,
    names: Names,
    idle: Mutex<Vec<ConfirmedChannel>>,
    patience: Duration,
}

impl Producer {
    /// Connects, so that a wrong address shows at once.
    ///
    /// # Errors
    /// [`Error::Broker`] when the broker cannot be reached.
    pub async fn connect(settings: Settings) -> Result<Self, Error> {
        let url = with_heartbeat(&settings.url)?;
        let properties = || ConnectionProperties::default().with_connection_name("postrider producer".into());
        let wait = Some(Duration::from_secs(15));
        let mut pool = PoolConfig::new(settings.connections);
        pool.timeouts = Timeouts { wait, create: wait, recycle: wait };
        let pool = Config { url: Some(url), pool: Some(pool) }
            .create_pool(properties, Runtime::Tokio1)
            .map_err(|e| BrokerError::Config(e.to_string()))?;
        // Only the ladder's names carry its unit, and a producer uses none of them.
        let names = Names::new(&settings.prefix, 1000);
        let producer = Self { pool, names, idle: Mutex::default(), patience: settings.patience };
        let channel = producer.channel().await?;
        producer.give_back(channel);
        Ok(producer)
    }

    /// Publishes one event and returns its id once the broker has it safely.
    ///
    /// Trouble with the broker is tried again with the same id until the patience ends.
    ///
    /// # Errors
    /// [`Error::Refused`] before anything is sent; [`Error::NotConfirmed`] when the patience ends.
    pub async fn publish(&self, event: NewEvent) -> Result<EventId, Error> {
        self.send_alone(event.encode(now())?).await
    }

    /// Publishes one action and returns its id once the broker has it safely. Which events it becomes is decided by the
    /// router.
    ///
    /// # Errors
    /// As for [`Producer::publish`].
    pub async fn publish_action(&self, action: NewAction) -> Result<EventId, Error> {
        self.send_alone(action.encode(now())?).await
    }

    /// Publishes many events at once: up to 100 of one tenant and one trace in one message, which costs the broker a fraction of
    /// as many messages. Each is routed, and if need be refused, by itself.
    ///
    /// # Errors
    /// [`PublishAllError`] when any of them failed; it says which are confirmed.
    pub async fn publish_all(&self, events: Vec<NewEvent>) -> Result<Vec<EventId>, PublishAllError> {
        let mut results: Vec<(usize, Result<EventId, Error>)> = Vec::with_capacity(events.len());
        let mut encoded = Vec::with_capacity(events.len());
        for (place, event) in events.into_iter().enumerate() {
            match event.encode(now()) {
                Ok(event) => encoded.push((place, event)),
                Err(refused) => results.push((place, Err(refused))),
            }
        }
        let mut sending = futures_util::stream::iter(array::pack(encoded))
            .map(|message| async move { (self.send(message.outgoing(&self.names)).await, message) })
            .buffer_unordered(IN_FLIGHT);
        while let Some((sent, message)) = sending.next().await {
            results.extend(message.ids().map(|(place, id)| match &sent {
                Ok(()) => (place, Ok(id)),
                Err(cause) => (place, Err(Error::NotConfirmed { id, cause: cause.clone() })),
            }));
        }
        results.sort_by_key(|(place, _)| *place);
        let (mut confirmed, mut failed) = (Vec::new(), Vec::new());
        for (place, result) in results {
            match result {
                Ok(id) => confirmed.push(id),
                Err(error) => failed.push((place, error)),
            }
        }
        if failed.is_empty() { Ok(confirmed) } else { Err(PublishAllError { confirmed, failed }) }
    }

    async fn send_alone(&self, event: Encoded) -> Result<EventId, Error> {
        let id = event.id.clone();
        match self.send(Message::of(0, event).outgoing(&self.names)).await {
            Ok(()) => Ok(id),
            Err(cause) => Err(Error::NotConfirmed { id, cause }),
        }
    }

    /// Publishes a message, and again until the patience ends.
    async fn send(&self, message: Outgoing) -> Result<(), BrokerError> {
        let end = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(50);
        loop {
            let cause = match self.try_once(&message).await {
                Ok(()) => return Ok(()),
                Err(cause) => cause,
            };
            if Instant::now() + pause >= end
                || matches!(cause, BrokerError::Denied { .. } | BrokerError::BadAddress(_))
            {
                return Err(cause);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn try_once(&self, message: &Outgoing) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        channel.publish_once(message).await?;
        // Only a channel on which everything is confirmed is used again.
        self.give_back(channel);
        Ok(())
    }

    /// A channel that nobody else uses: an idle one, or a new one on a connection of the pool.
    async fn channel(&self) -> Result<ConfirmedChannel, BrokerError> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(channel) if channel.is_usable() => return Ok(channel),
                Some(_) => {}
                None => break,
            }
        }
        let connect = |cause: String| BrokerError::Connect { address: "the given address".into(), cause };
        let connection = self.pool.get().await.map_err(|e| connect(e.to_string()))?;
        let channel = tokio::time::timeout(Duration::from_secs(10), connection.create_channel())
            .await
            .map_err(|_| BrokerError::Timeout { what: "channel.open", seconds: 10 })?
            .map_err(|e| connect(e.to_string()))?;
        ConfirmedChannel::on(channel).await
    }

    fn give_back(&self, channel: ConfirmedChannel) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CHANNELS && channel.is_usable() {
            idle.push(channel);
        }
    }
}

/// A dead broker is noticed by its heartbeat, so there is always one.
fn with_heartbeat(url: &str) -> Result<String, BrokerError> {
    if url.contains("heartbeat=") {
        return Ok(url.to_owned());
    }
    url.parse::<lapin::uri::AMQPUri>().map_err(BrokerError::BadAddress)?;
    let separator = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{separator}heartbeat=15"))
}
