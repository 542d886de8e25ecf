//! Event to deliveries, and action to events.
//!
//! One router is active, others stand by. The order of work never changes: caught up with the configuration → consume →
//! validate → drop what is known → derive, check and route → publish deliveries and facts, await their confirms → note the ids as seen → ack.
//! Whatever fails before the ack is done again with the same ids.

mod batch;
mod metrics;
mod run;
mod seen;
mod standstill;

pub use run::{Config, Error, run};
