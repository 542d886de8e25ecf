//! The test inbox: what came to it, whether the signatures are good, and how it answers.
//!
//! An inbox knows no tenants: whoever reads it sees the events of all that send to it, and whoever changes its answers changes
//! them for all. So it is for those who may see every tenant, as with the books: the page asks the API for something that
//! needs the scope `admin` before it asks the inbox for anything.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use http::{Method, StatusCode};
use postrider_core::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::Console;
use crate::api::{Refused, segment};
use crate::fields::Fields;
use crate::inbox::{Inbox, NoAnswer};
use crate::page::{Answer, Part, Sent, Shell, Visit, page, page_with};
use crate::words::{Html, indented, state, when};

/// The page of the inbox, and what is asked for there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/inbox", get(show))
        .route("/inbox/answer", post(answer))
        .route("/inbox/secret", post(secret))
}

/// The most requests that are shown: with the largest bodies that an inbox keeps they are below 1 MiB.
const SHOWN: usize = 20;
/// The name that is offered to somebody who has none yet.
const FIRST_NAME: &str = "mine";

/// How it can be told to answer, with what that is called.
const ANSWERS: [(&str, &str); 6] = [
    ("503", "503 Service Unavailable"),
    ("500", "500 Internal Server Error"),
    ("429", "429 Too Many Requests"),
    ("410", "410 Gone"),
    ("hang", "no answer: it hangs"),
    ("200", "200 OK"),
];

/// Profiles that a secret can be of.
const PROFILES: [&str; 5] = ["postrider", "skillmine", "upmind", "open-loyalty", "entrust"];

/// A name that something came to, or that it was told something about.
#[derive(Debug, Deserialize)]
struct Name {
    name: String,
    total: u64,
}

#[derive(Debug, Deserialize)]
struct Names {
    items: Vec<Name>,
}

/// What came to one name: the newest of it, newest last.
#[derive(Debug, Default, Deserialize)]
struct Came {
    items: Vec<Received>,
    total: u64,
}

/// A request that came.
#[derive(Debug, Deserialize)]
struct Received {
    received_at: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    #[serde(default)]
    body_cut: bool,
    #[serde(default)]
    event_type: Option<String>,
    #[serde(default)]
    verified: Option<bool>,
    #[serde(default)]
    reason: Option<String>,
    answer: Value,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// What is thought of its signature, with a mark.
    fn signature(&self) -> Html {
        match self.verified {
            Some(true) => state("ok", "Signature good"),
            Some(false) => state("bad", "Signature bad"),
            None => state("still", "Not checked"),
        }
    }

    /// How it was answered.
    fn answered(&self) -> String {
        self.answer.as_str().map_or_else(|| self.answer.to_string(), str::to_owned)
    }

    fn went_well(&self) -> bool {
        self.answer.as_u64().is_some_and(|status| (200..300).contains(&status))
    }

    fn type_or_method(&self) -> &str {
        self.event_type.as_deref().unwrap_or(&self.method)
    }
}

/// A request in the list, and whether it is the one that is shown.
struct Entry {
    number: u64,
    link: String,
    mark: Html,
    event_type: String,
    at: Html,
    chosen: bool,
}

/// The request that is shown.
struct Chosen {
    number: u64,
    at: Html,
    body: String,
    answer_mark: Html,
    received: Received,
}

/// What is known of the inbox.
struct Known {
    address: String,
    names: Vec<Name>,
    entries: Vec<Entry>,
    chosen: Option<Chosen>,
    total: u64,
    /// Why it cannot be asked, if that is so.
    problem: String,
}

/// What is wrong with a form that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    field: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "inbox.html")]
struct InboxPage {
    shell: Shell,
    name: String,
    known: Option<Known>,
    problem: Option<Problem>,
    fields: Fields,
}

impl InboxPage {
    fn answers(&self) -> &'static [(&'static str, &'static str)] {
        &ANSWERS
    }

    fn profiles(&self) -> &'static [&'static str] {
        &PROFILES
    }

    /// What is wrong with a field, if something is.
    fn wrong(&self, field: &str) -> Option<&str> {
        self.problem.as_ref().filter(|problem| problem.field == field).map(|problem| problem.text.as_str())
    }
}

/// Refuses those who may not see every tenant.
async fn may(visit: &Visit) -> Result<(), Refused> {
    visit.api.get::<IgnoredAny>("/v1/tenants/default", &[]).await.map(|_| ())
}

async fn show(State(console): State<Console>, visit: Visit) -> Response {
    let fields = visit.query();
    let made = shown(&console, &visit, fields, None).await;
    visit.or_refused(Part::Events, made)
}

