//! Consuming: messages that are settled exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use tokio_util::sync::CancellationToken;

use crate::error::BrokerError;
use crate::metrics::Metrics;
use crate::publish::within;

/// Receives the messages of one queue, on a channel of its own.
#[derive(Debug)]
pub struct Consumer {
    channel: Channel,
    stream: lapin::Consumer,
    queue: String,
    lost: CancellationToken,
    metrics: Metrics,
    cancelled: bool,
    attached: Option<Attached>,
}

/// What a consumer of a queue shows of itself. The consumers of streams, which nobody works off, show nothing.
#[derive(Debug)]
pub(crate) struct Attached {
    handed: Arc<AtomicU64>,
    metrics: Metrics,
}

impl Attached {
    /// `handed` counts what it is handed.
    pub(crate) fn new(handed: Arc<AtomicU64>, metrics: Metrics) -> Self {
        metrics.consumers.inc();
        Self { handed, metrics }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.metrics.consumers.dec();
    }
}

impl Consumer {
    pub(crate) fn new(
        channel: Channel,
        stream: lapin::Consumer,
        queue: String,
        lost: CancellationToken,
        metrics: Metrics,
        attached: Option<Attached>,
    ) -> Self {
        Self { channel, stream, queue, lost, metrics, cancelled: false, attached }
    }

    /// The next message; `None` when the session is over. A consumer that the broker cancelled ends the session too.
    pub async fn next(&mut self) -> Option<Incoming> {
        let received = tokio::select! {
            biased;
            () = self.lost.cancelled() => return None,
            received = self.stream.next() => received,
        };
        match received {
            Some(Ok(delivery)) => {
                let held = self.attached.as_ref().map(|attached| {
                    attached.handed.fetch_add(1, Ordering::Relaxed);
                    Held::begin(&self.metrics)
                });
                Some(Incoming { delivery, _channel: self.channel.clone(), held })
            }
            Some(Err(error)) => {
                tracing::warn!(queue = self.queue, %error, "the consumer failed");
                self.lost.cancel();
                None
            }
            None if self.cancelled => None,
            None => {
                tracing::warn!(queue = self.queue, "the broker cancelled the consumer");
                self.lost.cancel();
                None
            }
        }
    }

    /// The next message if one is already here.
    pub fn try_next(&mut self) -> Option<Incoming> {
        use futures_util::FutureExt as _;
        self.next().now_or_never().flatten()
    }

    /// Asks the broker to send nothing more. What was received is still handed out, and can be settled; then `next`
    /// gives `None`.
    ///
    /// Not for a queue with a single active consumer: there, close the session instead (DESIGN §6).
    ///
    /// # Errors
    /// [`BrokerError`] when the session is over.
    pub async fn cancel(&mut self) -> Result<(), BrokerError> {
        self.cancelled = true;
        let tag = self.stream.tag();
        within("basic.cancel", self.channel.basic_cancel(tag, BasicCancelOptions::default())).await
    }

    /// Waits until the queue has taken every ack that went over this channel, after [`Self::cancel`] and when everything
    /// is acked that is to be. Without it, closing the session brings back messages that were acked.
    ///
    /// RabbitMQ's channel hands acks on to a quorum queue until 32 are on their way, keeps the rest until it hears of
    /// those, and forgets them when it is closed. Attaching a consumer is a command that the queue takes in order and
    /// answers: after the first nothing is on its way that went before, after the second nothing that was kept until then; the
    /// third is for what the channel had not heard of at that moment. What these consumers are handed meanwhile is
    /// answered, to be given back.
    ///
    /// # Errors
    /// [`BrokerError`] when the session is over.
    pub async fn flush(&mut self) -> Result<Vec<Incoming>, BrokerError> {
        const TIMES: usize = 3;
        self.cancelled = true;
        let mut handed = Vec::new();
        within("basic.qos", self.channel.basic_qos(1, BasicQosOptions::default())).await?;
        for _ in 0..TIMES {
            let consume = self.channel.basic_consume(
                ShortString::from(self.queue.as_str()),
                ShortString::from(""),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            self.stream = within("basic.consume", consume).await?;
            self.cancel().await?;
            while let Some(message) = self.next().await {
                handed.push(message);
            }
        }
        Ok(handed)
    }
}

/// A message that came in. It is settled by being acked, or by dropping it with its session: then it comes again.
#[must_use = "a message must be settled: ack it, or end the session so that it comes again"]
#[derive(Debug)]
pub struct Incoming {
    delivery: Delivery,
    // The channel must stay open until the message is settled.
    _channel: Channel,
    /// Of a queue; records of streams are not held.
    held: Option<Held>,
}

/// A message that is not settled yet.
#[derive(Debug)]
struct Held(Metrics);

impl Held {
    fn begin(metrics: &Metrics) -> Self {
        metrics.held.inc();
        Self(metrics.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.dec();
    }
}

impl Incoming {
    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.delivery.data
    }

