//! Delivery → attempt → outcome → what comes next.
//!
//! A delivery is one pipeline: begin → sign → send → classify → decide → record → settle ([`deliver`]). The decisions are
//! made in `postrider-core`; the request is sent in [`http`], with a [`token`] where the receiver wants one; everything that follows is published and confirmed in
//! [`settle`], and nowhere else, before the message is acked. The worker has no store: what it knows comes from the config stream, and what it did
//! goes to the journal.

mod deliver;
mod gate;
mod http;
mod kept;
mod local;
mod metrics;
mod moments;
mod opened;
mod resolve;
mod reuse;
mod run;
mod settle;
mod slots;
mod stopped;
mod times;
mod token;

pub use run::{Config, Error, run};
