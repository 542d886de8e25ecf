//! Webhooks: the list of receivers, and how they do.

mod selected;

use std::collections::HashMap;

use askama::Template;
use axum::Router;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use postrider_core::Timestamp;
use serde::Deserialize;

use super::webhook::Webhook;
use crate::Console;
use crate::api::Listed;
use crate::chart::pulse;
use crate::fields::Fields;
use crate::page::{Answer, Part, Shell, Visit, page};
use crate::words::{Html, duration, number, percent, when_if};

/// The page of webhooks, also under the name that cidaas gives it.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/webhooks", get(list))
        .route("/webhooks/selected", post(selected::turn))
        .route("/settings/webhooks", get(|| async { Redirect::to("/webhooks").into_response() }))
}

/// States that are listed apart, with what they are called.
const STATES: [(&str, &str); 4] =
    [("", "All"), ("active", "Active"), ("paused", "Paused"), ("disabled", "Disabled")];

/// What a filter can be, with how the API calls it.
const FILTERS: [(&str, &str); 6] = [
    ("state", "state"),
    ("failing", "failing"),
    ("name", "name has"),
    ("url", "URL has"),
    ("event_type", "takes"),
    ("profile", "profile"),
];

/// Those that tabs are of.
const OF_TABS: [&str; 2] = ["state", "failing"];

/// How each webhook did in the last day.
#[derive(Debug, Deserialize)]
struct Sparks {
    items: Vec<Spark>,
}

#[derive(Debug, Deserialize)]
struct Spark {
    webhook: String,
    delivered: u64,
    failed: u64,
    #[serde(default)]
    p95_ms: Option<u64>,
    #[serde(default)]
    last_at: Option<String>,
    #[serde(default)]
    points: Vec<SparkPoint>,
}

#[derive(Debug, Deserialize)]
struct SparkPoint {
    delivered: u64,
    failed: u64,
}

/// A row of the list.
struct Row {
    webhook: Webhook,
    pulse: Option<Html>,
    success: String,
    /// How long nearly all attempts took.
    p95: String,
    last: Html,
}

