//! `postrider webhook`.

use std::path::PathBuf;

use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::delivery::{ATTEMPT_COLUMNS, attempts_of, is_final};
use super::event::json_argument;
use super::{Context, each, list, read_text, refuse_existing, show, show_secret, wait_for};
use crate::args::{
    RotateSecret, Webhook, WebhookAuth, WebhookCreate, WebhookFields, WebhookList, WebhookTest, WebhookUpdate,
};
use crate::exit::{Exit, Failure};
use crate::output::{Column, plain};
use crate::settings::read_file_or_stdin;
use crate::table;

const COLUMNS: &[Column] = &[
    ("WEBHOOK", "/id"),
    ("NAME", "/name"),
    ("STATE", "/state"),
    ("EVENT TYPES", "/subscription/event_types"),
    ("GROUPS", "/subscription/groups"),
    ("CATEGORIES", "/subscription/categories"),
    ("ALL", "/subscription/all"),
    ("PROFILE", "/profile"),
    ("URL", "/url"),
];

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: Webhook) -> Result<Exit, Failure> {
    match command {
        Webhook::Create(create_command) => return create(context, *create_command).await,
        Webhook::List(WebhookList {
            state,
            event_type,
            name,
            url,
            profile,
            failing,
            since,
            until,
            oldest_first,
            page,
        }) => {
            let failing = failing.then(|| "true".to_owned());
            let order = oldest_first.then(|| "oldest".to_owned());
            let filter = [
                ("state", state.as_ref()),
                ("event_type", event_type.as_ref()),
                ("name", name.as_ref()),
                ("url", url.as_ref()),
                ("profile", profile.as_ref()),
                ("failing", failing.as_ref()),
                ("since", since.as_ref()),
                ("until", until.as_ref()),
                ("order", order.as_ref()),
            ];
            return list(context, &["webhooks"], &filter, &page, COLUMNS).await;
        }
        Webhook::Get { id } => {
            return show(context, &format!("cannot show the webhook {id}"), &["webhooks", &id], &[]).await;
        }
        Webhook::Update(update_command) => return update(context, *update_command).await,
        Webhook::Delete(ids) => {
            each(context, Method::DELETE, "cannot delete the webhook", &ids.ids, |id| vec!["webhooks", id])
                .await?;
        }
        Webhook::Pause(ids) => post_each(context, "pause", &ids.ids).await?,
        Webhook::Resume(ids) => post_each(context, "resume", &ids.ids).await?,
        Webhook::Enable(ids) => post_each(context, "enable", &ids.ids).await?,
        Webhook::Disable(ids) => post_each(context, "disable", &ids.ids).await?,
        Webhook::Test(command) => return test(context, command).await,
        Webhook::Explain { id, file, event } => return explain(context, &id, file, event).await,
        Webhook::RotateSecret(command) => return rotate(context, command).await,
        Webhook::Secret { id } => {
            let what = format!("cannot show the secret of the webhook {id}");
            return show(context, &what, &["webhooks", &id, "secret"], &[]).await;
        }
    }
    Ok(Exit::Ok)
}

async fn post_each(context: &Context, verb: &'static str, ids: &[String]) -> Result<(), Failure> {
    let what = format!("cannot {verb} the webhook");
    each(context, Method::POST, &what, ids, |id| vec!["webhooks", id, verb]).await?;
    Ok(())
}

async fn create(context: &Context, command: WebhookCreate) -> Result<Exit, Failure> {
    let WebhookCreate { name, url, from_file, secret_file, secret_to, disabled, fields } = command;
    refuse_existing(secret_to.as_deref(), "--secret-to")?;
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
    if disabled {
        body.insert("state".into(), "disabled".into());
    }
    if let Some(path) = &secret_file {
        body.insert("secret".into(), read_file_or_stdin(path)?.reveal().into());
    }
    let body = Value::Object(body).to_string();
    let mut answer = context.api()?.post("cannot make the webhook", &["webhooks"], Some(body)).await?;
    show_secret(context, &mut answer, "secret", secret_to)
}

async fn rotate(context: &Context, command: RotateSecret) -> Result<Exit, Failure> {
    let RotateSecret { id, secret_file, secret_to, overlap } = command;
    refuse_existing(secret_to.as_deref(), "--secret-to")?;
    let mut body = Map::new();
    if let Some(path) = &secret_file {
        body.insert("secret".into(), read_file_or_stdin(path)?.reveal().into());
    }
    body.extend(overlap.map(|overlap| ("overlap_seconds".to_owned(), overlap.as_secs().into())));
    let what = format!("cannot rotate the secret of the webhook {id}");
    let body = Value::Object(body).to_string();
    let mut answer = context.api()?.post(&what, &["webhooks", &id, "rotate-secret"], Some(body)).await?;
    show_secret(context, &mut answer, "secret", secret_to)
}

