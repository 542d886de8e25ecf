//! Pausing and resuming several webhooks at once: one after the other, each as if it were asked for alone.

use std::time::Duration;

use askama::Template;
use axum::response::Response;
use http::Method;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::api::{Refused, segment};
use crate::fields::Fields;
use crate::login::path_of_ours;
use crate::page::{Answer, Part, Sent, Shell, Visit, page};
use crate::pages::deliveries::Names;
use crate::words::counted;

/// How long all of them may take: less than a browser waits.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most webhooks of one form.
const MOST: usize = 200;

/// What is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Pause,
    Resume,
}

impl Turn {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "pause" => Some(Self::Pause),
            "resume" => Some(Self::Resume),
            _ => None,
        }
    }

    /// The last part of the API's path.
    fn operation(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// What is said of those with which it went well.
    fn done(self, n: usize) -> String {
        let webhooks = counted(n as u64, "webhook is", "webhooks are");
        let them = if n == 1 { "it" } else { "them" };
        match self {
            Self::Pause => format!("{webhooks} paused: deliveries are held until somebody resumes {them}."),
            Self::Resume => format!("{webhooks} active: what was held is sent, oldest first."),
        }
    }
}

/// One with which it did not go well.
struct Failed {
    link: String,
    name: String,
    why: String,
    next: String,
}

#[derive(Template)]
#[template(path = "webhooks_selected.html")]
struct SelectedPage {
    shell: Shell,
    heading: String,
    /// What is said of the others; empty if there are none.
    done: String,
    failed: Vec<Failed>,
    back: String,
}

/// Does it, and says of how many and of which it is true.
pub(super) async fn turn(Sent { visit, fields }: Sent) -> Response {
    let made = turned(&visit, &fields).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn turned(visit: &Visit, fields: &Fields) -> Answer {
    let back = back(fields);
    let (turn, ids) = match asked(fields) {
        Ok(asked) => asked,
        Err(why) => return Ok(visit.refused_here(&back, why)),
    };
    let mut failed: Vec<(&str, Refused)> = Vec::new();
    let mut tried = 0;
    let until = Instant::now() + PATIENCE;
    for id in &ids {
        if Instant::now() >= until || failed.last().is_some_and(|(_, refused)| refused.status >= 500) {
            break;
        }
        tried += 1;
        let path = format!("/v1/webhooks/{}/{}", segment(id), turn.operation());
        match visit.api.send::<IgnoredAny>(Method::POST, &path, None).await {
            Ok(_) => {}
            Err(refused) if refused.is_logged_out() => return Err(refused.into()),
            Err(refused) => failed.push((id, refused)),
        }
    }
    let done = tried - failed.len();
    let left = ids.get(tried..).unwrap_or_default();
    match failed.as_slice() {
        [] if left.is_empty() => Ok(visit.done(&back, &turn.done(done))),
        // What a key may not do it may do to none of them: that is said once.
        [(_, refused), ..] if done == 0 && refused.status == 403 => visit.not_done(&back, refused),
        _ => told(visit, turn, done, failed, left, back).await,
    }
}

/// The page that says which were done, which were not, and why.
async fn told(
    visit: &Visit,
    turn: Turn,
    done: usize,
    failed: Vec<(&str, Refused)>,
    left: &[&str],
    back: String,
) -> Answer {
    let names = Names::read(visit).await;
    let all = counted((done + failed.len() + left.len()) as u64, "webhook", "webhooks");
    let mut shell = visit.shell(Part::Webhooks, "Selected webhooks");
    shell.live = false;
    let line = |(id, refused): (&str, Refused)| Failed {
        link: format!("/webhooks/{}", segment(id)),
        name: names.of(id),
        why: refused.detail,
        next: refused.hint,
    };
    page(&SelectedPage {
        shell,
        heading: format!("Done with {done} of {all}"),
        done: if done == 0 { String::new() } else { turn.done(done) },
        failed: failed.into_iter().map(line).chain(left.iter().map(|id| untried(id, &names))).collect(),
        back,
    })
}

/// One whose turn did not come.
fn untried(id: &str, names: &Names) -> Failed {
    Failed {
        link: format!("/webhooks/{}", segment(id)),
        name: names.of(id),
        why: "It was not tried: the others took too long, or could not be written.".to_owned(),
        next: "Select it again in a moment.".to_owned(),
    }
}

/// What a form asks for: each webhook once, in the order of the list.
fn asked(fields: &Fields) -> Result<(Turn, Vec<&str>), &'static str> {
    let turn = Turn::parse(fields.get("to")).ok_or("the form does not say what is to be done to them")?;
    let mut ids: Vec<&str> = Vec::new();
    for id in fields.all("webhook") {
        if !ids.contains(&id) {
            ids.push(id);
        }
        if ids.len() > MOST {
            return Err("at most 200 webhooks are taken at once");
        }
    }
    if ids.is_empty() { Err("no webhook was selected; tick some in the list") } else { Ok((turn, ids)) }
}