/// A tab or a chip.
struct Choice {
    name: String,
    link: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    shell: Shell,
    rows: Vec<Row>,
    tabs: Vec<Choice>,
    chips: Vec<Choice>,
    fields: Fields,
    older: Option<String>,
    newest: Option<String>,
    filtered: bool,
    /// This list, for the form that pauses and resumes.
    here: String,
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn listed(visit: &Visit) -> Answer {
    let fields = visit.query();
    let asked = asked(&fields);
    let mut query: Vec<(&str, &str)> = asked.clone();
    query.push(("cursor", fields.get("cursor")));
    let found: Listed<Webhook> = visit.api.get("/v1/webhooks", &query).await?;
    let sparks = sparks(visit, &found.items).await;
    let choice = |name: String, field: &str, value: &str| Choice {
        chosen: fields.get(field) == value,
        link: format!("/webhooks{}", fields.with(&[(field, value), ("cursor", "")])),
        name,
    };
    let chips = FILTERS.iter().filter(|(name, _)| !OF_TABS.contains(name) && fields.has(name));
    let chips =
        chips.map(|(name, words)| choice(format!("{words}: {}", fields.get(name)), name, "")).collect();
    let rows = found.items.into_iter().map(|webhook| row(webhook, &sparks, visit.now)).collect();
    let mut shell = visit.shell(Part::Webhooks, "Webhooks");
    shell.command = command(&asked);
    let filtered = !asked.is_empty();
    let tabs = tabs(&fields);
    page(&WebhooksPage {
        here: format!("/webhooks{}", fields.with(&[])),
        older: found.next.map(|next| format!("/webhooks{}", fields.with(&[("cursor", &next)]))),
        newest: fields.has("cursor").then(|| format!("/webhooks{}", fields.with(&[("cursor", "")]))),
        shell,
        rows,
        tabs,
        chips,
        fields,
        filtered,
    })
}

/// All of them, those in each state, and those that fail, whatever their state is.
fn tabs(fields: &Fields) -> Vec<Choice> {
    let tab = |name: &str, state: &str, failing: &str| Choice {
        name: name.to_owned(),
        link: format!("/webhooks{}", fields.with(&[("state", state), ("failing", failing), ("cursor", "")])),
        chosen: (fields.get("state"), fields.get("failing")) == (state, failing),
    };
    let states = STATES.iter().map(|(state, name)| tab(name, state, ""));
    states.chain([tab("Failing", "", "true")]).collect()
}

/// What the API is asked for: the filters of the address.
fn asked(fields: &Fields) -> Vec<(&'static str, &str)> {
    FILTERS.iter().filter(|(name, _)| fields.has(name)).map(|(name, _)| (*name, fields.get(name))).collect()
}

/// The same with the command line.
fn command(asked: &[(&str, &str)]) -> String {
    let options: Vec<String> = asked
        .iter()
        .map(|(name, value)| match *name {
            "failing" => " --failing".to_owned(),
            name => format!(" --{} '{}'", name.replace('_', "-"), value.replace('\'', "")),
        })
        .collect();
    format!("postrider webhook list{}", options.concat())
}

/// How these webhooks did, by id. Without the numbers the page says less, so nothing fails for that.
async fn sparks(visit: &Visit, webhooks: &[Webhook]) -> HashMap<String, Spark> {
    if webhooks.is_empty() {
        return HashMap::new();
    }
    let ids: Vec<&str> = webhooks.iter().map(|webhook| webhook.id.as_str()).collect();
    let found = visit.api.get::<Sparks>("/v1/stats/webhooks", &[("webhook", &ids.join(","))]).await;
    let items = found.map(|found| found.items).unwrap_or_default();
    items.into_iter().map(|spark| (spark.webhook.clone(), spark)).collect()
}

fn row(webhook: Webhook, sparks: &HashMap<String, Spark>, now: Timestamp) -> Row {
    let Some(spark) = sparks.get(&webhook.id) else {
        let dash = || "–".to_owned();
        return Row { webhook, pulse: None, success: dash(), p95: dash(), last: when_if(None, now) };
    };
    let points: Vec<(u64, u64)> = spark.points.iter().map(|point| (point.delivered, point.failed)).collect();
    let told =
        format!("Last 24 hours: {} delivered, {} failed", number(spark.delivered), number(spark.failed));
    let success = percent(spark.delivered, spark.delivered.saturating_add(spark.failed));
    Row {
        pulse: Some(pulse(&told, &points)),
        success: success.map_or_else(|| "–".to_owned(), |success| format!("{success} %")),
        p95: spark.p95_ms.map_or_else(|| "–".to_owned(), duration),
        last: when_if(spark.last_at.as_deref(), now),
        webhook,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_what_the_api_is_asked() {
        let fields = Fields::parse(b"state=paused&url=example.com&cursor=x&name=Bill&other=n&event_type=");
        assert_eq!(asked(&fields), [("state", "paused"), ("name", "Bill"), ("url", "example.com")]);
        assert_eq!(
            command(&asked(&fields)),
            "postrider webhook list --state 'paused' --name 'Bill' --url 'example.com'"
        );
    }

    #[test]
    fn those_that_fail_are_a_tab_of_their_own() {
        let fields = Fields::parse(b"failing=true&name=Bill&cursor=x");
        let chosen = |tabs: &[Choice]| tabs.iter().find(|tab| tab.chosen).map(|tab| tab.name.clone());
        let all = tabs(&fields);
        assert_eq!(chosen(&all).as_deref(), Some("Failing"));
        assert_eq!(all[1].link, "/webhooks?name=Bill&state=active");
        assert_eq!(all[4].link, "/webhooks?name=Bill&failing=true");
        assert_eq!(chosen(&tabs(&Fields::default())).as_deref(), Some("All"));
        assert_eq!(command(&asked(&fields)), "postrider webhook list --failing --name 'Bill'");
    }

    #[test]
    fn a_webhook_of_which_nothing_is_known_has_a_dash() {
        let now = Timestamp::from_millis(0);
        let webhook = |id: &str| Webhook { id: id.to_owned(), ..Webhook::default() };
        let spark: Spark =
            serde_json::from_value(serde_json::json!({"webhook": "wh_1", "delivered": 3, "failed": 1,
            "p95_ms": 20, "points": [{"delivered": 3, "failed": 1}]}))
            .unwrap();
        let sparks = HashMap::from([("wh_1".to_owned(), spark)]);
        let known = row(webhook("wh_1"), &sparks, now);
        assert_eq!((known.success.as_str(), known.p95.as_str()), ("75 %", "20 ms"));
        assert!(known.pulse.unwrap().0.contains("3 delivered, 1 failed"));
        let unknown = row(webhook("wh_2"), &sparks, now);
        assert!(
            unknown.pulse.is_none() && unknown.success == "–" && unknown.p95 == "–" && unknown.last.0 == "–"
        );
    }
}
