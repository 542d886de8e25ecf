//! Lists as files: a line for each, and all of it, however often the API has to be asked.

use std::time::Duration;

use serde_json::Value;

use super::Context;
use crate::api::Api;
use crate::exit::{Exit, Failure};
use crate::output::Format;

/// How often a part behind the first is asked for, where it cannot begin: somebody else may be exporting, or control restarts.
const TRIES: u32 = 6;
/// How long to wait in between.
const PAUSE: Duration = Duration::from_secs(5);

/// How an export ended: what its last line says.
struct End {
    /// Where the rest begins, if there is more.
    next: Option<String>,
    /// Why there is, in one word.
    cut: String,
}

/// Writes a list to standard output, one JSON document a line. What was cut goes on where it was, until it is all there.
pub(super) async fn export(
    context: &Context,
    path: &[&str],
    filter: Vec<(&'static str, String)>,
) -> Result<Exit, Failure> {
    let api = context.api()?;
    let (mut query, mut written, mut left) = (filter.clone(), 0, TRIES);
    loop {
        let before = written;
        let end = match part(context, &api, path, &query, &mut written).await {
            Ok(end) => end,
            Err(failure)
                if failure.exit == Exit::Unavailable && before > 0 && written == before && left > 1 =>
            {
                left -= 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let Some(next) = end.next else { break };
        if end.cut == "unavailable" && written == before {
            let why = format!("the store of control did not answer any more after {written} lines");
            return Err(Failure::new(Exit::Unavailable, "cannot export everything", why)
                .next("see the log of control, then export again: what was written is only a part"));
        }
        left = TRIES;
        query.clone_from(&filter);
        query.push(("cursor", next));
    }
    context.out.note(&format!("{written} lines"));
    Ok(Exit::Ok)
}

/// Writes one answer of the API, but for its last line, and says what that says.
async fn part(
    context: &Context,
    api: &Api,
    path: &[&str],
    query: &[(&'static str, String)],
    written: &mut u64,
) -> Result<End, Failure> {
    let what = format!("cannot export {}", path[0]);
    let mut out = context.out;
    out.format = Format::Jsonl;
    let mut end = None;
    api.lines(&what, path, query, |line| {
        let value: Value = serde_json::from_str(line).map_err(|error| {
            Failure::new(Exit::Unavailable, what.as_str(), format!("a line is no JSON: {error}"))
        })?;
        let Some(last) = value.get("export") else {
            *written += 1;
            return out.list("", std::slice::from_ref(&value), &[]);
        };
        let text = |name: &str| last.get(name).and_then(Value::as_str).map(str::to_owned);
        end = Some(End { next: text("next"), cut: text("cut").unwrap_or_default() });
        Ok(())
    })
    .await?;
    let broken = || {
        format!("the answer ended after {written} lines, without the last line that says whether it is all")
    };
    end.ok_or_else(|| Failure::new(Exit::Unavailable, what.as_str(), broken()))
}