/// The page; with a problem, the form is to be sent again.
async fn shown(console: &Console, visit: &Visit, fields: Fields, problem: Option<Problem>) -> Answer {
    let inbox = console.surroundings.inbox();
    let name = if fields.has("name") { fields.get("name").to_owned() } else { FIRST_NAME.to_owned() };
    let known = match inbox {
        None => None,
        Some(inbox) => {
            may(visit).await?;
            Some(look(&inbox, &name, fields.get("request").parse().ok(), visit.now).await)
        }
    };
    let mut shell = visit.shell(Part::Events, "Test inbox");
    // What is shown is not the API's.
    shell.calls.clear();
    shell.live = problem.is_none() && known.as_ref().is_some_and(|known| known.problem.is_empty());
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    page_with(status, &InboxPage { shell, name, known, problem, fields })
}

/// Asks the inbox for what came.
async fn look(inbox: &Arc<dyn Inbox>, name: &str, wanted: Option<u64>, now: Timestamp) -> Known {
    let mut known = Known {
        address: inbox.address().to_owned(),
        names: Vec::new(),
        entries: Vec::new(),
        chosen: None,
        total: 0,
        problem: String::new(),
    };
    let came = read::<Came>(inbox, format!("/_inbox/{}?limit={SHOWN}", segment(name))).await;
    let names = read::<Names>(inbox, "/_inbox".to_owned()).await;
    match (came, names) {
        (Ok(came), Ok(names)) => {
            known.names = names.items;
            known.total = came.total;
            (known.entries, known.chosen) = requests(name, came, wanted, now);
        }
        (Err(why), _) | (_, Err(why)) => known.problem = why,
    }
    known
}

async fn read<T: serde::de::DeserializeOwned>(inbox: &Arc<dyn Inbox>, path: String) -> Result<T, String> {
    let told = inbox.ask(Method::GET, path, None).await.map_err(why)?;
    serde_json::from_str(&told).map_err(|_| "what answers there is no inbox of this version".to_owned())
}

fn why(no: NoAnswer) -> String {
    match no {
        NoAnswer::Unreachable(why) => why,
        NoAnswer::Refused(why) => format!("it refused: {why}"),
    }
}

/// Every request that is shown, newest first, each with its number, and the one that is asked for or else the newest.
fn requests(name: &str, came: Came, wanted: Option<u64>, now: Timestamp) -> (Vec<Entry>, Option<Chosen>) {
    let numbered: Vec<(u64, Received)> =
        came.items.into_iter().rev().zip(0..).map(|(it, n)| (came.total.saturating_sub(n), it)).collect();
    let place = numbered.iter().position(|(number, _)| Some(*number) == wanted).unwrap_or(0);
    let entries = numbered
        .iter()
        .enumerate()
        .map(|(i, (number, received))| Entry {
            number: *number,
            link: format!("/inbox?name={}&request={number}", segment(name)),
            mark: received.signature(),
            event_type: received.type_or_method().to_owned(),
            at: when(&received.received_at, now),
            chosen: i == place,
        })
        .collect();
    let chosen = numbered.into_iter().nth(place).map(|(number, received)| Chosen {
        number,
        at: when(&received.received_at, now),
        body: indented(&received.body),
        answer_mark: state(if received.went_well() { "ok" } else { "bad" }, &received.answered()),
        received,
    });
    (entries, chosen)
}

async fn answer(State(console): State<Console>, Sent { visit, fields }: Sent) -> Response {
    let done = |name: &str| {
        let answer = fields.get("answer");
        let times = fields.get("times");
        let lasts = if times.is_empty() { String::new() } else { format!(" for {times} requests") };
        format!("{name} answers {answer}{lasts} from now on.")
    };
    let made = tell(&console, &visit, &fields, answer_of(&fields), done).await;
    visit.or_refused(Part::Events, made)
}

async fn secret(State(console): State<Console>, Sent { visit, fields }: Sent) -> Response {
    let done = |name: &str| format!("{name} verifies signatures from now on.");
    let made = tell(&console, &visit, &fields, secret_of(&fields), done).await;
    visit.or_refused(Part::Events, made)
}

/// Tells the inbox something about a name.
async fn tell(
    console: &Console,
    visit: &Visit,
    fields: &Fields,
    order: Result<Map<String, Value>, Problem>,
    done: impl Fn(&str) -> String,
) -> Answer {
    may(visit).await?;
    let Some(inbox) = console.surroundings.inbox() else { return page_without(visit) };
    let order = match order {
        Ok(order) => order,
        Err(problem) => return shown(console, visit, fields.clone(), Some(problem)).await,
    };
    let name = fields.get("name");
    let path = format!("/_inbox/{}", segment(name));
    match inbox.ask(Method::PUT, path, Some(Value::from(order).to_string())).await {
        Ok(_) => Ok(visit.done(&format!("/inbox?name={}", segment(name)), &done(name))),
        Err(no) => {
            let problem = Problem {
                field: "",
                text: format!("The inbox did not do it: {}.", why(no).trim_end_matches('.')),
            };
            shown(console, visit, fields.clone(), Some(problem)).await
        }
    }
}

