//! The worker's life: one session after another, and an orderly end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, try_join_all};
use postrider_broker::{
    BrokerError, Consumer, DirectoryFeed, Incoming, Journal, Lane, Names, Readiness, Seldom, Session,
    Settings, crash, supervise,
};
use postrider_core::address::EgressPolicy;
use postrider_core::lifecycle::{Guard, guard};
use postrider_core::seal::MasterKey;
use postrider_core::wire::{self, DeliveryMessage, WireError};
use prometheus::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deliver::{Deliverer, Taken};
use crate::gate::Gate;
use crate::http::Http;
use crate::metrics::{Metrics, OneMore};
use crate::settle::{Settler, repeats_of};
use crate::slots::{QUICK, Slot, Slots};
use crate::token::Tokens;

/// Messages that the broker sends ahead on each queue, beside those that may be begun.
const AHEAD: u32 = 50;
/// Messages that are given back at the same time.
const GIVEN_BACK: usize = 64;
/// How often the workers of the fleet are counted.
const COUNT_WORKERS: Duration = Duration::from_secs(2);
/// How long changes of the configuration are gathered: what follows from them looks at every webhook.
const CHANGES: Duration = Duration::from_millis(100);

/// What the worker needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker.
    pub broker: Settings,
    /// Opens the webhooks' secrets.
    pub master_key: MasterKey,
    /// Which addresses deliveries may reach.
    pub egress: EgressPolicy,
    /// How long what is in flight may take after the shutdown; at least the longest timeout of a webhook and 5 s.
    pub drain: Duration,
    /// Deliveries that may be begun and not settled, the members of their batches included.
    pub concurrency: u32,
    /// The same for those that take longer than a moment; with 0 they stay among the others. Both together are the most
    /// that a crash sends twice.
    pub slow_concurrency: u32,
}

impl Config {
    /// The usual concurrency.
    pub const CONCURRENCY: u32 = 256;
    /// The usual concurrency of what takes longer than a moment.
    pub const SLOW_CONCURRENCY: u32 = 1024;
    /// The usual drain.
    pub const DRAIN: Duration = Duration::from_secs(20);

    /// A worker on this broker with the usual bounds, which may reach global addresses only.
    pub fn new(broker: Settings, master_key: MasterKey) -> Self {
        let egress = EgressPolicy::default();
        let (concurrency, slow_concurrency) = (Self::CONCURRENCY, Self::SLOW_CONCURRENCY);
        Self { broker, master_key, egress, drain: Self::DRAIN, concurrency, slow_concurrency }
    }
}

/// Why the worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its metrics are registered already.
    #[error("the worker's metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// No HTTP client.
    #[error("the HTTP client cannot be made: {0}")]
    Http(#[from] reqwest::Error),
}

/// Delivers until `shutdown`, then finishes what is in flight within the drain and gives back what was not begun.
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
    let metrics = Metrics::register(registry)?;
    let slots = Slots::new(config.concurrency, config.slow_concurrency, metrics.clone());
    if !config.egress.opened().is_empty() {
        tracing::warn!(ranges = ?config.egress.opened(), "deliveries may reach these private ranges");
    }
    let journal = Journal::start("worker", config.broker.names(), stop_journal.clone());
    let feed = DirectoryFeed::new();
    let http = Http::new(config.egress.clone())?;
    let gate = Gate::new(slots.clone(), feed.clone(), metrics.clone());
    let deliverer = Deliverer {
        feed: feed.clone(),
        tokens: Tokens::new(http.clone()),
        http,
        master_key: config.master_key.clone(),
        metrics: metrics.clone(),
        unit_ms: config.broker.unit_ms,
        worker: journal.writer().into(),
        opened: Default::default(),
        moments: Default::default(),
        stopped: Default::default(),
        local_said: Default::default(),
        gate: gate.clone(),
    };
    let worker = Worker {
        broker_metrics: postrider_broker::Metrics::register(registry, "worker")?,
        slots,
        deliverer: Arc::new(deliverer),
        in_flight: TaskTracker::new(),
        config,
        journal,
        feed,
        metrics,
        readiness: readiness.clone(),
        shutdown: shutdown.clone(),
    };
    let look_on = tokio::spawn(gate.look_on());
    supervise(&readiness, &shutdown, || worker.session()).await;
    look_on.abort();
    stop_journal.cancel();
    Ok(())
}

