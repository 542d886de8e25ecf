//! Deliveries that all fail once: whether each comes again, not before it is due, and how late.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::patience::reach;
use super::plan::Workload;
use super::publish::Pace;
use super::rig::{LOOK, Rig};
use super::run::{Latency, Retries, Run};
use crate::exit::Failure;

/// Measures one turn.
pub(super) async fn run(rig: &mut Rig<'_>, workload: &Workload) -> Result<Run, Failure> {
    let failing = rig.plan.failing;
    // Every other event is taken at once.
    let events = failing * 2;
    let usage = rig.usage();
    let done_before = rig.done().await?;
    let before = rig.sink.mark().await?;
    let begun = Instant::now();
    let load = rig.load(workload, Pace::Free, events, &CancellationToken::new());
    rig.publisher.publish(load).await?;
    let (sink, system) = (&mut rig.sink, &mut rig.system);
    let mut now = before.clone();
    let retried = reach("retries at the sink", before.retried + failing, LOOK, async || {
        system.check()?;
        now = sink.count().await?;
        Ok(now.retried)
    });
    retried.await.map_err(|mut failure| {
        // What it refused and did not see again is late; what it never refused did not come as a first attempt.
        let (refused, taken) = (now.refused - before.refused, now.taken - before.taken);
        failure.why.push_str(&format!(" (of {failing} it refused {refused}, of {events} it took {taken})"));
        failure
    })?;
    rig.taken(before.taken + events).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let recorded_after = rig.recorded(done_before + events).await?;
    let after = rig.sink.report().await?;
    let late = |us: Option<u64>| us.unwrap_or(0) as f64 / 1_000_000.0;
    let mut run = Run {
        workload: workload.name,
        deliveries: events,
        seconds,
        per_second: events as f64 / seconds,
        latency_ms: Latency::of(&after.latency),
        recorded_after_seconds: Some(recorded_after),
        repeated: (after.taken - before.taken).saturating_sub(events),
        retries: Some(Retries {
            retried: after.retried - before.retried,
            early: after.early - before.early,
            late_p99_seconds: late(after.late.percentile(0.99)),
            late_most_seconds: late(Some(after.late.most())),
        }),
        ..Run::default()
    };
    usage.into_run(rig, events, false, &mut run);
    Ok(run)
}
