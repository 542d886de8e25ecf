use std::{
    env,
    time::{Duration, Instant},
};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a test waits for what must happen: `POSTRIDER_TEST_PATIENCE_SECONDS`, 30 by default.
pub fn patience() -> Duration {
    let seconds = env::var("POSTRIDER_TEST_PATIENCE_SECONDS").ok().and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// Waits until `probe` says yes; panics with `what` when patience ends.
///
/// `what` is the condition in words: "the queue is empty".
pub async fn eventually(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    eventually_some(what, async || probe().await.then_some(())).await;
}

/// Waits until `probe` finds something and returns it; panics with `what` when patience ends.
pub async fn eventually_some<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    match within(patience(), probe).await {
        Some(found) => found,
        None => panic!("not within {:?}: {what}", patience()),
    }
}

/// Polls until `probe` finds something, at most for `limit`; a probe that hangs counts as one that found nothing.
pub async fn within<T>(limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        match tokio::time::timeout_at(deadline.into(), probe()).await {
            Ok(Some(found)) => return Some(found),
            Ok(None) if Instant::now() < deadline => tokio::time::sleep(POLL_INTERVAL).await,
            Ok(None) | Err(_) => return None,
        }
    }
}
