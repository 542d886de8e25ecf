//! Publishing: persistent, mandatory, confirmed, with a timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::error::BrokerError;
use crate::metrics::Metrics;
use crate::seldom::Seldom;

/// A confirm that is later than this means: begin nothing new (DESIGN §5.1).
const LATE: Duration = Duration::from_secs(2);
/// A confirm that is later than this means that the session is over. Time during which the broker blocks the
/// connection does not count.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Publishes under way at the same time, over all channels.
const IN_FLIGHT: usize = 1024;

/// A message to publish. Its headers are exactly those given here: nothing of a message that came in is carried over.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// The body.
    pub body: Vec<u8>,
    /// The content type; empty for none.
    pub content_type: String,
    /// Names the message.
    pub message_id: String,
    /// Headers, names without `x-`.
    pub headers: Vec<(&'static str, String)>,
}

impl Outgoing {
    /// A JSON message without headers.
    pub fn json(
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
        body: Vec<u8>,
        message_id: impl Into<String>,
    ) -> Self {
        Self {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            body,
            content_type: "application/json".into(),
            message_id: message_id.into(),
            headers: Vec::new(),
        }
    }

    /// The same message with one more header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A channel on which every publish is confirmed: it can only be made by switching confirms on.
#[derive(Clone, Debug)]
pub struct ConfirmedChannel(Channel);

/// What the broker did with a message.
#[derive(Debug)]
enum Published {
    Confirmed,
    Nacked,
    Returned,
}

impl ConfirmedChannel {
    /// Switches confirms on.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker refuses or does not answer.
    pub async fn on(channel: Channel) -> Result<Self, BrokerError> {
        within("confirm.select", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self(channel))
    }

    /// Publishes and waits for the confirm, once and without a timeout of its own.
    async fn publish(&self, message: &Outgoing) -> Result<Published, BrokerError> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = self
            .0
            .basic_publish(
                ShortString::from(message.exchange.as_str()),
                ShortString::from(message.routing_key.as_str()),
                options,
                &message.body,
                properties(message),
            )
            .await
            .map_err(|e| BrokerError::of("basic.publish", &message.exchange, &e))?;
        match confirm.await.map_err(|e| BrokerError::of("basic.publish", &message.exchange, &e))? {
            Confirmation::Ack(None) => Ok(Published::Confirmed),
            Confirmation::Ack(Some(_)) => Ok(Published::Returned),
            Confirmation::Nack(_) => Ok(Published::Nacked),
            Confirmation::NotRequested => {
                Err(BrokerError::Protocol { what: "basic.publish", cause: "confirms are off".into() })
            }
        }
    }

    /// Publishes one message and waits for its confirm.
    ///
    /// For callers without a [`Publisher`]: one channel, nothing retried. Any error means that the channel must not be
    /// used again and that the message may or may not have arrived.
    ///
    /// # Errors
    /// [`BrokerError`]: lost, late, full or unroutable.
    pub async fn publish_once(&self, message: &Outgoing) -> Result<(), BrokerError> {
        let published = tokio::time::timeout(TIMEOUT, self.publish(message)).await;
        match published.map_err(|_| unconfirmed(message))?? {
            Published::Confirmed => Ok(()),
            Published::Nacked => Err(BrokerError::Full { exchange: message.exchange.clone() }),
            Published::Returned => Err(unroutable(message)),
        }
    }

    /// Whether the channel can still be used.
    pub fn is_usable(&self) -> bool {
        self.0.status().connected()
    }
}

/// Publishes over several channels of one connection. Clones share them.
#[derive(Clone, Debug)]
pub struct Publisher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channels: Vec<ConfirmedChannel>,
    next: AtomicUsize,
    slots: Semaphore,
    flow: Flow,
    lost: CancellationToken,
    metrics: Metrics,
}

/// Whether publishing flows.
#[derive(Debug, Default)]
struct Flow {
    blocked: AtomicBool,
    late: AtomicUsize,
    changed: Notify,
}

impl Flow {
    fn flows(&self) -> bool {
        !self.blocked.load(Ordering::Relaxed) && self.late.load(Ordering::Relaxed) == 0
    }
}