/// The list that the form was on.
fn back(fields: &Fields) -> String {
    let list = path_of_ours(fields.get("back"));
    if list.starts_with("/webhooks?") { list.to_owned() } else { "/webhooks".to_owned() }
}

#[cfg(test)]
mod tests {
    use axum::extract::Path;
    use axum::response::IntoResponse as _;
    use axum::routing::post;
    use axum::{Json, Router};
    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::stage::Stage;

    #[test]
    fn a_form_says_what_is_done_to_which() {
        let read =
            |form: &str| asked(&Fields::parse(form.as_bytes())).map(|(turn, ids)| (turn, ids.join(",")));
        assert_eq!(
            read("to=pause&webhook=b&webhook=a&webhook=b&webhook="),
            Ok((Turn::Pause, "b,a".to_owned()))
        );
        assert_eq!(read("to=resume&webhook=a").unwrap().0.operation(), "resume");
        assert!(read("to=pause").unwrap_err().contains("no webhook was selected"));
        assert!(read("to=delete&webhook=a").is_err() && read("webhook=a").is_err());
        let many = |n: usize| (0..n).map(|n| format!("&webhook=w{n}")).collect::<String>();
        assert!(read(&format!("to=pause{}", many(MOST))).is_ok());
        assert!(read(&format!("to=pause{}", many(MOST + 1))).unwrap_err().contains("at most 200"));
        let to = |form: &str| back(&Fields::parse(form.as_bytes()));
        assert_eq!(to("back=/webhooks?state=paused"), "/webhooks?state=paused");
        assert_eq!(to("back=//elsewhere/webhooks?"), "/webhooks");
    }

    /// An API in which everything goes well but with webhooks called `bad`.
    fn stage() -> Stage {
        let pause = post(async |Path(id): Path<String>| match id.starts_with("bad") {
            false => Json(json!({ "id": id, "state": "paused" })).into_response(),
            true => {
                let problem = json!({ "status": 409, "code": "wrong_state", "detail": "the webhook is <disabled>", "hint": "Enable it." });
                (StatusCode::CONFLICT, Json(problem)).into_response()
            }
        });
        let list = json!({ "items": [{ "id": "bad1", "name": "crm" }] });
        Stage::new(
            Router::new()
                .route("/v1/webhooks/{id}/pause", pause)
                .route("/v1/webhooks", axum::routing::get(move || async move { Json(list) })),
        )
    }

    #[tokio::test]
    async fn it_is_said_how_many_were_done_and_which_were_not() {
        let stage = stage();
        let all = [("to", "pause"), ("webhook", "a"), ("webhook", "b"), ("back", "/webhooks?state=active")];
        let (status, headers, _) = stage.post("/webhooks/selected", &all).await;
        assert_eq!(
            (status.as_u16(), &headers["location"]),
            (303, &"/webhooks?state=active".parse().unwrap())
        );
        assert!(format!("{headers:?}").contains("notice=+2+webhooks+are+paused"), "{headers:?}");

        let some = [("to", "pause"), ("webhook", "a"), ("webhook", "bad1"), ("webhook", "bad2")];
        let (status, _, text) = stage.post("/webhooks/selected", &some).await;
        assert_eq!(status, 200, "{text}");
        for part in [
            "Done with 1 of 3 webhooks",
            "1 webhook is paused",
            "href=\"/webhooks/bad1\">crm<",
            "&#60;disabled&#62;",
            "Enable it.",
        ] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        assert_eq!(text.matches("&#60;disabled&#62;").count(), 2, "{text}");
        let (_, _, text) = stage.post("/webhooks/selected", &[("to", "pause"), ("webhook", "bad1")]).await;
        assert!(text.contains("Done with 0 of 1 webhook<") && !text.contains("are held"), "{text}");

        let (status, headers, _) = stage.post("/webhooks/selected", &[("to", "pause")]).await;
        assert_eq!(status, 303);
        assert!(
            format!("{headers:?}").contains("notice=-Not+done%3A+no+webhook+was+selected"),
            "{headers:?}"
        );
    }
}
