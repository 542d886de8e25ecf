//! The watchdog: a role that has work, says that it is ready, and settles nothing for too long is ended.
//!
//! It runs on a thread of its own. What to judge is shown by each role ([`postrider_broker::Pulse`]), how to judge is
//! [`postrider_core::stall`]. A role that stands still is ended in order where that is possible, so that the other roles of
//! the process finish what they have begun; a runtime that stands still cannot end anything, and is left at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postrider_broker::Readiness;
use postrider_core::stall::{Signs, Stall, Watch};
use tokio::sync::oneshot;

use crate::exit::{Exit, Failure};
use crate::telemetry;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How often the runtime shows that it runs.
const BEAT: Duration = Duration::from_millis(500);
/// How long the process may take to end in order once a role was found to stand still.
const ENDING: Duration = Duration::from_secs(30);

/// Watches these roles from now on. With a limit of zero it only counts. The answer comes when a role stands still; when
/// the process has not ended a while after that, the watchdog ends it.
///
/// # Errors
/// [`Failure`] when the thread cannot be started.
pub fn start(
    roles: Vec<(&'static str, Readiness)>,
    limit: Duration,
) -> Result<oneshot::Receiver<Failure>, Failure> {
    let beats = Arc::<AtomicU64>::default();
    let (told, answer) = oneshot::channel();
    tokio::spawn({
        let beats = beats.clone();
        async move {
            // The thread holds the other end for as long as it looks.
            while Arc::strong_count(&beats) > 1 {
                beats.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(BEAT).await;
            }
        }
    });
    let limit_ms = u64::try_from(limit.as_millis()).ok().filter(|ms| *ms > 0);
    thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || {
            let (role, stall) = watch(&roles, &beats, limit_ms);
            let failure = failure(role, &stall);
            tracing::error!(role, why = %stall, exit = Exit::Stalled as i32, "a role stands still and is ended");
            if matches!(stall, Stall::Still { .. }) && told.send(failure).is_ok() {
                thread::sleep(ENDING);
                tracing::error!(role, "the process did not end in order; ending it");
            }
            telemetry::flush();
            std::process::exit(Exit::Stalled as i32);
        })
        .map_err(|error| Failure::new(Exit::Other, "cannot start the watchdog's thread", error))?;
    Ok(answer)
}

fn failure(role: &str, stall: &Stall) -> Failure {
    Failure::new(Exit::Stalled, format!("{role} stands still"), stall).next(
        "start it again: what it held is done by others or by the next; report it with the log if it comes back, and set \
         POSTRIDER_STALL_SECONDS=0 to keep it running for a look",
    )
}

/// Looks until one of the roles stands still.
fn watch(
    roles: &[(&'static str, Readiness)],
    beats: &AtomicU64,
    limit_ms: Option<u64>,
) -> (&'static str, Stall) {
    let mut watches = vec![Watch::new(limit_ms); roles.len()];
    let mut last = Instant::now();
    loop {
        thread::sleep(LOOK);
        let passed_ms = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
        last = Instant::now();
        let beats = beats.load(Ordering::Relaxed);
        for ((role, readiness), watch) in roles.iter().zip(&mut watches) {
            let signs = Signs { beats, ..readiness.pulse().signs() };
            let stall = watch.look(passed_ms, &signs);
            readiness.pulse().still_for(watch.still_ms());
            if let Some(stall) = stall {
                return (role, stall);
            }
            let worry = watch.is_worrying().then(|| {
                format!("it has work, and settles nothing; at the limit of POSTRIDER_STALL_SECONDS {role} is ended")
            });
            readiness.worry(worry);
        }
    }
}