async fn explain(
    context: &Context,
    id: &str,
    file: Option<PathBuf>,
    event_id: Option<String>,
) -> Result<Exit, Failure> {
    let what = format!("cannot explain the webhook {id}");
    let event = match file {
        Some(file) => Some(RawValue::from_string(read_text(&file)?.trim().to_owned()).map_err(|error| {
            Failure::usage(file.display().to_string(), error).next("write one event as JSON")
        })?),
        None => None,
    };
    #[derive(Serialize)]
    struct Body {
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        event_id: Option<String>,
    }
    let body =
        serde_json::to_string(&Body { event, event_id }).map_err(|error| Failure::usage(&what, error))?;
    let answer = context.api()?.post(&what, &["webhooks", id, "explain"], Some(body)).await?;
    context.out.one(&answer.raw, &answer.value)?;
    Ok(Exit::Ok)
}

/// Sends a sample and shows what the receiver made of it.
async fn test(context: &Context, command: WebhookTest) -> Result<Exit, Failure> {
    let WebhookTest { id, event_type, data, wait_timeout } = command;
    let what = format!("cannot test the webhook {id}");
    let data = data.as_deref().map(|text| json_argument("--data", text)).transpose()?;
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        event_type: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    }
    let body = serde_json::to_string(&Body { event_type: event_type.as_deref(), data: data.as_deref() })
        .map_err(|error| Failure::usage(&what, error))?;
    let api = context.api()?;
    let sent = api.post(&what, &["webhooks", &id, "test"], Some(body)).await?;
    let Some(delivery) = sent.value.get("delivery_id").and_then(Value::as_str).map(str::to_owned) else {
        return Err(Failure::new(Exit::Unavailable, what, "the answer names no delivery"));
    };
    let waiting = format!("the test of the webhook {id} has not ended");
    let ended = wait_for(&waiting, wait_timeout, || async {
        match api.get(&waiting, &["deliveries", &delivery], &[]).await {
            Ok(answer) if is_final(&plain(answer.value.get("state"))) => Ok(Ok(answer)),
            Ok(answer) => Ok(Err(format!("it is {}", plain(answer.value.get("state"))))),
            // The books hear of it a moment later than the receiver.
            Err(failure) if failure.exit == Exit::NotFound => Ok(Err("it is not in the books".to_owned())),
            Err(failure) => Err(failure),
        }
    })
    .await
    .map_err(|failure| failure.next("postrider serve worker must run, and postrider serve router"))?;
    if context.out.is_table() {
        context.out.list("", &attempts_of(&ended.value), ATTEMPT_COLUMNS)?;
        for attempt in attempts_of(&ended.value) {
            if let Some(body) = attempt["response_body"].as_str().filter(|body| !body.is_empty()) {
                context.out.note(&format!("it answered: {}", table::printable(&table::cut(body, 500))));
            }
        }
    } else {
        context.out.one(&ended.raw, &ended.value)?;
    }
    if ended.value["state"] == "delivered" {
        return Ok(Exit::Ok);
    }
    let why = format!("the delivery ended as {}", plain(ended.value.get("state")));
    Err(Failure::new(Exit::Partly, format!("the webhook {id} did not take the sample"), why)
        .next(format!("postrider delivery get {delivery} shows the whole answer")))
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
    pub(super) fn write(self, body: &mut Map<String, Value>) -> Result<(), Failure> {
        let ms =
            |duration: std::time::Duration| json!(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        let mut set =
            |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
        let selection = self.selection;
        let mut subscription = Map::new();
        if self.all || selection.names_some() {
            subscription.insert("all".into(), self.all.into());
            subscription.insert("event_types".into(), selection.event_types.into());
            subscription.insert("groups".into(), selection.groups.into());
            subscription.insert("categories".into(), selection.categories.into());
        }
        // An empty expression is how a filter is taken away.
        let filter =
            selection.filter.map(|filter| if filter.is_empty() { Value::Null } else { filter.into() });
        subscription.extend(filter.map(|filter| ("filter".to_owned(), filter)));
        set("subscription", (!subscription.is_empty()).then_some(Value::Object(subscription)));
        set("profile", selection.profile.map(Value::from));
        set("payload_version", self.payload_version.map(Value::from));
        set("signed", self.unsigned.then_some(Value::Bool(false)));
        set("active_from", self.active_from.map(Value::from));
        set("expires_at", self.expires_at.map(Value::from));
        set("disable_after_failures", self.disable_after_failures.map(Value::from));
        set("disable_after_ms", self.disable_after.map(ms));
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
        self.auth.write(body)
    }
}

