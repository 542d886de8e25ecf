//! Coming back after any loss of the broker.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::BrokerError;
use crate::readiness::Readiness;

/// Shortest and longest pause between two sessions.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(5);
/// A session that lasted this long was one: what ends it is a new trouble.
const LASTED: Duration = Duration::from_secs(10);
/// How often the log says that there is still no session. The first time is when `readiness` says so.
const SAY: Duration = Duration::from_secs(60);

/// Runs one session after another until `shutdown`: one code path for the start, for a restart of the broker, and for
/// every error in between.
///
/// `session` opens a session and works until it is over. It ends with `Ok` only when it saw the shutdown itself. The
/// part `broker` of `readiness` says why there is no session.
pub async fn supervise<F, S>(readiness: &Readiness, shutdown: &CancellationToken, mut session: F)
where
    F: FnMut() -> S,
    S: Future<Output = Result<(), BrokerError>>,
{
    let mut pause = PAUSE.start;
    let mut trouble = Trouble::new();
    while !shutdown.is_cancelled() {
        let begun = Instant::now();
        let Err(error) = session().await else { return };
        if shutdown.is_cancelled() {
            return;
        }
        // The session says so when it is open.
        if readiness.is_part_ready("broker") && begun.elapsed() > LASTED {
            pause = PAUSE.start;
            trouble = Trouble::new();
        }
        readiness.set("broker", Err(error.to_string()));
        trouble.again(&error);
        // Half fixed, half drawn: a fleet does not come back in step.
        let wait = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        pause = (pause * 2).min(PAUSE.end);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// Sessions that ended soon, one after the other.
struct Trouble {
    since: Instant,
    said: Instant,
    sessions: u32,
}

impl Trouble {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, said: now, sessions: 0 }
    }

    fn again(&mut self, error: &BrokerError) {
        self.sessions += 1;
        if self.said.elapsed() >= SAY {
            self.said = Instant::now();
            let (sessions, for_seconds) = (self.sessions, self.since.elapsed().as_secs());
            tracing::warn!(%error, sessions, for_seconds, "still no session with RabbitMQ that lasts");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The tries of an hour without a broker: many at first, never many in a minute.
    #[tokio::test(start_paused = true)]
    async fn an_hour_without_a_broker_is_tried_seldom_and_for_ever() {
        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let tries = AtomicU32::new(0);
        let session = || async {
            tries.fetch_add(1, Ordering::Relaxed);
            Err(BrokerError::Lost)
        };
        tokio::select! {
            () = supervise(&readiness, &shutdown, session) => panic!("it never gives up"),
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
        let tries = tries.into_inner();
        assert!((720..=1500).contains(&tries), "{tries} tries in an hour with pauses of 2.5 to 5 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_lasted_is_followed_by_the_next_at_once() {
        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let sessions = AtomicU32::new(0);
        let session = || async {
            // Ten that fail, one that works for a minute, and the one after it.
            match sessions.fetch_add(1, Ordering::Relaxed) {
                ..10 => Err(BrokerError::Lost),
                10 => {
                    readiness.set("broker", Ok(()));
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    Err(BrokerError::Lost)
                }
                _ => Ok(()),
            }
        };
        let begun = Instant::now();
        supervise(&readiness, &shutdown, session).await;
        // 0.1 + 0.2 + … + 3.2 s, and four times 5 s: that is before the one that works.
        let most = Duration::from_millis(6_300 + 4 * 5_000 + 60_000 + 100);
        assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_shutdown_is_seen_in_a_pause() {
        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            stop.cancel();
        });
        let begun = Instant::now();
        supervise(&readiness, &shutdown, || async { Err(BrokerError::Lost) }).await;
        assert!(begun.elapsed() < Duration::from_millis(100_100), "{:?}", begun.elapsed());
    }
}
