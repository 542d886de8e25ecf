//! Judging a whole run: what was published, what arrived, and what the books say of it.
//!
//! The checker is that of Jepsen's total-queue ("what goes in must come out"), over pairs of event and webhook: lost,
//! unexpected, duplicated; and beside it whether attempts came early, too often or without a line in the log, and whether
//! the books add up. Its inputs are two ledgers and the rows of the store; it reads nothing itself, so it can judge a
//! running installation, a backup of one, or a run that a test made up.
//!
//! What it judges are the invariants of `reference/reliability.md` §0.1 that show in these inputs: I-1 to I-8 and I-14
//! always, I-9 where somebody measured, I-12 where the receiver verified signatures. I-10 (isolation), I-11 (recovery),
//! I-13 (secrets) and I-15 (nothing goes quiet) need more than records of a run: they have tests of their own.
//!
//! Fill a [`Run`], then [`check()`] it. Everything that is fed is kept in a compact form: about 300 bytes for each pair,
//! with its event, its request and its attempt.

mod judge;
mod report;
mod run;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

pub use judge::check;
pub use report::{Invariant, Judged, Report, Verdict, Violation};
pub use run::{AttemptRow, Counters, DeliveryRow, EventRow, LetterRow, Run, SeriesRow, WebhookRow};

/// A line of a publisher's ledger: written, and on disk, only when the broker has confirmed the event, or the API has
/// answered 202.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedLine {
    /// Whose event.
    pub tenant: String,
    /// Its id.
    pub id: String,
    /// When it was confirmed, milliseconds.
    pub at: Timestamp,
    /// It is an action: events are derived from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub action: bool,
}

/// A line of a receiver's ledger: written, and on disk, before the request is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedLine {
    /// The header `webhook-id`; empty if there was none.
    pub webhook_id: String,
    /// The header `webhook-attempt`; 0 if there was none.
    pub n: u32,
    /// When the request had arrived, milliseconds.
    pub at: Timestamp,
    /// The status that it will be answered with; 0 for no answer.
    pub status: u16,
    /// The path, without the query.
    pub path: String,
    /// Whether its signature is good, where the receiver can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
}

fn is_false(b: &bool) -> bool {
    !b
}

/// What was done to the system during the run, as far as the bounds depend on it.
///
/// A fault of a role is whatever makes it lose its connection: a crash, a freeze, a cut line, a restart of the broker. An
/// orderly stop is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Faults of workers, summed over all workers.
    pub workers: u64,
    /// Faults of routers.
    pub routers: u64,
    /// Faults of control.
    pub controls: u64,
    /// Deliveries that one worker may have begun and not settled.
    pub in_flight: u64,
    /// Events that one router may have begun and not settled.
    pub unsettled_events: u64,
    /// Messages that control may have sent and not marked as sent.
    pub unmarked: u64,
}

impl Faults {
    /// None, with the bounds of roles that were started with their defaults.
    pub const NONE: Self = Self {
        workers: 0,
        routers: 0,
        controls: 0,
        in_flight: 256 + 1024,
        unsettled_events: 100,
        unmarked: 256,
    };

    /// So many faults of every role.
    pub const fn of_each(n: u64) -> Self {
        Self { workers: n, routers: n, controls: n, ..Self::NONE }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.workers + self.routers + self.controls
    }

    /// The most duplicates that they may cause when an event goes to at most `fan_out` webhooks.
    pub fn most_duplicates(&self, fan_out: u64) -> u64 {
        self.workers * self.in_flight
            + self.routers * self.unsettled_events * fan_out
            + self.controls * self.unmarked
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}
