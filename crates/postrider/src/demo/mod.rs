//! `postrider demo`.
use crate::args::Demo;
use crate::commands::Context;
use crate::exit::{Exit, Failure};
/// stub
pub async fn run(_context: &Context, _demo: &Demo) -> Result<Exit, Failure> {
    Ok(Exit::Ok)
}
