//! Turning a webhook on and off, and deleting it. What ends deliveries is asked for again, with how many they are.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{Webhook, link, read};
use crate::api::segment;
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page};
use crate::words::counted;

/// What can be done to a webhook as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Pause,
    Resume,
    Enable,
    Disable,
    Delete,
}

impl Turn {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "enable" => Self::Enable,
            "disable" => Self::Disable,
            "delete" => Self::Delete,
            _ => return None,
        })
    }

    /// The last part of the API's path.
    fn operation(self) -> &'static str {
        match self {
            Self::Pause => "/pause",
            Self::Resume => "/resume",
            Self::Enable => "/enable",
            Self::Disable => "/disable",
            Self::Delete => "",
        }
    }

    fn method(self) -> Method {
        if self == Self::Delete { Method::DELETE } else { Method::POST }
    }

    /// What is said when it is done.
    fn done(self, webhook: &Webhook) -> String {
        match self {
            Self::Pause => "Paused: deliveries are held until it is resumed.".to_owned(),
            Self::Resume => "Resumed: what was held is sent, oldest first.".to_owned(),
            Self::Disable => "Disabled: deliveries are skipped until it is enabled.".to_owned(),
            Self::Delete => format!("Deleted: {}.", webhook.name),
            Self::Enable => {
                match webhook.skipped_while_disabled.as_ref().map_or(0, |skipped| skipped.deliveries) {
                    0 => "Enabled.".to_owned(),
                    n => {
                        let skipped = counted(n, "delivery was", "deliveries were");
                        format!("Enabled. {skipped} skipped while it was disabled: “Recover” sends them.")
                    }
                }
            }
        }
    }
}

/// How many deliveries it is about, as a cancellation would plan it: no other operation counts them.
#[derive(Debug, Deserialize)]
struct Planned {
    deliveries: u64,
    held: u64,
}

#[derive(Template)]
#[template(path = "webhook_turn.html")]
struct TurnPage {
    shell: Shell,
    webhook: Webhook,
    deletes: bool,
    word: &'static str,
    heading: String,
    pending: String,
    held: Option<String>,
    back: String,
    /// The name was not typed, or another one.
    misspelt: bool,
}

/// Asks again before deliveries end.
pub(super) async fn ask(visit: Visit, Path(id): Path<String>) -> Response {
    let deletes = visit.query().get("to") == "delete";
    let made = asked(&visit, &id, deletes, false).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn asked(visit: &Visit, id: &str, deletes: bool, misspelt: bool) -> Answer {
    let webhook = read(visit, id).await?;
    let plan = json!({ "webhook": id, "plan": true });
    // Only who may cancel may count; whoever may not is refused here, before the question.
    let planned: Planned = visit.api.send(Method::POST, "/v1/cancellations", Some(&plan)).await?;
    let heading = format!("{} {}", if deletes { "Delete" } else { "Disable" }, webhook.name);
    let mut shell = visit.shell(Part::Webhooks, heading.clone());
    shell.live = false;
    page(&TurnPage {
        shell,
        deletes,
        word: if deletes { "delete" } else { "disable" },
        heading,
        pending: counted(planned.deliveries, "delivery has", "deliveries have"),
        held: (planned.held > 0).then(|| counted(planned.held, "of them is", "of them are")),
        back: link(&webhook.id, "settings"),
        misspelt,
        webhook,
    })
}

/// Does it.
pub(super) async fn turn(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = turned(&visit, &id, &fields).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn turned(visit: &Visit, id: &str, fields: &Fields) -> Answer {
    let Some(turn) = Turn::parse(fields.get("to")) else { return asked(visit, id, false, false).await };
    let here = link(id, "settings");
    if turn == Turn::Delete {
        return deleted(visit, id, fields.get("name")).await;
    }
    let path = format!("/v1/webhooks/{}{}", segment(id), turn.operation());
    match visit.api.send::<Webhook>(turn.method(), &path, None).await {
        Ok(webhook) => Ok(visit.done(&here, &turn.done(&webhook))),
        Err(refused) => visit.not_done(&here, &refused),
    }
}

/// Deletes it, if its name was typed.
async fn deleted(visit: &Visit, id: &str, typed: &str) -> Answer {
    let webhook = read(visit, id).await?;
    if typed != webhook.name.trim() {
        return asked(visit, id, true, true).await;
    }
    let turn = Turn::Delete;
    let path = format!("/v1/webhooks/{}{}", segment(id), turn.operation());
    match visit.api.send::<IgnoredAny>(turn.method(), &path, None).await {
        Ok(_) => Ok(visit.done("/webhooks", &turn.done(&webhook))),
        Err(refused) if refused.is_logged_out() => Err(refused.into()),
        Err(refused) => visit.not_done(&link(id, "settings"), &refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_done_is_a_closed_list() {
        for word in ["pause", "resume", "enable", "disable"] {
            let turn = Turn::parse(word).unwrap();
            assert_eq!(turn.operation(), format!("/{word}"));
            assert_eq!(turn.method(), Method::POST);
        }
        assert_eq!(Turn::parse("delete").unwrap().method(), Method::DELETE);
        assert!(Turn::parse("rotate-secret").is_none() && Turn::parse("").is_none());
    }

    #[test]
    fn enabling_says_what_was_missed() {
        let webhook = |n: u64| -> Webhook {
            serde_json::from_value(json!({"skipped_while_disabled": {"deliveries": n, "since": "x"}}))
                .unwrap()
        };
        assert_eq!(Turn::Enable.done(&webhook(0)), "Enabled.");
        assert!(Turn::Enable.done(&webhook(1)).starts_with("Enabled. 1 delivery was skipped"));
        assert!(Turn::Enable.done(&webhook(1200)).starts_with("Enabled. 1,200 deliveries were skipped"));
    }
}
