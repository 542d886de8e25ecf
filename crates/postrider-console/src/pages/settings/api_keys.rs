//! API keys: who else may use the API and the console, and for what.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use http::{Method, StatusCode};
use postrider_core::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Ask, Problem, asks, is_of_form};
use crate::Console;
use crate::api::{Listed, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page, page_with};
use crate::words::{Html, escaped, state, when};

/// The pages of API keys.
pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/settings/api-keys", get(list).post(create))
        .route("/settings/api-keys/{id}/revoke", get(ask_to_revoke).post(revoke))
}

/// What a key can be for, with what that is.
const SCOPES: [(&str, &str); 5] = [
    ("read", "Look at everything but secrets. This console needs it."),
    ("manage", "Webhooks and their secrets, catalogues, settings; calling off and resolving."),
    ("replay", "Make deliveries again."),
    ("events:write", "Publish events and write reminders: for upstream services."),
    ("admin", "Everything, for every tenant; also tenants, keys, queues and the books."),
];
/// How long a key can live: days, and what that is called.
const LIVES: [(&str, &str); 6] = [
    ("1", "1 day"),
    ("7", "7 days"),
    ("30", "30 days"),
    ("90", "90 days"),
    ("365", "1 year"),
    ("", "Never ends"),
];
/// How long a key lives unless somebody chooses.
const USUAL_LIFE: &str = "90";
const DAY_MS: u64 = 24 * 3_600_000;

#[derive(Debug, Deserialize)]
struct Key {
    id: String,
    name: String,
    tenant: Option<String>,
    scopes: Vec<String>,
    state: String,
    hint: String,
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    /// The key itself, in the answer that makes it.
    key: Option<String>,
}

impl Key {
    fn mark(&self) -> Html {
        match self.state.as_str() {
            "active" => state("ok", "Active"),
            "revoked" => state("off", "Revoked"),
            "expired" => state("off", "Expired"),
            other => state("still", other),
        }
    }

    fn is_active(&self) -> bool {
        self.state == "active"
    }
}

struct Row {
    key: Key,
    scopes: String,
    whose: String,
    created: Html,
    used: Html,
    expires: Html,
}

impl Row {
    fn new(key: Key, now: Timestamp) -> Self {
        Self {
            scopes: key.scopes.join(", "),
            whose: key.tenant.clone().unwrap_or_else(|| "every tenant".to_owned()),
            created: when(&key.created_at, now),
            used: key.last_used_at.as_deref().map_or_else(|| Html("never".to_owned()), |at| when(at, now)),
            expires: key.expires_at.as_deref().map_or_else(|| Html("never".to_owned()), |at| when(at, now)),
            key,
        }
    }
}

/// Something to tick or to choose.
struct Choice {
    value: &'static str,
    text: &'static str,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "api_keys.html")]
struct KeysPage {
    shell: Shell,
    rows: Vec<Row>,
    older: Option<String>,
    newest: Option<String>,
    name: String,
    tenant: String,
    scopes: Vec<Choice>,
    lives: Vec<Choice>,
    problem: Option<Problem>,
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit, &Fields::parse(b"scopes=read&life=90"), None).await;
    visit.or_refused(Part::Settings, made)
}

/// The list with the form below it, filled in with these fields.
async fn listed(visit: &Visit, typed: &Fields, problem: Option<Problem>) -> Answer {
    let query = visit.query();
    let found: Listed<Key> = visit.api.get("/v1/api-keys", &[("cursor", query.get("cursor"))]).await?;
    let mut shell = visit.shell(Part::Settings, "API keys");
    shell.command = "postrider api-keys list".to_owned();
    shell.live = false;
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let template = KeysPage {
        shell,
        rows: found.items.into_iter().map(|key| Row::new(key, visit.now)).collect(),
        older: found
            .next
            .map(|next| format!("/settings/api-keys{}", Fields::default().with(&[("cursor", &next)]))),
        newest: query.has("cursor").then(|| "/settings/api-keys".to_owned()),
        name: typed.get("name").to_owned(),
        tenant: typed.get("tenant").to_owned(),
        scopes: SCOPES
            .iter()
            .map(|(value, text)| Choice { value, text, chosen: typed.all("scopes").any(|one| one == *value) })
            .collect(),
        lives: LIVES
            .iter()
            .map(|(value, text)| Choice { value, text, chosen: typed.get("life") == *value })
            .collect(),
        problem,
    };
    page_with(status, &template)
}