/// The page of an installation that knows no inbox.
fn page_without(visit: &Visit) -> Answer {
    let mut shell = visit.shell(Part::Events, "Test inbox");
    shell.calls.clear();
    shell.live = false;
    page(&InboxPage {
        shell,
        name: FIRST_NAME.to_owned(),
        known: None,
        problem: None,
        fields: Fields::default(),
    })
}

fn name_of(fields: &Fields) -> Result<(), Problem> {
    let name = fields.get("name");
    let good = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let dots = name.bytes().all(|b| b == b'.');
    if good && !dots {
        return Ok(());
    }
    let text = "A name has 1 to 128 letters, digits, hyphens, underscores and dots.".to_owned();
    Err(Problem { field: "name", text })
}

/// What the form about answers says to the inbox.
fn answer_of(fields: &Fields) -> Result<Map<String, Value>, Problem> {
    name_of(fields)?;
    let answer = fields.get("answer");
    if !ANSWERS.iter().any(|(known, _)| *known == answer) {
        return Err(Problem { field: "answer", text: "Choose one of the answers.".to_owned() });
    }
    let mut order = Map::new();
    order.insert("answer".into(), answer.parse::<u16>().map_or_else(|_| answer.into(), Value::from));
    for (field, member, most) in [("times", "times", 1_000_000), ("retry_after", "retry_after", 86_400)] {
        if !fields.has(field) {
            continue;
        }
        let number = fields.get(field).parse::<u32>().ok().filter(|n| (1..=most).contains(n));
        let Some(number) = number else {
            return Err(Problem { field, text: format!("It must be a whole number from 1 to {most}.") });
        };
        order.insert(member.into(), number.into());
    }
    Ok(order)
}

