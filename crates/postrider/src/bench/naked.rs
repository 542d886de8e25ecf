//! The baselines: what the same machine and broker do without Postrider.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, Consumer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::publish::{Events, answered, connect};
use super::sink::micros;
use crate::exit::{Exit, Failure, chain};
use crate::settings::Secret;

/// Requests under way at a time; as many as a worker has slots.
pub(super) const AT_ONCE: u16 = 256;
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(30);

/// A client that does nothing but send.
pub(super) fn client() -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .tls_certs_only([])
        .pool_max_idle_per_host(usize::from(AT_ONCE))
        .timeout(REQUEST)
        .build()
        .map_err(|error| Failure::new(Exit::Other, "cannot make an HTTP client", chain(&error)))
}

/// Sends one request.
pub(super) async fn post(client: &reqwest::Client, url: &str, body: Vec<u8>) -> Result<(), Failure> {
    let failed =
        |why: &dyn std::fmt::Display| Failure::new(Exit::Other, "the sink does not take a request", why);
    let response = client.post(url).body(body).send().await.map_err(|error| failed(&chain(&error)))?;
    match response.status().is_success() {
        true => Ok(()),
        false => Err(failed(&response.status())),
    }
}

/// Who takes messages from a queue.
#[derive(Debug)]
pub(super) struct Hop {
    // Its channel lasts as long as it does.
    _connection: Connection,
    pub(super) consumer: Consumer,
}

impl Hop {
    /// Begins to receive from a queue.
    pub(super) async fn start(url: &Secret, queue: &str, ahead: u16) -> Result<Self, Failure> {
        let connection = connect(url, "postrider bench naked").await?;
        let channel = answered("open a channel", connection.create_channel()).await?;
        answered("bound what is sent ahead", channel.basic_qos(ahead, BasicQosOptions::default())).await?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consume = channel.basic_consume(queue.into(), "naked".into(), options, none);
        let consumer = answered("consume", consume).await?;
        Ok(Self { _connection: connection, consumer })
    }

    /// The next message; nothing after `stop`.
    pub(super) async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Delivery>, Failure> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(None),
            message = self.consumer.next() => received(message).map(Some),
        }
    }
}

/// A message, if it is one.
pub(super) fn received(message: Option<Result<Delivery, lapin::Error>>) -> Result<Delivery, Failure> {
    let lost = |why: String| Failure::new(Exit::Unavailable, "cannot consume", why);
    match message {
        Some(message) => message.map_err(|error| lost(error.to_string())),
        None => Err(lost("the broker ended it".to_owned())),
    }
}

/// The consuming side of the naked loop.
#[derive(Debug)]
pub(super) struct Loop(Hop);

impl Loop {
    /// Begins to receive from a queue.
    pub(super) async fn start(url: &Secret, queue: &str) -> Result<Self, Failure> {
        Hop::start(url, queue, AT_ONCE).await.map(Self)
    }

    /// POSTs and acks what comes, until `stop`; what was begun is finished then.
    pub(super) async fn run(
        mut self,
        client: reqwest::Client,
        url: String,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        let url: Arc<str> = url.into();
        let mut under_way = JoinSet::new();
        loop {
            let delivery = tokio::select! {
                biased;
                Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                    finished(ended)?;
                    continue;
                }
                delivery = self.0.next(&stop) => delivery?,
            };
            let Some(delivery) = delivery else { break };
            let (client, url) = (client.clone(), url.clone());
            // No more than the broker sends ahead.
            under_way.spawn(async move {
                post(&client, &url, delivery.data).await?;
                answered("ack", delivery.acker.ack(BasicAckOptions::default())).await.map(drop)
            });
        }
        while let Some(ended) = under_way.join_next().await {
            finished(ended)?;
        }
        Ok(())
    }
}

/// POSTs events from so many tasks until `stop`; how many were taken.
pub(super) fn post_only(
    client: reqwest::Client,
    url: String,
    events: Events,
    stop: CancellationToken,
) -> impl Future<Output = Result<u64, Failure>> + Send + 'static {
    let next = Arc::new(AtomicU64::new(0));
    async move {
        let mut under_way = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (client, url) = (client.clone(), url.clone());
            let (events, stop, next) = (events.clone(), stop.clone(), next.clone());
            under_way.spawn(async move {
                while !stop.is_cancelled() {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    post(&client, &url, events.body(n, micros())).await?;
                }
                Ok(())
            });
        }
        while let Some(ended) = under_way.join_next().await {
            finished(ended)?;
        }
        Ok(next.load(Ordering::Relaxed))
    }
}

/// How a task ended.
pub(super) fn finished(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    ended.map_err(|error| Failure::new(Exit::Other, "a task of a baseline broke down", error))?
}
