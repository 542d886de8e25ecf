//! The door of one webhook: its pacer, and those who wait before it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postrider_core::Timestamp;
use postrider_core::pace::{
    Answer, Asking, Call, End, LANES, Limits, Pacer, Reason, Refusal, Scene, State, Ticket,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::steady::Steady;
use super::tenants::Tenant;

/// One webhook, in this worker.
#[derive(Debug)]
pub(crate) struct Door {
    /// Whose it is.
    pub(crate) tenant: Arc<Tenant>,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    pacer: Pacer,
    limits: Limits,
    next_number: u64,
    // As many as the pacer counts, in order of arrival.
    waiting: [VecDeque<(u64, oneshot::Sender<Option<Ticket>>)>; LANES],
}

/// When a delivery has its turn.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The answer; not [`Answer::Wait`].
    Now(Answer),
    /// It waits in place.
    Later(Waiting),
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    door: Arc<Door>,
    lane: usize,
    number: u64,
    // Nothing when it was called or left.
    turn: Option<oneshot::Receiver<Option<Ticket>>>,
    clock: Option<Steady>,
}

impl Door {
    /// A door that nobody came to yet.
    pub(crate) fn new(tenant: Arc<Tenant>) -> Self {
        let limits = Limits { most: 1, per_second: None, first_retry_ms: 0 };
        let inside = Inside { pacer: Pacer::default(), limits, next_number: 0, waiting: Default::default() };
        Self { tenant, inside: Mutex::new(inside) }
    }

    /// Asks for a delivery.
    pub(crate) fn ask(self: &Arc<Self>, scene: &Scene, limits: Limits, asking: Asking) -> Turn {
        let mut inside = self.inside();
        inside.limits = limits;
        match inside.pacer.ask(scene, limits, asking) {
            Answer::Wait => {
                let (call, turn) = oneshot::channel();
                inside.next_number += 1;
                let number = inside.next_number;
                inside.waiting[asking.lane].push_back((number, call));
                Turn::Later(Waiting {
                    door: self.clone(),
                    lane: asking.lane,
                    number,
                    turn: Some(turn),
                    clock: None,
                })
            }
            answer => Turn::Now(answer),
        }
    }

    /// Something outside keeps a delivery from beginning.
    pub(crate) fn refuse(&self, scene: &Scene, limits: Limits, asking: Asking, why: Reason) -> Refusal {
        self.inside().pacer.refuse(scene, limits, asking, why, 0)
    }

    /// A request is over.
    pub(crate) fn ended(&self, now: Timestamp, ticket: Ticket, end: End) {
        let mut inside = self.inside();
        let limits = inside.limits;
        inside.pacer.ended(now, limits, ticket, end);
        inside.call(now);
    }

    /// A request did not begin, or nobody knows what became of it.
    pub(crate) fn undo(&self, now: Timestamp, ticket: Ticket) {
        let mut inside = self.inside();
        inside.pacer.undo(now, ticket);
        inside.call(now);
    }

    /// How the webhook is.
    pub(crate) fn state(&self, now: Timestamp) -> State {
        self.inside().pacer.state(now)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Calls whoever may begin.
    fn call(&mut self, now: Timestamp) {
        while let Some(call) = self.pacer.call(now, self.limits) {
            let (lane, ticket) = match call {
                Call::Begin(lane, ticket) => (lane, Some(ticket)),
                Call::Again(lane) => (lane, None),
            };
            let first = self.waiting[lane].pop_front();
            let unheard = first.map_or(Err(ticket), |(_, first)| first.send(ticket));
            if let Err(Some(ticket)) = unheard {
                self.pacer.undo(now, ticket);
            }
        }
    }
}

impl Waiting {
    /// Waits for its turn, at most for `patience`. `None`: things have changed, or patience is at its end; ask again, and
    /// do not wait any more.
    pub(crate) async fn called(mut self, clock: &Steady, patience: Duration) -> Option<Ticket> {
        self.clock = Some(*clock);
        let end = Instant::now() + patience;
        loop {
            let look_at = {
                let mut inside = self.door.inside();
                let limits = inside.limits;
                let in_ms = inside.pacer.call_in_ms(clock.now(), limits);
                in_ms.map_or(end, |ms| end.min(Instant::now() + Duration::from_millis(ms)))
            };
            let Some(turn) = &mut self.turn else { return None };
            tokio::select! {
                biased;
                called = turn => {
                    self.turn = None;
                    return called.ok().flatten();
                }
                () = tokio::time::sleep_until(look_at) => self.door.inside().call(clock.now()),
            }
            if Instant::now() >= end && self.leave() {
                return None;
            }
        }
    }

    /// Leaves the line; `false` when it was called just now.
    fn leave(&mut self) -> bool {
        let mut inside = self.door.inside();
        let line = &mut inside.waiting[self.lane];
        let Some(index) = line.iter().position(|(number, _)| *number == self.number) else { return false };
        line.remove(index);
        inside.pacer.leave(self.lane);
        drop(inside);
        self.turn = None;
        true
    }
}

impl Drop for Waiting {
    // A task that is dropped while it waits must neither stay in the line nor keep a ticket.
    fn drop(&mut self) {
        if self.turn.is_some()
            && !self.leave()
            && let Some(Ok(Some(ticket))) = self.turn.as_mut().map(oneshot::Receiver::try_recv)
            && let Some(clock) = self.clock
        {
            self.door.undo(clock.now(), ticket);
        }
    }
}
