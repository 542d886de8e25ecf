//! `postrider api-keys`.

use reqwest::Method;
use serde_json::json;

use super::{Context, each, list, refuse_existing, show, show_secret};
use crate::args::{ApiKeyCreate, ApiKeys};
use crate::exit::{Exit, Failure};
use crate::output::Column;
use crate::table;

const COLUMNS: &[Column] = &[
    ("KEY", "/id"),
    ("NAME", "/name"),
    ("TENANT", "/tenant"),
    ("SCOPES", "/scopes"),
    ("STATE", "/state"),
    ("HINT", "/hint"),
    ("EXPIRES", "/expires_at"),
    ("LAST USED", "/last_used_at"),
];

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: ApiKeys) -> Result<Exit, Failure> {
    match command {
        ApiKeys::Create(ApiKeyCreate { name, scopes, expires, key_to }) => {
            refuse_existing(key_to.as_deref(), "--key-to")?;
            if context.out.quiet && key_to.is_none() {
                return Err(Failure::usage(
                    "cannot make the API key",
                    "with --quiet nobody would see the key",
                )
                .next("give --key-to a new file, or leave --quiet out"));
            }
            let body = json!({ "name": name, "scopes": scopes, "expires_at": expires }).to_string();
            let what = "cannot make the API key";
            let mut answer = context.api()?.post(what, &["api-keys"], Some(body)).await?;
            show_secret(context, &mut answer, "key", key_to)
        }
        ApiKeys::List(page) => list(context, &["api-keys"], &[], &page, COLUMNS).await,
        ApiKeys::Get { id } => {
            show(context, &format!("cannot show the API key {id}"), &["api-keys", &id], &[]).await
        }
        ApiKeys::Whoami => {
            let answer = context.api()?.get("cannot say whose the token is", &["access"], &[]).await?;
            match (context.out.quiet, answer.value["actor"].as_str()) {
                (true, Some(actor)) => context.out.text(&table::printable(actor))?,
                _ => context.out.one(&answer.raw, &answer.value)?,
            }
            Ok(Exit::Ok)
        }
        ApiKeys::Revoke(ids) => {
            let what = "cannot revoke the API key";
            each(context, Method::DELETE, what, &ids.ids, |id| vec!["api-keys", id]).await?;
            Ok(Exit::Ok)
        }
    }
}
