//! Carrying out what was decided: publish what follows, and wait for the confirms.
//!
//! The one place in the worker that publishes. A message is acked in [`mod@crate::run`] when everything in it went through
//! here.

use std::sync::Arc;

use postrider_broker::{
    BrokerError, Incoming, Journal, Names, Outgoing, PARK_RUNGS_SECS, Session, crash, now,
};
use postrider_core::books::End;
use postrider_core::lifecycle::{DeadReason, POISON_AT};
use postrider_core::wire::{
    self, AttemptFact, DeadMessage, DeliveryMessage, DeliveryRecord, DoneFact, Fact, HeldFact, SCHEMA,
};

use crate::deliver::{Park, ParkReason, Taken, Verdict};
use crate::metrics::{Metrics, seconds};

/// A header: how often the delivery was handed out in earlier messages without being settled. The broker counts for each
/// message, and a message that is published again begins anew.
const REPEATS: &str = "repeats";

/// How often a message's deliveries were handed out before without being settled, in this message and in earlier ones.
pub(crate) fn repeats_of(message: &Incoming) -> u32 {
    let before = message.header_i64(REPEATS).unwrap_or(0);
    u32::try_from(before.saturating_add(message.delivery_count()).max(0)).unwrap_or(u32::MAX)
}

/// Carries out verdicts over one session.
pub(crate) struct Settler {
    pub(crate) session: Arc<Session>,
    pub(crate) journal: Journal,
    pub(crate) metrics: Metrics,
}

impl Settler {
    /// Publishes what follows from a verdict and its facts, and waits for all confirms. The message that held the
    /// delivery may be acked once this is done for all its deliveries.
    ///
    /// # Errors
    /// [`BrokerError`]: nothing may be acked; the session is over and the message comes again.
    pub(crate) async fn settle(&self, taken: &Taken, verdict: Verdict) -> Result<(), BrokerError> {
        let (successor, facts) = follow(taken, verdict, self.session.names(), &self.metrics);
        self.write(successor, facts).await?;
        crash::point("worker.settled");
        Ok(())
    }

    async fn write(&self, successor: Option<Outgoing>, facts: Vec<Fact>) -> Result<(), BrokerError> {
        let publish = async {
            match successor {
                Some(message) => {
                    self.session.publisher().publish(message).await?;
                    crash::point("worker.successor_confirmed");
                    Ok(())
                }
                None => Ok(()),
            }
        };
        let record = async {
            let recorded = tokio::select! {
                recorded = self.journal.record(facts) => recorded,
                () = self.session.lost() => Err(BrokerError::Lost),
            };
            crash::point("worker.facts_confirmed");
            recorded
        };
        tokio::try_join!(publish, record).map(drop)
    }

    /// A delivery whose handling panicked, or whose message came back too often: alone, through a short parking, or to
    /// the poison when that has happened too often.
    pub(crate) async fn set_apart(&self, taken: &Taken, panicked: bool) -> Result<(), BrokerError> {
        let crashes = taken.delivery.crashes + 1;
        if crashes >= POISON_AT {
            self.metrics.unusable.with_label_values(&["crashes"]).inc();
            tracing::error!(
                delivery.id = taken.delivery.id.as_str(),
                crashes,
                "a delivery kills its workers and is set aside as poison"
            );
            let body = wire::encode(&DeliveryMessage::single(taken.event.clone(), taken.delivery.clone()));
            return self.poison(body, "crashes", &Names::destination(taken.lane, taken.shard)).await;
        }
        self.metrics.parked.with_label_values(&["crashes"]).inc();
        let delivery = DeliveryRecord { crashes, ..taken.delivery.clone() };
        let rung_secs = PARK_RUNGS_SECS[rand::random_range(0..2)];
        // It had begun, if it panicked.
        let repeats = taken.repeats + u32::from(panicked);
        self.write(Some(park(taken, delivery, repeats, rung_secs, self.session.names())), Vec::new()).await?;
        crash::point("worker.set_apart");
        Ok(())
    }

    /// Bytes that are no message of ours.
    pub(crate) async fn poison(&self, body: Vec<u8>, reason: &str, key: &str) -> Result<(), BrokerError> {
        let message =
            Outgoing::json(self.session.names().poison(), "", body, uuid::Uuid::new_v4().to_string())
                .header("reason", reason)
                .header("queue", key);
        self.session.publisher().publish(message).await?;
        crash::point("worker.poisoned");
        Ok(())
    }

    /// A message as it is, later: for a worker of a newer release.
    pub(crate) async fn park_unread(&self, message: &Incoming, destination: &str) -> Result<(), BrokerError> {
        self.metrics.parked.with_label_values(&["unknown_schema"]).inc();
        let key = Names::park_key(600, destination);
        let id = uuid::Uuid::new_v4().to_string();
        let later = Outgoing::json(self.session.names().park(), key, message.body().to_vec(), id);
        self.session.publisher().publish(counted(message, later)).await
    }

    /// Gives back a message that was not begun, so that another worker gets it with a fresh count of deliveries.
    pub(crate) async fn give_back(&self, message: Incoming, destination: &str) -> Result<(), BrokerError> {
        let id = message.message_id().unwrap_or_default().to_owned();
        let back =
            Outgoing::json(self.session.names().deliveries(), destination, message.body().to_vec(), id);
        self.session.publisher().publish(counted(&message, back)).await?;
        crash::point("worker.gave_back");
        message.ack().await
    }
}

