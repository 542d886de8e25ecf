//! Whether a delivery may begin now: caps, rate, breaker and pause of its webhook, and the caps of its tenant.
//!
//! What may not begin is parked and not held, so that no webhook can fill this worker.

use std::time::Duration;

use postrider_core::{Outcome, Webhook};

use crate::deliver::{Park, Taken};

/// Admits deliveries. Clones share the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate;

/// What the gate says.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Begin, and say how it went.
    Begin(Begun),
    /// Not now.
    #[expect(dead_code, reason = "the gate is always open so far")]
    Park(Park),
}

/// A request that the gate let begin. Dropping it without a word counts as no outcome.
#[derive(Debug)]
pub(crate) struct Begun;

impl Gate {
    /// Admits a delivery, perhaps after a short wait.
    pub(crate) async fn enter(&self, _taken: &Taken, _webhook: &Webhook) -> Entry {
        Entry::Begin(Begun)
    }
}

impl Begun {
    /// Says what became of the request.
    pub(crate) fn ended(self, _outcome: &Outcome, _took: Duration) {}
}
