//! The recorder after it was away; then publisher, router, worker and recorder, one after the other, while those behind
//! them are stopped.

use std::ops::AsyncFnMut;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::patience::Patience;
use super::plan::Workload;
use super::publish::Pace;
use super::rig::{DONE, LOOK, ROUTED, Rig};
use super::run::{Latency, Run};
use crate::exit::Failure;

/// The facts of a delivery that goes well: it is owed, it was attempted, it is done.
const FACTS: [&str; 3] =
    ["postrider_recorded_total{kind=\"event\"}", "postrider_recorded_total{kind=\"attempt\"}", DONE];

/// Measures one turn.
pub(super) async fn run(rig: &mut Rig<'_>, workload: &Workload) -> Result<Vec<Run>, Failure> {
    let mut runs = vec![catch_up(rig, workload).await?];
    for role in ["worker", "router", "control"] {
        stop(rig, role).await?;
    }
    let pile = rig.plan.pile;
    let taken_before = rig.sink.mark().await?.taken;
    runs.push(publish(rig, workload).await?);
    runs.push(
        work_off(rig, "router", "route-alone", 1, async |rig| rig.system.counters("router", &[ROUTED]).await)
            .await?,
    );
    let mut drained = work_off(rig, "worker", "backlog-drain", 1, async |rig| {
        Ok(rig.sink.count().await?.taken - taken_before)
    })
    .await?;
    let taken = rig.sink.report().await?;
    drained.latency_ms = Latency::of(&taken.latency);
    drained.repeated = (taken.taken - taken_before).saturating_sub(pile);
    runs.push(drained);
    runs.push(record(rig, "recorder-apart").await?);
    for role in ["router", "worker", "control"] {
        rig.system.ready(role).await?;
    }
    Ok(runs)
}

/// Control is away while the others go on, and comes back: what is in the journal then is in the order in which it happened.
async fn catch_up(rig: &mut Rig<'_>, workload: &Workload) -> Result<Run, Failure> {
    stop(rig, "control").await?;
    let taken_before = rig.sink.count().await?.taken;
    let published = publish(rig, workload).await?.deliveries;
    rig.taken(taken_before + published).await?;
    let run = record(rig, "recorder-alone").await?;
    rig.system.ready("control").await?;
    Ok(run)
}

async fn record(rig: &mut Rig<'_>, name: &'static str) -> Result<Run, Failure> {
    let facts = FACTS.len() as u64;
    work_off(rig, "control", name, facts, async |rig| rig.system.counters("control", &FACTS).await).await
}

async fn stop(rig: &mut Rig<'_>, role: &'static str) -> Result<(), Failure> {
    rig.processes.remove(role);
    rig.system.stop(role).await
}

/// Events pile up.
async fn publish(rig: &mut Rig<'_>, workload: &Workload) -> Result<Run, Failure> {
    let usage = rig.usage();
    let begun = Instant::now();
    let load = rig.load(workload, Pace::Free, rig.plan.pile, &CancellationToken::new());
    let published = rig.publisher.publish(load).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut run = Run {
        workload: "publish-alone",
        deliveries: published,
        seconds,
        per_second: published as f64 / seconds,
        ..Run::default()
    };
    usage.into_run(rig, published, false, &mut run);
    Ok(run)
}

/// Starts a role, and looks how quickly it works off the pile: `look` says how far it is, in so many steps for each
/// delivery. Its start does not count.
async fn work_off<'a>(
    rig: &mut Rig<'a>,
    role: &'static str,
    name: &'static str,
    steps: u64,
    mut look: impl AsyncFnMut(&mut Rig<'a>) -> Result<u64, Failure>,
) -> Result<Run, Failure> {
    let usage = rig.usage();
    rig.system.begin(role)?;
    rig.processes.add(role, rig.system.pids(role));
    let wanted = rig.plan.pile * steps;
    let mut patience = Patience::with(name);
    let (mut begun, mut first) = (Instant::now(), 0);
    loop {
        let now = look(rig).await?;
        if now >= wanted {
            break;
        }
        if first == 0 {
            (begun, first) = (Instant::now(), now);
        }
        patience.at(now, Some(wanted))?;
        rig.system.check()?;
        tokio::time::sleep(LOOK).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let deliveries = (wanted - first) as f64 / steps as f64;
    let mut run = Run {
        workload: name,
        deliveries: deliveries as u64,
        seconds,
        per_second: deliveries / seconds,
        ..Run::default()
    };
    usage.into_run(rig, rig.plan.pile, false, &mut run);
    Ok(run)
}
