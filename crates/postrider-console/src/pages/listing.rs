//! What lists have in common: links to the same list with other filters, and planning that all of it is sent again.

use axum::response::Response;
use http::Method;
use postrider_core::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Visit};

/// How far back a list goes.
pub(crate) const RANGES: [(&str, &str, u64); 5] = [
    ("15m", "Last 15 minutes", 15 * 60_000),
    ("1h", "Last hour", 3_600_000),
    ("24h", "Last 24 hours", 24 * 3_600_000),
    ("7d", "Last 7 days", 7 * 24 * 3_600_000),
    ("", "Everything", 0),
];

/// A tab, an option or a chip: where it leads, and whether it is chosen.
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) link: String,
    pub(crate) chosen: bool,
}

/// A list, with the filters of its address.
pub(crate) struct Filtered<'a> {
    /// Where it is.
    pub(crate) path: &'static str,
    /// What it was asked for with.
    pub(crate) fields: &'a Fields,
}

impl Filtered<'_> {
    /// The list with other filters, from its beginning.
    pub(crate) fn link(&self, changes: &[(&str, &str)]) -> String {
        let mut all = vec![("cursor", "")];
        all.extend_from_slice(changes);
        format!("{}{}", self.path, self.fields.with(&all))
    }

    /// The list with this value of a filter.
    pub(crate) fn choice(&self, name: &str, value: &str, field: &str) -> Choice {
        Choice {
            name: name.to_owned(),
            value: value.to_owned(),
            link: self.link(&[(field, value)]),
            chosen: self.fields.get(field) == value,
        }
    }

    /// A filter that is set, with a link without it.
    pub(crate) fn chip(&self, field: &str, value: &str, told: &str) -> Choice {
        Choice {
            name: format!("{}: {told}", field.replace('_', " ")),
            value: value.to_owned(),
            link: self.link(&[(field, "")]),
            chosen: true,
        }
    }

    /// The page of older ones.
    pub(crate) fn older(&self, next: Option<String>) -> Option<String> {
        next.map(|next| format!("{}{}", self.path, self.fields.with(&[("cursor", &next)])))
    }

    /// Back to the newest, on a page of older ones.
    pub(crate) fn newest(&self) -> Option<String> {
        self.fields.has("cursor").then(|| self.link(&[]))
    }

    /// From when on, where a range was chosen.
    pub(crate) fn since(&self, now: Timestamp) -> Option<String> {
        let range = RANGES.iter().find(|(value, ..)| *value == self.fields.get("range") && !value.is_empty());
        range.map(|(_, _, ms)| now.minus_ms(*ms).to_rfc3339())
    }
}

/// A replay, as the API answers when it is planned.
#[derive(Debug, Deserialize)]
struct Planned {
    id: String,
}

/// Plans a replay and goes to it: nothing is sent before somebody has seen how much that is.
///
/// # Errors
/// [`Refused`] with the API's problem.
pub(crate) async fn planned(visit: &Visit, replay: &Value) -> Result<Response, Refused> {
    let planned: Planned = visit.api.send(Method::POST, "/v1/replays", Some(replay)).await?;
    let path = format!("/jobs/{}", segment(&planned.id));
    Ok(visit.done(&path, "Planned. Look at what it would send, then start it."))
}

/// The same; if it is refused, back to where it was asked for.
pub(crate) async fn plan(visit: &Visit, replay: &Value, back: &str) -> Answer {
    match planned(visit, replay).await {
        Ok(to_plan) => Ok(to_plan),
        Err(refused) => visit.not_done(back, &refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_change_one_filter_and_begin_anew() {
        let fields = Fields::parse(b"state=dead&cursor=abc&range=1h");
        let list = Filtered { path: "/deliveries", fields: &fields };
        assert_eq!(list.link(&[]), "/deliveries?state=dead&range=1h");
        let all = list.choice("All", "", "state");
        assert_eq!((all.link.as_str(), all.chosen), ("/deliveries?range=1h", false));
        assert!(list.choice("Dead", "dead", "state").chosen);
        assert_eq!(list.chip("event_type", "A", "A").name, "event type: A");
        assert_eq!(list.older(Some("x".into())).unwrap(), "/deliveries?state=dead&range=1h&cursor=x");
        assert_eq!(list.newest().unwrap(), "/deliveries?state=dead&range=1h");
        let now = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
        assert_eq!(list.since(now).as_deref(), Some("2026-11-22T19:00:00Z"));
        let none = Fields::parse(b"range=oops");
        let list = Filtered { path: "/events", fields: &none };
        assert_eq!((list.since(now), list.newest(), list.older(None)), (None, None, None));
    }
}
