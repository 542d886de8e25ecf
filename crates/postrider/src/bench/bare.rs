//! What two bare hops do: events are taken from one queue, put as deliveries into another, taken from there and sent.
//!
//! That is what a router and a worker cannot do without, and nothing else: no webhook is looked up, nothing is signed,
//! retried, journaled or recorded, nobody parses anything, and all of it is one process. Deliveries travel as Postrider's do,
//! up to 16 in a message, with each body once.

use std::sync::Arc;

use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicPublishOptions};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::naked::{AT_ONCE, Hop, finished, post, received};
use super::publish::{Publisher, answered, confirmed};
use crate::exit::Failure;
use crate::settings::Secret;

/// Events that are taken together, at most; as many as a router takes.
const ROUND: usize = 100;
/// Rounds whose deliveries are being published at a time.
const ROUNDS: usize = 4;
/// Deliveries in one message, at most; as many as a router puts there.
const PER_MESSAGE: usize = 16;

/// Messages of deliveries that are sent ahead: more than are under way at a time, also where they are not full.
const AHEAD: u16 = 256;

/// Both hops, ready to begin.
#[derive(Debug)]
pub(super) struct Pipeline {
    events: Hop,
    publisher: Publisher,
    deliveries: Hop,
    /// Where deliveries wait.
    queue: String,
    /// To how many receivers each event goes.
    fan_out: usize,
}

impl Pipeline {
    /// Begins to receive from both queues.
    pub(super) async fn start(
        url: &Secret,
        (events, deliveries): (&str, String),
        fan_out: u32,
    ) -> Result<Self, Failure> {
        Ok(Self {
            events: Hop::start(url, events, (ROUNDS * ROUND) as u16).await?,
            publisher: Publisher::connect(url).await?,
            deliveries: Hop::start(url, &deliveries, AHEAD).await?,
            queue: deliveries,
            fan_out: fan_out as usize,
        })
    }

    /// Delivers what comes, until `stop`.
    pub(super) async fn run(
        self,
        client: reqwest::Client,
        url: String,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        let mut hops = JoinSet::new();
        hops.spawn(route(self.events, self.publisher, self.queue, self.fan_out, stop.clone()));
        hops.spawn(send(self.deliveries, client, url, stop));
        while let Some(ended) = hops.join_next().await {
            finished(ended)?;
        }
        Ok(())
    }
}

/// The first hop: acks events when what became of them is confirmed.
async fn route(
    mut hop: Hop,
    publisher: Publisher,
    queue: String,
    fan_out: usize,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let mut channels = publisher.channels().iter().cycle();
    let mut rounds = FuturesOrdered::new();
    loop {
        let first = tokio::select! {
            biased;
            Some(safe) = rounds.next(), if !rounds.is_empty() => {
                ack_up_to(safe?).await?;
                continue;
            }
            first = hop.next(&stop), if rounds.len() < ROUNDS => first?,
        };
        let Some(first) = first else { break };
        let mut events = vec![first];
        while events.len() < ROUND
            && let Some(message) = hop.consumer.next().now_or_never()
        {
            events.push(received(message)?);
        }
        let mut confirms = Vec::new();
        for message in pack(events.iter().map(|event| event.data.as_slice()), fan_out) {
            let Some(channel) = channels.next() else { break };
            let (exchange, key) = ("".into(), queue.as_str().into());
            let options = BasicPublishOptions::default();
            let publish = channel.basic_publish(exchange, key, options, &message, properties.clone());
            confirms.push(answered("publish", publish).await?);
        }
        let Some(last) = events.pop() else { continue };
        rounds.push_back(async move {
            for confirm in confirms {
                confirmed(confirm).await?;
            }
            Ok::<_, Failure>(last)
        });
    }
    while let Some(safe) = rounds.next().await {
        ack_up_to(safe?).await?;
    }
    Ok(())
}

/// Acks an event, and those before it.
async fn ack_up_to(event: Delivery) -> Result<(), Failure> {
    let all = BasicAckOptions { multiple: true };
    answered("ack", event.acker.ack(all)).await.map(drop)
}

/// The second hop: acks a message when all its deliveries were taken.
async fn send(
    mut hop: Hop,
    client: reqwest::Client,
    url: String,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let url: Arc<str> = url.into();
    let slots = Arc::new(Semaphore::new(usize::from(AT_ONCE)));
    let mut under_way = JoinSet::new();
    loop {
        let message = tokio::select! {
            biased;
            Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                finished(ended)?;
                continue;
            }
            message = hop.next(&stop) => message?,
        };
        let Some(message) = message else { break };
        let (client, url, slots) = (client.clone(), url.clone(), slots.clone());
        under_way.spawn(async move {
            let mut posts = JoinSet::new();
            for (times, body) in unpack(&message.data) {
                for _ in 0..times {
                    let Ok(slot) = slots.clone().acquire_owned().await else { break };
                    let (client, url, body) = (client.clone(), url.clone(), body.to_vec());
                    posts.spawn(async move {
                        let sent = post(&client, &url, body).await;
                        drop(slot);
                        sent
                    });
                }
            }
            while let Some(ended) = posts.join_next().await {
                finished(ended)?;
            }
            answered("ack", message.acker.ack(BasicAckOptions::default())).await.map(drop)
        });
    }
    while let Some(ended) = under_way.join_next().await {
        finished(ended)?;
    }
    Ok(())
}

/// Messages of deliveries: bodies, each with its length and how often it is to be sent.
fn pack<'a>(events: impl Iterator<Item = &'a [u8]>, fan_out: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let (mut message, mut room) = (Vec::new(), PER_MESSAGE);
    for event in events {
        let mut left = fan_out;
        while left > 0 {
            let times = left.min(room);
            message.extend_from_slice(&(times as u32).to_be_bytes());
            message.extend_from_slice(&(event.len() as u32).to_be_bytes());
            message.extend_from_slice(event);
            (left, room) = (left - times, room - times);
            if room == 0 {
                messages.push(std::mem::take(&mut message));
                room = PER_MESSAGE;
            }
        }
    }
    if !message.is_empty() {
        messages.push(message);
    }
    messages
}

/// The bodies of a message, and how often each is to be sent.
fn unpack(mut message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (times, rest) = message.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (body, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        message = rest;
        Some((u32::from_be_bytes(*times), body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_sent_as_often_as_there_are_receivers() {
        for (events, fan_out, messages) in [(1, 1, 1), (40, 1, 3), (10, 10, 7), (1, 100, 7), (0, 1, 0)] {
            let bodies: Vec<Vec<u8>> = (0..events).map(|n| vec![n; usize::from(n)]).collect();
            let packed = pack(bodies.iter().map(Vec::as_slice), fan_out);
            assert_eq!(packed.len(), messages, "{events} events to {fan_out}");
            let mut sent = Vec::new();
            for message in &packed {
                let deliveries: Vec<(u32, &[u8])> = unpack(message).collect();
                assert!(deliveries.iter().map(|(times, _)| *times as usize).sum::<usize>() <= PER_MESSAGE);
                sent.extend(deliveries.iter().flat_map(|(times, body)| vec![*body; *times as usize]));
            }
            let wanted: Vec<&[u8]> = bodies.iter().flat_map(|body| vec![body.as_slice(); fan_out]).collect();
            assert_eq!(sent, wanted);
        }
    }
}
