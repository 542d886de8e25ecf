//! Creating and changing a webhook: the form that cidaas calls "Create webhook", and everything else behind "Advanced".

mod picker;
mod preview;
mod spans;
mod typed;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use http::{Method, StatusCode};
use postrider_core::RetryPolicy;
use postrider_core::wire::RetryRecord;
use serde_json::Value;

use self::picker::{Known, ProfileChoice, Rule, Section};
use self::typed::{body_of, defaults, fields_of, input_of, names_of, patch_of};
use super::webhook::{self, Told, Webhook};
use crate::Console;
use crate::api::{Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page_with};

pub(crate) use self::picker::{catalogues, profile_of};
pub(crate) use self::preview::in_words;
pub(crate) use self::typed::Wrong;

/// Inputs whose values are secret: they are never sent back to the browser.
const SECRETS: [&str; 5] = ["api_key", "auth_password", "auth_token", "oauth2_client_secret", "tls_key"];

/// The forms.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/webhooks/new", get(show_new).post(create))
        .route("/webhooks/{id}/edit", get(show_edit).post(save))
}

#[derive(Template)]
#[template(path = "webhook_form.html")]
struct FormPage {
    shell: Shell,
    /// The webhook that is changed; nothing where one is made.
    id: Option<String>,
    heading: String,
    action: String,
    back: String,
    button: &'static str,
    fields: Fields,
    wrong: Wrong,
    /// Secrets were typed, and have to be typed again.
    secrets_gone: bool,
    key_kept: bool,
    sections: Vec<Section>,
    no_catalogue: bool,
    unread: Option<String>,
    cut: bool,
    known: usize,
    chosen: usize,
    other_types: String,
    rules: Vec<Rule>,
    profiles: Vec<ProfileChoice>,
    preview: String,
    advanced: bool,
}

impl FormPage {
    fn is(&self, name: &str, value: &str) -> bool {
        self.fields.get(name) == value
    }

    fn value(&self, name: &str) -> &str {
        self.fields.get(name)
    }
}

/// A form as it is to be shown.
struct Form<'a> {
    fields: &'a Fields,
    before: Option<&'a Webhook>,
    wrong: Wrong,
    status: StatusCode,
    /// The preview of the retries was asked for.
    previewed: bool,
}

