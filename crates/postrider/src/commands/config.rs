//! `postrider config`: every setting, its value and where it came from.

use serde_json::json;

use super::Context;
use crate::exit::{Exit, Failure};
use crate::output::Column;

pub(super) const COLUMNS: &[Column] =
    &[("SETTING", "/name"), ("VALUE", "/value"), ("SOURCE", "/source"), ("FOR", "/help")];

/// Shows the settings, and complains about secrets that cannot be used.
///
/// # Errors
/// [`Failure`] when a secret cannot be read; everything is shown before.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let settings = &context.settings;
    let items: Vec<_> = settings.told().iter().map(|setting| json!(setting)).collect();
    let raw = json!({"items": items, "next": null}).to_string();
    context.out.list(&raw, &items, COLUMNS)?;
    if settings.layers.is_given("amqp_url") {
        settings.amqp_url()?;
    }
    settings.admin_token()?;
    settings.api_token()?;
    settings.master_key()?;
    Ok(Exit::Ok)
}
