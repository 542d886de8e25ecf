//! Replays at work: planning what is to be sent, and sending it at its rate.
//!
//! What a step does is one transaction of the store, with how far it came. So it does not matter where control ends, and
//! what runs side by side changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postrider_broker::{crash, now};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{OutboxLane, PlanBounds, Planned, ReplayRow, ReplayState, Store, StoreError};

/// Steps of one plan before it is the turn of the next.
const STEPS: u32 = 20;
/// Pause between steps of planning: the recorder writes, too.
const BREATH: Duration = Duration::from_millis(5);
/// How often what runs is sent on.
const TICK: Duration = Duration::from_millis(100);
/// What a replay may send at once when it could not for a while, in time at its rate.
const BURST: Duration = Duration::from_millis(300);
/// Deliveries made in one transaction.
const CHUNK: u32 = 250;
/// Deliveries in the outbox above which no more are made: the same as for those that were held, so that neither waits for
/// all of the other. As many as two ticks send at the highest rate.
const MOST_UNSENT: u64 = 1000;
/// How often to look even if nobody said that there is something.
const LOOK: Duration = Duration::from_secs(5);
/// Pause after an error.
const PAUSE: Duration = Duration::from_millis(500);

/// Plans replays until `stop`.
pub(crate) async fn plan(store: &Arc<Store>, stop: &CancellationToken) {
    let wake = store.wake();
    while !stop.is_cancelled() {
        let wait = match plan_some(store, stop).await {
            Ok(true) => BREATH,
            Ok(false) => LOOK,
            Err(error) => {
                tracing::warn!(%error, "replays cannot be planned; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = wake.replays.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Plans some of each; `true` when there is more to plan.
async fn plan_some(store: &Arc<Store>, stop: &CancellationToken) -> Result<bool, StoreError> {
    let mut more = false;
    for row in store.replays_in(ReplayState::Planning).await? {
        match plan_one(store, &row, stop).await {
            Ok(Planned::More) => more = true,
            Ok(Planned::Over) => {}
            // What cannot be read now cannot be read later.
            Err(StoreError::Damaged(why)) => {
                tracing::error!(replay.id = row.id, why, "a replay cannot be planned");
                store.fail_replay(row.seq, "damaged", now()).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(more)
}

async fn plan_one(
    store: &Arc<Store>,
    row: &ReplayRow,
    stop: &CancellationToken,
) -> Result<Planned, StoreError> {
    let mut roads = None;
    for _ in 0..STEPS {
        let Some(row) = store.replay(&row.tenant, &row.id).await? else { return Ok(Planned::Over) };
        if row.state != ReplayState::Planning || stop.is_cancelled() {
            return Ok(Planned::Over);
        }
        if store.plan_replay(&row, &mut roads, PlanBounds::default(), now()).await? == Planned::Over {
            return Ok(Planned::Over);
        }
        tokio::time::sleep(BREATH).await;
    }
    Ok(Planned::More)
}

/// Sends what runs, each replay at its rate, until `stop`.
pub(crate) async fn send(store: &Arc<Store>, stop: &CancellationToken) {
    let wake = store.wake();
    let mut sender = Sender::default();
    while !stop.is_cancelled() {
        let wait = match sender.tick(store).await {
            Ok(true) => TICK,
            Ok(false) => LOOK,
            Err(error) => {
                tracing::warn!(%error, "replays cannot be sent; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = wake.running.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What each running replay may send.
#[derive(Debug, Default)]
struct Sender {
    paces: HashMap<i64, Pace>,
    /// The replay whose turn it was when the outbox was full.
    turn: i64,
}

impl Sender {
    /// Sends some of each; `true` when one is running.
    async fn tick(&mut self, store: &Arc<Store>) -> Result<bool, StoreError> {
        let mut running = store.start_replays(now()).await?;
        self.paces.retain(|seq, _| running.iter().any(|row| row.seq == *seq));
        let first = running.iter().position(|row| row.seq == self.turn).unwrap_or(0);
        running.rotate_left(first);
        self.turn = 0;
        for row in &running {
            let at = Instant::now();
            let pace = self.paces.entry(row.seq).or_insert_with(|| Pace::new(row.rate_per_second, at));
            pace.refill(at);
            loop {
                let due = pace.whole().min(CHUNK);
                if due == 0 {
                    break;
                }
                if store.count_unsent_in(OutboxLane::Deliveries).await? >= MOST_UNSENT {
                    self.turn = row.seq;
                    return Ok(true);
                }
                let mut change = store.change().await?;
                let sent = change.send_replay(row.seq, due, now()).await?;
                crash::point("replays.written");
                change.commit().await?;
                crash::point("replays.committed");
                pace.spend(sent.sent);
                if sent.done {
                    tracing::info!(replay.id = row.id, "a replay is done");
                    break;
                }
                if sent.sent + sent.dropped == 0 {
                    break;
                }
            }
        }
        Ok(!running.is_empty())
    }
}

/// A rate: what has come together since the last time, up to a burst.
#[derive(Clone, Copy, Debug)]
struct Pace {
    per_second: f64,
    saved: f64,
    at: Instant,
}

impl Pace {
    fn new(per_second: u32, at: Instant) -> Self {
        Self { per_second: f64::from(per_second), saved: 1.0, at }
    }

    fn refill(&mut self, at: Instant) {
        let most = (self.per_second * BURST.as_secs_f64()).max(1.0);
        let more = at.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.saved = (self.saved + more).min(most);
        self.at = at;
    }

    /// How many may go now.
    fn whole(&self) -> u32 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a burst")]
        let whole = self.saved as u32;
        whole
    }

    fn spend(&mut self, n: u64) {
        #[allow(clippy::cast_precision_loss, reason = "at most a chunk")]
        let n = n as f64;
        self.saved -= n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_never_more_than_its_rate_and_a_burst() {
        for per_second in [1, 7, 100, 5000] {
            let start = Instant::now();
            let mut pace = Pace::new(per_second, start);
            let (mut sent, mut at) = (0, Duration::ZERO);
            // Ticks that come as they will, also late.
            for n in 0..1000 {
                at += Duration::from_millis(1 + (n * 37) % 250);
                pace.refill(start + at);
                let now = pace.whole();
                pace.spend(now.into());
                sent += now;
            }
            let allowed = at.as_secs_f64() * f64::from(per_second) + 1.0;
            assert!(f64::from(sent) <= allowed, "{sent} of {allowed} at {per_second}/s");
            assert!(f64::from(sent) >= 0.9 * allowed - 2.0, "{sent} of {allowed} at {per_second}/s");
        }
        let start = Instant::now();
        let mut pace = Pace::new(100, start);
        pace.refill(start + Duration::from_secs(3600));
        assert_eq!(pace.whole(), 30, "a pause is not made up for");
    }
}
