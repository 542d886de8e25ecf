//! Black-box tests of the `postrider` command: real processes, a real broker, real receivers.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
#![allow(clippy::print_stderr, reason = "figures that a test measures are shown")]

mod access;
mod bench;
mod browser;
mod catalogue;
mod command;
mod crash_points;
mod drain;
mod endings;
mod kills;
mod listen;
mod mutation;
mod own_events;
mod profiles;
mod quiet;
mod refusals;
mod reminders;
mod replays;
mod requirements;
mod standalone;
mod system;
mod truth;
mod upstream;
mod verify;
