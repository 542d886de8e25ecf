//! A steady rate: how long an event takes from the publisher to the receiver.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::Workload;
use super::publish::Pace;
use super::rig::Rig;
use super::run::{Latency, Run};
use crate::exit::Failure;

/// Measures one turn.
pub(super) async fn run(rig: &mut Rig<'_>, workload: &Workload) -> Result<Run, Failure> {
    let stop = CancellationToken::new();
    let usage = rig.usage();
    let (taken_before, done_before) = (rig.sink.count().await?.taken, rig.done().await?);
    let load = rig.load(workload, Pace::Rate(rig.plan.steady_rate), u64::MAX, &stop);
    let mut publishing = std::pin::pin!(rig.publisher.publish(load));
    let measuring = async {
        tokio::time::sleep(rig.plan.warm).await;
        let first = rig.sink.mark().await?;
        let begun = Instant::now();
        tokio::time::sleep(rig.plan.steady).await;
        let last = rig.sink.report().await?;
        let seconds = begun.elapsed().as_secs_f64();
        stop.cancel();
        Ok::<_, Failure>((first, last, seconds))
    };
    // A publisher that fails ends the turn at once; one that goes on is stopped.
    let (published, (first, last, seconds)) = tokio::try_join!(&mut publishing, measuring)?;
    rig.taken(taken_before + published).await?;
    let recorded_after = rig.recorded(done_before + published).await?;
    let deliveries = last.taken - first.taken;
    let mut run = Run {
        workload: workload.name,
        deliveries,
        seconds,
        per_second: deliveries as f64 / seconds,
        latency_ms: Latency::of(&last.latency),
        recorded_after_seconds: Some(recorded_after),
        repeated: (rig.sink.count().await?.taken - taken_before).saturating_sub(published),
        ..Run::default()
    };
    usage.into_run(rig, published, false, &mut run);
    Ok(run)
}
