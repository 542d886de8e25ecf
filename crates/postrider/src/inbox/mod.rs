//! A receiver for trying things out: it shows what it gets, verifies signatures, and answers as told.
//!
//! Deliveries come to `/in/NAME`. The same server is told what to do at `/_inbox/NAME`: `PUT` sets the secret and the
//! answer, `GET` lists what came. Everything it keeps is bounded: names, requests, bytes.

mod book;
mod server;

pub use book::{Answer, Given, Inbox, Order, Received};
pub use server::{MAX_HANG, routes, serve};
