//! The `postrider` command.

use std::process::ExitCode;

use clap::Parser as _;
use postrider::args::Cli;

fn main() -> ExitCode {
    postrider::run(Cli::parse()).into()
}
