//! Deliveries: the list that people live in, and what is done to all that match.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use http::Method;
use postrider_core::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::listing::{Choice, Filtered, RANGES, plan};
use crate::Console;
use crate::api::Listed;
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page};
use crate::words::{Html, delivery_state, shortened, when, when_if};

/// The page of deliveries, and what is asked for there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/deliveries", get(list))
        .route("/deliveries/redeliver", post(redeliver))
        .route("/deliveries/cancel", get(ask_to_cancel).post(cancel))
}

/// Where the list is.
const PATH: &str = "/deliveries";
/// States that are listed apart, with what they are called.
const STATES: [(&str, &str); 7] = [
    ("", "All"),
    ("pending", "Waiting"),
    ("held", "Held"),
    ("delivered", "Delivered"),
    ("dead", "Dead"),
    ("skipped", "Skipped"),
    ("cancelled", "Cancelled"),
];

/// What a filter can be, with how the API calls it.
const FILTERS: [&str; 7] = ["state", "webhook", "event", "event_type", "class", "status", "attempts_from"];

/// A delivery, as the API shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) message_id: String,
    pub(crate) webhook: String,
    pub(crate) event: String,
    pub(crate) event_type: String,
    pub(crate) series: u32,
    pub(crate) state: String,
    pub(crate) held: bool,
    pub(crate) cancelling: bool,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    pub(crate) next_at: Option<String>,
    pub(crate) last: Option<Last>,
    pub(crate) created_at: String,
}

/// The newest attempt.
#[derive(Debug, Deserialize)]
pub(crate) struct Last {
    pub(crate) class: String,
    pub(crate) status: Option<i64>,
    pub(crate) hint: String,
}

impl Delivery {
    /// Its state with a mark.
    pub(crate) fn mark(&self) -> Html {
        delivery_state(&self.state, self.held, self.cancelling, self.attempts)
    }

    /// What the receiver said last: a status, or why there was none.
    pub(crate) fn answer(&self) -> String {
        match &self.last {
            Some(Last { status: Some(status), .. }) => status.to_string(),
            Some(last) => last.class.replace('_', " "),
            None => self.reason.replace('_', " "),
        }
    }

    /// What to do about it, if something is to be done.
    pub(crate) fn advice(&self) -> &str {
        self.last.as_ref().filter(|last| last.class != "none").map_or("", |last| last.hint.as_str())
    }
}

/// A row of the list.
pub(crate) struct Row {
    pub(crate) delivery: Delivery,
    pub(crate) webhook_name: String,
    pub(crate) created: Html,
    pub(crate) next: Html,
    pub(crate) short_id: String,
}

impl Row {
    fn new(delivery: Delivery, names: &Names, now: Timestamp) -> Self {
        Self {
            webhook_name: names.of(&delivery.webhook),
            created: when(&delivery.created_at, now),
            next: if delivery.next_at.is_some() {
                when_if(delivery.next_at.as_deref(), now)
            } else {
                Html::default()
            },
            short_id: shortened(&delivery.id, 9),
            delivery,
        }
    }
}

/// A webhook's id and name.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// What webhooks are called: the first 200 of the tenant.
pub(crate) struct Names(pub(crate) Vec<Named>);

impl Names {
    /// Reads them. Without them ids are shown, so nothing fails for that.
    pub(crate) async fn read(visit: &Visit) -> Self {
        let listed = visit.api.get::<Listed<Named>>("/v1/webhooks", &[("limit", "200")]).await;
        Self(listed.map(|listed| listed.items).unwrap_or_default())
    }

