//! `postrider config`: every setting, its value and where it came from.

use serde_json::json;

use super::Context;
use crate::exit::{Exit, Failure};
use crate::output::Column;
use crate::settings::{KEYS, Source};

const COLUMNS: &[Column] =
    &[("SETTING", "/name"), ("VALUE", "/value"), ("SOURCE", "/source"), ("FOR", "/help")];

/// Shows the settings, and complains about secrets that cannot be used.
///
/// # Errors
/// [`Failure`] when a secret cannot be read; everything is shown before.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let settings = &context.settings;
    let items: Vec<_> = KEYS
        .iter()
        .map(|key| {
            let mut value = settings.layers.shown(key);
            let mut source = settings.layers.source(key.name).to_string();
            let state_file = match key.name {
                "admin_token" => Some(settings.state_dir.admin_token_file()),
                "master_key" => Some(settings.state_dir.master_key_file()),
                _ => None,
            };
            if source == Source::Default.to_string() {
                match (key.name, state_file) {
                    ("state_dir", _) => value = Some(settings.state_dir.path().display().to_string()),
                    ("store_url", _) => value = Some(settings.store_url()),
                    (_, Some(file)) if file.exists() => {
                        value = Some("***".to_owned());
                        source = format!("state directory {}", file.display());
                    }
                    _ => {}
                }
            }
            json!({"name": key.name, "value": value, "source": source, "env": key.env(), "help": key.help})
        })
        .collect();
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