    /// The routing key with which it was published.
    pub fn routing_key(&self) -> &str {
        self.delivery.routing_key.as_str()
    }

    /// The exchange from which it came.
    pub fn exchange(&self) -> &str {
        self.delivery.exchange.as_str()
    }

    /// The content type.
    pub fn content_type(&self) -> Option<&str> {
        self.properties().content_type().as_ref().map(|text| text.as_str())
    }

    /// The content encoding.
    pub fn content_encoding(&self) -> Option<&str> {
        self.properties().content_encoding().as_ref().map(|text| text.as_str())
    }

    /// The message id.
    pub fn message_id(&self) -> Option<&str> {
        self.properties().message_id().as_ref().map(|text| text.as_str())
    }

    /// A header that is text in UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        match self.header(name)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            AMQPValue::ShortString(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// A header that is a whole number, or text of one.
    pub fn header_i64(&self, name: &str) -> Option<i64> {
        match self.header(name)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?.parse().ok(),
            AMQPValue::ShortShortInt(n) => Some(i64::from(*n)),
            AMQPValue::ShortShortUInt(n) => Some(i64::from(*n)),
            AMQPValue::ShortInt(n) => Some(i64::from(*n)),
            AMQPValue::ShortUInt(n) => Some(i64::from(*n)),
            AMQPValue::LongInt(n) => Some(i64::from(*n)),
            AMQPValue::LongUInt(n) => Some(i64::from(*n)),
            AMQPValue::LongLongInt(n) => Some(*n),
            _ => None,
        }
    }

    /// How often it was handed out before without being settled: the broker's own count.
    pub fn delivery_count(&self) -> i64 {
        self.header_i64("x-delivery-count").unwrap_or(0)
    }

    /// Acks it: everything that follows from it is confirmed.
    ///
    /// # Errors
    /// [`BrokerError::Lost`] when its session is over; then it comes again.
    pub async fn ack(self) -> Result<(), BrokerError> {
        self.ack_with(BasicAckOptions { multiple: false }, 1).await
    }

    /// Acks messages of one consumer at once: everything that it received and that is not settled, up to the last of these.
    ///
    /// # Errors
    /// As [`Incoming::ack`].
    pub async fn ack_all(mut messages: Vec<Self>) -> Result<(), BrokerError> {
        let count = messages.len() as u64;
        let Some(last) = messages.pop() else { return Ok(()) };
        last.ack_with(BasicAckOptions { multiple: true }, count).await
    }

    async fn ack_with(self, options: BasicAckOptions, count: u64) -> Result<(), BrokerError> {
        #[cfg(debug_assertions)]
        if self.held.is_some() {
            crate::fault::before_ack().await;
        }
        let written = within("basic.ack", self.delivery.acker.ack(options)).await?;
        if let Some(Held(metrics)) = &self.held {
            metrics.acked.inc_by(count);
            metrics.last_progress.set(crate::now().as_secs());
        }
        // `false` means that the channel is gone: the message comes again.
        if written { Ok(()) } else { Err(BrokerError::Lost) }
    }

    fn properties(&self) -> &BasicProperties {
        &self.delivery.properties
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties().headers().as_ref()?.inner().get(name)
    }
}
