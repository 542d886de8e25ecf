//! What the tests of Postrider share: a RabbitMQ to break, a receiver that answers by script, a proxy that cuts
//! lines, the real binary as a child process.
//!
//! Everything here panics with one clear sentence instead of returning an error: a test has no other use for it.
//! Nothing sleeps for luck: [`eventually`] polls a condition, and its patience is one setting,
//! `POSTRIDER_TEST_PATIENCE_SECONDS`.
//!
//! ```no_run
//! # async fn example() {
//! use postrider_testkit::{Answer, Receiver, eventually, rabbit::{Broker, Vhost}};
//!
//! let vhost = Vhost::create(&Broker::shared().await, "retries").await;
//! let receiver = Receiver::start().await;
//! receiver.answer("/hook", [Answer::Status(503), Answer::Status(200)]);
//! // … start a role with `vhost.url()`, deliver to `receiver.url("/hook")` …
//! receiver.wait_for(2).await;
//! eventually("the queue is empty", async || vhost.queue_depth("postrider.events").await == 0).await;
//! # }
//! ```

pub mod chaos;
pub mod config;
pub mod dns;
pub mod http;
pub mod ledger;
pub mod load;
mod logging;
mod patience;
pub mod process;
pub mod rabbit;
pub mod receiver;
mod report;
mod target;

pub use logging::{Log, logging};
pub use patience::{eventually, eventually_some, patience, within};
pub use receiver::{Answer, Authority, Hostile, Manner, Receiver, Request, TokenServer};
pub use report::not_run;
pub use target::{target_dir, workspace_dir};

/// The value, or a panic that says what was attempted and why it failed.
fn must<T, E: Into<anyhow::Error>>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {:#}", error.into()),
    }
}
