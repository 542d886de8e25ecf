//! Events: the list, and one of them: what it was, what became of it, and why a webhook takes it or does not.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use http::Method;
use postrider_core::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalogue::page_of;
use super::deliveries::{Delivery, Names};
use super::listing::{Choice, Filtered, plan};
use crate::Console;
use crate::api::{Listed, Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page};
use crate::words::{Html, exactly, shortened, state, when, when_if};

/// The pages of events, and what is asked for there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/events", get(list))
        .route("/events/{id}", get(show))
        .route("/events/{id}/replay", post(replay))
}

/// Where the list is.
const PATH: &str = "/events";
/// Fates that are listed apart, with what they are called.
const FATES: [(&str, &str); 4] =
    [("", "All"), ("routed", "Routed"), ("unmatched", "Unmatched"), ("invalid", "Invalid")];

/// An event, as the API lists it.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) event_time: String,
    pub(crate) fate: String,
    pub(crate) owed: u32,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    #[serde(default)]
    pub(crate) detail: Option<String>,
    #[serde(default)]
    pub(crate) marks: Vec<String>,
    pub(crate) accepted_at: String,
}

impl Event {
    /// What became of it, with a mark.
    pub(crate) fn mark(&self) -> Html {
        match self.fate.as_str() {
            "routed" => state("ok", "Routed"),
            "unmatched" => state("skipped", "Unmatched"),
            "invalid" => state("bad", "Invalid"),
            other => state("still", other),
        }
    }

    /// Why it is invalid, in words; empty if it is not.
    pub(crate) fn why(&self) -> String {
        self.reason.as_deref().unwrap_or_default().replace('_', " ")
    }
}

/// What a mark of an event means.
fn meaning(mark: &str) -> String {
    match mark {
        "unknown_type" => "no catalogue has its type".to_owned(),
        "schema" => "its data does not fit the schema of its type".to_owned(),
        other => other.replace('_', " "),
    }
}

/// A row of the list.
struct Row {
    event: Event,
    accepted: Html,
    notes: String,
    short_id: String,
    link: String,
}

impl Row {
    fn new(event: Event, now: Timestamp) -> Self {
        let mut notes: Vec<String> = event.marks.iter().map(|mark| meaning(mark)).collect();
        if event.reason.is_some() {
            notes.insert(0, event.why());
        }
        Self {
            accepted: when(&event.accepted_at, now),
            notes: notes.join("; "),
            short_id: shortened(&event.id, 14),
            link: format!("/events/{}", segment(&event.id)),
            event,
        }
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    shell: Shell,
    rows: Vec<Row>,
    tabs: Vec<Choice>,
    ranges: Vec<Choice>,
    fields: Fields,
    chips: Vec<Choice>,
    older: Option<String>,
    newest: Option<String>,
    filtered: bool,
}

/// What the API is asked for: the filters of the address.
fn asked(fields: &Fields, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut query: Vec<(&'static str, String)> = ["fate", "event_type"]
        .into_iter()
        .filter(|name| fields.has(name))
        .map(|name| (name, fields.get(name).to_owned()))
        .collect();
    let named = || fields.has("since").then(|| fields.get("since").to_owned());
    query.extend(Filtered { path: PATH, fields }.since(now).or_else(named).map(|since| ("since", since)));
    query
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit).await;
    visit.or_refused(Part::Events, made)
}

async fn listed(visit: &Visit) -> Answer {
    let fields = visit.query();
    let query = asked(&fields, visit.now);
    let mut pairs: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    pairs.push(("cursor", fields.get("cursor")));
    let found: Listed<Event> = visit.api.get("/v1/events", &pairs).await?;
    let list = Filtered { path: PATH, fields: &fields };
    let (older, newest) = (list.older(found.next, visit.now), list.newest());
    let mut shell = visit.shell(Part::Events, "Events");
    shell.command = command(&query);
    // A page of older ones does not change under its reader.
    shell.live = newest.is_none();
    page(&EventsPage {
        shell,
        rows: found.items.into_iter().map(|event| Row::new(event, visit.now)).collect(),
        tabs: FATES.iter().map(|(value, name)| list.choice(name, value, "fate")).collect(),
        ranges: list.ranges(),
        chips: chips(&list),
        filtered: !query.is_empty(),
        fields,
        older,
        newest,
    })
}

/// Filters that are no tab and no menu, each with a link without it.
fn chips(list: &Filtered<'_>) -> Vec<Choice> {
    let names = ["event_type", "since"].into_iter().filter(|name| list.fields.has(name));
    names.map(|name| list.chip(name, list.fields.get(name), list.fields.get(name))).collect()
}

/// The same with the command line.
fn command(query: &[(&str, String)]) -> String {
    let option = |name: &str| if name == "event_type" { "type".to_owned() } else { name.to_owned() };
    let options =
        query.iter().map(|(name, value)| format!(" --{} '{}'", option(name), value.replace('\'', "")));
    format!("postrider event list{}", options.collect::<String>())
}

/// An event with its body and its deliveries.
#[derive(Debug, Deserialize)]
pub(crate) struct Whole {
    #[serde(flatten)]
    pub(crate) event: Event,
    #[serde(default)]
    current_context: Option<Value>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    pub(crate) deliveries: Vec<Delivery>,
}

impl Whole {
    /// What upstream wrote; nothing when it was removed.
    fn body(&self) -> Option<String> {
        let data = self.data.as_ref()?;
        let body = json!({ "current_context": self.current_context, "data": data });
        serde_json::to_string_pretty(&body).ok()
    }

