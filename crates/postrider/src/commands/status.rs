//! `postrider status`: the books, and how control does.

use serde_json::Value;

use super::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Tone};
use crate::table;

/// Shows the books. The exit code says nothing about them: drift is for alerts and for people.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let answer = context.api()?.get("cannot show the books", &["status"], &[]).await?;
    if context.out.is_table() {
        context.out.text(books(&context.out, &answer.value).trim_end())?;
    } else {
        context.out.text(answer.raw.trim_end())?;
    }
    Ok(Exit::Ok)
}

/// The books as two sums and what they come to.
pub(crate) fn books(out: &Output, status: &Value) -> String {
    let number = |path: &str| {
        status.pointer(path).and_then(Value::as_u64).map_or_else(|| "?".to_owned(), |n| n.to_string())
    };
    let sum = |kind: &str, whole: &str, parts: &[&str]| {
        let parts: Vec<String> =
            parts.iter().map(|part| format!("{part} {}", number(&format!("/{kind}/{part}")))).collect();
        vec![
            kind.to_owned(),
            format!("{whole} {}", number(&format!("/{kind}/{whole}"))),
            format!("= {}", parts.join(" + ")),
        ]
    };
    let drift =
        status.pointer("/drift").map_or_else(|| "?".to_owned(), |drift| crate::output::plain(Some(drift)));
    let balanced = drift == "0";
    let rest = if status["at_rest"] == true { ", at rest" } else { "" };
    let verdict = match balanced {
        true => out.paint(Tone::Good, "✓ drift 0"),
        false => out.paint(Tone::Bad, &format!("✕ drift {drift}")),
    };
    let rows = [
        sum("events", "accepted", &["routed", "unmatched", "invalid"]),
        sum("deliveries", "owed", &["delivered", "dead", "cancelled", "skipped", "pending"]),
        vec![
            "beside".to_owned(),
            format!("duplicate {}", number("/events/duplicate")),
            format!(
                "  waiting {}, held {}, dead and unresolved {}",
                number("/events/waiting"),
                number("/deliveries/held"),
                number("/deliveries/dead_unresolved")
            ),
        ],
        vec![
            "fleet".to_owned(),
            format!("workers {}", number("/workers")),
            format!(
                "  routers {} active, {} standby, revision {}",
                number("/routers/active"),
                number("/routers/standby"),
                number("/revision")
            ),
        ],
        vec!["books".to_owned(), format!("{verdict}{rest}"), String::new()],
        control(status),
    ];
    table::render(&[], &rows)
}

/// Control, its store, and its session with RabbitMQ.
fn control(status: &Value) -> Vec<String> {
    let text = |path: &str| crate::output::plain(status.pointer(path));
    let store = match status.pointer("/store/up") == Some(&Value::Bool(false)) {
        true => "cannot be written",
        false => "up",
    };
    let flag = |name: &str| status["broker_session"][name] == true;
    let rabbitmq = match (flag("connected"), flag("blocked")) {
        (true, false) => "connected",
        (true, true) => "blocks publishing",
        (false, _) => "not connected",
    };
    vec![
        "control".to_owned(),
        format!("version {}", text("/version")),
        format!(
            "  since {}, store {store} with {} bytes, RabbitMQ {rabbitmq} since {}",
            text("/started_at"),
            text("/store/bytes"),
            text("/broker_session/since")
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_books_are_two_sums() {
        let status = json!({
            "events": {"accepted": 12, "routed": 10, "unmatched": 2, "invalid": 0, "duplicate": 1, "waiting": 0},
            "deliveries": {"owed": 20, "delivered": 18, "dead": 1, "cancelled": 0, "skipped": 0, "pending": 1,
                "held": 1, "dead_unresolved": 0},
            "drift": 0, "revision": 7, "workers": 1, "routers": {"active": 1, "standby": 0},
            "broker_session": {"connected": true, "blocked": false, "since": "2026-11-21T20:00:01Z"},
            "store": {"kind": "sqlite", "bytes": 4096, "up": true},
            "version": "0.1.0", "started_at": "2026-11-21T20:00:00Z"
        });
        insta::assert_snapshot!(books(&Output::plain(), &status));
    }
}