struct Worker {
    config: Config,
    broker_metrics: postrider_broker::Metrics,
    metrics: Metrics,
    journal: Journal,
    feed: DirectoryFeed,
    deliverer: Arc<Deliverer>,
    slots: Slots,
    in_flight: TaskTracker,
    readiness: Readiness,
    shutdown: CancellationToken,
}

impl Worker {
    /// One session: ends with `Ok` at the shutdown, drained.
    async fn session(&self) -> Result<(), BrokerError> {
        let session = tokio::select! {
            session = Session::open(&self.config.broker, &self.broker_metrics) => Arc::new(session?),
            () = self.shutdown.cancelled() => return Ok(()),
        };
        self.readiness
            .set("deliveries", Err("it does not receive yet: the configuration comes first".into()));
        self.readiness.set("broker", Ok(()));
        session.report_flow(&self.readiness);
        self.journal.over(session.publisher());
        let ended = tokio::select! {
            () = self.shutdown.cancelled() => Ok(()),
            caught_up = self.feed.catch_up(&session, &self.readiness) => match caught_up {
                Ok(()) => self.work(&session).await,
                Err(error) => Err(error),
            },
        };
        session.close().await;
        ended
    }

    /// Consumes every lane of every shard, follows the topology as it grows, and drains at the shutdown.
    async fn work(&self, session: &Arc<Session>) -> Result<(), BrokerError> {
        let settler = Arc::new(Settler {
            session: session.clone(),
            journal: self.journal.clone(),
            metrics: self.metrics.clone(),
        });
        self.deliverer.gate.joins(count_workers(session).await?);
        self.count_workers(session);
        let mut changes = self.feed.changes();
        let mut intakes = JoinSet::new();
        let mut shards = 0;
        loop {
            let most = self.feed.read().topology().map_or(1, |topology| topology.most_shards);
            for shard in shards..most {
                for lane in Lane::ALL {
                    let queue = session.names().delivery_queue(lane, shard);
                    let consumer = session.consume(&queue, self.prefetch(lane)).await?;
                    let intake = Intake {
                        settler: settler.clone(),
                        deliverer: self.deliverer.clone(),
                        slots: self.slots.clone(),
                        in_flight: self.in_flight.clone(),
                        shutdown: self.shutdown.clone(),
                        lane,
                        shard,
                    };
                    intakes.spawn(intake.run(consumer));
                }
            }
            shards = shards.max(most);
            self.readiness.set("deliveries", Ok(()));
            self.readiness.pulse().allow(Duration::from_millis(self.feed.read().longest_timeout_ms()));
            tokio::select! {
                // First: at the shutdown the intakes end too, and what they return is for the drain.
                biased;
                () = self.shutdown.cancelled() => break,
                () = session.lost() => return Err(BrokerError::Lost),
                ended = intakes.join_next() => match ended {
                    Some(Ok(ended)) => { ended?; }
                    Some(Err(error)) => return Err(BrokerError::Config(format!("a consumer's task failed: {error}"))),
                    None => return Err(BrokerError::Lost),
                },
                changed = async {
                    let changed = changes.changed().await;
                    tokio::time::sleep(CHANGES).await;
                    changed
                } => changed.map_err(|_| BrokerError::Lost)?,
            }
        }
        self.drain(intakes).await
    }

    /// As many messages of one queue as may be begun, and some ahead: one that is begun and hangs is not settled for long,
    /// and must not keep the broker from sending others.
    fn prefetch(&self, lane: Lane) -> u16 {
        u16::try_from(self.slots.quick(lane) + self.slots.slow() + AHEAD).unwrap_or(u16::MAX)
    }