    /// The name of a webhook; its id if that is all that is known.
    pub(crate) fn of(&self, id: &str) -> String {
        let named = self.0.iter().find(|webhook| webhook.id == id && !webhook.name.is_empty());
        named.map_or_else(|| shortened(id, 12), |webhook| webhook.name.clone())
    }
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage {
    shell: Shell,
    rows: Vec<Row>,
    tabs: Vec<Choice>,
    ranges: Vec<Choice>,
    webhooks: Vec<Choice>,
    fields: Fields,
    chips: Vec<Choice>,
    older: Option<String>,
    newest: Option<String>,
    filtered: bool,
}

/// What the API is asked for: the filters of the address.
fn asked(fields: &Fields, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut query: Vec<(&'static str, String)> = FILTERS
        .iter()
        .map(|name| (*name, fields.get(name).to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let range = Filtered { path: PATH, fields }.since(now);
    let is_ranged = range.is_some();
    query.extend(range.map(|since| ("since", since)));
    for name in ["since", "until"] {
        if fields.has(name) && !is_ranged {
            query.push((name, fields.get(name).to_owned()));
        }
    }
    query
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit).await;
    visit.or_refused(Part::Deliveries, made)
}

async fn listed(visit: &Visit) -> Answer {
    let fields = visit.query();
    let query = asked(&fields, visit.now);
    let mut pairs: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    pairs.push(("cursor", fields.get("cursor")));
    let found: Listed<Delivery> = visit.api.get("/v1/deliveries", &pairs).await?;
    let names = Names::read(visit).await;
    let filtered = !query.is_empty();
    let list = Filtered { path: PATH, fields: &fields };
    let (older, newest) = (list.older(found.next), list.newest());
    let rows = found.items.into_iter().map(|delivery| Row::new(delivery, &names, visit.now)).collect();
    let told = |name: &str, value: &str| if name == "webhook" { names.of(value) } else { value.to_owned() };
    let chips = query
        .iter()
        .filter(|(name, _)| !matches!(*name, "state" | "since" | "until"))
        .map(|(name, value)| list.chip(name, value, &told(name, value)))
        .collect();
    let mut shell = visit.shell(Part::Deliveries, "Deliveries");
    shell.command = command(&query);
    // A page of older ones does not change under its reader.
    shell.live = newest.is_none();
    page(&DeliveriesPage {
        tabs: STATES.iter().map(|(value, name)| list.choice(name, value, "state")).collect(),
        ranges: RANGES.iter().map(|(value, name, _)| list.choice(name, value, "range")).collect(),
        webhooks: names.0.iter().map(|named| list.choice(&named.name, &named.id, "webhook")).collect(),
        chips,
        shell,
        rows,
        fields,
        older,
        newest,
        filtered,
    })
}

/// The same with the command line.
fn command(query: &[(&str, String)]) -> String {
    let options: Vec<String> = query
        .iter()
        .map(|(name, value)| format!(" --{} '{}'", name.replace('_', "-"), value.replace('\'', "")))
        .collect();
    format!("postrider delivery list{}", options.concat())
}

/// Plans a replay of all that match; nothing is sent before somebody has seen how much that is.
async fn redeliver(Sent { visit, fields }: Sent) -> Response {
    let back = format!("{PATH}{}", fields.with(&[("csrf", "")]));
    let made = plan(&visit, &replay_of(&fields, visit.now), &back).await;
    visit.or_refused(Part::Deliveries, made)
}

/// The body that plans a replay of what the filters of a list match.
fn replay_of(fields: &Fields, now: Timestamp) -> Value {
    let mut body = serde_json::Map::new();
    let query = asked(fields, now);
    let value = |name: &str| query.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    for name in ["since", "until", "webhook"] {
        if let Some(value) = value(name) {
            body.insert(name.into(), value.into());
        }
    }
    for (name, member) in [("event_type", "event_types"), ("state", "states"), ("event", "events")] {
        if let Some(value) = value(name) {
            body.insert(member.into(), json!([value]));
        }
    }
    Value::Object(body)
}

/// How many a cancellation is about, as the API answers a plan.
#[derive(Debug, Deserialize)]
struct Affected {
    deliveries: u64,
    /// Those of them that are held.
    held: u64,
}

#[derive(Template)]
#[template(path = "cancel.html")]
struct CancelPage {
    shell: Shell,
    affected: Affected,
    fields: Fields,
    back: String,
}

/// What calling off would do, before it is done.
async fn ask_to_cancel(visit: Visit) -> Response {
    let made = planned_cancel(&visit).await;
    visit.or_refused(Part::Deliveries, made)
}

async fn planned_cancel(visit: &Visit) -> Answer {
    let fields = visit.query();
    let mut body = cancellation_of(&fields, visit.now);
    body.insert("plan".into(), true.into());
    let affected = visit.api.send(Method::POST, "/v1/cancellations", Some(&Value::Object(body))).await?;
    let mut shell = visit.shell(Part::Deliveries, "Cancel deliveries");
    shell.live = false;
    page(&CancelPage { shell, affected, back: format!("/deliveries{}", fields.with(&[])), fields })
}

/// The body that calls off what the filters of a list match and has not ended.
fn cancellation_of(fields: &Fields, now: Timestamp) -> serde_json::Map<String, Value> {
    let query = asked(fields, now);
    let kept =
        query.into_iter().filter(|(name, _)| matches!(*name, "webhook" | "event_type" | "since" | "until"));
    kept.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Calls off all that match and have not ended.
async fn cancel(Sent { visit, fields }: Sent) -> Response {
    let back = format!("/deliveries{}", fields.with(&[("csrf", "")]));
    let body = Value::Object(cancellation_of(&fields, visit.now));
    let made =
        match visit.api.send::<Value>(Method::POST, "/v1/cancellations", Some(&body)).await {
            Ok(_) => Ok(visit
                .done("/jobs", "Called off: what has not ended yet ends as cancelled when its turn comes.")),
            Err(refused) => visit.not_done(&back, &refused),
        };
    visit.or_refused(Part::Deliveries, made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_what_the_api_is_asked() {
        let now = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
        let fields =
            Fields::parse(b"state=dead&range=1h&webhook=&cursor=x&other=y&since=2020-01-01T00:00:00Z");
        assert_eq!(
            asked(&fields, now),
            [("state", "dead".to_owned()), ("since", "2026-11-22T19:00:00Z".to_owned())],
            "a range is more than a time"
        );
        assert_eq!(
            command(&asked(&fields, now)),
            "postrider delivery list --state 'dead' --since '2026-11-22T19:00:00Z'"
        );
    }
}