/// A message that carries the same deliveries as one that came, with how many they are and how often they were handed out.
fn counted(came: &Incoming, message: Outgoing) -> Outgoing {
    let deliveries = came.header_i64("deliveries").unwrap_or(1);
    message.header("deliveries", deliveries.to_string()).header(REPEATS, repeats_of(came).to_string())
}

/// What follows from a verdict: at most one message, and the facts.
fn follow(
    taken: &Taken,
    verdict: Verdict,
    names: &Names,
    metrics: &Metrics,
) -> (Option<Outgoing>, Vec<Fact>) {
    let delivery = &taken.delivery;
    let done = |end: End, reason: &str, attempts: u32, repeats: u32| {
        metrics.finished.with_label_values(&[end.as_str()]).inc();
        Fact::Done(DoneFact {
            delivery: delivery.id.clone(),
            series: delivery.series,
            webhook: delivery.webhook.clone(),
            end,
            reason: reason.to_owned(),
            attempts,
            at: now(),
            repeats,
        })
    };
    let before = delivery.attempt.saturating_sub(1);
    match verdict {
        Verdict::Delivered { made } => {
            let latency_ms = now().since_ms(taken.event.accepted_at);
            let first_try = if delivery.attempt == 1 { "true" } else { "false" };
            metrics.latency_seconds.with_label_values(&[first_try]).observe(seconds(latency_ms));
            (None, facts(made, Some(done(End::Delivered, "", delivery.attempt, 0))))
        }
        Verdict::Retry { made, at, wait } => {
            metrics.retries.with_label_values(&[&wait.entry_level().to_string()]).inc();
            let next = DeliveryRecord {
                attempt: delivery.attempt + 1,
                due: Some(at),
                crashes: 0,
                unknown_since: None,
                parked: 0,
                ..delivery.clone()
            };
            let key = wait.routing_key(&Names::destination(postrider_broker::Lane::Retry, taken.shard));
            let message = single(taken, next, 0, names.ladder(wait.entry_level()), key);
            (Some(message), facts(made, None))
        }
        Verdict::Dead { made, reason } => {
            let last = made.last();
            let attempts = if last.is_some() { delivery.attempt } else { before };
            let dead = DeadMessage {
                schema: SCHEMA,
                event: taken.event.clone(),
                delivery: DeliveryRecord { attempt: attempts, ..delivery.clone() },
                reason: reason.as_str().to_owned(),
                class: last.map(|last| last.class.to_string()).unwrap_or_default(),
                at: now(),
            };
            let repeats = if last.is_some() { 0 } else { taken.repeats };
            // Nobody misses what was only a test.
            let message = (reason != DeadReason::Test)
                .then(|| Outgoing::json(names.dead(), "", wire::encode(&dead), message_id(delivery)));
            (message, facts(made, Some(done(End::Dead, reason.as_str(), attempts, repeats))))
        }
        Verdict::Held => {
            metrics.held.inc();
            let held = HeldFact {
                delivery: delivery.id.clone(),
                series: delivery.series,
                webhook: delivery.webhook.clone(),
                attempt: delivery.attempt,
                at: now(),
                repeats: taken.repeats,
            };
            (None, vec![Fact::Held(held)])
        }
        Verdict::Skipped(reason) => (None, vec![done(End::Skipped, reason.as_str(), before, taken.repeats)]),
        Verdict::Cancelled(reason) => (None, vec![done(End::Cancelled, reason, before, taken.repeats)]),
        Verdict::Park(Park { why, rung_secs }) => {
            metrics.parked.with_label_values(&[why.as_str()]).inc();
            let unknown_since = match why {
                ParkReason::UnknownRevision { since } => Some(since),
                ParkReason::Local | ParkReason::Pace(_) => None,
            };
            let parked = delivery.parked.saturating_add(1);
            let later = DeliveryRecord { unknown_since, parked, ..delivery.clone() };
            (Some(park(taken, later, taken.repeats, rung_secs, names)), Vec::new())
        }
        Verdict::Apart => {
            metrics.moved_out.inc();
            let key = Names::destination(taken.lane, taken.shard);
            let message = single(taken, delivery.clone(), taken.repeats, names.deliveries(), key);
            (Some(message), Vec::new())
        }
    }
}

/// The requests of an attempt, and what ends the series, if anything does.
fn facts(made: Vec<AttemptFact>, end: Option<Fact>) -> Vec<Fact> {
    made.into_iter().map(Fact::Attempt).chain(end).collect()
}

fn park(taken: &Taken, delivery: DeliveryRecord, repeats: u32, rung_secs: u32, names: &Names) -> Outgoing {
    let key = Names::park_key(rung_secs, &Names::destination(taken.lane, taken.shard));
    single(taken, delivery, repeats, names.park(), key)
}

/// A message of one delivery, which was handed out before `repeats` times without a fact that says so.
fn single(taken: &Taken, delivery: DeliveryRecord, repeats: u32, exchange: String, key: String) -> Outgoing {
    let id = message_id(&delivery);
    let body = wire::encode(&DeliveryMessage::single(taken.event.clone(), delivery));
    let message = Outgoing::json(exchange, key, body, id).header("deliveries", "1");
    if repeats == 0 { message } else { message.header(REPEATS, repeats.to_string()) }
}

/// Names a message after the attempt that it asks for.
fn message_id(delivery: &DeliveryRecord) -> String {
    format!("{}/{}/{}", delivery.id, delivery.series, delivery.attempt)
}
