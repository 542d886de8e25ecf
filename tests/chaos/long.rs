//! The long run: everything is killed, again and again, while a great many events go through.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postrider_core::verify::{Faults, Run};
use postrider_testkit::Answer;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time::sleep;

use crate::rig::Rig;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// `POSTRIDER_CHAOS_EVENTS`, `POSTRIDER_CHAOS_KILLS`, `POSTRIDER_CHAOS_RATE` and `POSTRIDER_CHAOS_SEED` make it longer,
/// shorter, or the same again.
#[tokio::test]
#[ignore = "takes a quarter of an hour; part of make chaos"]
async fn the_long_run() {
    let events = number("POSTRIDER_CHAOS_EVENTS", 200_000);
    let kills = number("POSTRIDER_CHAOS_KILLS", 20);
    let rate = number("POSTRIDER_CHAOS_RATE", 300);
    let seed = number("POSTRIDER_CHAOS_SEED", rand::random::<u32>().into());
    let fault = format!(
        "{kills} random kills of two routers, two workers, control and the broker, while {events} events go to webhooks \
         that work (80 %), fail once (10 %) and are slow (10 %)"
    );
    eprintln!("seed {seed}");
    let Some(mut rig) = Rig::own("long run", &fault).await else { return };
    let mut chance = StdRng::seed_from_u64(seed);
    rig.start_all().await;
    rig.start("worker2");
    rig.all_ready().await;
    rig.start("router2");
    rig.receiver.answer_by("/once", |request| {
        Answer::Status(if request.header("webhook-attempt") == Some("1") { 503 } else { 200 })
    });
    rig.receiver.answer("/slow", [Answer::Status(200).after(Duration::from_millis(200))]);
    for (path, share) in
        [("/works", "data.n % 10 < 8"), ("/once", "data.n % 10 == 8"), ("/slow", "data.n % 10 == 9")]
    {
        let more = json!({
            "subscription": { "all": true, "filter": share }, "timeout_ms": 10_000, "max_in_flight": 100,
        });
        rig.webhook(path, more).await;
    }
    rig.node().settled().await;
    // When: at even chances between 2 % and 95 % of all events.
    let mut times: Vec<u64> =
        (0..kills).map(|_| chance.random_range(events / 50..events * 95 / 100)).collect();
    times.sort_unstable();
    let victims = ["router", "router2", "worker", "worker2", "control", "broker", "broker"];
    // Each of them once, if there are as many kills; who else is left to chance. In any order.
    let mut order: Vec<&str> = victims.iter().copied().take(times.len()).collect();
    order.resize_with(times.len(), || victims[chance.random_range(0..victims.len())]);
    order.shuffle(&mut chance);
    let begun = Instant::now();
    rig.publish(events, rate as f64);
    let mut killed: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, victim) in times.into_iter().zip(order) {
        rig.until_confirmed(at).await;
        let down = Duration::from_millis(chance.random_range(0..3_000));
        *killed.entry(victim.trim_end_matches('2')).or_default() += 1;
        if victim == "broker" {
            rig.node().kill().await;
            sleep(down).await;
            rig.node().start_again().await;
        } else {
            rig.kill(victim).await;
            sleep(down).await;
            rig.start(victim);
        }
        let recovery = rig.recovers().await;
        eprintln!(
            "{:4} s: {victim} killed at {at} events, down for {:.1} s, deliveries went on {:.1} s later; {} confirmed, \
             {} requests",
            begun.elapsed().as_secs(),
            down.as_secs_f64(),
            recovery.as_secs_f64(),
            rig.confirmed(),
            rig.receiver.count(),
        );
    }
    let status = rig.at_rest_within(Duration::from_secs(1_200)).await;
    let took = begun.elapsed().as_secs();
    eprintln!("{status:#}");
    let of = |name: &str| killed.get(name).copied().unwrap_or_default();
    let (broker, workers, routers, controls) = (of("broker"), of("worker"), of("router"), of("control"));
    rig.remark(format!(
        "seed {seed}; broker {broker}, workers {workers}, routers {routers}, control {controls} times; {} requests; \
         {took} s, {} events/s",
        rig.receiver.count(),
        events / took.max(1),
    ));
    // The broker's end is everybody's: of both workers, and of the router that is active.
    let faults = Faults {
        workers: workers + 2 * broker,
        routers: routers + broker,
        controls: controls + broker,
        ..Faults::NONE
    };
    rig.finish_with(faults, |run: &mut Run| run.seed(seed)).await;
}
