//! `postrider reminder`.

use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use super::event::json_argument;
use super::{Context, each, list, show};
use crate::args::Reminder;
use crate::exit::{Exit, Failure};
use crate::output::Column;

const COLUMNS: &[Column] = &[
    ("REMINDER", "/key"),
    ("STATE", "/state"),
    ("EVENT TYPE", "/event_type"),
    ("DATE", "/date"),
    ("DUE", "/due_at"),
];

/// A reminder as the API takes it. Members that hold JSON reach the receiver byte for byte.
#[derive(Debug, Serialize)]
struct Body<'a> {
    event_type: &'a str,
    date: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_context: Option<&'a RawValue>,
}

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: Reminder) -> Result<Exit, Failure> {
    match command {
        Reminder::Put { key, event_type, date, data, context: json_context } => {
            let data = data.as_deref().map(|text| json_argument("--data", text)).transpose()?;
            let current_context =
                json_context.as_deref().map(|text| json_argument("--context", text)).transpose()?;
            let body = Body {
                event_type: &event_type,
                date: &date,
                data: data.as_deref(),
                current_context: current_context.as_deref(),
            };
            let what = format!("cannot set the reminder {key}");
            let body = serde_json::to_string(&body).map_err(|error| Failure::usage(&what, error))?;
            let answer =
                context.api()?.call(Method::PUT, &what, &["reminders", &key], &[], Some(body)).await?;
            context.out.one(&answer.raw, &answer.value)?;
            Ok(Exit::Ok)
        }
        Reminder::Get { key } => {
            show(context, &format!("cannot show the reminder {key}"), &["reminders", &key], &[]).await
        }
        Reminder::List { state, due_before, event_type, page } => {
            let filter = [
                ("state", state.as_ref()),
                ("due_before", due_before.as_ref()),
                ("event_type", event_type.as_ref()),
            ];
            list(context, &["reminders"], &filter, &page, COLUMNS).await
        }
        Reminder::Cancel { keys } => {
            each(context, Method::DELETE, "cannot cancel the reminder", &keys, |key| vec!["reminders", key])
                .await?;
            Ok(Exit::Ok)
        }
    }
}
