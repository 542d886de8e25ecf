//! Every name on the broker, derived from one prefix (DESIGN §5.1).

use postrider_core::ladder;
use postrider_core::pace::RUNGS_SECS;

/// How long the parking queues hold a message, seconds, shortest first.
pub const PARK_RUNGS_SECS: [u32; 6] = RUNGS_SECS;

/// Which kind of work a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// First attempts.
    Fresh,
    /// Later attempts.
    Retry,
    /// Redeliveries and replays.
    Replay,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Retry, Self::Replay];

    /// The word in queue names, routing keys and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Retry => "retry",
            Self::Replay => "replay",
        }
    }
}

/// Names of exchanges and queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
    unit_ms: u64,
}

impl Names {
    /// Names under `prefix`; the ladder's queues also carry its unit, since their time to live is part of what they are.
    pub fn new(prefix: &str, unit_ms: u64) -> Self {
        Self { prefix: prefix.to_owned(), unit_ms: unit_ms.max(1) }
    }

    /// The unit of the ladder, milliseconds.
    pub fn unit_ms(&self) -> u64 {
        self.unit_ms
    }

    /// Exchange and queue of events.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// Exchange of deliveries; its keys are [`Names::destination`].
    pub fn deliveries(&self) -> String {
        format!("{}.deliveries", self.prefix)
    }

    /// Queue of the deliveries of one lane and shard.
    pub fn delivery_queue(&self, lane: Lane, shard: u16) -> String {
        format!("{}.deliveries.{}", self.prefix, Self::destination(lane, shard))
    }

    /// Routing key, and end of a ladder or parking key, of one lane and shard.
    pub fn destination(lane: Lane, shard: u16) -> String {
        format!("{}.{shard}", lane.as_str())
    }

    /// Exchange and queue of one level of the ladder.
    pub fn ladder(&self, level: u32) -> String {
        format!("{}.delay.{}.l{level:02}", self.prefix, self.unit_ms)
    }

    /// All levels of the ladder, lowest first.
    pub fn ladder_queues(&self) -> Vec<String> {
        (0..ladder::LEVELS).map(|level| self.ladder(level)).collect()
    }

    /// Where the ladder and the parking end.
    pub fn delay_out(&self) -> String {
        format!("{}.delay.out", self.prefix)
    }

    /// Exchange of the parking; its keys are [`Names::park_key`].
    pub fn park(&self) -> String {
        format!("{}.park", self.prefix)
    }

    /// Parking queue of one rung.
    pub fn park_queue(&self, rung_secs: u32) -> String {
        format!("{}.park.{rung_secs}", self.prefix)
    }

    /// All parking queues, shortest first.
    pub fn park_queues(&self) -> Vec<String> {
        PARK_RUNGS_SECS.iter().map(|rung| self.park_queue(*rung)).collect()
    }

    /// Routing key that parks a message for `rung_secs` and then brings it to `destination`: that of a lane and shard,
    /// `events`, or `journal`.
    pub fn park_key(rung_secs: u32, destination: &str) -> String {
        format!("{rung_secs}.{destination}")
    }

    /// Exchange and queue of deliveries given up.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// Exchange and queue of messages that are no event.
    pub fn invalid(&self) -> String {
        format!("{}.invalid", self.prefix)
    }

    /// Exchange and queue of messages that killed their consumers or lost their way.
    pub fn poison(&self) -> String {
        format!("{}.poison", self.prefix)
    }

    /// Exchange and queue of facts.
    pub fn journal(&self) -> String {
        format!("{}.journal", self.prefix)
    }

    /// Stream of configuration, reached through the exchange of the same name.
    pub fn config(&self) -> String {
        format!("{}.config", self.prefix)
    }

    /// Stream of accepted ids, reached through the exchange of the same name.
    pub fn seen(&self) -> String {
        format!("{}.seen", self.prefix)
    }
}
