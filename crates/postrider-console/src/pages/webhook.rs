//! One webhook: how it does, its deliveries, trying it, asking it, sending again what it missed, and its settings.

mod explain;
mod overview;
mod received;
mod recover;
mod secret;
mod settings;
mod shape;
mod snippets;
mod trial;
mod turn;

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};

use crate::Console;
use crate::api::{Refused, segment};
use crate::page::{Answer, Part, Shell, Visit};

pub(crate) use self::secret::{Told, show_secret};
pub(crate) use self::shape::{MASK, Webhook};

/// Its pages, and what is done there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/webhooks/{id}", get(show))
        .route("/webhooks/{id}/test", post(trial::send))
        .route("/webhooks/{id}/explain", post(explain::ask))
        .route("/webhooks/{id}/recover", post(recover::plan))
        .route("/webhooks/{id}/rotate", post(secret::rotate))
        .route("/webhooks/{id}/secret", post(secret::reveal))
        .route("/webhooks/{id}/turn", get(turn::ask).post(turn::turn))
}

/// The parts of the page, with what they are called.
const TABS: [(&str, &str); 6] = [
    ("overview", "Overview"),
    ("deliveries", "Deliveries"),
    ("test", "Test"),
    ("explain", "Explain"),
    ("recover", "Recover"),
    ("settings", "Settings"),
];

/// A link to a part of the page.
pub(crate) struct Tab {
    pub(crate) name: &'static str,
    pub(crate) link: String,
    pub(crate) chosen: bool,
}

/// A webhook, as the API knows it.
pub(crate) async fn read(visit: &Visit, id: &str) -> Result<Webhook, Refused> {
    visit.api.get(&format!("/v1/webhooks/{}", segment(id)), &[]).await
}

/// Where a part of the page is.
fn link(id: &str, tab: &str) -> String {
    format!("/webhooks/{}?tab={tab}", segment(id))
}

fn tabs(webhook: &Webhook, chosen: &str) -> Vec<Tab> {
    let tab = |(value, name): &(&str, &'static str)| Tab {
        name,
        link: link(&webhook.id, value),
        chosen: *value == chosen,
    };
    TABS.iter().map(tab).collect()
}

/// What is around a part of the page. Only what nobody types into refreshes itself.
fn shell(visit: &Visit, webhook: &Webhook, live: bool) -> Shell {
    let mut shell = visit.shell(Part::Webhooks, webhook.name.clone());
    shell.command = format!("postrider webhook get {}", webhook.id);
    shell.live = live;
    shell
}

async fn show(visit: Visit, Path(id): Path<String>) -> Response {
    let made = shown(&visit, &id).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn shown(visit: &Visit, id: &str) -> Answer {
    let webhook = read(visit, id).await?;
    let query = visit.query();
    match query.get("tab") {
        "deliveries" => received::show(visit, webhook).await,
        "test" => trial::show(visit, webhook, &query).await,
        "explain" => explain::show(visit, webhook, &query).await,
        "recover" => recover::show(visit, webhook),
        "settings" => settings::show(visit, webhook),
        _ => overview::show(visit, webhook, &query).await,
    }
}
