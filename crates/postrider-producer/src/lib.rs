//! Publish events to Postrider.
//!
//! An upstream service reports what happened; Postrider delivers it to every webhook that wants it. This crate is the
//! upstream side: it publishes over RabbitMQ and returns only when the broker has the event safely on disk.
//!
//! # First event
//!
//! ```no_run
//! use postrider_producer::{NewEvent, Producer, Settings};
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), postrider_producer::Error> {
//! let producer = Producer::connect(Settings::new("amqp://guest:guest@127.0.0.1:5672/%2f")).await?;
//! let id = producer.publish(NewEvent::new("USER_CREATED", &json!({ "user": "u-1" }))).await?;
//! println!("{id} is accepted");
//! # Ok(())
//! # }
//! ```
//!
//! When `publish` returns `Ok`, the event is in a queue of RabbitMQ that survives a crash of the broker, and will be
//! delivered at least once. When it returns an error, the event may or may not have arrived: publish it again **with the
//! same id**, and Postrider takes it once (within an hour).
//!
//! # Ids
//!
//! Every event has an id. If you give none, one is made. Give your own when you may publish the same event twice, for
//! example from an outbox table: `NewEvent::new(..).id("order-17-paid")`.
//!
//! # Many events
//!
//! [`Producer::publish_all`] publishes up to 100 of one tenant and trace in one message, and is much faster than one after the
//! other: an event of its own message costs the broker several times as much. When some of them fail, the error lists which
//! are confirmed and which are not.
//!
//! [`Producer::publish`] from many tasks comes to the same: when eight messages of a tenant and trace are under way, or 64 in all,
//! events that come meanwhile share the next ones. Nothing waits for company: where fewer are under way, an event is sent at
//! once. Events that each have a trace of their own share nothing.
//!
//! # What an event holds
//!
//! | member | set with | meaning |
//! |---|---|---|
//! | `event_type` | [`NewEvent::new`] | exact, case-sensitive, 1 to 128 characters |
//! | `data` | [`NewEvent::new`] | any JSON; reaches receivers byte for byte |
//! | `current_context` | [`NewEvent::context`] | any JSON; reaches receivers byte for byte |
//! | `event_time` | [`NewEvent::time`] | RFC 3339; the time of publishing when missing |
//! | `id` | [`NewEvent::id`] | makes a repeated event recognisable |
//! | `key` | [`NewEvent::key`] | the subject the event is about |
//! | `correlation_id` | [`NewEvent::correlation_id`] | ties events of one action together |
//! | tenant | [`NewEvent::tenant`] | whose event it is; `default` when missing |
//!
//! # Actions
//!
//! Where a tenant's catalogue has triggers, an upstream service can report what was done and leave it to them which
//! events that makes: [`Producer::publish_action`] with a [`NewAction`]. The events of one action are delivered all or
//! none, their ids are made from the action's id, and they carry it as `correlation_id`.
//!
//! ```no_run
//! # use postrider_producer::{NewAction, Producer};
//! # use serde_json::json;
//! # async fn example(producer: &Producer) -> Result<(), postrider_producer::Error> {
//! let transfer = json!({ "sender": { "memberId": "m-1" }, "recipient": { "memberId": "m-2" }, "points": 50 });
//! producer.publish_action(NewAction::new("points.transferred", "transfer-17", &transfer)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is refused
//!
//! An event that Postrider would refuse (no legal type, larger than 256 KiB, …) is refused here, before anything is
//! sent. A tenant that does not exist is found out later: such an event is kept in `postrider.invalid`.

mod event;
mod line;
mod producer;

pub use event::{NewAction, NewEvent};
pub use postrider_core::EventId;
pub use producer::{Error, Producer, PublishAllError, Settings};