    /// Whether something may still become of it.
    pub(crate) fn goes_on(&self) -> bool {
        self.deliveries.iter().any(|delivery| delivery.state == "pending")
    }
}

/// A delivery among those of one event.
pub(crate) struct Taker {
    pub(crate) delivery: Delivery,
    pub(crate) webhook_name: String,
    pub(crate) next: Html,
}

/// The deliveries of an event, with what their webhooks are called.
pub(crate) fn takers(deliveries: Vec<Delivery>, names: &Names, now: Timestamp) -> Vec<Taker> {
    let taker = |delivery: Delivery| Taker {
        webhook_name: names.of(&delivery.webhook),
        next: delivery.next_at.as_deref().map(|at| when_if(Some(at), now)).unwrap_or_default(),
        delivery,
    };
    deliveries.into_iter().map(taker).collect()
}

/// What the API says of why an event goes to a webhook or does not.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Explanation {
    #[serde(rename = "match")]
    pub(crate) matches: bool,
    pub(crate) because: String,
    pub(crate) event_type: TypeFound,
    pub(crate) taken_by: Vec<Way>,
    pub(crate) filter: Option<FilterFound>,
    pub(crate) marks: Vec<String>,
    pub(crate) remark: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TypeFound {
    pub(crate) given: String,
    pub(crate) name: String,
    pub(crate) known: bool,
    pub(crate) product: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) category: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Way {
    pub(crate) by: String,
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FilterFound {
    pub(crate) source: String,
    pub(crate) holds: Option<bool>,
    pub(crate) error: Option<String>,
}

/// One step of the answer why.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    mark: Html,
    text: String,
    /// CEL, where a filter is meant.
    code: String,
}

impl Step {
    fn new(kind: &str, word: &str, text: String) -> Self {
        Self { mark: state(kind, word), text, code: String::new() }
    }
}

/// The answer why, in the order in which a router asks. It ends with the step that decides.
fn steps(told: &Explanation) -> Vec<Step> {
    let mut steps = vec![type_step(&told.event_type)];
    let noted = told.marks.iter().map(|mark| meaning(mark)).collect::<Vec<_>>().join("; ");
    if !noted.is_empty() {
        steps.push(Step::new("warn", "Noted", format!("{noted}.")));
    }
    if told.taken_by.is_empty() {
        let text = "The subscription names neither the type nor its group or category.".to_owned();
        steps.push(Step::new("off", "Not asked for", text));
    } else {
        let ways: Vec<String> = told.taken_by.iter().map(way).collect();
        steps.push(Step::new("ok", "Asked for", format!("{}.", sentence(&ways.join(", and ")))));
    }
    if let Some(filter) = &told.filter {
        let (kind, word, text) = match (filter.holds, &filter.error) {
            (Some(true), _) => ("ok", "Holds", "The filter holds of this event:".to_owned()),
            (Some(false), _) => {
                ("off", "Does not hold", "The filter does not hold of this event:".to_owned())
            }
            (None, error) => {
                let why = error.as_deref().unwrap_or("nobody knows why");
                ("bad", "Cannot be judged", format!("The filter cannot be judged on this event: {why}."))
            }
        };
        steps.push(Step { code: filter.source.clone(), ..Step::new(kind, word, text) });
    }
    if let Some(remark) = &told.remark {
        steps.push(Step::new("paused", "But", format!("{}.", sentence(remark))));
    }
    let (kind, word) = if told.matches { ("ok", "Takes it") } else { ("off", "Does not take it") };
    steps.push(Step::new(kind, word, format!("{}.", sentence(told.because.trim_end_matches('.')))));
    steps
}

fn type_step(found: &TypeFound) -> Step {
    if !found.known {
        let text = format!(
            "No catalogue has {}: only webhooks that name it or take everything can get it.",
            found.given
        );
        return Step::new("warn", "Unknown type", text);
    }
    let alias = if found.given == found.name {
        String::new()
    } else {
        format!("{} means {}. ", found.given, found.name)
    };
    let mut place = format!("the catalogue {}", found.product.as_deref().unwrap_or("of this tenant"));
    if let Some(category) = &found.category {
        place.push_str(&format!(", category {category}"));
    }
    if let Some(group) = &found.group {
        place.push_str(&format!(", group {group}"));
    }
    Step::new("ok", "Known type", format!("{alias}{} is in {place}.", found.name))
}

fn way(way: &Way) -> String {
    match way.by.as_str() {
        "all" => "it takes every event type".to_owned(),
        "type" => format!("it names the type {}", way.name),
        by => format!("it names the {by} {}", way.name),
    }
}

/// A sentence begins with a capital.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Why a webhook takes an event or does not, or why nobody can say.
struct Why {
    webhook: String,
    webhook_name: String,
    steps: Vec<Step>,
    problem: String,
}

async fn explained(visit: &Visit, event: &str, webhook: &str, names: &Names) -> Result<Why, Refused> {
    let path = format!("/v1/webhooks/{}/explain", segment(webhook));
    let told = visit.api.send::<Explanation>(Method::POST, &path, Some(&json!({ "event_id": event }))).await;
    let (steps, problem) = match told {
        Ok(told) => (steps(&told), String::new()),
        Err(refused) if refused.is_logged_out() => return Err(refused),
        Err(refused) => {
            (Vec::new(), format!("{}. {}", sentence(refused.detail.trim_end_matches('.')), refused.hint))
        }
    };
    Ok(Why { webhook: webhook.to_owned(), webhook_name: names.of(webhook), steps, problem })
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    shell: Shell,
    event: Event,
    body: Option<String>,
    key: Option<String>,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    takers: Vec<Taker>,
    notes: Vec<String>,
    accepted: Html,
    accepted_exactly: String,
    webhooks: Vec<Choice>,
    why: Option<Why>,
    link: String,
    type_link: String,
}

async fn show(visit: Visit, Path(id): Path<String>) -> Response {
    let made = shown(&visit, &id).await;
    visit.or_refused(Part::Events, made)
}

async fn shown(visit: &Visit, id: &str) -> Answer {
    let whole: Whole = visit.api.get(&format!("/v1/events/{}", segment(id)), &[]).await?;
    let names = Names::read(visit).await;
    let query = visit.query();
    let asked_why = query.get("explain");
    let why = if asked_why.is_empty() { None } else { Some(explained(visit, id, asked_why, &names).await?) };
    let webhooks = names.0.iter().map(|named| Choice {
        name: if named.name.is_empty() { named.id.clone() } else { named.name.clone() },
        value: named.id.clone(),
        link: String::new(),
        chosen: named.id == asked_why,
    });
    let webhooks = webhooks.collect();
    let mut shell = visit.shell(Part::Events, format!("{} event", whole.event.event_type));
    shell.command = format!("postrider event get '{}'", id.replace('\'', ""));
    shell.live = whole.goes_on() && why.is_none();
    let body = whole.body();
    let Whole { event, key, correlation_id, traceparent, deliveries, .. } = whole;
    page(&EventPage {
        shell,
        body,
        key,
        correlation_id,
        traceparent,
        takers: takers(deliveries, &names, visit.now),
        notes: event.marks.iter().map(|mark| sentence(&meaning(mark))).collect(),
        accepted: when(&event.accepted_at, visit.now),
        accepted_exactly: Timestamp::parse_rfc3339(&event.accepted_at).map(exactly).unwrap_or_default(),
        webhooks,
        why,
        link: format!("/events/{}", segment(id)),
        type_link: page_of(&event.event_type),
        event,
    })
}

/// Plans that one event is sent again; nothing is sent before somebody has seen what that is.
async fn replay(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = plan(&visit, &replay_of(&id, &fields), &format!("/events/{}", segment(&id))).await;
    visit.or_refused(Part::Events, made)
}

/// The body that plans a replay of one event.
fn replay_of(id: &str, fields: &Fields) -> Value {
    let target = if fields.has("target") { fields.get("target") } else { "original" };
    let mut body = json!({ "events": [id], "target": target });
    match (target, fields.has("again")) {
        ("original", true) => body["states"] = json!(["delivered", "dead", "cancelled", "skipped"]),
        (_, true) => body["again"] = true.into(),
        (_, false) => {}
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{NOW, Stage};
    use axum::Json;

    fn told(value: Value) -> Explanation {
        serde_json::from_value(value).unwrap()
    }

    fn words(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .map(|step| step.mark.0.replace("<span class=\"state ", "").replace("</span>", ""))
            .collect()
    }

    #[test]
    fn the_address_is_what_the_api_is_asked() {
        let now = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
        let fields =
            Fields::parse(b"fate=unmatched&range=1h&event_type=&cursor=x&since=2020-01-01T00:00:00Z");
        let query = asked(&fields, now);
        assert_eq!(query, [("fate", "unmatched".to_owned()), ("since", "2026-11-22T19:00:00Z".to_owned())]);
        assert_eq!(
            command(&[("event_type", "A B".to_owned())]),
            "postrider event list --type 'A B'",
            "as the command calls it"
        );
        let fields = Fields::parse(b"since=2020-01-01T00:00:00Z");
        assert_eq!(asked(&fields, now), [("since", "2020-01-01T00:00:00Z".to_owned())]);
        assert_eq!(chips(&Filtered { path: PATH, fields: &fields })[0].link, "/events");
    }

    #[test]
    fn the_answer_why_ends_with_what_decides() {
        let no = told(json!({
            "match": false, "because": "the type is taken, but the filter does not hold of this event",
            "event_type": { "given": "a", "name": "A", "known": true, "product": "shop", "category": "orders" },
            "taken_by": [{ "by": "category", "name": "orders" }],
            "filter": { "source": "data.n > 1", "holds": false, "error": null }, "marks": [], "remark": null
        }));
        let steps = steps(&no);
        assert_eq!(
            words(&steps),
            ["ok\">Known type", "ok\">Asked for", "off\">Does not hold", "off\">Does not take it"]
        );
        assert_eq!(steps[0].text, "a means A. A is in the catalogue shop, category orders.");
        assert_eq!(steps[1].text, "It names the category orders.");
        assert_eq!(steps[2].code, "data.n > 1");
        assert_eq!(steps[3].text, "The type is taken, but the filter does not hold of this event.");
    }

    #[test]
    fn an_unknown_type_that_nobody_asks_for_is_said_so() {
        let no = told(json!({
            "match": false, "because": "nothing in the subscription takes it",
            "event_type": { "given": "X", "name": "X", "known": false }, "marks": ["unknown_type"]
        }));
        let steps = steps(&no);
        assert_eq!(
            words(&steps),
            ["warn\">Unknown type", "warn\">Noted", "off\">Not asked for", "off\">Does not take it"]
        );
    }

    #[test]
    fn a_filter_that_cannot_be_judged_says_why() {
        let unmet = told(json!({
            "because": "x", "taken_by": [{ "by": "all", "name": "all" }],
            "filter": { "source": "data.n > 1", "holds": null, "error": "data.n is absent" },
            "remark": "the webhook is paused: the delivery is held until it is resumed", "match": true
        }));
        let steps = steps(&unmet);
        assert_eq!(steps[1].text, "It takes every event type.");
        assert_eq!(steps[2].text, "The filter cannot be judged on this event: data.n is absent.");
        assert_eq!(steps[3].text, "The webhook is paused: the delivery is held until it is resumed.");
        assert_eq!(words(&steps)[4], "ok\">Takes it");
    }

    #[test]
    fn one_event_is_sent_again_to_whom_one_chooses() {
        let of = |text: &[u8]| replay_of("e 1", &Fields::parse(text));
        assert_eq!(of(b""), json!({ "events": ["e 1"], "target": "original" }));
        assert_eq!(
            of(b"target=original&again=1"),
            json!({ "events": ["e 1"], "target": "original", "states": ["delivered", "dead", "cancelled", "skipped"] }),
            "the API takes `again` for other targets only"
        );
        assert_eq!(of(b"target=wh_1&again=1"), json!({ "events": ["e 1"], "target": "wh_1", "again": true }));
    }

    fn delivery() -> Value {
        json!({ "id": "dlv_1", "message_id": "msg_1", "webhook": "wh_1", "event": "e1", "event_type": "A", "series": 1,
            "state": "pending", "held": false, "cancelling": false, "reason": "", "attempts": 1, "next_at": NOW,
            "last": { "class": "http_5xx", "status": 503, "hint": "Look." }, "created_at": NOW })
    }

    fn event(id: &str, fate: &str) -> Value {
        json!({ "id": id, "event_type": "<A>", "event_time": NOW, "fate": fate, "owed": 1, "reason": null, "detail": null,
            "marks": ["schema"], "accepted_at": NOW })
    }

    fn api() -> Router {
        let whole = |fate: &'static str| async move {
            let mut whole = event("e1", fate);
            whole["data"] = json!({ "n": 1 });
            whole["deliveries"] = if fate == "routed" { json!([delivery()]) } else { json!([]) };
            Json(whole)
        };
        let explained = json!({ "match": true, "because": "it names the type", "taken_by": [{ "by": "type", "name": "A" }],
            "event_type": { "given": "A", "name": "A", "known": true, "product": "shop" }, "marks": [] });
        Router::new()
            .route(
                "/v1/events",
                get(|| async { Json(json!({ "items": [event("e1", "routed")], "next": "more" })) }),
            )
            .route("/v1/events/e1", get(move || whole("routed")))
            .route("/v1/events/e2", get(move || whole("unmatched")))
            .route(
                "/v1/webhooks",
                get(|| async { Json(json!({ "items": [{ "id": "wh_1", "name": "billing" }] })) }),
            )
            .route("/v1/webhooks/wh_1/explain", post(move || async move { Json(explained) }))
            .route("/v1/replays", post(|| async { Json(json!({ "id": "rpl_1" })) }))
    }

    #[tokio::test]
    async fn the_list_leads_to_each_event_and_to_older_ones() {
        let (status, text) = Stage::new(api()).get("/events?fate=routed").await;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("href=\"/events/e1\">&#60;A&#62;</a>"), "{text}");
        assert!(text.contains("/events?fate=routed&#38;cursor=more"), "{text}");
        assert!(text.contains("its data does not fit the schema of its type"), "{text}");
        let none =
            Router::new().route("/v1/events", get(|| async { Json(json!({ "items": [], "next": null })) }));
        let stage = Stage::new(none);
        assert!(stage.get("/events").await.1.contains("data-testid=\"first-use\""));
        assert!(stage.get("/events?fate=invalid").await.1.contains("data-testid=\"no-match\""));
    }

    #[tokio::test]
    async fn an_event_says_who_took_it_and_why() {
        let stage = Stage::new(api());
        let (status, text) = stage.get("/events/e1").await;
        assert_eq!(status, 200, "{text}");
        assert!(
            text.contains("/deliveries/dlv_1") && text.contains("billing") && text.contains("Retrying"),
            "{text}"
        );
        assert!(!text.contains("data-testid=\"steps\""), "{text}");
        let (_, text) = stage.get("/events/e1?explain=wh_1").await;
        assert!(text.contains("Takes it") && text.contains("It names the type A."), "{text}");
        let (_, text) = stage.get("/events/e2").await;
        assert!(text.contains("No webhook took it."), "{text}");
        let (status, _) = stage.get("/events/unheard").await;
        assert!(status.is_client_error() || status.is_server_error());
    }

    #[tokio::test]
    async fn a_replay_is_planned_and_looked_at() {
        let (status, leads, _) = Stage::new(api()).send("/events/e1/replay", &[("target", "matching")]).await;
        assert_eq!((status.as_u16(), leads.as_str()), (303, "/jobs/rpl_1"));
    }
}
