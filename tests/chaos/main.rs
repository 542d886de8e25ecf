//! The fault matrix of `reference/reliability.md` §2.3: real processes that are hurt on purpose, and a checker over
//! ledgers and books that says what became of every event.
//!
//! The quick rows run in `make test`. `make chaos` runs all of them, one after the other, and writes `docs/chaos.md`.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
#![allow(clippy::print_stderr, reason = "figures that a test measures are shown")]

mod broker;
mod judge;
mod long;
mod machine;
mod network;
mod operations;
mod processes;
mod receivers;
mod report;
mod rig;
mod storage;
