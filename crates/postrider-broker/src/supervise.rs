//! Coming back after any loss of the broker.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::BrokerError;
use crate::readiness::Readiness;

/// Shortest and longest pause between two sessions.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(5);

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
    while !shutdown.is_cancelled() {
        let begun = tokio::time::Instant::now();
        match session().await {
            Ok(()) => return,
            Err(error) => {
                if !shutdown.is_cancelled() {
                    readiness.set("broker", Err(error.to_string()));
                }
                if begun.elapsed() > Duration::from_secs(10) {
                    pause = PAUSE.start;
                }
                // Half fixed, half drawn: a fleet does not come back in step.
                let wait = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                pause = (pause * 2).min(PAUSE.end);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shutdown.cancelled() => {}
                }
            }
        }
    }
}