/// When the form was shown, as it says itself: its key lives from then on, so that the same form sent again asks for the same key. One
/// that is older than a day is not believed.
fn shown_at(fields: &Fields, now: Timestamp) -> Timestamp {
    let told = Timestamp::parse_rfc3339(fields.get("shown_at"));
    told.filter(|at| *at <= now && now.since_ms(*at) < DAY_MS).unwrap_or(now)
}

/// The body that makes the key of a form.
fn key_of(fields: &Fields, now: Timestamp) -> Value {
    let scopes: Vec<&str> = fields.all("scopes").collect();
    let mut body = json!({ "name": fields.get("name"), "scopes": scopes });
    if fields.has("tenant") {
        body["tenant"] = fields.get("tenant").into();
    }
    // A life that is none of ours is the usual one, and not for ever.
    let life = fields.get("life");
    let known = LIVES.iter().any(|(days, _)| *days == life);
    let life = if known { life } else { USUAL_LIFE };
    if let Ok(days) = life.parse::<u64>() {
        body["expires_at"] = shown_at(fields, now).plus_ms(days * DAY_MS).to_rfc3339().into();
    }
    body
}

#[derive(Template)]
#[template(path = "api_key.html")]
struct FreshKeyPage {
    shell: Shell,
    row: Row,
    /// Empty if this answer was given before: then it is kept nowhere any more.
    secret: String,
}

async fn create(Sent { visit, fields }: Sent) -> Response {
    let made = created(&visit, &fields).await;
    visit.or_refused(Part::Settings, made)
}

/// Makes a key, and shows it in this answer alone: no address, no cookie and no later page has it.
async fn created(visit: &Visit, fields: &Fields) -> Answer {
    let body = key_of(fields, visit.now);
    let mut key: Key = match visit.api.make_once("/v1/api-keys", &body, fields).await {
        Ok(key) => key,
        Err(refused) if is_of_form(&refused) => {
            return listed(visit, fields, Some(Problem::of(&refused))).await;
        }
        Err(refused) => return Err(refused.into()),
    };
    let mut shell = visit.shell(Part::Settings, "A new API key");
    shell.live = false;
    let secret = key.key.take().unwrap_or_default();
    page(&FreshKeyPage { shell, secret, row: Row::new(key, visit.now) })
}

async fn ask_to_revoke(visit: Visit, Path(id): Path<String>) -> Response {
    let made = asked_to_revoke(&visit, &id).await;
    visit.or_refused(Part::Settings, made)
}

async fn asked_to_revoke(visit: &Visit, id: &str) -> Answer {
    let key: Key = visit.api.get(&format!("/v1/api-keys/{}", segment(id)), &[]).await?;
    let row = Row::new(key, visit.now);
    asks(
        visit,
        Ask {
            heading: format!("Revoke {}?", row.key.name),
            facts: vec![
                ("Key", Html(format!("<code>{}</code>", escaped(&row.key.hint)))),
                ("For", Html(escaped(&row.scopes))),
                ("Tenant", Html(escaped(&row.whose))),
                ("Last used", row.used),
            ],
            follows: "It opens nothing from then on, for whoever has it; this cannot be undone. Make another key first if something still \
                      uses this one.",
            action: format!("/settings/api-keys/{}/revoke", segment(id)),
            button: "Revoke the key".to_owned(),
            back: ("/settings/api-keys", "Keep it"),
            typed: String::new(),
            problem: None,
        },
    )
}

