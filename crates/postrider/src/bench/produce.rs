//! The same load by way of our producer, as a service publishes that serves many requests at a time: a task for each event.

use std::sync::Arc;

use postrider_producer::{NewEvent, Producer, Settings};
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};

use super::place::Place;
use super::publish::{Course, Events, Load};
use crate::exit::{Exit, Failure};

/// What an event tells.
#[derive(Serialize)]
struct Data<'a> {
    /// When it was published.
    at: u64,
    /// What makes it as large as it is to be.
    pad: &'a str,
}

/// Connects a producer to the names of this bench.
pub(super) async fn connect(place: &Place) -> Result<Arc<Producer>, Failure> {
    let settings = Settings::new(place.url.reveal()).prefix(place.prefix());
    let connected = Producer::connect(settings).await;
    connected.map(Arc::new).map_err(|error| Failure::new(Exit::Unavailable, "cannot connect", error))
}

/// Publishes until the load ends; how many events are confirmed then.
pub(super) async fn produce(producer: Arc<Producer>, load: Load) -> Result<u64, Failure> {
    let course = Course::begin(load);
    let mut under_way = JoinSet::new();
    let mut confirmed = 0;
    loop {
        let next = tokio::select! {
            biased;
            Some(published) = under_way.join_next(), if !under_way.is_empty() => {
                confirmed += ended(published)?;
                continue;
            }
            next = course.next() => next,
        };
        let Some((n, at)) = next else { break };
        let (producer, event) = (producer.clone(), event(course.events(), n, at));
        under_way.spawn(async move { producer.publish(event).await.map(|_| 1) });
    }
    while let Some(published) = under_way.join_next().await {
        confirmed += ended(published)?;
    }
    Ok(confirmed)
}

/// The event of a number, published at a time.
fn event(events: &Events, n: u64, at: u64) -> NewEvent {
    let event_type = events.event_type(n);
    let pad = events.bytes().saturating_sub(envelope(&event_type, at).len());
    NewEvent::new(event_type, &Data { at, pad: &"x".repeat(pad) }).tenant(events.tenant(n))
}

/// As the producer writes it, with nothing in it.
fn envelope(event_type: &str, at: u64) -> String {
    let (time, id) = ("2026-01-01T00:00:00.000Z", "evt_01234567890123456789012345678901");
    format!(
        r#"{{"event_type":"{event_type}","event_time":"{time}","data":{{"at":{at},"pad":""}},"id":"{id}"}}"#
    )
}

fn ended(published: Result<Result<u64, postrider_producer::Error>, JoinError>) -> Result<u64, Failure> {
    published
        .map_err(|error| Failure::new(Exit::Other, "cannot publish", error))?
        .map_err(|error| Failure::new(Exit::Unavailable, "cannot publish", error))
}