impl WebhookAuth {
    /// Writes what was given into the webhook as the API takes it.
    fn write(self, body: &mut Map<String, Value>) -> Result<(), Failure> {
        let secret = |path: &Option<PathBuf>| -> Result<Option<Value>, Failure> {
            let text = path.as_deref().map(read_file_or_stdin).transpose()?;
            Ok(text.map(|text| text.reveal().into()))
        };
        let auth = if let Some(username) = self.auth_basic {
            let password = secret(&self.auth_basic_password_file)?;
            Some(json!({"basic": {"username": username, "password": password}}))
        } else if let Some(token) = secret(&self.auth_bearer_file)? {
            Some(json!({"bearer": {"token": token}}))
        } else if let Some(url) = self.auth_oauth2_url {
            let mut oauth2 = Map::new();
            oauth2.insert("token_url".into(), String::from(url).into());
            oauth2.extend(self.auth_oauth2_client.map(|id| ("client_id".to_owned(), id.into())));
            oauth2.extend(secret(&self.auth_oauth2_secret_file)?.map(|s| ("client_secret".to_owned(), s)));
            oauth2.extend(self.auth_oauth2_scope.map(|scope| ("scope".to_owned(), scope.into())));
            oauth2.extend(self.auth_oauth2_audience.map(|audience| ("audience".to_owned(), audience.into())));
            oauth2.extend(self.auth_oauth2_in_body.then(|| ("in_body".to_owned(), true.into())));
            Some(json!({"oauth2": oauth2}))
        } else {
            None
        };
        body.extend(auth.map(|auth| ("auth".to_owned(), auth)));
        let mut tls = Map::new();
        for (member, path) in [
            ("certificate_pem", &self.auth_tls_certificate_file),
            ("key_pem", &self.auth_tls_key_file),
            ("ca_pem", &self.auth_tls_ca_file),
        ] {
            // A certificate is no secret, but lines of it count, so it is read as text.
            let pem = match (member, path) {
                ("key_pem", Some(_)) => secret(path)?,
                (_, Some(path)) => Some(read_text(path)?.into()),
                (_, None) => None,
            };
            tls.extend(pem.map(|pem| (member.to_owned(), pem)));
        }
        if !tls.is_empty() {
            body.insert("tls".to_owned(), Value::Object(tls));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Selection;
    use crate::settings::{Secret, write_new};
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
                selection: Selection { event_types: vec!["A".into()], ..Selection::default() },
                timeout: Some(Duration::from_secs(3)),
                schedule: vec![Duration::from_secs(60), Duration::from_millis(5)],
                max_attempts: Some(2),
                ..WebhookFields::default()
            }),
            json!({
                "subscription": {"all": false, "event_types": ["A"], "groups": [], "categories": []},
                "timeout_ms": 3000,
                "retry": {"schedule_ms": [60000, 5], "max_attempts": 2}
            })
        );
        assert_eq!(
            written(WebhookFields { all: true, ..WebhookFields::default() }),
            json!({"subscription": {"all": true, "event_types": [], "groups": [], "categories": []}})
        );
        let filtered = |filter: &str| {
            let selection = Selection { filter: Some(filter.to_owned()), ..Selection::default() };
            written(WebhookFields { selection, ..WebhookFields::default() })
        };
        assert_eq!(filtered("data.n > 1"), json!({"subscription": {"filter": "data.n > 1"}}));
        assert_eq!(filtered(""), json!({"subscription": {"filter": null}}));
        let (groups, categories) = (vec!["g".into()], vec!["c".into()]);
        let rules = WebhookFields {
            selection: Selection { groups, categories, ..Selection::default() },
            unsigned: true,
            active_from: Some("2026-12-01T00:00:00Z".into()),
            disable_after_failures: Some(0),
            disable_after: Some(Duration::from_secs(86_400)),
            ..WebhookFields::default()
        };
        assert_eq!(
            written(rules),
            json!({
                "subscription": {"all": false, "event_types": [], "groups": ["g"], "categories": ["c"]},
                "signed": false, "active_from": "2026-12-01T00:00:00Z", "disable_after_failures": 0,
                "disable_after_ms": 86_400_000,
            })
        );
    }

    #[test]
    fn credentials_of_the_receiver_come_from_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            write_new(&path, &Secret::new(text)).unwrap();
            Some(path)
        };
        let auth = |auth: WebhookAuth| written(WebhookFields { auth, ..WebhookFields::default() });
        assert_eq!(
            auth(WebhookAuth {
                auth_basic: Some("u".into()),
                auth_basic_password_file: file("password", "p"),
                ..WebhookAuth::default()
            }),
            json!({"auth": {"basic": {"username": "u", "password": "p"}}})
        );
        assert_eq!(
            auth(WebhookAuth { auth_bearer_file: file("token", "t"), ..WebhookAuth::default() }),
            json!({"auth": {"bearer": {"token": "t"}}})
        );
        assert_eq!(
            auth(WebhookAuth {
                auth_oauth2_url: Some("https://id.example/token".parse().unwrap()),
                auth_oauth2_client: Some("c".into()),
                auth_oauth2_secret_file: file("secret", "s"),
                auth_tls_ca_file: file("ca", "-----BEGIN CERTIFICATE-----"),
                ..WebhookAuth::default()
            }),
            json!({
                "auth": {"oauth2": {"token_url": "https://id.example/token", "client_id": "c", "client_secret": "s"}},
                "tls": {"ca_pem": "-----BEGIN CERTIFICATE-----\n"},
            })
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
