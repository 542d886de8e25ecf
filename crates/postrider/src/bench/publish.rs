//! The load: events published over bare lapin, with confirms.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::{Kind, Workload};
use super::sink::micros;
use crate::exit::{Exit, Failure};
use crate::settings::Secret;

/// Channels to publish over: RabbitMQ slows a channel with more than 32 unconfirmed messages to one queue.
const CHANNELS: usize = 4;
/// Unconfirmed messages on each.
const UNCONFIRMED: usize = 64;
/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events of one load.
#[derive(Clone, Debug)]
pub(super) struct Events {
    workload: Workload,
}

impl Events {
    /// Events of a workload, with such ids as our producers give them.
    pub(super) fn of(workload: &Workload) -> Self {
        Self { workload: *workload }
    }

    fn group(&self, n: u64) -> u32 {
        let groups = u64::from(self.workload.webhooks().0.max(1));
        u32::try_from(n % groups).unwrap_or(0)
    }

    /// Whose the event of a number is.
    pub(super) fn tenant(&self, n: u64) -> String {
        self.workload.tenant(self.group(n))
    }

    /// The type of the event of a number.
    pub(super) fn event_type(&self, n: u64) -> String {
        self.workload.event_type(self.group(n))
    }

    /// How large each of them is, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.workload.body_bytes
    }

    /// The event of a number, published at a time.
    pub(super) fn body(&self, n: u64, at: u64) -> Vec<u8> {
        let groups = u64::from(self.workload.webhooks().0.max(1));
        let event_type = self.event_type(n);
        // Every other event of a webhook.
        let refuse = match self.workload.kind {
            Kind::Burst if (n / groups).is_multiple_of(2) => ",\"refuse\":true",
            _ => "",
        };
        let mut body = format!(
            "{{\"event_type\":\"{event_type}\",\"id\":\"evt_{}\",\"data\":{{\"at\":{at}{refuse},\"pad\":\"",
            uuid::Uuid::now_v7().simple()
        )
        .into_bytes();
        let end = b"\"}}";
        body.resize((self.workload.body_bytes - end.len()).max(body.len()), b'x');
        body.extend_from_slice(end);
        body
    }
}

/// When the next event is published.
#[derive(Debug)]
pub(super) enum Pace {
    /// At once.
    Free,
    /// As soon as there is a permit.
    Permitted(Arc<Semaphore>),
    /// So many a second.
    Rate(f64),
}

/// What is published, where to, and when.
#[derive(Debug)]
pub(super) struct Load {
    /// The events.
    pub(super) events: Events,
    /// The exchange.
    pub(super) exchange: String,
    /// With which key: that of each event's tenant if there is none.
    pub(super) routing_key: Option<String>,
    /// When the next one is due.
    pub(super) pace: Pace,
    /// So many at most.
    pub(super) most: u64,
    /// Ends it.
    pub(super) stop: CancellationToken,
}

impl Load {
    /// The same, into a queue of a baseline.
    pub(super) fn into_queue(self, queue: String) -> Self {
        Self { exchange: String::new(), routing_key: Some(queue), ..self }
    }

    /// The routing key of the event of a number.
    fn key(&self, n: u64) -> String {
        self.routing_key.clone().unwrap_or_else(|| self.events.tenant(n))
    }
}

/// A load under way.
#[derive(Debug)]
pub(super) struct Course {
    load: Load,
    next: AtomicU64,
    begun: Instant,
    begun_micros: u64,
}

impl Course {
    /// A load begins.
    pub(super) fn begin(load: Load) -> Self {
        Self { load, next: AtomicU64::new(0), begun: Instant::now(), begun_micros: micros() }
    }

    /// Its events.
    pub(super) fn events(&self) -> &Events {
        &self.load.events
    }

    /// The number of the next event, unless these were all.
    fn number(&self) -> Option<u64> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        (n < self.load.most && !self.load.stop.is_cancelled()).then_some(n)
    }

    /// The number of the next event and the time that it bears, when it is due.
    pub(super) async fn next(&self) -> Option<(u64, u64)> {
        if let Pace::Permitted(room) = &self.load.pace {
            tokio::select! {
                biased;
                () = self.load.stop.cancelled() => return None,
                permit = room.acquire() => permit.ok()?.forget(),
            }
        }
        let n = self.number()?;
        let Pace::Rate(per_second) = self.load.pace else { return Some((n, micros())) };
        // The time at which it was due: what the publisher itself is late counts as well.
        let after = Duration::from_secs_f64(n as f64 / per_second);
        tokio::select! {
            biased;
            () = self.load.stop.cancelled() => return None,
            () = tokio::time::sleep_until(self.begun + after) => {}
        }
        Some((n, self.begun_micros + u64::try_from(after.as_micros()).unwrap_or(0)))
    }
}

/// A connection to publish over.
#[derive(Debug)]
pub(super) struct Publisher {
    // Its channels last as long as it does.
    _connection: Connection,
    channels: Vec<Channel>,
}

impl Publisher {
    /// Connects.
    pub(super) async fn connect(url: &Secret) -> Result<Self, Failure> {
        let connection = connect(url, "postrider bench publish").await?;
        let mut channels = Vec::with_capacity(CHANNELS);
        for _ in 0..CHANNELS {
            let channel = answered("open a channel", connection.create_channel()).await?;
            let options = ConfirmSelectOptions::default();
            answered("have publishes confirmed", channel.confirm_select(options)).await?;
            channels.push(channel);
        }
        Ok(Self { _connection: connection, channels })
    }