    /// Counts the workers of the fleet for as long as the session lasts: caps are shared out among them.
    fn count_workers(&self, session: &Arc<Session>) {
        let (session, gate) = (session.clone(), self.deliverer.gate.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = session.lost() => return,
                    () = tokio::time::sleep(COUNT_WORKERS) => {}
                }
                match count_workers(&session).await {
                    Ok(workers) => gate.workers(workers),
                    Err(error) => tracing::debug!(%error, "the workers could not be counted"),
                }
            }
        });
    }

    /// Takes nothing more, gives back what was not begun, finishes what was, and waits until the queues know.
    async fn drain(&self, mut intakes: JoinSet<Result<Taking, BrokerError>>) -> Result<(), BrokerError> {
        self.readiness.set("deliveries", Err("draining: the worker was asked to stop".into()));
        self.in_flight.close();
        let drained = async {
            let mut ended = Vec::new();
            while let Some(intake) = intakes.join_next().await {
                match intake {
                    Ok(Ok(taking)) => ended.push(taking),
                    Ok(Err(error)) => tracing::warn!(%error, "giving back what was not begun"),
                    Err(error) => tracing::error!(%error, "a consumer's task failed"),
                }
            }
            self.in_flight.wait().await;
            for flushed in join_all(ended.into_iter().map(Taking::flush)).await {
                if let Err(error) = flushed {
                    tracing::warn!(%error, "what was settled last may be sent again");
                }
            }
        };
        // No request that may still be answered is cut off, however short the drain was set.
        let longest = Duration::from_millis(self.feed.read().longest_timeout_ms()) + Duration::from_secs(5);
        if tokio::time::timeout(self.config.drain.max(longest), drained).await.is_err() {
            let left = self.in_flight.len();
            tracing::warn!(left, "not everything in flight ended within the drain; it will be sent again");
        }
        Ok(())
    }
}

/// How many workers consume: each consumes every queue, this one too once it has begun.
async fn count_workers(session: &Session) -> Result<u32, BrokerError> {
    let queue = session.names().delivery_queue(Lane::Fresh, 0);
    Ok(session.depth(&queue).await?.consumers)
}

/// Takes messages of one lane and shard.
struct Intake {
    settler: Arc<Settler>,
    deliverer: Arc<Deliverer>,
    slots: Slots,
    in_flight: TaskTracker,
    shutdown: CancellationToken,
    lane: Lane,
    shard: u16,
}

/// An intake that takes nothing more, while what it took is finished.
struct Taking {
    consumer: Consumer,
    settler: Arc<Settler>,
    destination: String,
}

impl Taking {
    /// Waits until the queue knows what was acked, when nothing is left in flight.
    async fn flush(mut self) -> Result<(), BrokerError> {
        for message in self.consumer.flush().await? {
            self.settler.give_back(message, &self.destination).await?;
        }
        Ok(())
    }
}

impl Intake {
    /// Takes until the shutdown, and gives back what was not begun then.
    async fn run(self, mut consumer: Consumer) -> Result<Taking, BrokerError> {
        let destination = Names::destination(self.lane, self.shard);
        loop {
            let message = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                message = consumer.next() => message.ok_or(BrokerError::Lost)?,
            };
            let slot = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.settler.give_back(message, &destination).await?;
                    break;
                }
                () = self.settler.session.lost() => return Err(BrokerError::Lost),
                slot = self.room_for(&message) => slot?,
            };
            if self.settler.session.is_lost() {
                return Err(BrokerError::Lost);
            }
            let (settler, deliverer) = (self.settler.clone(), self.deliverer.clone());
            let (lane, shard) = (self.lane, self.shard);
            self.in_flight.spawn(async move {
                // An error means that the session is over: the message was not acked and comes again.
                if let Err(error) = handle(&settler, &deliverer, message, lane, shard, slot).await {
                    tracing::debug!(%error, "not settled");
                }
            });
        }
        consumer.cancel().await?;
        // Many at a time: one after the other they could take longer than the drain.
        let mut back = Vec::new();
        while let Some(message) = consumer.next().await {
            back.push(self.settler.give_back(message, &destination));
            if back.len() == GIVEN_BACK {
                try_join_all(back.drain(..)).await?;
            }
        }
        try_join_all(back).await?;
        Ok(Taking { consumer, settler: self.settler, destination })
    }

    /// Waits until everything in the message may begin: publishing flows, and there is a slot for each delivery.
    async fn room_for(&self, message: &Incoming) -> Result<Slot, BrokerError> {
        self.settler.session.publisher().flowing().await;
        let deliveries = u32::try_from(message.header_i64("deliveries").unwrap_or(1)).unwrap_or(1);
        self.slots.take(self.lane, deliveries).await
    }
}

