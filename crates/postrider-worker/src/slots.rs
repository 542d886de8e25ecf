//! Slots: how much this worker has begun and not settled.
//!
//! Each lane has quick slots of its own, so that none waits for another. A message takes as many as it has deliveries. When
//! it is not settled after a moment it moves over to the slow slots, so that receivers that hang keep nobody's quick slots;
//! where the slow ones are taken it stays. Both together bound what a crash sends twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_broker::{BrokerError, Lane};
use postrider_core::wire::MAX_BATCH;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gate::tenants::Hold;
use crate::metrics::Metrics;

/// A message that is not settled after this gives its quick slots to others.
pub(crate) const QUICK: Duration = Duration::from_millis(250);

/// How the quick slots are shared out to the lanes, in 32nds.
const SHARES: [(Lane, u32); 3] = [(Lane::Fresh, 22), (Lane::Retry, 7), (Lane::Replay, 3)];

/// The slots of a worker. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<All>);

#[derive(Debug)]
struct All {
    quick: [(Arc<Semaphore>, u32); 3],
    slow: Arc<Semaphore>,
    slow_slots: u32,
    metrics: Metrics,
}

/// The slots of one message. Clones share them; they are free again when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Slot(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    all: Arc<All>,
    weight: u32,
    held: Mutex<Held>,
}

#[derive(Debug)]
enum Held {
    Quick { _permit: OwnedSemaphorePermit, by: Vec<Hold> },
    Slow { _permit: OwnedSemaphorePermit },
}

impl Slots {
    /// So many quick ones over all lanes, at least a whole message for each, and so many slow ones.
    pub(crate) fn new(quick: u32, slow: u32, metrics: Metrics) -> Self {
        let lane = |lane: Lane| {
            let (_, part) = SHARES[lane as usize];
            let slots = (quick * part / 32).max(MAX_BATCH as u32);
            (Arc::new(Semaphore::new(slots as usize)), slots)
        };
        let quick = Lane::ALL.map(lane);
        metrics.capacity.set(quick.iter().map(|(_, slots)| i64::from(*slots)).sum());
        metrics.slow_capacity.set(i64::from(slow));
        let slow_free = Arc::new(Semaphore::new(slow as usize));
        Self(Arc::new(All { quick, slow: slow_free, slow_slots: slow, metrics }))
    }

    /// Waits for slots of a lane: one for each delivery of a message.
    pub(crate) async fn take(&self, lane: Lane, deliveries: u32) -> Result<Slot, BrokerError> {
        let weight = deliveries.clamp(1, MAX_BATCH as u32);
        let free = self.0.quick[lane as usize].0.clone();
        let permit = free.acquire_many_owned(weight).await.map_err(|_| BrokerError::Lost)?;
        let held = Mutex::new(Held::Quick { _permit: permit, by: Vec::new() });
        Ok(Slot(Arc::new(Taken { all: self.0.clone(), weight, held })))
    }

    /// How many quick slots a lane has.
    pub(crate) fn quick(&self, lane: Lane) -> u32 {
        self.0.quick[lane as usize].1
    }

    /// How many quick slots there are.
    pub(crate) fn all_quick(&self) -> u32 {
        self.0.quick.iter().map(|(_, slots)| slots).sum()
    }

    /// How many quick slots of a lane are free.
    pub(crate) fn free(&self, lane: Lane) -> u32 {
        u32::try_from(self.0.quick[lane as usize].0.available_permits()).unwrap_or(u32::MAX)
    }

    /// How many slow slots there are.
    pub(crate) fn slow(&self) -> u32 {
        self.0.slow_slots
    }

    /// How many slow slots are free.
    pub(crate) fn slow_free(&self) -> u32 {
        u32::try_from(self.0.slow.available_permits()).unwrap_or(u32::MAX)
    }
}

impl Slot {
    /// Moves over to the slow slots; `false` when they are taken.
    pub(crate) fn slow_down(&self) -> bool {
        let all = &self.0.all;
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Held::Slow { .. } = *held {
            return true;
        }
        let Ok(permit) = all.slow.clone().try_acquire_many_owned(self.0.weight) else { return false };
        *held = Held::Slow { _permit: permit };
        all.metrics.slow_slots.set(i64::from(all.slow_slots) - all.slow.available_permits() as i64);
        true
    }

    /// Keeps this for as long as the quick slots are held.
    pub(crate) fn held_by(&self, hold: Hold) {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Held::Quick { by, .. } = &mut *held {
            by.push(hold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(quick: u32, slow: u32) -> Slots {
        Slots::new(quick, slow, Metrics::register(&prometheus::Registry::new()).unwrap())
    }

    #[tokio::test]
    async fn lanes_have_slots_of_their_own_and_what_takes_long_gives_them_back() {
        let slots = slots(256, 20);
        assert_eq!(Lane::ALL.map(|lane| slots.quick(lane)), [176, 56, 24]);
        let mut taken = Vec::new();
        for _ in 0..11 {
            taken.push(slots.take(Lane::Fresh, 16).await.unwrap());
        }
        assert_eq!((slots.free(Lane::Fresh), slots.free(Lane::Retry)), (0, 56));
        assert!(taken[0].slow_down());
        assert!(taken[0].clone().slow_down(), "it is there already");
        assert!(!taken[1].slow_down(), "four slow slots are left");
        assert_eq!((slots.free(Lane::Fresh), slots.slow_free()), (16, 4));
        drop(taken);
        assert_eq!((slots.free(Lane::Fresh), slots.slow_free()), (176, 20));
    }

    #[test]
    fn a_whole_message_fits_into_every_lane() {
        let slots = slots(16, 16);
        assert_eq!(Lane::ALL.map(|lane| slots.quick(lane)), [16, 16, 16]);
    }
}
