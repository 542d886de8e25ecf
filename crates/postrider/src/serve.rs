//! `postrider serve`.
use crate::args::Role;
use crate::commands::Context;
use crate::exit::{Exit, Failure};
/// stub
pub async fn run(_context: &Context, _role: Role) -> Result<Exit, Failure> {
    Ok(Exit::Ok)
}
/// Waits for SIGINT or SIGTERM.
pub async fn signal() -> Result<(), Failure> {
    let failed = |error| Failure::new(Exit::Other, "cannot wait for signals", error);
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(failed),
        _ = terminate.recv() => Ok(()),
    }
}