async fn revoke(Path(id): Path<String>, Sent { visit, .. }: Sent) -> Response {
    let here = "/settings/api-keys";
    let made = match visit
        .api
        .send::<IgnoredAny>(Method::DELETE, &format!("/v1/api-keys/{}", segment(&id)), None)
        .await
    {
        Ok(_) => Ok(visit.done(here, "Revoked: it opens nothing any more.")),
        Err(refused) => visit.not_done(here, &refused),
    };
    visit.or_refused(Part::Settings, made)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Json;

    use super::*;
    use crate::stage::Stage;

    fn now() -> Timestamp {
        Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap()
    }

    #[test]
    fn a_form_becomes_a_key_for_what_was_ticked() {
        let fields = Fields::parse(b"name=ci&scopes=read&scopes=replay&tenant=acme&life=30");
        assert_eq!(
            key_of(&fields, now()),
            json!({ "name": "ci", "scopes": ["read", "replay"], "tenant": "acme", "expires_at": "2026-12-22T20:00:00Z" })
        );
        let fields = Fields::parse(b"name=ci&scopes=admin&tenant=&life=");
        assert_eq!(
            key_of(&fields, now()),
            json!({ "name": "ci", "scopes": ["admin"] }),
            "for ever, for every tenant"
        );
    }

    #[test]
    fn the_same_form_asks_for_the_same_key() {
        let ends = |shown_at: &str, now: Timestamp| {
            let fields = Fields::parse(format!("name=ci&scopes=read&life=1&shown_at={shown_at}").as_bytes());
            key_of(&fields, now)["expires_at"].as_str().unwrap().to_owned()
        };
        for later in [0, 5_000, DAY_MS - 1] {
            assert_eq!(ends("2026-11-22T20:00:00Z", now().plus_ms(later)), "2026-11-23T20:00:00Z", "{later}");
        }
        assert_eq!(ends("2020-01-01T00:00:00Z", now()), "2026-11-23T20:00:00Z", "too old");
        assert_eq!(ends("2099-01-01T00:00:00Z", now()), "2026-11-23T20:00:00Z", "not yet");
        assert_eq!(ends("oops", now()), "2026-11-23T20:00:00Z");
    }

    #[tokio::test]
    async fn a_key_is_made_once_for_each_form() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let made = {
            let asked = asked.clone();
            move |headers: http::HeaderMap| async move {
                let key = headers["idempotency-key"].to_str().unwrap().to_owned();
                let mut asked = asked.lock().unwrap();
                let mut answer = json!({ "id": "key_1", "name": "ci", "tenant": "default", "scopes": ["read"], "state": "active",
                    "hint": "…abcd", "created_at": "2026-11-22T20:00:00Z", "expires_at": null, "last_used_at": null });
                if !asked.contains(&key) {
                    answer["key"] = "ptr_secret".into();
                }
                asked.push(key);
                Json(answer)
            }
        };
        let listed = || async { Json(json!({ "items": [], "next": null })) };
        let stage = Stage::new(Router::new().route("/v1/api-keys", get(listed).post(made)));
        let (_, form) = stage.get("/settings/api-keys").await;
        let value = |name: &str| {
            let (_, rest) = form.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let fields = [
            ("name", "ci"),
            ("scopes", "read"),
            ("life", "90"),
            ("once", &value("once")),
            ("shown_at", &value("shown_at")),
        ];
        let (status, _, text) = stage.send("/settings/api-keys", &fields).await;
        assert!(status == 200 && text.contains("value=\"ptr_secret\""), "{text}");
        // The page that has it is loaded again, which sends the form again.
        let (status, _, text) = stage.send("/settings/api-keys", &fields).await;
        assert!(status == 200 && text.contains("was shown when it was made"), "{text}");
        assert!(!text.contains("Copy the key now"), "{text}");
        let keys = asked.lock().unwrap().clone();
        assert_eq!(keys[0], keys[1]);
        assert_ne!(
            stage.get("/settings/api-keys").await.1.split_once("name=\"once\"").unwrap().1[..60],
            form.split_once("name=\"once\"").unwrap().1[..60]
        );
    }

    #[test]
    fn a_life_that_was_not_offered_is_not_for_ever() {
        assert_eq!(key_of(&Fields::parse(b"life=oops"), now())["expires_at"], "2027-02-20T20:00:00Z");
    }
}
