//! The books: what was accepted, what is owed, what became of it, and whether it adds up (DESIGN §5.3).

use serde::{Deserialize, Serialize};

/// The end of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The receiver has it.
    Delivered,
    /// Given up; it can be redelivered.
    Dead,
    /// Cancelled, or its webhook is gone.
    Cancelled,
    /// The webhook did not receive at that time; it can be replayed.
    Skipped,
}

impl End {
    /// One word from a closed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// What the books say at one moment: numbers of rows, as the store keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events whose fact is known.
    pub accepted: u64,
    /// Of those, events with at least one delivery.
    pub routed: u64,
    /// Of those, events that no webhook wanted.
    pub unmatched: u64,
    /// Of those, messages that were no event.
    pub invalid: u64,
    /// Series that routed events and redeliveries say are owed.
    pub owed: u64,
    /// Series that ended as delivered.
    pub delivered: u64,
    /// Series that ended as dead.
    pub dead: u64,
    /// Series that ended as cancelled.
    pub cancelled: u64,
    /// Series that ended as skipped.
    pub skipped: u64,
    /// Series without an end, those held among them.
    pub pending: u64,
    /// Pending series whose webhook is paused.
    pub held: u64,
    /// Facts that writers numbered and that have not arrived.
    pub missing_facts: u64,
    /// Series that a worker reported and nobody said are owed.
    pub unowed: u64,
    /// Attempts that a finished series should have and that are not in the log.
    pub missing_attempts: u64,
}

/// How far the books are from balancing, part by part. All zero means that nothing is lost and nothing invented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// |accepted − (routed + unmatched + invalid)|.
    pub events: u64,
    /// |owed − (delivered + dead + cancelled + skipped + pending)|.
    pub deliveries: u64,
    /// Facts numbered by their writer that have not arrived.
    pub missing_facts: u64,
    /// Deliveries that a worker reported and nobody said are owed.
    pub unowed: u64,
    /// Attempts missing from the log.
    pub missing_attempts: u64,
    /// At rest only: pending deliveries that are not held and that the broker does not hold either.
    pub at_rest: u64,
    /// At rest only: messages that the broker holds beyond what is pending: copies of deliveries, which a lost connection
    /// left behind. They cost a repeated request and lose nothing, so they are no drift.
    pub copies: u64,
}

impl Counts {
    /// Compares both sides of the books.
    ///
    /// `broker_holds` is the number of deliveries in the broker's queues, and is given only at rest: nothing in flight,
    /// nothing on its way to the books.
    pub fn drift(&self, broker_holds: Option<u64>) -> Drift {
        let waiting = self.pending.saturating_sub(self.held);
        let ends = self.delivered + self.dead + self.cancelled + self.skipped;
        Drift {
            events: self.accepted.abs_diff(self.routed + self.unmatched + self.invalid),
            deliveries: self.owed.abs_diff(ends + self.pending),
            missing_facts: self.missing_facts,
            unowed: self.unowed,
            missing_attempts: self.missing_attempts,
            at_rest: broker_holds.map_or(0, |holds| waiting.saturating_sub(holds)),
            copies: broker_holds.map_or(0, |holds| holds.saturating_sub(waiting)),
        }
    }
}

impl Drift {
    /// One number for alerts: the sum of all parts but the copies.
    pub fn total(&self) -> u64 {
        self.events
            + self.deliveries
            + self.missing_facts
            + self.unowed
            + self.missing_attempts
            + self.at_rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCED: Counts = Counts {
        accepted: 10,
        routed: 7,
        unmatched: 2,
        invalid: 1,
        owed: 20,
        delivered: 10,
        dead: 1,
        cancelled: 1,
        skipped: 1,
        pending: 7,
        held: 2,
        missing_facts: 0,
        unowed: 0,
        missing_attempts: 0,
    };

    #[test]
    fn balanced_books_have_no_drift() {
        assert_eq!(BALANCED.drift(None).total(), 0);
        assert_eq!(BALANCED.drift(Some(5)).total(), 0);
    }

    #[test]
    fn every_number_that_moves_alone_shows() {
        let moved: [fn(&mut Counts); 13] = [
            |c| c.accepted += 1,
            |c| c.routed -= 1,
            |c| c.unmatched += 1,
            |c| c.invalid -= 1,
            |c| c.owed += 1,
            |c| c.delivered -= 1,
            |c| c.dead += 1,
            |c| c.cancelled += 1,
            |c| c.skipped += 1,
            |c| c.pending -= 1,
            |c| c.missing_facts += 1,
            |c| c.unowed += 1,
            |c| c.missing_attempts += 1,
        ];
        for change in moved {
            let mut counts = BALANCED;
            change(&mut counts);
            assert!(counts.drift(None).total() > 0, "{counts:?}");
        }
        assert_eq!(BALANCED.drift(Some(4)).total(), 1, "the broker lost one");
        let copied = BALANCED.drift(Some(7));
        assert_eq!((copied.total(), copied.copies), (0, 2));
    }
}