/// What the form about the secret says to the inbox.
fn secret_of(fields: &Fields) -> Result<Map<String, Value>, Problem> {
    name_of(fields)?;
    if !fields.has("secret") {
        return Err(Problem {
            field: "secret",
            text: "Paste the secret that was shown when the webhook was made.".to_owned(),
        });
    }
    let mut order = Map::new();
    order.insert("secret".into(), fields.get("secret").into());
    if fields.has("profile") {
        order.insert("profile".into(), fields.get("profile").into());
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    use crate::inbox::Asking;
    use crate::stage::Stage;
    use axum::Json;
    use serde_json::json;

    #[test]
    fn the_forms_become_orders() {
        let order = |text: &[u8]| answer_of(&Fields::parse(text)).map(Value::from);
        assert_eq!(
            order(b"name=a&answer=503&times=3&retry_after="),
            Ok(json!({ "answer": 503, "times": 3 }))
        );
        assert_eq!(order(b"name=a&answer=hang"), Ok(json!({ "answer": "hang" })));
        assert_eq!(order(b"name=a&answer=99").unwrap_err().field, "answer");
        assert_eq!(order(b"name=a&answer=503&times=0").unwrap_err().field, "times");
        assert_eq!(order(b"name=a&answer=503&retry_after=x").unwrap_err().field, "retry_after");
        for name in ["", "..", "a/b", "a%2Fb"] {
            assert_eq!(
                order(format!("name={name}&answer=200").as_bytes()).unwrap_err().field,
                "name",
                "{name}"
            );
        }
        let order = |text: &[u8]| secret_of(&Fields::parse(text)).map(Value::from);
        assert_eq!(
            order(b"name=a&secret=whsec_x&profile=upmind"),
            Ok(json!({ "secret": "whsec_x", "profile": "upmind" }))
        );
        assert_eq!(order(b"name=a&secret=").unwrap_err().field, "secret");
    }

    #[test]
    fn requests_keep_their_numbers_while_others_come() {
        let one = |body: &str, answer: Value, verified: Value| {
            json!({ "received_at": "2026-11-22T20:00:00Z", "method": "POST", "path": "/in/a", "headers": [["webhook-id", "m"]],
                "body": body, "event_type": "A", "verified": verified, "reason": "no secret", "answer": answer })
        };
        let now = Timestamp::parse_rfc3339("2026-11-22T20:01:00Z").unwrap();
        let came = || -> Came {
            let items = [one("{\"n\":1}", json!("hang"), Value::Null), one("2", json!(200), json!(true))];
            serde_json::from_value(json!({ "items": items, "total": 7 })).unwrap()
        };
        let (entries, chosen) = requests("a", came(), None, now);
        assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [7, 6]);
        let chosen = chosen.unwrap();
        assert_eq!(
            (chosen.number, chosen.body.as_str(), chosen.received.header("webhook-id")),
            (7, "2", "m")
        );
        assert!(chosen.received.went_well());
        let chosen = requests("a", came(), Some(6), now).1.unwrap();
        assert_eq!((chosen.number, chosen.received.answered().as_str()), (6, "hang"));
        assert_eq!(chosen.body, "{\n  \"n\": 1\n}");
        assert!(!chosen.received.went_well());
    }

    /// An inbox that notes what it is told.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<String>>, bool);

    impl Inbox for Told {
        fn address(&self) -> &str {
            "http://127.0.0.1:8081"
        }

        fn ask(&self, method: Method, path: String, body: Option<String>) -> Asking<'_> {
            self.0.lock().unwrap().push(format!("{method} {path} {}", body.unwrap_or_default()));
            let one = json!({ "received_at": "2026-11-22T19:59:00Z", "method": "POST", "path": "/in/mine", "headers": [["x-<h>", "v"]],
                "body": "{\"a\":1}", "event_type": "A", "verified": false, "reason": "the signature is another", "answer": 503 });
            let answer = match (self.1, path.as_str()) {
                (true, _) => Err(NoAnswer::Unreachable("connection refused".into())),
                (false, "/_inbox") => Ok(json!({ "items": [{ "name": "mine", "total": 1 }] }).to_string()),
                (false, _) => Ok(json!({ "items": [one], "total": 1 }).to_string()),
            };
            Box::pin(async move { answer })
        }
    }

    fn api(admin: bool) -> Router {
        let tenant = move || async move {
            let refused =
                json!({ "status": 403, "code": "forbidden", "detail": "no", "hint": "no", "scope": "admin" });
            if admin { (StatusCode::OK, Json(json!({}))) } else { (StatusCode::FORBIDDEN, Json(refused)) }
        };
        Router::new().route("/v1/tenants/default", get(tenant))
    }

    #[tokio::test]
    async fn without_an_inbox_the_page_says_how_to_start_one() {
        let (status, text) = Stage::new(api(true)).get("/inbox").await;
        assert_eq!(status, 200);
        assert!(text.contains("POSTRIDER_INBOX_URL="), "{text}");
    }

    #[tokio::test]
    async fn what_came_is_shown_to_those_who_may_see_every_tenant() {
        let inbox = Arc::new(Told::default());
        let (status, text) = Stage::beside(api(true), Some(inbox.clone())).get("/inbox?name=mine").await;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("Signature bad") && text.contains("the signature is another"), "{text}");
        assert!(text.contains("x-&#60;h&#62;"), "{text}");
        assert_eq!(*inbox.0.lock().unwrap(), ["GET /_inbox/mine?limit=20 ", "GET /_inbox "]);

        let inbox = Arc::new(Told::default());
        let stage = Stage::beside(api(false), Some(inbox.clone()));
        assert_eq!(stage.get("/inbox").await.0, 403);
        assert_eq!(stage.send("/inbox/answer", &[("name", "mine"), ("answer", "503")]).await.0, 403);
        assert!(inbox.0.lock().unwrap().is_empty(), "nobody else asks it for anything");
    }

    #[tokio::test]
    async fn it_answers_as_it_is_told() {
        let inbox = Arc::new(Told::default());
        let stage = Stage::beside(api(true), Some(inbox.clone()));
        let (status, leads, _) =
            stage.send("/inbox/answer", &[("name", "mine"), ("answer", "429"), ("times", "2")]).await;
        assert_eq!((status.as_u16(), leads.as_str()), (303, "/inbox?name=mine"));
        assert_eq!(inbox.0.lock().unwrap().pop().unwrap(), "PUT /_inbox/mine {\"answer\":429,\"times\":2}");
        let (status, _, text) =
            stage.send("/inbox/answer", &[("name", "mine"), ("answer", "429"), ("times", "many")]).await;
        assert_eq!(status, 422);
        assert!(text.contains("whole number") && text.contains("value=\"many\""), "{text}");
        let (_, _, text) = stage.send("/inbox/secret", &[("name", "a/b"), ("secret", "hunter2")]).await;
        assert!(!text.contains("hunter2"), "{text}");

        let lost = Stage::beside(api(true), Some(Arc::new(Told(Mutex::default(), true))));
        assert!(lost.get("/inbox").await.1.contains("connection refused"));
        assert_eq!(lost.send("/inbox/answer", &[("name", "mine"), ("answer", "429")]).await.0, 422);
    }
}
