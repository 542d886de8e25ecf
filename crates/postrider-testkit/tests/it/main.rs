//! Tests of the test kit itself, against a real broker and real sockets.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod dns;
mod hostile;
mod node;
mod process;
mod proxy;
mod receiver;
mod toxics;
mod vhost;
