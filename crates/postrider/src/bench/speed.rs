//! As much as goes through: the baselines, and what is compared with them.
//!
//! The publisher stays so many deliveries ahead of the receiver: enough that nobody waits for it, and no more, so that what
//! is measured is what goes on for ever and not how a backlog is worked off.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bare::Pipeline;
use super::naked::{self, Loop};
use super::patience::Patience;
use super::plan::{Kind, Workload};
use super::produce::produce;
use super::publish::{Events, Pace};
use super::rig::Rig;
use super::run::{Latency, Run};
use crate::exit::{Exit, Failure};

/// Deliveries that are published and not yet received: more than the roles take at a time.
const AHEAD: u32 = 2_000;
/// Events that are published and not yet received, at least.
const LEAST_AHEAD: u32 = 64;
/// The publisher goes on by lots: so many make up all that it may be ahead. What an event costs the broker depends on how many come
/// at a time, and whoever is slower would be given fewer of them otherwise.
const LOTS: u32 = 8;
/// How often is looked what was received.
const LOOK: Duration = Duration::from_millis(10);
/// How often the recorder is asked how far behind it is.
const ASK_LAG: Duration = Duration::from_millis(500);

type Task<T> = JoinHandle<Result<T, Failure>>;

/// Measures one turn.
pub(super) async fn run(rig: &mut Rig<'_>, workload: &Workload) -> Result<Run, Failure> {
    let fan_out = match workload.kind {
        Kind::Speed { fan_out, .. } | Kind::Bare { fan_out } => fan_out,
        Kind::NakedLoop | Kind::NakedPost | Kind::Steady | Kind::Burst | Kind::Alone => 1,
    };
    let naked = workload.is_naked();
    let ahead = (AHEAD / fan_out).max(LEAST_AHEAD);
    let room = Arc::new(Semaphore::new(ahead as usize));
    let (stop, stop_loop) = (CancellationToken::new(), CancellationToken::new());
    let usage = rig.usage();
    let (taken_before, done_before) = (rig.sink.count().await?.taken, rig.done().await?);
    let mut consuming: Option<Task<()>> = None;
    let mut publishing: Task<u64> = match workload.kind {
        Kind::NakedPost => {
            let (client, url) = (rig.client.clone(), rig.sink.url("naked"));
            tokio::spawn(naked::post_only(client, url, Events::of(workload), stop.clone()))
        }
        Kind::NakedLoop => {
            let queue = rig.place.naked_queue();
            rig.publisher.empty(&queue).await?;
            let naked = Loop::start(&rig.place.url, &queue).await?;
            let running = naked.run(rig.client.clone(), rig.sink.url("naked"), stop_loop.clone());
            consuming = Some(tokio::spawn(running));
            let pace = Pace::Permitted(room.clone());
            let load = rig.load(workload, pace, u64::MAX, &stop);
            tokio::spawn(rig.publisher.publish(load.into_queue(queue)))
        }
        Kind::Bare { fan_out } => {
            let [queue, deliveries] = rig.place.bare_queues();
            rig.publisher.empty(&queue).await?;
            rig.publisher.empty(&deliveries).await?;
            let pipeline = Pipeline::start(&rig.place.url, (&queue, deliveries), fan_out).await?;
            let running = pipeline.run(rig.client.clone(), rig.sink.url("naked"), stop_loop.clone());
            consuming = Some(tokio::spawn(running));
            let load = rig.load(workload, Pace::Permitted(room.clone()), u64::MAX, &stop);
            tokio::spawn(rig.publisher.publish(load.into_queue(queue)))
        }
        Kind::Speed { .. } | Kind::Steady | Kind::Burst | Kind::Alone => {
            let load = rig.load(workload, Pace::Permitted(room.clone()), u64::MAX, &stop);
            match workload.by_producer {
                true => tokio::spawn(produce(rig.producer.clone(), load)),
                false => tokio::spawn(rig.publisher.publish(load)),
            }
        }
    };

    let mut run = Run { workload: workload.name, ..Run::default() };
    let mut course = Course {
        fan_out,
        taken_before,
        room,
        lot: u64::from(ahead / LOTS),
        given: 0,
        patience: Patience::with("requests at the sink"),
    };
    let begun = Instant::now();
    while begun.elapsed() < rig.plan.warm {
        course.go_on(rig, &mut publishing, consuming.as_mut()).await?;
    }
    let first = rig.sink.mark().await?;
    let (begun, mut lag_asked) = (Instant::now(), Instant::now());
    while begun.elapsed() < rig.plan.measured {
        course.go_on(rig, &mut publishing, consuming.as_mut()).await?;
        if !naked && lag_asked.elapsed() >= ASK_LAG.min(rig.plan.measured / 2) {
            lag_asked = Instant::now();
            let lag = rig.system.metric("control", "postrider_journal_lag_seconds").await?;
            let known = [run.journal_lag_seconds, lag].into_iter().flatten();
            run.journal_lag_seconds = known.max_by(f64::total_cmp);
        }
    }
    let last = rig.sink.report().await?;
    run.seconds = begun.elapsed().as_secs_f64();
    run.deliveries = last.taken - first.taken;
    run.per_second = run.deliveries as f64 / run.seconds;
    run.latency_ms = Latency::of(&last.latency);

    stop.cancel();
    let published = joined(publishing.await)? * u64::from(fan_out);
    rig.taken(taken_before + published).await?;
    stop_loop.cancel();
    if let Some(consuming) = consuming {
        joined(consuming.await)?;
    }
    if !naked {
        run.recorded_after_seconds = Some(rig.recorded(done_before + published).await?);
    }
    run.repeated = (rig.sink.count().await?.taken - taken_before).saturating_sub(published);
    usage.into_run(rig, published, naked, &mut run);
    Ok(run)
}

/// How far a turn is.
struct Course {
    fan_out: u32,
    taken_before: u64,
    room: Arc<Semaphore>,
    lot: u64,
    given: u64,
    patience: Patience,
}

impl Course {
    /// A moment later: so many events as were received may be published anew.
    async fn go_on(
        &mut self,
        rig: &mut Rig<'_>,
        publishing: &mut Task<u64>,
        consuming: Option<&mut Task<()>>,
    ) -> Result<(), Failure> {
        tokio::time::sleep(LOOK).await;
        if publishing.is_finished() {
            joined(publishing.await)?;
            return Err(Failure::new(Exit::Other, "cannot publish", "the publisher ended by itself"));
        }
        if let Some(consuming) = consuming
            && consuming.is_finished()
        {
            joined(consuming.await)?;
        }
        rig.system.check()?;
        let taken = rig.sink.count().await?.taken - self.taken_before;
        let received = taken / u64::from(self.fan_out);
        if received - self.given >= self.lot {
            self.room.add_permits(usize::try_from(received - self.given).unwrap_or(0));
            self.given = received;
        }
        self.patience.at(taken, None)
    }
}

fn joined<T>(ended: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    ended.map_err(|error| Failure::new(Exit::Other, "a task of the bench broke down", error))?
}
