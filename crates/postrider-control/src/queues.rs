//! The broker's queues as they are now: looked at when somebody asks, one look at a time, and seldom. How full they are is measured
//! beside that, without comparing anything, and kept in memory for an hour.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use postrider_broker::topology::{Looked, Queue, Topology};
use postrider_core::Timestamp;
use postrider_core::depths::{Depths, until_next_ms};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::link::Broker;

/// How long a look stands for those that follow.
const STANDS: Duration = Duration::from_secs(2);
/// How long a look may take. It asks twice for each queue, one after the other: seconds, where the broker is far away.
const LOOK: Duration = Duration::from_secs(6);
/// How long a measurement may take. It asks once for each queue, and pauses in between.
const MEASUREMENT: Duration = Duration::from_secs(10);
/// The pause before a measurement that failed is tried again.
const AGAIN: Duration = Duration::from_secs(3);

/// What a look found.
#[derive(Debug)]
pub(crate) struct Look {
    /// What there should be.
    pub topology: Topology,
    /// Its queues as they are, in its order.
    pub looked: Vec<Looked>,
    /// How many shards there are; nothing until control knows it. Then only the first was looked at.
    pub shards: Option<u16>,
    /// When the look began.
    pub at: Timestamp,
}

/// Looks at queues.
pub(crate) struct Queues {
    broker: Arc<dyn Broker>,
    last: Mutex<Option<Last>>,
    depths: std::sync::Mutex<Depths>,
}

/// How much waits in a queue, as far as AMQP says so.
pub(crate) fn ready(queue: &Queue, looked: &Looked) -> Option<u32> {
    // What AMQP says of a stream differs from release to release, and nothing of it is ever taken out.
    looked.depth.filter(|_| queue.kind() != "stream").map(|depth| depth.ready)
}

/// The last look.
struct Last {
    /// When it ended; while it goes on, and where nobody waited for its end, when it began.
    at: Instant,
    /// What it found, or why nothing; nothing at all where nobody waited for its end.
    found: Option<Result<Arc<Look>, String>>,
}

