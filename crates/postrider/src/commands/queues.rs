//! `postrider queues`.

use serde_json::Value;

use super::Context;
use crate::exit::{Exit, Failure};
use crate::output::Column;

const COLUMNS: &[Column] = &[
    ("QUEUE", "/name"),
    ("ROLE", "/role"),
    ("TYPE", "/type"),
    ("READY", "/ready"),
    ("CONSUMERS", "/consumers"),
    ("DELAY MS", "/delay_ms"),
    ("DRIFT", "/drift/kind"),
    ("ARGUMENT", "/drift/argument"),
];

/// Lists the queues. That one is not as it should be is a conflict, as it is for `topology diff`.
///
/// # Errors
/// [`Failure`] with what the API said, or with how many are not as they should be.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let answer = context.api()?.get("cannot list the queues", &["queues"], &[]).await?;
    context.out.list(&answer.raw, answer.items(), COLUMNS)?;
    if context.out.is_table() && answer.value["arguments_compared"] == false {
        context
            .out
            .note("control's user may not compare arguments; as the operator: postrider topology diff");
    }
    judge(answer.items())
}

fn judge(queues: &[Value]) -> Result<Exit, Failure> {
    let differing = queues.iter().filter(|queue| !queue["drift"].is_null()).count();
    if differing == 0 {
        return Ok(Exit::Ok);
    }
    let what = format!("{differing} of {} queues are not as they should be", queues.len());
    Err(Failure::new(Exit::Conflict, what, "").next("postrider topology apply declares what is missing"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn drift_has_the_exit_code_of_topology_diff() {
        let fine = json!({"name": "a", "drift": null});
        assert_eq!(judge(std::slice::from_ref(&fine)), Ok(Exit::Ok));
        let failure = judge(&[fine, json!({"name": "b", "drift": {"kind": "missing"}})]).unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert_eq!(failure.to_string(), "1 of 2 queues are not as they should be");
    }
}
