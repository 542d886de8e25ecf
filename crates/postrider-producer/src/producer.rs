//! Publishing over a pool of connections, with confirms.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_lapin::{Config, Pool, PoolConfig, Runtime, Timeouts};
use lapin::ConnectionProperties;
use postrider_broker::{BrokerError, ConfirmedChannel, Names, Outgoing, now};
use postrider_core::EventId;
use postrider_core::intake::Refusal;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::event::{Encoded, NewAction, NewEvent};
use crate::line::{Key, Line, Message, Waiting};

/// Messages that are under way at the same time, each on a channel of its own.
const UNDER_WAY: usize = 64;
/// Events that are in line or under way at the same time. Whoever comes beyond waits for a place.
const PLACES: usize = 10_000;
/// Events of [`Producer::publish_all`] that wait for places together.
const TOGETHER: usize = 1_000;
/// The longest patience.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// How much longer than its caller's patience an event may wait to be sent at all.
const FIRST_TRY: Duration = Duration::from_secs(1);

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

    /// How long one publish is tried again, with the same id, before it fails. A try that has begun is finished, so it may
    /// take some seconds longer; 30 where the broker stands still. A day at most.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience.min(LONGEST);
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
        /// What the last try said, or that there was none, since the broker did not answer what came before.
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

/// Publishes events. Cheap to share behind an `Arc`; one for each process is enough. It works on the runtime on which it was
/// connected, and ends with it.
pub struct Producer {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The pool's address holds a password, and events are nobody's business.
        f.write_str("Producer")
    }
}

struct Shared {
    runtime: Handle,
    pool: Pool,
    names: Names,
    idle: Mutex<Vec<ConfirmedChannel>>,
    patience: Duration,
    /// Places in line.
    places: Arc<Semaphore>,
    queue: Mutex<Queue>,
}

/// Events that wait, and how many messages are under way.
#[derive(Debug, Default)]
struct Queue {
    line: Line,
    under_way: usize,
}

/// Someone who publishes what is in line, message after message, until there is nothing.
struct Sender {
    shared: Arc<Shared>,
    /// Of whom it sends a message. As long as it does, the queue counts it.
    sending: Option<Key>,
}

/// An event in line.
#[derive(Debug)]
struct Ticket {
    id: EventId,
    told: oneshot::Receiver<Result<(), BrokerError>>,
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
        let shared = Shared {
            runtime: Handle::current(),
            pool,
            // Only the ladder's names carry its unit, and a producer uses none of them.
            names: Names::new(&settings.prefix, 1000),
            idle: Mutex::default(),
            patience: settings.patience,
            places: Arc::new(Semaphore::new(PLACES)),
            queue: Mutex::default(),
        };
        let channel = shared.channel().await?;
        shared.give_back(channel);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Publishes one event and returns its id once the broker has it safely.
    ///
    /// It is sent at once, unless eight messages of its tenant and trace, or 64 of all, are under way: then it waits for one of
    /// them to be confirmed, and shares its message with whatever else of its tenant and trace waits, up to 100 events. Each
    /// is routed, and if need be refused, by itself.
    ///
    /// Trouble with the broker is tried again with the same id until the patience ends. When the returned future is dropped
    /// before, the event may have been published or not.
    ///
    /// # Errors
    /// [`Error::Refused`] before anything is sent; [`Error::NotConfirmed`] when the patience ends.
    pub async fn publish(&self, event: NewEvent) -> Result<EventId, Error> {
        self.publish_one(event.encode(now())?).await
    }

