//! Control: the API, the store, and the recorder that keeps the books.
//!
//! The only role with a database. It is not on the way of a delivery: router and worker go on while it is down, and
//! what they report waits in the journal. [`run()`] starts everything.
//!
//! - `store` holds all SQL; `recorder` writes what the other roles report into it, a batch in one transaction.
//! - `publisher` sends what control decides to the broker: changes of the configuration, and redeliveries.
//! - `reminders` sends what is due, `replays` what is made again by filter, `release` what was held.
//! - `keys` are those of the API; the audit log says who changed what.
//! - `stats` adds up what happened over time, for plots.
//! - `queues` looks at the broker's queues when somebody asks, and measures how full they are.
//! - `books` says whether everything adds up, [`audit`] reads the store for the checker; `api` is `/v1`.

#[allow(unused_qualifications, reason = "utoipa's macros write them")]
mod api;
pub mod audit;
mod books;
mod config;
mod keys;
mod link;
mod metrics;
mod publisher;
mod queues;
mod recorder;
mod release;
mod reminders;
mod replays;
mod run;
mod stats;
mod store;

pub use api::openapi;
pub use config::{AdminToken, BadToken, Config, Listen, Setting};
pub use run::{Error, run};
pub use store::StoreError;