/// One message: every delivery in it is settled, then it is acked.
async fn handle(
    settler: &Settler,
    deliverer: &Deliverer,
    message: Incoming,
    lane: Lane,
    shard: u16,
    slot: Slot,
) -> Result<(), BrokerError> {
    crash::point("worker.read");
    let destination = Names::destination(lane, shard);
    let deliveries: DeliveryMessage = match wire::decode(message.body()) {
        Ok(deliveries) => deliveries,
        Err(WireError::UnknownSchema(schema)) => {
            static PARKED: Seldom = Seldom::new();
            if let Some(unsaid) = PARKED.due() {
                tracing::warn!(
                    schema,
                    unsaid,
                    "a delivery of a newer release is parked; upgrade this worker"
                );
            }
            deliverer.metrics.unusable.with_label_values(&["unknown_schema"]).inc();
            settler.park_unread(&message, &destination).await?;
            return message.ack().await;
        }
        Err(WireError::Malformed(error)) => {
            tracing::error!(%error, "a message that is no delivery is set aside as poison");
            deliverer.metrics.unusable.with_label_values(&["malformed"]).inc();
            settler.poison(message.body().to_vec(), "malformed", &destination).await?;
            return message.ack().await;
        }
    };
    let count = message.delivery_count();
    let repeats = repeats_of(&message);
    let alone = deliveries.len() == 1;
    let taken = deliveries.work.into_iter().flat_map(|work| {
        let (event, slot) = (work.event, &slot);
        work.to.into_iter().map(move |delivery| Taken {
            event: event.clone(),
            delivery,
            lane,
            shard,
            repeats,
            alone,
            slot: slot.clone(),
        })
    });
    // All of them, also when one fails: whoever holds the slots of this message must not begin another meanwhile.
    let mut settled = join_all(taken.map(|taken| settle_one(settler, deliverer, taken, count)));
    let settled = loop {
        match tokio::time::timeout(QUICK, &mut settled).await {
            Ok(settled) => break settled,
            // Where there is no room it stays for now.
            Err(_) => slot.slow_down(),
        };
    };
    settled.into_iter().collect::<Result<(), BrokerError>>()?;
    crash::point("worker.all_settled");
    message.ack().await?;
    crash::point("worker.acked");
    Ok(())
}

async fn settle_one(
    settler: &Settler,
    deliverer: &Deliverer,
    taken: Taken,
    delivery_count: i64,
) -> Result<(), BrokerError> {
    if guard(delivery_count, taken.delivery.crashes) != Guard::Begin {
        return settler.set_apart(&taken, false).await;
    }
    let _begun = OneMore::of(&deliverer.metrics.in_flight);
    // A panic hurts this delivery only. What it was in the middle of is given back as it unwinds, and our own locks are
    // taken over from whoever panicked with them.
    match AssertUnwindSafe(deliverer.deliver(&taken)).catch_unwind().await {
        Ok(verdict) => settler.settle(&taken, verdict).await,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(
                delivery.id = taken.delivery.id.as_str(),
                panic = text.unwrap_or("no text"),
                "delivering panicked"
            );
            settler.set_apart(&taken, true).await
        }
    }
}
