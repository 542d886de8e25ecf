//! The router's life: one session after another.

use std::time::Duration;

use futures_util::future::try_join_all;
use postrider_broker::seen_stream::{self, SeenRecord};
use postrider_broker::{
    BrokerError, Consumer, DirectoryFeed, Incoming, Journal, Lane, Names, Readiness, Session, Settings,
    crash, now, supervise,
};
use postrider_core::intake::{Envelope, MAX_PER_MESSAGE, Parts};
use postrider_core::wire::MAX_BATCH;
use postrider_core::{Epoch, Timestamp};
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::batch::{Arrival, Batch};
use crate::metrics::Metrics;
use crate::seen::{Seen, WINDOW_MS};
use crate::standstill::Standstill;

/// Events that are settled together: also the most that a crash repeats (DESIGN §1). All of one message's belong to one round.
const ROUND: usize = 100;
const _: () = assert!(MAX_PER_MESSAGE <= ROUND);
/// A round takes no other message when its bodies have so many bytes: each is in memory several times until it is settled.
const ROUND_BYTES: usize = 512 * 1024;
/// Messages that the broker hands out before they are acked: those of a round, and those of the next, so that they are here
/// when it begins. Nothing was begun with the latter, so a crash repeats none of them.
const PREFETCH: u16 = 200;
/// After a round of at least so many events, the next one waits a moment until it is full: what a round costs the broker,
/// syncing above all, is the same for one event and for a hundred.
const MANY: usize = 16;
/// How long it waits at most. The broker sends what was acked anew within a fraction of that.
const GATHER: Duration = Duration::from_millis(5);
/// Fresh messages that may wait for workers; above, routing waits (DESIGN §5.1).
const MAX_FRESH_READY: u32 = 200_000;
/// How long an event waits for the configuration that its publisher knew (DESIGN §5.2).
const REVISION_PATIENCE: Duration = Duration::from_secs(2);

/// After a wait in vain no event is waited for during this time: a publisher that names a configuration which does not
/// exist must not hold up the others.
const PATIENCE_RETURNS: Duration = Duration::from_secs(30);

/// When waiting for a configuration was last in vain.
#[derive(Debug, Default)]
struct Patience {
    ended_at: Option<tokio::time::Instant>,
}

/// What the router needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker.
    pub broker: Settings,
    /// Deliveries in one message of the fresh lane, at most; from 1 to 16.
    pub batch: usize,
    /// How long what is begun may take after the shutdown.
    pub drain: Duration,
}

impl Config {
    /// The usual drain.
    pub const DRAIN: Duration = Duration::from_secs(20);

    /// A router on this broker, with the usual batches.
    pub fn new(broker: Settings) -> Self {
        Self { broker, batch: MAX_BATCH, drain: Self::DRAIN }
    }
}

/// Why the router could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its metrics are registered already.
    #[error("the router's metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Routes events until `shutdown`. What was begun is then settled.
///
/// # Errors
/// [`Error`] when it cannot start; trouble with the broker is waited out.
pub async fn run(
    config: Config,
    registry: &Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let stop_journal = CancellationToken::new();
    let router = Router {
        broker_metrics: postrider_broker::Metrics::register(registry, "router")?,
        metrics: Metrics::register(registry)?,
        journal: Journal::start("router", config.broker.names(), stop_journal.clone()),
        feed: DirectoryFeed::new(),
        config,
        readiness: readiness.clone(),
        shutdown: shutdown.clone(),
    };
    supervise(&readiness, &shutdown, || router.session()).await;
    stop_journal.cancel();
    Ok(())
}

/// A message, and where its events are.
struct Received {
    message: Incoming,
    parts: Parts,
}

impl Received {
    fn new(message: Incoming, names: &Names) -> Self {
        let parts = Parts::of(&envelope(&message, names), message.body());
        Self { message, parts }
    }
}

/// Gives rounds of what comes.
struct Rounds<'a> {
    events: Consumer,
    names: &'a Names,
    /// What came and did not fit into the last round.
    held: Option<Received>,
    /// How long the next round waits until it is full.
    gather: Duration,
}

impl<'a> Rounds<'a> {
    fn of(events: Consumer, names: &'a Names) -> Self {
        Self { events, names, held: None, gather: Duration::ZERO }
    }

    /// What the next round begins with; nothing when the session is over.
    async fn first(&mut self) -> Option<Received> {
        match self.held.take() {
            Some(held) => Some(held),
            None => Some(Received::new(self.events.next().await?, self.names)),
        }
    }

