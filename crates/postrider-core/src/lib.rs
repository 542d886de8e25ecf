//! Postrider's rules.
//!
//! Everything here is a function of its arguments: no I/O, no async, no clock, no randomness of its own. Time comes in
//! as a [`Timestamp`], chance as a [`Chance`]; the same inputs give the same decision. The roles carry the decisions
//! out; this crate only makes them.
//!
//! A reader new to the project starts at [`lifecycle::next`]: everything that can become of a delivery after one
//! attempt.

pub mod address;
pub mod auth;
pub mod books;
pub mod catalogue;
pub mod depths;
pub mod directory;
pub mod event;
pub mod expression;
pub mod health;
pub mod histogram;
pub mod id;
pub mod intake;
pub mod ladder;
pub mod lifecycle;
pub mod outcome;
pub mod pace;
pub mod profile;
pub mod reminder;
pub mod request;
pub mod retry;
pub mod schema;
pub mod seal;
mod shared;
pub mod signature;
pub mod spelling;
pub mod stall;
pub mod stats;
pub mod subscription;
pub mod time;
pub mod trigger;
pub mod verify;
pub mod webhook;
pub mod wire;

pub use event::{Action, Event, EventType, Json};
pub use id::{DeliveryId, Epoch, EventId, TenantId, WebhookId};
pub use lifecycle::Next;
pub use outcome::Outcome;
pub use retry::{Chance, RetryPolicy};
pub use time::Timestamp;
pub use webhook::Webhook;
