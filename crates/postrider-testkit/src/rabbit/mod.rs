//! RabbitMQ for tests: a shared broker with a vhost per test, and nodes that may be killed.

mod broker;
mod node;
mod script;
mod vhost;

pub use broker::Broker;
pub use node::Node;
pub use vhost::{Queue, Taken, Vhost};
