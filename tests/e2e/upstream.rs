//! The same event published twice, while routers are killed, frozen and restarted: how often it is routed twice.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join, join_all};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, PublisherConfirm};
use postrider_broker::{Lane, Settings};
use postrider_core::wire::{self, DeliveryMessage};
use postrider_testkit::config::{Configuration, NewWebhook};
use postrider_testkit::eventually;
use postrider_testkit::process::{Postrider, free_port};
use postrider_testkit::rabbit::{Broker, Vhost};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Events that a router holds at most: what one takeover may route twice.
const BOUND: usize = 100;
/// Heartbeat of the routers here, seconds: the broker gives a frozen one up after about twice this.
const HEARTBEAT_SECS: u64 = 2;

/// What befalls the active router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// SIGTERM.
    Restart,
    /// SIGKILL.
    Kill,
    /// SIGSTOP for longer than the heartbeat, then SIGCONT.
    Freeze,
    /// SIGSTOP for less.
    Pause,
}

/// What came of it.
#[derive(Debug)]
struct Passed {
    ids: usize,
    lost: usize,
    twice: usize,
    most: usize,
}

struct Router {
    process: Postrider,
    health: String,
}

struct Place {
    vhost: Vhost,
    settings: Settings,
    _configuration: Configuration,
}

impl Place {
    async fn new(name: &str) -> Self {
        postrider_testkit::logging();
        let vhost = Vhost::create(&Broker::shared().await, name).await;
        let settings = Settings { unit_ms: 100, ..Settings::new(vhost.url(), "test") };
        let mut configuration = Configuration::publish(&settings).await;
        configuration.webhook(&NewWebhook::new("wh", "https://example.com/")).await;
        Self { vhost, settings, _configuration: configuration }
    }

    async fn router(&self) -> Router {
        let health = format!("127.0.0.1:{}", free_port());
        let process = Postrider::with(["serve", "router"])
            .env("POSTRIDER_AMQP_URL", format!("{}?heartbeat={HEARTBEAT_SECS}", self.vhost.url()))
            .env("POSTRIDER_DELAY_UNIT_MS", "100")
            .env("POSTRIDER_METRICS_LISTEN", &health)
            // A standby that is handed nothing must not be taken for one that stands still.
            .env("POSTRIDER_STALL_SECONDS", "3")
            .start();
        process.wait_ready(&health).await;
        Router { process, health }
    }

    /// Publishes ids, each twice, the second one `gap` after the first, over connections of their own: at least so many, and
    /// until `stop`. Returns how many.
    async fn publish(&self, least: usize, gap: Duration, stop: &CancellationToken) -> usize {
        const PERIOD: Duration = Duration::from_millis(2);
        let start = Instant::now() + Duration::from_millis(50);
        // How many there are so far, and whether that is all.
        let (progress, _) = watch::channel((0, false));
        let first = async {
            let channel = self.channel().await;
            let mut confirms = Vec::new();
            while confirms.len() < least || !stop.is_cancelled() {
                let n = confirms.len();
                sleep_until(start + PERIOD * u32::try_from(n).unwrap()).await;
                confirms.push(self.event(&channel, n).await);
                progress.send_replace((n + 1, false));
            }
            progress.send_replace((confirms.len(), true));
            join_all(confirms).await
        };
        let second = async {
            let channel = self.channel().await;
            let mut confirms = Vec::new();
            let mut progress = progress.subscribe();
            loop {
                let n = confirms.len();
                let (published, _) =
                    *progress.wait_for(|(published, all)| *published > n || *all).await.unwrap();
                if published <= n {
                    break;
                }
                sleep_until(start + PERIOD * u32::try_from(n).unwrap() + gap).await;
                confirms.push(self.event(&channel, n).await);
            }
            join_all(confirms).await
        };
        let (first, second) = join(first, second).await;
        for confirm in first.iter().chain(&second) {
            assert!(confirm.is_ok(), "{confirm:?}");
        }
        first.len()
    }

    async fn channel(&self) -> Channel {
        let channel = self.vhost.connect().await.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel
    }

