//! `postrider system`: what control stands on, and its settings.

use serde_json::Value;

use super::Context;
use super::config::COLUMNS as SETTINGS;
use crate::exit::{Exit, Failure};
use crate::output::Column;

const CHECKS: &[Column] = &[("CHECK", "/name"), ("OK", "/ok"), ("DETAIL", "/detail")];

/// Shows what was looked at, and the settings. What is not as it should be is a conflict, as it is for `queues`.
///
/// # Errors
/// [`Failure`] with what the API said, or with what is not as it should be.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let answer = context.api()?.get("cannot show the system", &["system"], &[]).await?;
    let list = |member: &str| answer.value[member].as_array().cloned().unwrap_or_default();
    let checks = list("checks");
    if context.out.is_table() {
        context.out.text(&head(&answer.value))?;
        context.out.list(&answer.raw, &checks, CHECKS)?;
        context.out.text("")?;
        context.out.list(&answer.raw, &list("settings"), SETTINGS)?;
    } else {
        context.out.list(&answer.raw, &checks, CHECKS)?;
    }
    judge(&checks)
}

/// What it is, in two lines.
fn head(system: &Value) -> String {
    let text = |path: &str| crate::output::plain(system.pointer(path));
    format!(
        "postrider {} since {}\n{} {}, schema {}; RabbitMQ at {}\n",
        text("/version"),
        text("/started_at"),
        text("/store/kind"),
        text("/store/version"),
        text("/store/schema"),
        text("/broker")
    )
}

fn judge(checks: &[Value]) -> Result<Exit, Failure> {
    let bad: Vec<String> = checks
        .iter()
        .filter(|check| check["ok"] == false)
        .map(|check| {
            format!(
                "{}: {}",
                crate::output::plain(check.get("name")),
                crate::output::plain(check.get("detail"))
            )
        })
        .collect();
    match bad.as_slice() {
        [] => Ok(Exit::Ok),
        bad => Err(Failure::new(Exit::Conflict, "not everything is as it should be", bad.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_a_conflict_and_what_nobody_knows_is_not() {
        let fine = [
            json!({"name": "store", "ok": true, "detail": "d"}),
            json!({"name": "queues", "ok": null, "detail": "d"}),
        ];
        assert_eq!(judge(&fine), Ok(Exit::Ok));
        let failure = judge(&[json!({"name": "worker", "ok": false, "detail": "no worker makes requests"})])
            .unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert_eq!(
            failure.to_string(),
            "not everything is as it should be: worker: no worker makes requests"
        );
    }
}
