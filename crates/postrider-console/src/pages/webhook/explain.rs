//! Why an event would, or would not, go to a webhook.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::{Method, StatusCode};
use postrider_core::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tab, Webhook, read, shell, tabs};
use crate::api::{Listed, Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page_with};
use crate::pages::events::Explanation;
use crate::pages::webhook_form::Wrong;
use crate::words::relative;

/// How many of the newest events are offered.
const OFFERED: &str = "20";

/// An event that can be chosen.
#[derive(Debug, Deserialize)]
struct Recent {
    id: String,
    event_type: String,
    accepted_at: String,
}

impl Recent {
    fn told(&self, now: Timestamp) -> String {
        let ago = Timestamp::parse_rfc3339(&self.accepted_at).map(|at| relative(at, now)).unwrap_or_default();
        format!("{} · {ago} · {}", self.event_type, self.id)
    }
}

#[derive(Template)]
#[template(path = "webhook_explain.html")]
struct ExplainTab {
    shell: Shell,
    webhook: Webhook,
    tabs: Vec<Tab>,
    recent: Vec<(String, String)>,
    event: String,
    event_id: String,
    wrong: Wrong,
    found: Option<Explanation>,
}

/// What is asked.
enum Question<'a> {
    Nothing,
    Event(&'a str),
    Known(&'a str),
}

/// The form; with the answer, where a link names an event.
pub(super) async fn show(visit: &Visit, webhook: Webhook, query: &Fields) -> Answer {
    let question = match query.get("event_id") {
        "" => Question::Nothing,
        id => Question::Known(id),
    };
    answered(visit, webhook, question).await
}

/// The answer for an event that was pasted.
pub(super) async fn ask(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = asked(&visit, &id, &fields).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn asked(visit: &Visit, id: &str, fields: &Fields) -> Answer {
    let webhook = read(visit, id).await?;
    answered(visit, webhook, Question::Event(fields.exactly("event"))).await
}

async fn answered(visit: &Visit, webhook: Webhook, question: Question<'_>) -> Answer {
    let (mut wrong, mut found) = (Wrong::default(), None);
    match body_of(&question) {
        Ok(None) => {}
        Ok(Some(body)) => {
            let path = format!("/v1/webhooks/{}/explain", segment(&webhook.id));
            match visit.api.send::<Explanation>(Method::POST, &path, Some(&body)).await {
                Ok(explanation) => found = Some(explanation),
                Err(refused) if refused.is_logged_out() => return Err(refused.into()),
                Err(refused) => wrong = wrong_with(&refused, &question),
            }
        }
        Err(found) => wrong = found,
    }
    // Without a list of events one can still be pasted.
    let recent = visit.api.get::<Listed<Recent>>("/v1/events", &[("limit", OFFERED)]).await;
    let recent = recent.map(|listed| listed.items).unwrap_or_default();
    let mut shell = shell(visit, &webhook, false);
    shell.command = format!("postrider webhook explain {} event.json", webhook.id);
    let (event, event_id) = match question {
        Question::Nothing => ("", ""),
        Question::Event(event) => (event, ""),
        Question::Known(id) => ("", id),
    };
    let status = if wrong.is_any() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = ExplainTab {
        shell,
        tabs: tabs(&webhook, "explain"),
        recent: recent.iter().map(|event| (event.id.clone(), event.told(visit.now))).collect(),
        event: event.to_owned(),
        event_id: event_id.to_owned(),
        webhook,
        wrong,
        found,
    };
    page_with(status, &page)
}

/// The body of the question; nothing if nothing is asked.
fn body_of(question: &Question<'_>) -> Result<Option<Value>, Wrong> {
    match question {
        Question::Nothing => Ok(None),
        Question::Known(id) => Ok(Some(json!({ "event_id": id }))),
        Question::Event(text) => {
            let event = serde_json::from_str::<Value>(text);
            let event = event.map_err(|e| Wrong::at("event", format!("This is not JSON: {e}.")))?;
            Ok(Some(json!({ "event": event })))
        }
    }
}

fn wrong_with(refused: &Refused, question: &Question<'_>) -> Wrong {
    let input = if matches!(question, Question::Event(_)) { "event" } else { "event_id" };
    Wrong { input: input.to_owned(), ..Wrong::from(refused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_an_event_or_the_id_of_one() {
        assert_eq!(body_of(&Question::Nothing).unwrap(), None);
        assert_eq!(body_of(&Question::Known("e")).unwrap(), Some(json!({"event_id": "e"})));
        assert_eq!(
            body_of(&Question::Event("{\"event_type\":\"A\"}")).unwrap(),
            Some(json!({"event": {"event_type": "A"}}))
        );
        assert_eq!(body_of(&Question::Event("{")).unwrap_err().input, "event");
    }

    #[test]
    fn an_answer_is_read_as_the_api_gives_it() {
        let found: Explanation = serde_json::from_value(json!({"match": false, "because": "the filter does not hold",
            "event_type": {"given": "a", "name": "A", "known": true, "product": "shop", "group": null, "category": "c"},
            "taken_by": [{"by": "alias", "name": "a"}], "filter": {"source": "data.n > 1", "holds": false, "error": null},
            "marks": [], "remark": null}))
        .unwrap();
        assert!(
            !found.matches && found.taken_by[0].by == "alias" && found.filter.unwrap().holds == Some(false)
        );
    }
}
