//! A receiver for trying things out: it shows what it gets, verifies signatures, and answers as told.
//!
//! Deliveries come to `/in/NAME`. The same server is told what to do at `/_inbox/NAME`: `PUT` sets the profile, the secret
//! and the answer, `GET` lists what came (`?limit=` the newest of it); `/_inbox` lists the names. Everything it keeps is bounded: names, requests, bytes.
//!
//! What comes to `/relay/NAME` it hands to whoever listens under that name ([`relay`]), for `postrider listen`.

mod book;
mod client;
pub mod relay;
mod server;
mod tls;
mod verify;

pub use book::{Answer, BadOrder, Given, Inbox, Order, Received, event_type_of};
pub use client::Client;
pub use server::{MAX_HANG, Scheme, routes, serve};
pub use tls::{Certificate, NoCertificate};
pub use verify::{Verifier, signature_of};