    /// What is settled together: what is waiting, and what comes soon where there is much.
    async fn round(&mut self, first: Received) -> Vec<Received> {
        let until = tokio::time::Instant::now() + self.gather;
        let (mut events, mut bytes) = (first.parts.len(), first.message.body().len());
        let mut round = vec![first];
        while events < ROUND && bytes < ROUND_BYTES {
            let next = match self.events.try_next() {
                Some(next) => Some(next),
                None if self.gather.is_zero() => None,
                None => tokio::time::timeout_at(until, self.events.next()).await.ok().flatten(),
            };
            let Some(next) = next.map(|message| Received::new(message, self.names)) else { break };
            events += next.parts.len();
            bytes += next.message.body().len();
            if events > ROUND {
                self.held = Some(next);
                break;
            }
            round.push(next);
        }
        self.gather = if events >= MANY { GATHER } else { Duration::ZERO };
        round
    }
}

/// What came with a message.
fn envelope<'a>(message: &'a Incoming, names: &Names) -> Envelope<'a> {
    // A message that was parked comes back under another key; its tenant travels in a header meanwhile.
    let parked = message.exchange() == names.delay_out();
    let routing_key = if parked { message.header_str("tenant").unwrap_or("") } else { message.routing_key() };
    Envelope {
        routing_key,
        content_type: message.content_type(),
        content_encoding: message.content_encoding(),
        message_id: message.message_id(),
        traceparent: message.header_str("traceparent"),
        place: None,
    }
}

/// The events of a message, each with what came with it.
fn arrivals<'a>(received: &'a Received, names: &Names) -> impl Iterator<Item = Arrival<'a>> {
    let Received { message, parts } = received;
    let parked = message.exchange() == names.delay_out();
    let crashes = if parked { message.header_i64("crashes").unwrap_or(0) } else { 0 };
    parts.each(envelope(message, names), message.body()).map(move |(envelope, body)| Arrival {
        envelope,
        body,
        only_webhook: message.header_str("only-webhook"),
        except_webhook: message.header_str("except-webhook"),
        epoch: message.header_str("postrider-epoch"),
        delivery_count: message.delivery_count(),
        crashes: u32::try_from(crashes).unwrap_or(0),
    })
}

/// How many messages of these lengths are settled when so many of their events are, and how many events of the next one.
fn settled_whole(lengths: impl Iterator<Item = usize>, mut events: usize) -> (usize, usize) {
    let mut whole = 0;
    for length in lengths {
        if events < length {
            break;
        }
        events -= length;
        whole += 1;
    }
    (whole, events)
}

struct Router {
    config: Config,
    broker_metrics: postrider_broker::Metrics,
    metrics: Metrics,
    journal: Journal,
    feed: DirectoryFeed,
    readiness: Readiness,
    shutdown: CancellationToken,
}

impl Router {
    /// One session: ends with `Ok` at the shutdown, with what was begun settled.
    async fn session(&self) -> Result<(), BrokerError> {
        let session = tokio::select! {
            session = Session::open(&self.config.broker, &self.broker_metrics) => session?,
            () = self.shutdown.cancelled() => return Ok(()),
        };
        self.readiness.set("events", Err("it does not receive yet: the configuration comes first".into()));
        self.readiness.set("broker", Ok(()));
        session.report_flow(&self.readiness);
        self.journal.over(session.publisher());
        let ended = tokio::select! {
            () = self.shutdown.cancelled() => Ok(()),
            caught_up = self.feed.catch_up(&session, &self.readiness) => match caught_up {
                Ok(()) => tokio::select! {
                    ended = self.route(&session) => ended,
                    () = self.drained() => {
                        tracing::warn!("what is begun does not end within the drain; the next router does it again");
                        Ok(())
                    }
                },
                Err(error) => Err(error),
            },
        };
        self.metrics.active.set(0);
        // Closing, not cancelling: a cancel while messages are held would make two routers active at once.
        session.close().await;
        ended
    }

    /// Waits until what is begun has had its time after the shutdown.
    async fn drained(&self) {
        self.shutdown.cancelled().await;
        tokio::time::sleep(self.config.drain).await;
    }

