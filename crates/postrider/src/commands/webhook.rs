//! `postrider webhook`.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Context, each, list, read_text, show};
use crate::args::{Webhook, WebhookCreate, WebhookFields, WebhookUpdate};
use crate::exit::{Exit, Failure};
use crate::output::Column;
use crate::settings::{Secret, read_file_or_stdin, write_new};

const COLUMNS: &[Column] = &[
    ("WEBHOOK", "/id"),
    ("NAME", "/name"),
    ("STATE", "/state"),
    ("EVENT TYPES", "/subscription/event_types"),
    ("ALL", "/subscription/all"),
    ("URL", "/url"),
];

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: Webhook) -> Result<Exit, Failure> {
    match command {
        Webhook::Create(create_command) => return create(context, create_command).await,
        Webhook::List(page) => return list(context, &["webhooks"], &[], &page, COLUMNS).await,
        Webhook::Get { id } => {
            return show(context, &format!("cannot show the webhook {id}"), &["webhooks", &id], &[]).await;
        }
        Webhook::Update(update_command) => return update(context, update_command).await,
        Webhook::Delete(ids) => {
            each(context, Method::DELETE, "cannot delete the webhook", &ids.ids, |id| vec!["webhooks", id])
                .await?;
        }
        Webhook::Pause(ids) => post_each(context, "pause", &ids.ids).await?,
        Webhook::Resume(ids) => post_each(context, "resume", &ids.ids).await?,
        Webhook::Enable(ids) => post_each(context, "enable", &ids.ids).await?,
        Webhook::Disable(ids) => post_each(context, "disable", &ids.ids).await?,
    }
    Ok(Exit::Ok)
}

async fn post_each(context: &Context, verb: &'static str, ids: &[String]) -> Result<(), Failure> {
    let what = format!("cannot {verb} the webhook");
    each(context, Method::POST, &what, ids, |id| vec!["webhooks", id, verb]).await?;
    Ok(())
}

async fn create(context: &Context, command: WebhookCreate) -> Result<Exit, Failure> {
    let WebhookCreate { name, url, from_file, secret_file, secret_to, fields } = command;
    if let Some(path) = secret_to.as_deref().filter(|path| path.exists()) {
        return Err(Failure::usage(
            format!("{} exists", path.display()),
            "a secret is never written over another file",
        )
        .next("give --secret-to a new file"));
    }
    let mut body = match &from_file {
        Some(path) => match serde_json::from_str(&read_text(path)?) {
            Ok(Value::Object(body)) => body,
            Ok(_) | Err(_) => {
                return Err(Failure::usage(path.display().to_string(), "it must hold one JSON object"));
            }
        },
        None => {
            let mut body = Map::new();
            body.insert("name".into(), name.into());
            body.insert("url".into(), url.map(String::from).into());
            body
        }
    };
    fields.write(&mut body)?;
    if let Some(path) = &secret_file {
        body.insert("secret".into(), read_file_or_stdin(path)?.reveal().into());
    }
    let body = Value::Object(body).to_string();
    let mut answer = context.api()?.post("cannot make the webhook", &["webhooks"], Some(body)).await?;
    if let Some(path) = secret_to {
        let secret = answer.value.get("secret").and_then(Value::as_str).unwrap_or_default();
        write_new(&path, &Secret::new(secret))?;
        if let Some(shown) = answer.value.get_mut("secret") {
            *shown = Value::String(format!("in {}", path.display()));
        }
        answer.raw = answer.value.to_string();
    } else if context.out.is_table() {
        context.out.note("keep the secret now: it is shown this once");
    }
    context.out.one(&answer.raw, &answer.value)?;
    Ok(Exit::Ok)
}

async fn update(context: &Context, command: WebhookUpdate) -> Result<Exit, Failure> {
    let WebhookUpdate { id, name, url, fields } = command;
    let mut body = Map::new();
    body.extend(name.map(|name| ("name".to_owned(), name.into())));
    body.extend(url.map(|url| ("url".to_owned(), String::from(url).into())));
    fields.write(&mut body)?;
    if body.is_empty() {
        return Err(Failure::usage("there is nothing to change", "no option was given")
            .next("postrider webhook update --help"));
    }
    let what = format!("cannot change the webhook {id}");
    let body = Value::Object(body).to_string();
    let answer = context.api()?.call(Method::PATCH, &what, &["webhooks", &id], &[], Some(body)).await?;
    context.out.one(&answer.raw, &answer.value)?;
    Ok(Exit::Ok)
}

impl WebhookFields {
    /// Adds what was given to the webhook as the API takes it.
    fn write(self, body: &mut Map<String, Value>) -> Result<(), Failure> {
        let ms =
            |duration: std::time::Duration| json!(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        let mut set =
            |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
        if self.all {
            set("subscription", Some(json!({"all": true, "event_types": []})));
        } else if !self.event_types.is_empty() {
            set("subscription", Some(json!({"all": false, "event_types": self.event_types})));
        }
        set("profile", self.profile.map(Value::from));
        set("timeout_ms", self.timeout.map(ms));
        set("max_in_flight", self.max_in_flight.map(Value::from));
        set("rate_per_second", self.rate_per_second.map(Value::from));
        let mut retry = Map::new();
        retry.extend(self.max_attempts.map(|most| ("max_attempts".to_owned(), most.into())));
        if !self.schedule.is_empty() {
            retry.insert("schedule_ms".into(), self.schedule.into_iter().map(ms).collect());
        }
        set("retry", (!retry.is_empty()).then_some(Value::Object(retry)));
        if let Some(path) = &self.api_key_file {
            let value = read_file_or_stdin(path)?;
            let (place, name) = match (self.api_key_header, self.api_key_query) {
                (Some(name), _) => ("header", name),
                (None, Some(name)) => ("query", name),
                (None, None) => ("header", "X-API-Key".to_owned()),
            };
            set("api_key", Some(json!({"in": place, "name": name, "value": value.reveal()})));
        }
        if let Some(path) = &self.headers_file {
            // What is wrong with it is not quoted: headers may hold secrets.
            let headers: Map<String, Value> = serde_json::from_str(read_file_or_stdin(path)?.reveal())
                .map_err(|_| {
                    Failure::usage(path.display().to_string(), "it must hold one JSON object of texts")
                })?;
            set("headers", Some(Value::Object(headers)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn written(fields: WebhookFields) -> Value {
        let mut body = Map::new();
        fields.write(&mut body).unwrap();
        Value::Object(body)
    }

    #[test]
    fn only_what_was_given_is_sent() {
        assert_eq!(written(WebhookFields::default()), json!({}));
        assert_eq!(
            written(WebhookFields {
                event_types: vec!["A".into()],
                timeout: Some(Duration::from_secs(3)),
                schedule: vec![Duration::from_secs(60), Duration::from_millis(5)],
                max_attempts: Some(2),
                ..WebhookFields::default()
            }),
            json!({
                "subscription": {"all": false, "event_types": ["A"]},
                "timeout_ms": 3000,
                "retry": {"schedule_ms": [60000, 5], "max_attempts": 2}
            })
        );
        assert_eq!(
            written(WebhookFields { all: true, ..WebhookFields::default() }),
            json!({"subscription": {"all": true, "event_types": []}})
        );
    }

    #[test]
    fn secrets_come_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_new(&path, &Secret::new("k3y")).unwrap();
        let fields = WebhookFields {
            api_key_query: Some("token".into()),
            api_key_file: Some(path),
            ..WebhookFields::default()
        };
        assert_eq!(written(fields), json!({"api_key": {"in": "query", "name": "token", "value": "k3y"}}));
    }
}