impl Queues {
    /// Of this broker.
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker, last: Mutex::new(None), depths: std::sync::Mutex::default() }
    }

    /// Measures how full the queues are, interval by interval, until `stop`. What cannot be measured is left out.
    pub(crate) async fn measure(&self, stop: &CancellationToken) {
        let all = async {
            loop {
                let wait = match self.measure_now().await {
                    Some(()) => Duration::from_millis(until_next_ms(postrider_broker::now())),
                    None => AGAIN,
                };
                sleep(wait).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = all => {}
        }
    }

    /// Measures once; nothing where that cannot be done now.
    async fn measure_now(&self) -> Option<()> {
        let at = postrider_broker::now();
        let (topology, shards) = self.topology();
        // Before control knows how many shards there are it knows only some of the queues.
        shards?;
        let depths = timeout(MEASUREMENT, self.broker.depths(&topology)).await.ok()?.ok()?;
        let queues = topology.queues.iter().zip(depths);
        // What AMQP says of a stream differs from release to release.
        let measured = queues.filter(|(queue, _)| queue.kind() != "stream");
        self.depths().note(at, measured.map(|(queue, ready)| (queue.name.as_str(), ready)));
        Some(())
    }

    /// How full queues were.
    pub(crate) fn depths(&self) -> MutexGuard<'_, Depths> {
        self.depths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there should be, and how many shards there are; without that it has only the queues of the first.
    pub(crate) fn topology(&self) -> (Topology, Option<u16>) {
        let shards = self.broker.topology().map(|topology| topology.most_shards);
        (Topology::new(self.broker.names(), shards.unwrap_or(1)), shards)
    }

    /// The queues as they were at most two seconds ago, or why they cannot be seen.
    pub(crate) async fn look(&self) -> Result<Arc<Look>, String> {
        let mut last = self.last.lock().await;
        if let Some(Last { at, found }) = &*last {
            match found {
                Some(found) if at.elapsed() < STANDS => return found.clone(),
                // Whoever began a look and went away has asked the broker too.
                _ => sleep_until(*at + STANDS).await,
            }
        }
        *last = Some(Last { at: Instant::now(), found: None });
        let found = self.look_now().await.map(Arc::new);
        *last = Some(Last { at: Instant::now(), found: Some(found.clone()) });
        found
    }

    async fn look_now(&self) -> Result<Look, String> {
        let at = postrider_broker::now();
        let (topology, shards) = self.topology();
        let looked = timeout(LOOK, self.broker.look(&topology))
            .await
            .map_err(|_| format!("RabbitMQ did not show all queues within {} s", LOOK.as_secs()))?
            .map_err(|error| error.to_string())?;
        Ok(Look { topology, looked, shards, at })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use postrider_broker::{BrokerError, Depth, Names, Outgoing};
    use postrider_core::wire::TopologyRecord;

    use super::*;
    use crate::link::LinkState;

    /// A broker that counts looks, each of which takes a while.
    struct Slow {
        names: Names,
        begun: AtomicU32,
        takes: Duration,
    }

    impl Slow {
        fn new(takes: Duration) -> (Arc<Self>, Queues) {
            let broker = Arc::new(Self { names: Names::new("p", 1000), begun: AtomicU32::new(0), takes });
            (broker.clone(), Queues::new(broker))
        }

        fn begun(&self) -> u32 {
            self.begun.load(Ordering::SeqCst)
        }
    }

    impl Broker for Slow {
        fn names(&self) -> &Names {
            &self.names
        }

        fn is_flowing(&self) -> bool {
            true
        }

        fn publish(&self, _: Outgoing) -> BoxFuture<'_, Result<(), BrokerError>> {
            async { Err(BrokerError::Lost) }.boxed()
        }

        fn depth<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Depth, BrokerError>> {
            async { Err(BrokerError::Lost) }.boxed()
        }

        fn look<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<Looked>, BrokerError>> {
            async move {
                self.begun.fetch_add(1, Ordering::SeqCst);
                sleep(self.takes).await;
                let empty = Looked { depth: None, difference: None, compared: false };
                Ok(vec![empty; topology.queues.len()])
            }
            .boxed()
        }

        fn topology(&self) -> Option<TopologyRecord> {
            Some(TopologyRecord { shards: 2, most_shards: 3 })
        }

        fn state(&self) -> LinkState {
            LinkState { connected: true, blocked: false, since: postrider_broker::now() }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_look_stands_for_all_who_ask_within_two_seconds() {
        let (broker, queues) = Slow::new(Duration::from_millis(300));
        let asked = futures_util::future::join_all((0..50).map(|_| queues.look())).await;
        assert!(asked.iter().all(Result::is_ok));
        assert_eq!(broker.begun(), 1);
        let look = queues.look().await.unwrap();
        assert_eq!((look.shards, look.looked.len()), (Some(3), look.topology.queues.len()));
        assert!(look.topology.queues.iter().any(|queue| queue.name == "p.deliveries.fresh.2"));
        tokio::time::advance(Duration::from_millis(1900)).await;
        queues.look().await.unwrap();
        assert_eq!(broker.begun(), 1);
        tokio::time::advance(Duration::from_millis(200)).await;
        queues.look().await.unwrap();
        assert_eq!(broker.begun(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_goes_away_makes_no_more_looks() {
        let (broker, queues) = Slow::new(Duration::from_secs(1));
        let begun = Instant::now();
        for _ in 0..15 {
            timeout(Duration::from_millis(100), queues.look()).await.ok();
        }
        assert_eq!(broker.begun(), 1);
        queues.look().await.unwrap();
        assert_eq!(broker.begun(), 2);
        assert!(begun.elapsed() >= STANDS, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn queues_are_measured_until_it_is_to_stop() {
        let (broker, queues) = Slow::new(Duration::from_millis(300));
        let stop = CancellationToken::new();
        let ending = async {
            sleep(Duration::from_secs(1)).await;
            stop.cancel();
        };
        tokio::join!(queues.measure(&stop), ending);
        assert_eq!(broker.begun(), 1);
        let now = postrider_broker::now();
        // The look says nothing of how full they are: a gap, and known to be one.
        let points = queues.depths().points(&["p.deliveries.fresh.2"], now);
        assert!(!points.is_empty() && points.iter().all(|point| point.ready.is_none()), "{points:?}");
        assert_eq!(queues.depths().since(&["p.seen"]), None, "streams are not measured");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_measured_is_no_zero() {
        let (broker, queues) = Slow::new(Duration::from_secs(60));
        let stop = CancellationToken::new();
        let ending = async {
            sleep(Duration::from_secs(20)).await;
            stop.cancel();
        };
        tokio::join!(queues.measure(&stop), ending);
        assert!((2..=3).contains(&broker.begun()), "{}", broker.begun());
        assert_eq!(queues.depths().since(&["p.events"]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_says_nothing_is_given_up() {
        let (broker, queues) = Slow::new(Duration::from_secs(60));
        let begun = Instant::now();
        let asked = futures_util::future::join(queues.look(), queues.look()).await;
        assert_eq!(begun.elapsed(), LOOK, "the second is told what the first was told");
        let why = asked.1.unwrap_err();
        assert!(asked.0.is_err() && why.contains("6 s"), "{why}");
        assert_eq!(broker.begun(), 1);
    }
}
