//! RabbitMQ for Postrider.
//!
//! The one place that speaks AMQP: the [`topology`] as a value, the [`flow`] of messages over it, a [`Session`] whose two
//! connections live and die together, publishing with confirms, consuming with messages that are settled exactly once,
//! the configuration and deduplication streams, and the [`journal`]. Everything runs the same on RabbitMQ 3.10 and 4.
//!
//! Two rules hold everywhere: every wait on the broker has a timeout, and what follows from a message is published and
//! confirmed before the message is acked.

pub mod config_stream;
mod consume;
pub mod crash;
mod directory_feed;
mod error;
#[cfg(debug_assertions)]
mod fault;
pub mod flow;
pub mod journal;
mod metrics;
mod names;
mod publish;
pub mod readiness;
pub mod seen_stream;
mod seldom;
mod session;
mod stream;
mod supervise;
pub mod topology;
mod watchdog;

pub use consume::{Consumer, Incoming};
pub use directory_feed::DirectoryFeed;
pub use error::BrokerError;
pub use journal::Journal;
pub use metrics::Metrics;
pub use names::{Lane, Names, PARK_RUNGS_SECS};
pub use publish::{ConfirmedChannel, Outgoing, Publisher};
pub use readiness::Readiness;
pub use seldom::Seldom;
pub use session::{Depth, Prober, Session, Settings};
pub use supervise::supervise;
pub use watchdog::Pulse;

/// The current time. Roles read the clock here and hand it to the rules of `postrider-core`.
pub fn now() -> postrider_core::Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    postrider_core::Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
