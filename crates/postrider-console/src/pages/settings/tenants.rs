//! Tenants: owners of webhooks and events.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{Ask, Problem, asks, is_of_form};
use crate::Console;
use crate::api::{Listed, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page_with};
use crate::words::{Html, escaped, when};

/// The pages of tenants.
pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/settings/tenants", get(list).post(create))
        .route("/settings/tenants/{id}/delete", get(ask_to_delete).post(delete))
}

/// The tenant that is there for those who name none.
const DEFAULT: &str = "default";

#[derive(Debug, Deserialize)]
struct Tenant {
    id: String,
    created_at: String,
}

struct Row {
    id: String,
    created: Html,
    can_go: bool,
    is_shown: bool,
}

#[derive(Template)]
#[template(path = "tenants.html")]
struct TenantsPage {
    shell: Shell,
    rows: Vec<Row>,
    next: Option<String>,
    first: Option<String>,
    name: String,
    problem: Option<Problem>,
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit, "", None).await;
    visit.or_refused(Part::Settings, made)
}

async fn listed(visit: &Visit, typed: &str, problem: Option<Problem>) -> Answer {
    let query = visit.query();
    let found: Listed<Tenant> = visit.api.get("/v1/tenants", &[("cursor", query.get("cursor"))]).await?;
    let mut shell = visit.shell(Part::Settings, "Tenants");
    shell.command = "postrider tenant list".to_owned();
    shell.live = false;
    let shown = if shell.tenant.is_empty() { DEFAULT.to_owned() } else { shell.tenant.clone() };
    let row = |tenant: Tenant| Row {
        created: when(&tenant.created_at, visit.now),
        can_go: tenant.id != DEFAULT,
        is_shown: tenant.id == shown,
        id: tenant.id,
    };
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let template = TenantsPage {
        shell,
        rows: found.items.into_iter().map(row).collect(),
        next: found
            .next
            .map(|next| format!("/settings/tenants{}", Fields::default().with(&[("cursor", &next)]))),
        first: query.has("cursor").then(|| "/settings/tenants".to_owned()),
        name: typed.to_owned(),
        problem,
    };
    page_with(status, &template)
}

async fn create(Sent { visit, fields }: Sent) -> Response {
    let made = created(&visit, fields.get("id")).await;
    visit.or_refused(Part::Settings, made)
}

async fn created(visit: &Visit, id: &str) -> Answer {
    match visit.api.send::<IgnoredAny>(Method::POST, "/v1/tenants", Some(&json!({ "id": id }))).await {
        Ok(_) => Ok(visit.done(
            "/settings/tenants",
            &format!("Created: {id}. Its events come with the routing key {id}."),
        )),
        Err(refused) if is_of_form(&refused) => listed(visit, id, Some(Problem::of(&refused))).await,
        Err(refused) => Err(refused.into()),
    }
}

async fn ask_to_delete(visit: Visit, Path(id): Path<String>) -> Response {
    let made = asked_to_delete(&visit, &id, None).await;
    visit.or_refused(Part::Settings, made)
}

async fn asked_to_delete(visit: &Visit, id: &str, problem: Option<String>) -> Answer {
    let tenant: Tenant = visit.api.get(&format!("/v1/tenants/{}", segment(id)), &[]).await?;
    asks(
        visit,
        Ask {
            heading: format!("Delete {}?", tenant.id),
            facts: vec![
                ("Tenant", Html(format!("<code>{}</code>", escaped(&tenant.id)))),
                ("Made", when(&tenant.created_at, visit.now)),
            ],
            follows: "Its API keys are revoked, and events for it are refused from then on. Its events and deliveries stay in the books. A \
                      tenant that has webhooks or pending reminders is not deleted.",
            action: format!("/settings/tenants/{}/delete", segment(&tenant.id)),
            button: "Delete the tenant".to_owned(),
            back: ("/settings/tenants", "Keep it"),
            typed: tenant.id,
            problem,
        },
    )
}

async fn delete(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = deleted(&visit, &id, fields.get("typed")).await;
    visit.or_refused(Part::Settings, made)
}

async fn deleted(visit: &Visit, id: &str, typed: &str) -> Answer {
    if typed != id {
        let problem = format!("The name that was typed is not {id}: nothing was deleted.");
        return asked_to_delete(visit, id, Some(problem)).await;
    }
    match visit.api.send::<IgnoredAny>(Method::DELETE, &format!("/v1/tenants/{}", segment(id)), None).await {
        Ok(_) => {
            if visit.session.tenant.as_deref() == Some(id) {
                visit.sessions().choose_tenant(&visit.id, None);
            }
            Ok(visit.done("/settings/tenants", &format!("Deleted: {id}. Its keys open nothing any more.")))
        }
        Err(refused) => visit.not_done("/settings/tenants", &refused),
    }
}