async fn show_new(visit: Visit) -> Response {
    let fields = defaults(&visit.query());
    let form = Form {
        fields: &fields,
        before: None,
        wrong: Wrong::default(),
        status: StatusCode::OK,
        previewed: false,
    };
    let made = shown(&visit, form).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn show_edit(visit: Visit, Path(id): Path<String>) -> Response {
    let made = edited(&visit, &id).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn edited(visit: &Visit, id: &str) -> Answer {
    let before = webhook::read(visit, id).await?;
    let fields = fields_of(&before);
    let (wrong, status) = (Wrong::default(), StatusCode::OK);
    shown(visit, Form { fields: &fields, before: Some(&before), wrong, status, previewed: false }).await
}

async fn shown(visit: &Visit, form: Form<'_>) -> Answer {
    let known = Known::read(visit).await?;
    let Form { fields, before, mut wrong, mut status, previewed } = form;
    let names = names_of(fields);
    let preview = match preview_of(&known, fields) {
        Ok(text) => text,
        Err(found) => {
            if previewed && !wrong.is_any() {
                (wrong, status) = (found, StatusCode::UNPROCESSABLE_ENTITY);
            }
            String::new()
        }
    };
    let (categories, groups) = (fields.all("category").collect(), fields.all("group").collect());
    let heading =
        before.map_or_else(|| "Create webhook".to_owned(), |before| format!("Edit {}", before.name));
    let mut shell = visit.shell(Part::Webhooks, heading.clone());
    // What is being typed stays.
    shell.live = false;
    let sections = known.sections(&names);
    let form = FormPage {
        shell,
        action: before.map_or_else(
            || "/webhooks/new".to_owned(),
            |before| format!("/webhooks/{}/edit", segment(&before.id)),
        ),
        back: before.map_or_else(
            || "/webhooks".to_owned(),
            |before| format!("/webhooks/{}?tab=settings", segment(&before.id)),
        ),
        button: if before.is_some() { "Save" } else { "Create" },
        id: before.map(|before| before.id.clone()),
        heading,
        secrets_gone: SECRETS.iter().any(|name| fields.has(name)),
        key_kept: before.is_some_and(|before| before.api_key.is_some()),
        no_catalogue: known.is_empty(),
        cut: known.cut,
        known: known.count(),
        chosen: sections.iter().map(|section| section.chosen).sum(),
        sections,
        other_types: known.others(&names).join("\n"),
        rules: known.rules(&categories, &groups),
        profiles: known.profiles(profile_name(fields)),
        preview,
        advanced: previewed || wrong.is_advanced(),
        unread: known.unread,
        fields: fields.clone(),
        wrong,
    };
    page_with(status, &form)
}

fn profile_name(fields: &Fields) -> &str {
    if fields.has("profile") { fields.get("profile") } else { "postrider" }
}

/// What the retries mean that were typed; nothing where nobody knows the profile.
fn preview_of(known: &Known, fields: &Fields) -> Result<String, Wrong> {
    let own = serde_json::from_value::<RetryRecord>(Value::Object(typed::retry(fields)?));
    let own = own.map_err(|_| Wrong::at("retry_schedule", "These retries cannot be read."))?;
    let Some(profile) = known.profile(profile_name(fields)) else { return Ok(String::new()) };
    let policy = RetryPolicy::new(profile.retry_spec(&own)).map_err(|bad| {
        let text = bad.to_string();
        Wrong::at(input_of(text.split(' ').next().unwrap_or_default()), format!("{text}."))
    })?;
    Ok(in_words(&policy))
}

/// The same form again, with what is wrong.
async fn again(visit: &Visit, fields: &Fields, before: Option<&Webhook>, refused: Refused) -> Answer {
    if refused.is_logged_out() {
        return Err(refused.into());
    }
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    shown(visit, Form { fields, before, wrong: Wrong::from(&refused), status, previewed: false }).await
}

/// The same form again: it was only looked at, or what was typed cannot be read.
async fn looked_at(visit: &Visit, fields: &Fields, before: Option<&Webhook>, wrong: Wrong) -> Answer {
    let status = if wrong.is_any() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let previewed = fields.has("preview");
    shown(visit, Form { fields, before, wrong, status, previewed }).await
}

async fn create(Sent { visit, fields }: Sent) -> Response {
    let made = created(&visit, &fields).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn created(visit: &Visit, fields: &Fields) -> Answer {
    if fields.has("preview") {
        return looked_at(visit, fields, None, Wrong::default()).await;
    }
    let body = match body_of(fields, None) {
        Ok(body) => Value::Object(body),
        Err(wrong) => return looked_at(visit, fields, None, wrong).await,
    };
    match visit.api.make_once::<Webhook>("/v1/webhooks", &body, fields).await {
        Ok(webhook) => webhook::show_secret(visit, webhook, Told::Created).await,
        Err(refused) => again(visit, fields, None, refused).await,
    }
}

async fn save(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = saved(&visit, &id, &fields).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn saved(visit: &Visit, id: &str, fields: &Fields) -> Answer {
    let before = webhook::read(visit, id).await?;
    if fields.has("preview") {
        return looked_at(visit, fields, Some(&before), Wrong::default()).await;
    }
    let patch = match patch_of(fields, &before) {
        Ok(patch) => patch,
        Err(wrong) => return looked_at(visit, fields, Some(&before), wrong).await,
    };
    let here = format!("/webhooks/{}?tab=settings", segment(id));
    if patch.is_empty() {
        return Ok(visit.done(&here, "Nothing was changed."));
    }
    let path = format!("/v1/webhooks/{}", segment(id));
    match visit.api.send::<Webhook>(Method::PATCH, &path, Some(&Value::Object(patch))).await {
        Ok(webhook) if webhook.secret.is_some() => webhook::show_secret(visit, webhook, Told::Remade).await,
        Ok(webhook) => Ok(visit.done(&here, &saved_text(&webhook))),
        Err(refused) => again(visit, fields, Some(&before), refused).await,
    }
}

fn saved_text(webhook: &Webhook) -> String {
    let text = "Saved. It counts from the next attempt on, also for deliveries that are under way.";
    match webhook.warnings.as_slice() {
        [] => text.to_owned(),
        warnings => format!("{text} {}", warnings.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preview_is_that_of_the_profile_with_what_was_typed() {
        let known = Known::default();
        let preview = |text: &str| preview_of(&known, &Fields::parse(text.as_bytes()));
        assert!(preview("").unwrap().starts_with("12 attempts over 2 d 7 h"));
        assert!(preview("profile=standard").unwrap().contains("5 s, 5 min, 30 min, 2 h"));
        let own =
            preview("profile=standard&retry_initial=1+s&retry_factor=2&retry_max_attempts=3&retry_jitter=0");
        assert_eq!(own.unwrap(), "3 attempts over 3 s: at once, then after 1 s, 2 s.");
        let wrong = preview("retry_max_attempts=1000").unwrap_err();
        assert_eq!(wrong.input, "retry_max_attempts");
        assert_eq!(preview("profile=unknown").unwrap(), "");
    }
}