    async fn route(&self, session: &Session) -> Result<(), BrokerError> {
        let mut rounds =
            Rounds::of(session.consume(&session.names().events(), PREFETCH).await?, session.names());
        self.readiness.set("events", Ok(()));
        let room = self.watch_room(session);
        // Known only once this router is handed events: until then another one is active and adds to it.
        let mut seen: Option<Seen> = None;
        let mut patience = Patience::default();
        let standstill = Standstill::watch();
        loop {
            let first = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                first = rounds.first() => first.ok_or(BrokerError::Lost)?,
            };
            self.metrics.active.set(1);
            if !self.may_begin(session, &room).await? {
                return Ok(());
            }
            if seen.is_none() {
                let read = tokio::select! {
                    () = self.shutdown.cancelled() => return Ok(()),
                    () = session.lost() => return Err(BrokerError::Lost),
                    read = self.read_seen(session) => read?,
                };
                seen = Some(read);
            }
            let Some(seen) = &mut seen else { continue };
            let round = rounds.round(first).await;
            self.settle(session, round, seen, &mut patience, &standstill).await?;
        }
    }

    /// Waits until new work may begin; `false` at the shutdown.
    async fn may_begin(&self, session: &Session, room: &watch::Receiver<bool>) -> Result<bool, BrokerError> {
        let publisher = session.publisher();
        let (mut room, mut changes) = (room.clone(), self.feed.changes());
        loop {
            let unreadable = self.feed.read().unreadable().map(str::to_owned);
            let why = if let Some(what) = unreadable {
                format!("part of the configuration cannot be read, and routing could miss webhooks: {what}")
            } else if !publisher.is_flowing() {
                "RabbitMQ takes no messages at the moment (blocked, full, or confirms are late)".to_owned()
            } else if !*room.borrow_and_update() {
                format!("more than {MAX_FRESH_READY} fresh messages wait for workers; start more workers")
            } else {
                break;
            };
            self.readiness.set("events", Err(why));
            self.metrics.paused.set(1);
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(false),
                () = session.lost() => return Err(BrokerError::Lost),
                () = publisher.flowing(), if !publisher.is_flowing() => {}
                changed = room.changed() => changed.map_err(|_| BrokerError::Lost)?,
                changed = changes.changed() => changed.map_err(|_| BrokerError::Lost)?,
            }
        }
        self.metrics.paused.set(0);
        self.readiness.set("events", Ok(()));
        Ok(true)
    }

    async fn read_seen(&self, session: &Session) -> Result<Seen, BrokerError> {
        let at = now();
        let since = Timestamp::from_millis(at.as_millis() - i64::try_from(WINDOW_MS).unwrap_or(i64::MAX));
        let mut seen = Seen::default();
        let note = |record: SeenRecord| {
            for (tenant, event) in &record.ids {
                seen.note(tenant, event, record.at);
            }
            seen.forget(at);
        };
        seen_stream::read_since(session, since, note).await?;
        Ok(seen)
    }

    /// Settles a round together: publish, confirm, note as seen, ack. More than fits into one batch is several; a message whose
    /// events are in two is acked after the second.
    async fn settle(
        &self,
        session: &Session,
        mut round: Vec<Received>,
        seen: &mut Seen,
        patience: &mut Patience,
        standstill: &Standstill,
    ) -> Result<(), BrokerError> {
        let mut begun = tokio::time::Instant::now();
        crash::point("router.read");
        tokio::select! {
            () = session.lost() => return Err(BrokerError::Lost),
            () = self.wait_for_revision(&round, patience) => {}
        }
        let names = session.names();
        // How many events of the first message are settled already.
        let mut settled = 0;
        while !round.is_empty() {
            let events = round.iter().flat_map(|received| arrivals(received, names)).skip(settled);
            let (mut batch, decided) = self.decide(&events.collect::<Vec<_>>(), seen, names);
            if standstill.happened() {
                // The broker answers only over a connection that is alive: then nobody else was handed these messages.
                session.depth(&names.events()).await?;
            }
            crash::point("router.decided");
            self.carry_out(session, &mut batch).await?;
            let lengths = round.iter().map(|received| received.parts.len());
            let (whole, begun_with) = settled_whole(lengths, settled + decided);
            settled = begun_with;
            let rest = round.split_off(whole);
            Incoming::ack_all(round.into_iter().map(|received| received.message).collect()).await?;
            crash::point("router.acked");
            round = rest;
            self.count(&batch, decided, begun.elapsed());
            begun = tokio::time::Instant::now();
            if batch.duplicates > 0 {
                let journal = self.journal.clone();
                let duplicates = batch.duplicates;
                tokio::spawn(async move { journal.count_duplicates(duplicates).await });
            }
        }
        seen.forget(now());
        Ok(())
    }

    /// Publishes what a batch becomes: deliveries and facts, then, when they are confirmed, what was accepted.
    async fn carry_out(&self, session: &Session, batch: &mut Batch) -> Result<(), BrokerError> {
        let names = session.names();
        let publisher = session.publisher();
        let mut publishes: Vec<_> = batch.delivery_messages(names, self.config.batch);
        publishes.append(&mut batch.aside);
        let facts = std::mem::take(&mut batch.facts);
        let published = try_join_all(publishes.into_iter().map(|message| async {
            publisher.publish(message).await?;
            crash::point("router.one_confirmed");
            Ok(())
        }));
        let journal = async {
            let recorded = tokio::select! {
                recorded = self.journal.record(facts) => recorded,
                () = session.lost() => Err(BrokerError::Lost),
            };
            crash::point("router.facts_confirmed");
            recorded
        };
        tokio::try_join!(published, journal)?;
        crash::point("router.published");
        if !batch.accepted.is_empty() {
            let record = SeenRecord::new(now(), std::mem::take(&mut batch.accepted));
            seen_stream::write(&publisher, names, &record).await?;
        }
        crash::point("router.seen");
        Ok(())
    }

    /// Decides what becomes of the first of these events: of all of them, unless that would be too large a batch.
    fn decide(&self, arrivals: &[Arrival<'_>], seen: &mut Seen, names: &Names) -> (Batch, usize) {
        let directory = self.feed.read();
        let mut batch = Batch::default();
        for (decided, arrival) in arrivals.iter().enumerate() {
            if batch.is_full() {
                return (batch, decided);
            }
            batch.take(arrival, &directory, seen, names, now(), rand::random_range(0..1000));
        }
        (batch, arrivals.len())
    }

    /// Events published through control name the configuration that their publisher knew: the batch waits for the newest
    /// of them, once.
    async fn wait_for_revision(&self, round: &[Received], patience: &mut Patience) {
        let named = round.iter().filter_map(|Received { message, .. }| {
            let epoch = Epoch::from_trusted(message.header_str("postrider-epoch")?);
            let revision = u64::try_from(message.header_i64("postrider-revision")?).ok()?;
            self.feed.read().expects(&epoch).then_some((revision, epoch))
        });
        let Some((revision, epoch)) = named.max_by_key(|(revision, _)| *revision) else { return };
        if patience.ended_at.is_some_and(|at| at.elapsed() < PATIENCE_RETURNS) {
            return;
        }
        if !self.feed.at_least(&epoch, revision, REVISION_PATIENCE).await {
            patience.ended_at = Some(tokio::time::Instant::now());
            tracing::warn!(%epoch, revision, "routing with an older configuration than the publisher knew");
        }
    }

    fn count(&self, batch: &Batch, events: usize, took: Duration) {
        let metrics = &self.metrics;
        metrics.events.with_label_values(&["routed"]).inc_by(batch.routed);
        metrics.events.with_label_values(&["unmatched"]).inc_by(batch.unmatched);
        metrics.events.with_label_values(&["invalid"]).inc_by(batch.refused.len() as u64);
        metrics.events.with_label_values(&["duplicate"]).inc_by(batch.duplicates);
        for reason in &batch.refused {
            metrics.refused.with_label_values(&[reason.as_str()]).inc();
        }
        for mark in &batch.marks {
            metrics.marked.with_label_values(&[mark.as_str()]).inc();
        }
        for fate in &batch.actions {
            metrics.actions.with_label_values(&[fate.as_str()]).inc();
        }
        metrics.derived.inc_by(batch.derived);
        metrics.filter_errors.inc_by(batch.filter_errors);
        metrics.deliveries.inc_by(batch.deliveries);
        metrics.set_apart.inc_by(batch.set_apart);
        metrics.batch_events.observe(events as f64);
        metrics.batch_seconds.observe(took.as_secs_f64());
    }

    /// Looks every second whether workers keep up.
    fn watch_room(&self, session: &Session) -> watch::Receiver<bool> {
        let (room, watched) = watch::channel(true);
        let prober = session.prober();
        let feed = self.feed.clone();
        let names = session.names().clone();
        tokio::spawn(async move {
            while !room.is_closed() {
                let shards = feed.read().topology().map_or(1, |topology| topology.most_shards);
                let mut ready = 0u32;
                for shard in 0..shards {
                    let Ok(depth) = prober.depth(&names.delivery_queue(Lane::Fresh, shard)).await else {
                        return;
                    };
                    ready = ready.saturating_add(depth.ready);
                }
                room.send_replace(ready <= MAX_FRESH_READY);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        watched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_settled_with_the_last_of_its_events() {
        let settled = |events| settled_whole([1, 60, 1, 30].into_iter(), events);
        assert_eq!([0, 1, 2, 60].map(settled), [(0, 0), (1, 0), (1, 1), (1, 59)]);
        assert_eq!([61, 62, 91, 92].map(settled), [(2, 0), (3, 0), (3, 29), (4, 0)]);
    }
}
