//! `postrider dead`.

use reqwest::Method;

use super::{Context, each, list, show};
use crate::args::Dead;
use crate::exit::{Exit, Failure};
use crate::output::Column;

const COLUMNS: &[Column] = &[
    ("DEAD LETTER", "/id"),
    ("KIND", "/kind"),
    ("REASON", "/reason"),
    ("EVENT TYPE", "/event_type"),
    ("WEBHOOK", "/webhook"),
    ("DELIVERY", "/delivery"),
    ("AT", "/at"),
    ("RESOLVED", "/resolution"),
];

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: Dead) -> Result<Exit, Failure> {
    const PATH: &str = "dead-letters";
    match command {
        Dead::List { kind, reason, unresolved, page } => {
            let resolved = unresolved.then(|| "false".to_owned());
            let filter =
                [("kind", kind.as_ref()), ("reason", reason.as_ref()), ("resolved", resolved.as_ref())];
            return list(context, &[PATH], &filter, &page, COLUMNS).await;
        }
        Dead::Get { id } => {
            return show(context, &format!("cannot show the dead letter {id}"), &[PATH, &id], &[]).await;
        }
        Dead::Resolve(ids) => {
            each(context, Method::POST, "cannot resolve", &ids.ids, |id| vec![PATH, id, "resolve"]).await?;
        }
        Dead::Redeliver(ids) => {
            each(context, Method::POST, "cannot redeliver", &ids.ids, |id| vec![PATH, id, "redeliver"])
                .await?;
        }
    }
    Ok(Exit::Ok)
}