    /// Publishes one action and returns its id once the broker has it safely. Which events it becomes is decided by the
    /// router. It shares messages as events do.
    ///
    /// # Errors
    /// As for [`Producer::publish`].
    pub async fn publish_action(&self, action: NewAction) -> Result<EventId, Error> {
        self.publish_one(action.encode(now())?).await
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
        // What can share a message stands together.
        encoded.sort_by(|(_, a), (_, b)| (&a.tenant, &a.traceparent).cmp(&(&b.tenant, &b.traceparent)));
        let (places, encoded): (Vec<usize>, Vec<Encoded>) = encoded.into_iter().unzip();
        let mut tickets = Vec::with_capacity(encoded.len());
        let mut left = encoded.into_iter();
        while left.len() > 0 {
            let together = left.by_ref().take(TOGETHER).collect();
            tickets.extend(self.shared.line_up(together).await);
        }
        for (place, ticket) in places.into_iter().zip(tickets) {
            results.push((place, ticket.confirmed().await));
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

    async fn publish_one(&self, event: Encoded) -> Result<EventId, Error> {
        let mut tickets = self.shared.line_up(vec![event]).await;
        match tickets.pop() {
            Some(ticket) => ticket.confirmed().await,
            None => Err(Error::Broker(BrokerError::Lost)),
        }
    }
}

impl Shared {
    /// Puts events in line, all of them at the same time, and has someone publish them. There is a ticket for each.
    async fn line_up(self: &Arc<Self>, events: Vec<Encoded>) -> Vec<Ticket> {
        let until = Instant::now() + self.patience;
        let wanted = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let places = self.places.clone().acquire_many_owned(wanted);
        let places = tokio::time::timeout(self.patience.max(FIRST_TRY), places).await;
        let mut places = places.ok().and_then(Result::ok);
        let mut tickets = Vec::with_capacity(events.len());
        let mut waiting = Vec::with_capacity(events.len());
        for event in events {
            let (confirm, told) = oneshot::channel();
            tickets.push(Ticket { id: event.id.clone(), told });
            match places.as_mut().and_then(|places| places.split(1)) {
                Some(place) => waiting.push(Waiting { event, until, confirm, _place: place }),
                None => drop(confirm.send(Err(self.late()))),
            }
        }
        let mut queue = self.queue();
        waiting.into_iter().for_each(|waiting| queue.line.push(waiting));
        let mut senders = Vec::new();
        while queue.under_way < UNDER_WAY
            && let Some((key, message)) = queue.line.take()
        {
            queue.under_way += 1;
            senders.push((Sender { shared: self.clone(), sending: Some(key) }, message));
        }
        drop(queue);
        for (sender, message) in senders {
            // Not the caller's: whoever is dropped while others share its message would take them along.
            self.runtime.spawn(sender.run(message));
        }
        tickets
    }

    /// Of what was never sent.
    fn late(&self) -> BrokerError {
        BrokerError::Timeout { what: "earlier publishes", seconds: self.patience.as_secs_f64().ceil() as u64 }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a message, and again as long as somebody waits for it.
    async fn send(&self, mut message: Message) {
        let now = Instant::now();
        message.give_up(&self.late(), |until| until + FIRST_TRY < now);
        let mut pause = Duration::from_millis(50);
        while let Some(outgoing) = message.outgoing(&self.names) {
            let cause = match self.try_once(&outgoing).await {
                Ok(()) => return message.confirmed(),
                Err(cause) => cause,
            };
            let hopeless = matches!(cause, BrokerError::Denied { .. } | BrokerError::BadAddress(_));
            let again = Instant::now() + pause;
            message.give_up(&cause, |until| hopeless || until <= again);
            if message.is_given_up() {
                return;
            }
            tokio::time::sleep_until(again).await;
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
        if idle.len() < UNDER_WAY && channel.is_usable() {
            idle.push(channel);
        }
    }
}

impl Ticket {
    /// Waits until the broker has it, or nobody tries any more.
    async fn confirmed(self) -> Result<EventId, Error> {
        match self.told.await.unwrap_or(Err(BrokerError::Lost)) {
            Ok(()) => Ok(self.id),
            Err(cause) => Err(Error::NotConfirmed { id: self.id, cause }),
        }
    }
}

impl Sender {
    async fn run(mut self, first: Message) {
        let mut next = Some(first);
        while let Some(message) = next {
            self.shared.send(message).await;
            next = self.next();
        }
    }

    /// The next message. When there is none that may be sent, this sender is not counted any more, in the same moment: whoever
    /// comes then begins another.
    fn next(&mut self) -> Option<Message> {
        let mut queue = self.shared.queue();
        if let Some(key) = self.sending.take() {
            queue.line.done(key);
        }
        match queue.line.take() {
            Some((key, message)) => {
                self.sending = Some(key);
                Some(message)
            }
            None => {
                queue.under_way -= 1;
                None
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(key) = self.sending.take() {
            // Its runtime has ended. When it was the last, nobody is left to send what is in line.
            let mut queue = self.shared.queue();
            queue.line.done(key);
            queue.under_way -= 1;
            if queue.under_way == 0 {
                queue.line = Line::default();
            }
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