impl Publisher {
    pub(crate) fn new(channels: Vec<ConfirmedChannel>, lost: CancellationToken, metrics: Metrics) -> Self {
        let inner = Inner {
            channels,
            next: AtomicUsize::new(0),
            slots: Semaphore::new(IN_FLIGHT),
            flow: Flow::default(),
            lost,
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.inner.flow.blocked.store(blocked, Ordering::Relaxed);
        self.inner.metrics.blocked.set(i64::from(blocked));
        self.inner.flow.changed.notify_waiters();
    }

    /// Whether new work may begin: the broker does not block us and no confirm is late.
    pub fn is_flowing(&self) -> bool {
        self.inner.flow.flows()
    }

    /// Whether the broker blocks us: it lacks memory or disk, and takes no message of anybody.
    pub fn is_blocked(&self) -> bool {
        self.inner.flow.blocked.load(Ordering::Relaxed)
    }

    /// Waits until new work may begin, or the session is over.
    pub async fn flowing(&self) {
        loop {
            let changed = self.inner.flow.changed.notified();
            if self.is_flowing() || self.inner.lost.is_cancelled() {
                return;
            }
            // A notification between the check and the wait must not be missed for long.
            tokio::time::timeout(Duration::from_millis(250), changed).await.ok();
        }
    }

    /// Publishes and waits for the confirm.
    ///
    /// A full queue is tried again for as long as the session lasts, and stops all new work meanwhile: ending the session
    /// would only bring back what is already done. Any other trouble ends the session, since what became of the message is
    /// not known: whoever waits for it does not ack, and the next session does the work again with the same ids.
    ///
    /// # Errors
    /// [`BrokerError`]: lost, late or unroutable.
    pub async fn publish(&self, message: Outgoing) -> Result<(), BrokerError> {
        #[cfg(debug_assertions)]
        if crate::fault::loses(&message.exchange) {
            return Ok(());
        }
        let result = tokio::select! {
            result = self.publish_until_accepted(&message) => result,
            () = self.inner.lost.cancelled() => Err(BrokerError::Lost),
        };
        if result.is_err() {
            self.inner.lost.cancel();
        }
        result
    }

    async fn publish_until_accepted(&self, message: &Outgoing) -> Result<(), BrokerError> {
        let inner = &*self.inner;
        let _slot = inner.slots.acquire().await.map_err(|_| BrokerError::Lost)?;
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        let mut full = None;
        loop {
            let published = self.publish_watched(message).await;
            let (label, result) = match published {
                // A returned message may be told to another publish of the same channel, which then ends the session:
                // a confirm that comes with that end proves nothing.
                Ok(Published::Confirmed) if inner.lost.is_cancelled() => {
                    ("error", Some(Err(BrokerError::Lost)))
                }
                Ok(Published::Confirmed) => ("confirmed", Some(Ok(()))),
                Ok(Published::Returned) => ("returned", Some(Err(unroutable(message)))),
                Ok(Published::Nacked) => ("nacked", None),
                Err(e @ BrokerError::Unconfirmed { .. }) => ("timeout", Some(Err(e))),
                Err(e) => ("error", Some(Err(e))),
            };
            inner.metrics.publishes.with_label_values(&[label]).inc();
            match result {
                Some(Ok(())) => {
                    inner.metrics.confirm_seconds.observe(begun.elapsed().as_secs_f64());
                    return Ok(());
                }
                Some(Err(e)) => {
                    // A lost connection fails a thousand of them at once.
                    static FAILED: Seldom = Seldom::new();
                    if let Some(unsaid) = FAILED.due() {
                        tracing::warn!(exchange = message.exchange, error = %e, unsaid, "publish failed");
                    }
                    return Err(e);
                }
                None => {
                    full.get_or_insert_with(|| {
                        static FULL: Seldom = Seldom::new();
                        if let Some(unsaid) = FULL.due() {
                            tracing::warn!(
                                exchange = message.exchange,
                                unsaid,
                                "its queue is full; nothing new begins"
                            );
                        }
                        Late::begin(&inner.flow)
                    });
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// Publishes once, tells the flow when the confirm is late, and gives up after [`TIMEOUT`] of unblocked time.
    async fn publish_watched(&self, message: &Outgoing) -> Result<Published, BrokerError> {
        let flow = &self.inner.flow;
        let index = self.inner.next.fetch_add(1, Ordering::Relaxed) % self.inner.channels.len();
        let mut publish = std::pin::pin!(self.inner.channels[index].publish(message));
        if let Ok(published) = tokio::time::timeout(LATE, &mut publish).await {
            return published;
        }
        let _late = Late::begin(flow);
        let mut waited = LATE;
        loop {
            let step = Duration::from_millis(500);
            if let Ok(published) = tokio::time::timeout(step, &mut publish).await {
                return published;
            }
            if !flow.blocked.load(Ordering::Relaxed) {
                waited += step;
            }
            if waited >= TIMEOUT {
                return Err(unconfirmed(message));
            }
        }
    }
}

struct Late<'a>(&'a Flow);

impl<'a> Late<'a> {
    fn begin(flow: &'a Flow) -> Self {
        flow.late.fetch_add(1, Ordering::Relaxed);
        Self(flow)
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        self.0.late.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_waiters();
    }
}

fn unconfirmed(message: &Outgoing) -> BrokerError {
    BrokerError::Unconfirmed { exchange: message.exchange.clone(), seconds: TIMEOUT.as_secs() }
}

fn unroutable(message: &Outgoing) -> BrokerError {
    BrokerError::Unroutable { exchange: message.exchange.clone(), routing_key: message.routing_key.clone() }
}

fn properties(message: &Outgoing) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(ShortString::from(*name), AMQPValue::LongString(value.as_str().into()));
    }
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(message.message_id.as_str().into())
        .with_timestamp(u64::try_from(crate::now().as_secs()).unwrap_or_default());
    let properties = if message.content_type.is_empty() {
        properties
    } else {
        properties.with_content_type(message.content_type.as_str().into())
    };
    if message.headers.is_empty() { properties } else { properties.with_headers(headers) }
}

/// Awaits an answer of the broker for at most [`TIMEOUT`].
pub(crate) async fn within<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|e| BrokerError::of(what, what, &e)),
        Err(_) => Err(BrokerError::Timeout { what, seconds: TIMEOUT.as_secs() }),
    }
}
