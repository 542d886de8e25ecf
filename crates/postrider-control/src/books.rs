//! The books, live: what the store counts beside what the broker holds (DESIGN §5.3).
//!
//! The two can be compared only at rest, when nothing is on its way between them. A request that is under way is in
//! neither, so rest means more than empty queues: for longer than any request may take, nothing was recorded and what
//! the broker holds did not change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider_broker::{BrokerError, Depth, Lane, Readiness};
use postrider_core::Timestamp;
use postrider_core::books::Drift;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::link::Broker;
use crate::metrics::Metrics;
use crate::recorder::Activity;
use crate::store::{Books, Due, Store, StoreError};

/// How often the broker is asked.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long the broker may take for each answer. A sample takes some forty of them, one after the other: seconds, where the
/// broker is far away.
const ANSWER: Duration = Duration::from_secs(3);
/// A sample older than this says nothing any more.
const FRESH: Duration = Duration::from_secs(30);
/// Beyond the longest timeout of a webhook, for what comes before and after a request.
const MARGIN: Duration = Duration::from_secs(3);
/// How long a timeout that was in force may still be running after a change.
const LONGEST: Duration = Duration::from_secs(65);
/// A series that a worker reported is owed within this time, or the books are wrong: its event's fact follows closely.
const UNOWED: Duration = Duration::from_secs(30);
/// Counting takes at most one part in this many of the time, however large the store is.
const SHARE: u32 = 10;
/// How often the gauges are set.
const GAUGES: Duration = Duration::from_secs(5);
/// A delivery that has been due for so long is late: longer than a request may take, and than a retry of the crash guard
/// is parked.
const LATE: Duration = Duration::from_secs(120);

/// What the broker said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    /// Ready messages of the queue of events.
    waiting: u64,
    /// Consumers of the first fresh lane.
    workers: u64,
    /// Consumers of the queue of events.
    routers: u64,
    /// Deliveries that wait in ladder and parking; nothing while lanes or journal have messages.
    holds: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    sample: Sample,
    at: Instant,
    /// Since when `holds` is the same.
    since: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    books: Books,
    at: Instant,
    moment: Timestamp,
    took: Duration,
}

/// The books and how far they are from balancing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    pub books: Books,
    pub drift: Drift,
    pub at_rest: bool,
    /// Events that wait for a router, workers, and routers; nothing while the broker does not answer.
    pub broker: Option<(u64, u64, u64)>,
}

/// Keeps the books' other side at hand.
pub(crate) struct Bookkeeper {
    store: Arc<Store>,
    broker: Arc<dyn Broker>,
    activity: Activity,
    metrics: Metrics,
    seen: std::sync::Mutex<Option<Seen>>,
    counted: Mutex<Option<Counted>>,
    /// The longest timeout of late, and since when it has not been seen.
    longest: std::sync::Mutex<(u64, Instant)>,
    /// What was due when the gauges were set.
    due: std::sync::Mutex<Option<Due>>,
    /// Whether the store took what was last written to see whether it does.
    writable: AtomicBool,
}

