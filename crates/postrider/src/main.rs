//! The `postrider` command.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;
use postrider::args::Cli;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    postrider::run(Cli::parse()).into()
}