    /// Its channels, on which publishes are confirmed.
    pub(super) fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Empties a queue: acks that were on their way when their consumer left are forgotten, and what they meant comes back.
    pub(super) async fn empty(&self, queue: &str) -> Result<(), Failure> {
        let Some(channel) = self.channels.first() else { return Ok(()) };
        let purge = channel.queue_purge(queue.into(), QueuePurgeOptions::default());
        answered("empty a queue", purge).await.map(drop)
    }

    /// Publishes until the load ends; how many events are confirmed then.
    pub(super) fn publish(&self, load: Load) -> impl Future<Output = Result<u64, Failure>> + Send + 'static {
        let course = Arc::new(Course::begin(load));
        let channels = self.channels.clone();
        async move {
            let mut over = JoinSet::new();
            for channel in channels {
                over.spawn(publish_over(channel, course.clone()));
            }
            let mut confirmed = 0;
            while let Some(published) = over.join_next().await {
                confirmed +=
                    published.map_err(|error| Failure::new(Exit::Other, "cannot publish", error))??;
            }
            Ok(confirmed)
        }
    }
}

async fn publish_over(channel: Channel, course: Arc<Course>) -> Result<u64, Failure> {
    let properties =
        BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut unconfirmed = VecDeque::with_capacity(UNCONFIRMED);
    let mut count = 0;
    while let Some((n, at)) = course.next().await {
        if unconfirmed.len() == UNCONFIRMED
            && let Some(oldest) = unconfirmed.pop_front()
        {
            confirmed(oldest).await?;
        }
        let load = &course.load;
        let (exchange, key) = (load.exchange.as_str().into(), load.key(n).into());
        let body = load.events.body(n, at);
        let publish = channel.basic_publish(exchange, key, options, &body, properties.clone());
        unconfirmed.push_back(answered("publish", publish).await?);
        count += 1;
    }
    for confirm in unconfirmed {
        confirmed(confirm).await?;
    }
    Ok(count)
}

/// Awaits that a message is safe.
pub(super) async fn confirmed(confirm: PublisherConfirm) -> Result<(), Failure> {
    match answered("have an event confirmed", confirm).await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) => {
            Err(Failure::new(Exit::Unavailable, "cannot publish", "the broker could not route an event"))
        }
        Confirmation::Nack(_) | Confirmation::NotRequested => {
            Err(Failure::new(Exit::Unavailable, "cannot publish", "the broker refused an event"))
        }
    }
}

/// Opens a connection.
pub(super) async fn connect(url: &Secret, name: &str) -> Result<Connection, Failure> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    answered("connect", Connection::connect(url.reveal(), properties)).await
}

/// Awaits an answer of the broker.
pub(super) async fn answered<T>(
    what: &str,
    answer: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Failure> {
    let what = || format!("cannot {what}");
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| Failure::new(Exit::Unavailable, what(), error)),
        Err(_) => {
            let why = format!("the broker did not answer within {} s", PATIENCE.as_secs());
            Err(Failure::new(Exit::TimedOut, what(), why)
                .next("look at the broker: an alarm of memory or disk blocks publishers"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::Plan;

    fn events(name: &str) -> Events {
        let plan = Plan::full();
        Events::of(plan.workloads.iter().find(|workload| workload.name == name).unwrap())
    }

    #[test]
    fn events_have_their_size_and_are_events() {
        for workload in Plan::full().workloads {
            let body = Events::of(&workload).body(123_456, micros());
            assert_eq!(body.len(), workload.body_bytes, "{}", workload.name);
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(event["data"]["at"].is_u64());
        }
    }

    #[test]
    fn events_take_turns_among_the_webhooks() {
        let type_of = |name: &str, n| {
            let event: serde_json::Value = serde_json::from_slice(&events(name).body(n, 0)).unwrap();
            (event["event_type"].as_str().unwrap().to_owned(), event["data"]["refuse"] == true)
        };
        assert_eq!(
            type_of("thousand-webhooks-1k", 2_017),
            ("bench.thousand-webhooks-1k.17".to_owned(), false)
        );
        assert_eq!(type_of("one-to-ten-1k", 17), ("bench.one-to-ten-1k.0".to_owned(), false));
        let refused = (0..400).filter(|n| type_of("retry-burst", *n).1).count();
        assert_eq!(refused, 200);
        assert_ne!(type_of("retry-burst", 7).1, type_of("retry-burst", 107).1, "each webhook has both");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_events_bear_the_time_they_were_due() {
        let load = Load {
            events: events("steady-500"),
            exchange: String::new(),
            routing_key: None,
            pace: Pace::Rate(100.0),
            most: 3,
            stop: CancellationToken::new(),
        };
        let course = Course { load, next: AtomicU64::new(0), begun: Instant::now(), begun_micros: 1_000_000 };
        assert_eq!(course.next().await, Some((0, 1_000_000)));
        assert_eq!(course.next().await, Some((1, 1_010_000)));
        assert_eq!(course.next().await, Some((2, 1_020_000)));
        assert_eq!(course.begun.elapsed().as_millis(), 20);
        assert_eq!(course.next().await, None);
    }
}