    async fn event(&self, channel: &Channel, n: usize) -> PublisherConfirm {
        let body = format!(r#"{{"event_type":"A","id":"e{n}"}}"#);
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
        let (exchange, options) = (self.settings.names().events(), BasicPublishOptions::default());
        let published = channel.basic_publish(
            exchange.as_str().into(),
            "default".into(),
            options,
            body.as_bytes(),
            properties,
        );
        published.await.unwrap()
    }

    /// Publishes while the active one of two routers meets the fault again and again.
    async fn run(&self, fault: Fault, least: usize, gap: Duration, rounds: u32) -> Passed {
        let mut routers = vec![self.router().await, self.router().await];
        let stop = CancellationToken::new();
        let breaking = async {
            for _ in 0..rounds {
                sleep(Duration::from_millis(700)).await;
                self.strike(fault, &mut routers).await;
            }
            stop.cancel();
        };
        let (ids, ()) = join(self.publish(least, gap, &stop), breaking).await;
        let passed = self.count(ids).await;
        for router in routers {
            router.process.terminate();
            let status = router.process.wait_exit(Duration::from_secs(40)).await;
            assert!(status.success(), "{}", router.process.log());
        }
        passed
    }

    async fn strike(&self, fault: Fault, routers: &mut Vec<Router>) {
        if fault == Fault::None {
            return;
        }
        let mut active = None;
        eventually("one router is active", async || {
            for (n, router) in routers.iter().enumerate() {
                if router.is_active().await {
                    active = Some(n);
                }
            }
            active.is_some()
        })
        .await;
        let Some(n) = active else { return };
        match fault {
            Fault::None => {}
            Fault::Restart => {
                let old = routers.remove(n);
                old.process.terminate();
                assert!(old.process.wait_exit(Duration::from_secs(40)).await.success());
                routers.push(self.router().await);
            }
            Fault::Kill => {
                routers.remove(n).process.kill();
                routers.push(self.router().await);
            }
            Fault::Freeze | Fault::Pause => {
                let long = if fault == Fault::Freeze { 5 * HEARTBEAT_SECS * 1000 } else { 1500 };
                routers[n].process.freeze();
                sleep(Duration::from_millis(long)).await;
                routers[n].process.thaw();
                routers[n].process.wait_ready(&routers[n].health).await;
            }
        }
    }

    /// Counts the deliveries of each event, once nothing is under way any more.
    async fn count(&self, ids: usize) -> Passed {
        let names = self.settings.names();
        let queue = names.delivery_queue(Lane::Fresh, 0);
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        let mut quiet = 0;
        eventually("every event is routed and nothing is under way", async || {
            let mut came = 0;
            for taken in self.vhost.take_ready(&queue).await {
                let message: DeliveryMessage = wire::decode(&taken.body).unwrap();
                for work in message.work {
                    came += work.to.len();
                    *found.entry(work.event.id.to_string()).or_default() += work.to.len();
                }
            }
            let idle = came == 0 && self.vhost.queue_depth(&names.events()).await == 0;
            quiet = if idle { quiet + 1 } else { 0 };
            // Also what a frozen router held, and what it publishes when it goes on.
            found.len() >= ids && quiet >= 25
        })
        .await;
        Passed {
            ids,
            lost: ids - found.len(),
            twice: found.values().filter(|count| **count > 1).count(),
            most: found.values().copied().max().unwrap_or(0),
        }
    }
}

impl Router {
    async fn is_active(&self) -> bool {
        let url = format!("http://{}/metrics", self.health);
        let Ok(answer) = postrider_testkit::http::client().get(url).send().await else { return false };
        answer.text().await.is_ok_and(|text| text.contains("\npostrider_router_active 1"))
    }
}

#[tokio::test]
async fn an_id_published_twice_is_routed_once_while_nothing_breaks_and_over_restarts() {
    for (fault, rounds) in [(Fault::None, 0), (Fault::Restart, 2)] {
        let place = Place::new("twice-steady").await;
        let passed = place.run(fault, 800, Duration::from_millis(10), rounds).await;
        assert_eq!((passed.lost, passed.twice), (0, 0), "{fault:?}: {passed:?}");
    }
}

#[tokio::test]
async fn a_killed_router_repeats_at_most_what_it_held() {
    let place = Place::new("twice-killed").await;
    let passed = place.run(Fault::Kill, 800, Duration::from_millis(10), 2).await;
    eprintln!("two routers killed: {} of {} ids routed twice", passed.twice, passed.ids);
    assert_eq!(passed.lost, 0, "{passed:?}");
    assert!(passed.twice <= 2 * BOUND && passed.most <= 3, "{passed:?}");
}

#[tokio::test]
async fn a_frozen_router_that_goes_on_repeats_at_most_what_it_held() {
    let place = Place::new("twice-frozen").await;
    let passed = place.run(Fault::Freeze, 800, Duration::from_millis(10), 1).await;
    eprintln!("a router frozen beyond its heartbeat: {} of {} ids routed twice", passed.twice, passed.ids);
    assert_eq!(passed.lost, 0, "{passed:?}");
    assert!(passed.twice <= BOUND && passed.most <= 2, "{passed:?}");
}

/// The figures of docs/guarantees.md: `cargo test --workspace --test e2e -- --ignored --nocapture upstream`.
#[tokio::test]
#[ignore = "it takes ten minutes and prints a table"]
async fn the_share_of_duplicates_that_passes() {
    let faults =
        [(Fault::None, 0), (Fault::Restart, 5), (Fault::Kill, 5), (Fault::Pause, 3), (Fault::Freeze, 3)];
    eprintln!(
        "| fault | takeovers | gap, ms | ids, each published twice | routed twice | share, % | most for one takeover |"
    );
    eprintln!("|---|---|---|---|---|---|---|");
    for (fault, rounds) in faults {
        for gap_ms in [1, 10, 100, 1000] {
            let place = Place::new("twice-table").await;
            let passed = place.run(fault, 2500, Duration::from_millis(gap_ms), rounds).await;
            assert_eq!(passed.lost, 0, "{fault:?}, {gap_ms} ms: {passed:?}");
            let share = passed.twice as f64 * 100.0 / passed.ids as f64;
            eprintln!(
                "| {fault:?} | {rounds} | {gap_ms} | {} | {} | {share:.2} | {BOUND} |",
                passed.ids, passed.twice
            );
            assert!(passed.twice <= rounds as usize * BOUND, "{fault:?}, {gap_ms} ms: {passed:?}");
        }
    }
}
