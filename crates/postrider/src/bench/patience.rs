//! Waiting for something that grows, for as long as it does.

use std::time::Duration;

use tokio::time::Instant;

use crate::exit::{Exit, Failure};

/// How long nothing may change.
pub(super) const STANDSTILL: Duration = Duration::from_secs(60);

/// Notices when a number stops growing.
#[derive(Debug)]
pub(super) struct Patience {
    what: &'static str,
    last: u64,
    since: Instant,
}

impl Patience {
    /// Patience with what is named, such as "requests at the sink".
    pub(super) fn with(what: &'static str) -> Self {
        Self { what, last: 0, since: Instant::now() }
    }

    /// The number is this, of so many that are wanted, if that is known.
    ///
    /// # Errors
    /// [`Failure`] when it has been this for too long.
    pub(super) fn at(&mut self, now: u64, wanted: Option<u64>) -> Result<(), Failure> {
        if now != self.last {
            (self.last, self.since) = (now, Instant::now());
        }
        if self.since.elapsed() < STANDSTILL {
            return Ok(());
        }
        let of = wanted.map_or(String::new(), |wanted| format!(" of {wanted}"));
        let why = format!("{now}{of} {} for {} s", self.what, STANDSTILL.as_secs());
        Err(Failure::new(Exit::TimedOut, "the bench stands still", why)
            .next("look at the broker: an alarm of memory or disk blocks publishers"))
    }
}

/// Asks every `pause` until `look` says `wanted` or more.
pub(super) async fn reach(
    what: &'static str,
    wanted: u64,
    pause: Duration,
    mut look: impl AsyncFnMut() -> Result<u64, Failure>,
) -> Result<(), Failure> {
    let mut patience = Patience::with(what);
    loop {
        let now = look().await?;
        if now >= wanted {
            return Ok(());
        }
        patience.at(now, Some(wanted))?;
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_as_long_as_something_happens() {
        let mut count = 0;
        let slow = reach("things came", 5, Duration::from_secs(50), async || {
            count += 1;
            Ok(count)
        });
        slow.await.unwrap();
        let never = reach("things came", 5, Duration::from_secs(1), async || Ok(3)).await.unwrap_err();
        assert_eq!(never.exit, Exit::TimedOut);
        assert_eq!(never.to_string(), "the bench stands still: 3 of 5 things came for 60 s");
    }
}