impl Bookkeeper {
    pub(crate) fn new(
        store: Arc<Store>,
        broker: Arc<dyn Broker>,
        activity: Activity,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            broker,
            activity,
            metrics,
            seen: std::sync::Mutex::new(None),
            counted: Mutex::new(None),
            longest: std::sync::Mutex::new((0, Instant::now())),
            due: std::sync::Mutex::new(None),
            writable: AtomicBool::new(true),
        }
    }

    /// Asks the broker again and again, until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken, readiness: &Readiness) {
        let mut gauges = Instant::now();
        loop {
            self.look().await;
            if gauges.elapsed() >= GAUGES {
                self.set_gauges(readiness).await;
                gauges = Instant::now();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SAMPLE) => {}
            }
        }
    }

    async fn set_gauges(&self, readiness: &Readiness) {
        if let Ok(balance) = self.balance().await {
            self.metrics.books(&balance.books, &balance.drift);
        }
        let now = postrider_broker::now();
        let due = self.store.due(now, millis(LATE)).await.ok();
        if let Some(due) = &due {
            self.metrics.due(due);
        }
        *self.due.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = due;
        // Also when nothing comes that would have to be written: whoever asks whether control is ready must know.
        let writable = self.store.probe(now).await;
        self.metrics.store_up(writable.is_ok());
        self.writable.store(writable.is_ok(), Ordering::Relaxed);
        readiness.set("store", writable.map_err(|error| error.to_string()));
        if let Ok(depths) = self.depths().await {
            for (queue, ready, consumers) in depths {
                self.metrics.queue(queue, ready, consumers);
            }
        }
    }

    /// Ready messages and, where there must be some, consumers of every queue, summed up by what it is for.
    async fn depths(&self) -> Result<Vec<(&'static str, u64, Option<u64>)>, BrokerError> {
        let names = self.broker.names();
        let shards = self.broker.topology().map_or(1, |topology| topology.most_shards);
        let lane = |lane: Lane| (0..shards).map(|shard| names.delivery_queue(lane, shard)).collect();
        let groups: [(&'static str, Vec<String>, bool); 10] = [
            ("events", vec![names.events()], true),
            ("fresh", lane(Lane::Fresh), true),
            ("retry", lane(Lane::Retry), true),
            ("replay", lane(Lane::Replay), true),
            ("journal", vec![names.journal()], true),
            ("dead", vec![names.dead()], true),
            ("invalid", vec![names.invalid()], true),
            ("poison", vec![names.poison()], true),
            ("delay", names.ladder_queues(), false),
            ("park", names.park_queues(), false),
        ];
        let mut depths = Vec::with_capacity(groups.len());
        for (group, queues, consumed) in groups {
            let (mut ready, mut consumers) = (0, u64::MAX);
            for queue in &queues {
                let depth = self.depth(queue).await?;
                ready += u64::from(depth.ready);
                consumers = consumers.min(depth.consumers.into());
            }
            depths.push((group, ready, consumed.then_some(consumers)));
        }
        Ok(depths)
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let late = |_| BrokerError::Timeout { what: "queue.declare", seconds: ANSWER.as_secs() };
        timeout(ANSWER, self.broker.depth(queue)).await.map_err(late)?
    }

    /// What was due a few seconds ago; nothing until that is known.
    pub(crate) fn due(&self) -> Option<Due> {
        self.due.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Whether the store could be written a few seconds ago.
    pub(crate) fn is_store_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    async fn look(&self) {
        let sample = self.sample().await.ok();
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(sample) = sample else {
            *seen = None;
            return;
        };
        let now = postrider_broker::now();
        let since = match *seen {
            Some(before) if sample.holds.is_some() && before.sample.holds == sample.holds => before.since,
            _ => now,
        };
        *seen = Some(Seen { sample, at: Instant::now(), since });
    }

    async fn sample(&self) -> Result<Sample, BrokerError> {
        let names = self.broker.names();
        let events = self.depth(&names.events()).await?;
        let first = self.depth(&names.delivery_queue(Lane::Fresh, 0)).await?;
        let mut moving = u64::from(self.depth(&names.journal()).await?.ready) + u64::from(first.ready);
        let shards = self.broker.topology().map_or(1, |topology| topology.most_shards);
        'lanes: for shard in 0..shards {
            for lane in Lane::ALL {
                if moving > 0 {
                    break 'lanes;
                }
                moving += u64::from(self.depth(&names.delivery_queue(lane, shard)).await?.ready);
            }
        }
        let mut holds = None;
        if moving == 0 {
            let mut sum = 0;
            for queue in names.ladder_queues().iter().chain(&names.park_queues()) {
                sum += u64::from(self.depth(queue).await?.ready);
            }
            holds = Some(sum);
        }
        Ok(Sample {
            waiting: events.ready.into(),
            workers: first.consumers.into(),
            routers: events.consumers.into(),
            holds,
        })
    }

    /// What the books say now.
    pub(crate) async fn balance(&self) -> Result<Balance, StoreError> {
        let now = postrider_broker::now();
        let seen = *self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = seen.filter(|seen| seen.at.elapsed() < FRESH);
        let counted = self.counted(now).await?;
        let books = counted.books;
        let quiet_ms = self.longest_timeout_ms(books.longest_timeout_ms) + millis(MARGIN);
        let holds = seen.and_then(|seen| seen.sample.holds.map(|holds| (holds, seen.since)));
        // Read after the books: whatever they did not see yet has been noted here.
        let active = self.activity.last();
        let at_rest = holds.filter(|(_, since)| {
            let quiet_since = active.max(*since);
            books.unsent_deliveries == 0
                && now.since_ms(quiet_since) > quiet_ms
                && counted.moment > quiet_since
        });
        let mut drift = books.counts.drift(at_rest.map(|(holds, _)| holds));
        if at_rest.is_some() {
            // No event's fact is on its way any more.
            drift.unowed = books.unowed_now;
        }
        Ok(Balance {
            books,
            drift,
            at_rest: at_rest.is_some(),
            broker: seen.map(|Seen { sample, .. }| (sample.waiting, sample.workers, sample.routers)),
        })
    }

    /// The longest timeout that a request under way may have: also that of a webhook that was changed or deleted a moment
    /// ago.
    fn longest_timeout_ms(&self, now_ms: u64) -> u64 {
        let mut longest = self.longest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now_ms >= longest.0 || longest.1.elapsed() > LONGEST {
            *longest = (now_ms, Instant::now());
        }
        longest.0
    }

    /// Counts, unless it was done a moment ago.
    async fn counted(&self, now: Timestamp) -> Result<Counted, StoreError> {
        let mut counted = self.counted.lock().await;
        if let Some(known) = *counted
            && known.at.elapsed() < (known.took * SHARE).max(Duration::from_millis(50))
        {
            return Ok(known);
        }
        let begun = Instant::now();
        let before = now.as_millis().saturating_sub(i64::try_from(millis(UNOWED)).unwrap_or(i64::MAX));
        let moment = postrider_broker::now();
        let books = self.store.books(Timestamp::from_millis(before)).await?;
        let fresh = Counted { books, at: Instant::now(), moment, took: begun.elapsed() };
        *counted = Some(fresh);
        Ok(fresh)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
