//! Deliveries: the list that people live in, and what is done to all that match.

mod drawer;
mod over_time;
mod typed;

use askama::Template;
use axum::Router;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use http::{Method, StatusCode};
use postrider_core::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use self::drawer::Drawer;
use self::over_time::over_time;
use self::typed::Typed;
use super::listing::{Choice, Filtered, plan};
use crate::Console;
use crate::api::{Listed, Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page, page_with};
use crate::words::{Html, delivery_state, shortened, when, when_if};

/// The page of deliveries, and what is asked for there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/deliveries", get(list))
        .route("/deliveries/export", get(export))
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

/// Filters by the newest attempt: lists and exports know them, replays and cancellations do not.
const OF_ATTEMPTS: [&str; 3] = ["class", "status", "attempts_from"];

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
    /// The list with this delivery open beside it.
    pub(crate) opens: String,
    /// Whether it is.
    pub(crate) open: bool,
}

impl Row {
    fn new(delivery: Delivery, names: &Names, list: &Filtered<'_>, now: Timestamp) -> Self {
        Self {
            opens: drawer::link(list.fields, &delivery.id),
            open: list.fields.get("d") == delivery.id,
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
    /// Whether all that match can be sent again and called off.
    bulk: bool,
    export: String,
    /// What was typed into the box and is no filter, and why.
    mistyped: Option<Mistyped>,
    drawer: Option<Drawer>,
    /// Attempts over the time of the list.
    over_time: Html,
}

/// What was typed, with what is wrong with it.
#[derive(Debug)]
struct Mistyped {
    text: String,
    problem: String,
}

/// What the API is asked for: the filters of the address.
fn asked(fields: &Fields, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut query: Vec<(&'static str, String)> = FILTERS
        .iter()
        .map(|name| (*name, fields.get(name).to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let given = |name: &str| fields.has(name).then(|| fields.get(name).to_owned());
    let since = Filtered { path: PATH, fields }.since(now).or_else(|| given("since"));
    query.extend(since.map(|since| ("since", since)));
    query.extend(given("until").map(|until| ("until", until)));
    query
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit).await;
    visit.or_refused(Part::Deliveries, made)
}

async fn listed(visit: &Visit) -> Answer {
    let fields = visit.query();
    let mistyped = match fields.has("q") {
        true => match look_up(visit, &fields).await? {
            Ok(to) => return Ok(Redirect::to(&to).into_response()),
            Err(mistyped) => Some(mistyped),
        },
        false => None,
    };
    let query = asked(&fields, visit.now);
    let mut pairs = pairs(&query);
    pairs.push(("cursor", fields.get("cursor")));
    let found: Listed<Delivery> = visit.api.get("/v1/deliveries", &pairs).await?;
    let names = Names::read(visit).await;
    let list = Filtered { path: PATH, fields: &fields };
    let (older, newest) = (list.older(found.next, visit.now), list.newest());
    let rows: Vec<Row> =
        found.items.into_iter().map(|delivery| Row::new(delivery, &names, &list, visit.now)).collect();
    let drawer = Drawer::read(visit, &fields, &rows, &names).await?;
    let over_time = over_time(visit, &list).await;
    let mut shell = visit.shell(Part::Deliveries, "Deliveries");
    shell.command = command(&query);
    // A page of older ones does not change under its reader.
    shell.live = newest.is_none() && mistyped.is_none();
    let status = if mistyped.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let template = DeliveriesPage {
        tabs: STATES.iter().map(|(value, name)| list.choice(name, value, "state")).collect(),
        ranges: list.ranges(),
        webhooks: names.0.iter().map(|named| list.choice(&named.name, &named.id, "webhook")).collect(),
        chips: chips(&list, &names),
        filtered: !query.is_empty(),
        bulk: !OF_ATTEMPTS.iter().any(|name| fields.has(name)),
        export: format!("/deliveries/export{}", fields.with(&[("cursor", ""), ("d", ""), ("q", "")])),
        shell,
        rows,
        fields,
        older,
        newest,
        mistyped,
        drawer,
        over_time,
    };
    page_with(status, &template)
}

fn pairs<'a>(query: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    query.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// What is asked for beside the state, each with a link without it.
fn chips(list: &Filtered<'_>, names: &Names) -> Vec<Choice> {
    let ranged = list.ranges().into_iter().find(|range| range.chosen && !range.value.is_empty());
    let shown = FILTERS.iter().filter(|name| **name != "state").chain(&["range", "since", "until"]);
    shown
        .filter(|name| list.fields.has(name))
        .filter_map(|name| {
            let value = list.fields.get(name);
            let told = match (*name, &ranged) {
                ("webhook", _) => names.of(value),
                ("range", ranged) => ranged.as_ref()?.name.to_lowercase(),
                ("since", Some(_)) => return None,
                _ => value.to_owned(),
            };
            Some(list.chip(name, value, &told))
        })
        .collect()
}

/// Where what was typed leads, or what is wrong with it.
async fn look_up(visit: &Visit, fields: &Fields) -> Result<Result<String, Mistyped>, Refused> {
    let text = fields.exactly("q");
    let mistyped = |problem: String| Mistyped { text: text.to_owned(), problem };
    let (set, webhook) = match typed::read(text, visit.now) {
        Ok(Typed::Delivery(id)) => return Ok(Ok(format!("{PATH}/{}", segment(&id)))),
        Ok(Typed::Event(id)) => return Ok(Ok(format!("/events/{}", segment(&id)))),
        Ok(Typed::Filters { fields, webhook }) => (fields, webhook),
        Err(problem) => return Ok(Err(mistyped(problem))),
    };
    let mut changes: Vec<(&str, &str)> = set.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let id = match webhook {
        Some(named) => match webhook_of(visit, &named).await? {
            Ok(id) => id,
            Err(problem) => return Ok(Err(mistyped(problem))),
        },
        None => String::new(),
    };
    if !id.is_empty() {
        changes.push(("webhook", &id));
    }
    Ok(Ok(Filtered { path: PATH, fields }.link(&changes)))
}

/// The id of the webhook that somebody means by its name, by a part of it that no other has, or by its id.
async fn webhook_of(visit: &Visit, typed: &str) -> Result<Result<String, String>, Refused> {
    let found: Listed<Named> = visit.api.get("/v1/webhooks", &[("name", typed), ("limit", "200")]).await?;
    Ok(meant(typed, &found.items))
}

/// Which of the webhooks with this in their names is meant.
fn meant(typed: &str, found: &[Named]) -> Result<String, String> {
    let lower = typed.to_lowercase();
    let exact: Vec<&Named> = found.iter().filter(|webhook| webhook.name.to_lowercase() == lower).collect();
    let (candidates, how): (Vec<&Named>, _) = if exact.is_empty() {
        (found.iter().collect(), "has it in its name")
    } else {
        (exact, "is called that")
    };
    let told = shortened(typed, 40);
    match candidates.as_slice() {
        [one] => Ok(one.id.clone()),
        // It may be deleted, and its deliveries are still there.
        [] if typed.starts_with("wh_") => Ok(typed.to_owned()),
        [] => Err(format!("There is no webhook “{told}”: none is called that or has it in its name.")),
        several => {
            let some: Vec<String> =
                several.iter().take(5).map(|one| format!("{} ({})", one.name, one.id)).collect();
            let some = some.join(", ");
            Err(format!("“{told}” may be one of several webhooks; each {how}. Write the id of one: {some}."))
        }
    }
}

/// All that match, as a file: page by page from the API to the browser.
async fn export(visit: Visit) -> Response {
    let fields = visit.query();
    let query = asked(&fields, visit.now);
    let mut pairs = pairs(&query);
    pairs.push(("cursor", fields.get("cursor")));
    let made = visit.api.file("/v1/deliveries/export", &pairs).await;
    visit.or_refused(Part::Deliveries, made.map_err(Into::into))
}

/// The same with the command line.
fn command(query: &[(&str, String)]) -> String {
    let option = |name: &str| if name == "event_type" { "type".to_owned() } else { name.replace('_', "-") };
    let options: Vec<String> = query
        .iter()
        .map(|(name, value)| format!(" --{} '{}'", option(name), value.replace('\'', "")))
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
mod tests;
