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
const RANGES: [(&str, &str); 5] = [
    ("15m", "Last 15 minutes"),
    ("1h", "Last hour"),
    ("24h", "Last 24 hours"),
    ("7d", "Last 7 days"),
    ("", "Everything"),
];
/// The longest time that a range goes back, milliseconds: ten years.
const LONGEST_MS: u64 = 3650 * 24 * 3_600_000;

/// How long ago a range begins, such as 90s, 15m, 2h or 7d, in milliseconds.
pub(crate) fn ago(range: &str) -> Option<u64> {
    let (number, unit) = range.split_at_checked(range.len().checked_sub(1)?)?;
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => return None,
    };
    let number: u64 = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok()).flatten()?;
    number.checked_mul(unit_ms).filter(|ms| *ms <= LONGEST_MS)
}

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
    /// The list with other filters, from its beginning, with nothing open beside it.
    pub(crate) fn link(&self, changes: &[(&str, &str)]) -> String {
        let mut all = vec![("cursor", ""), ("d", ""), ("q", "")];
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

    /// The page of older ones. A cursor goes on with the filters that it was made with, so a range becomes the time that it means now.
    pub(crate) fn older(&self, next: Option<String>, now: Timestamp) -> Option<String> {
        let next = next?;
        Some(match self.since(now) {
            Some(since) => self.link(&[("range", ""), ("since", &since), ("cursor", &next)]),
            None => self.link(&[("cursor", &next)]),
        })
    }

    /// Back to the newest, on a page of older ones.
    pub(crate) fn newest(&self) -> Option<String> {
        self.fields.has("cursor").then(|| self.link(&[]))
    }

    /// From when on, where a range was chosen.
    pub(crate) fn since(&self, now: Timestamp) -> Option<String> {
        ago(self.fields.get("range")).map(|ms| now.minus_ms(ms).to_rfc3339())
    }

    /// The ranges to choose from; one that was typed is one of them.
    pub(crate) fn ranges(&self) -> Vec<Choice> {
        let range = self.fields.get("range");
        let typed = (!RANGES.iter().any(|(value, ..)| *value == range) && ago(range).is_some())
            .then(|| self.choice(&format!("Last {range}"), range, "range"));
        typed
            .into_iter()
            .chain(RANGES.iter().map(|(value, name)| self.choice(name, value, "range")))
            .collect()
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
    fn a_range_says_how_long_ago_it_begins() {
        for (range, ms) in
            [("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), ("3650d", LONGEST_MS), ("0s", 0)]
        {
            assert_eq!(ago(range), Some(ms), "{range}");
        }
        for none in ["", "h", "2", "2w", "-2h", "+2h", "2.5h", "3651d", "99999999999999999999d", "2\u{e4}"] {
            assert_eq!(ago(none), None, "{none}");
        }
    }

    #[test]
    fn links_change_one_filter_and_begin_anew() {
        let fields = Fields::parse(b"state=dead&cursor=abc&range=1h");
        let list = Filtered { path: "/deliveries", fields: &fields };
        assert_eq!(list.link(&[]), "/deliveries?state=dead&range=1h");
        let all = list.choice("All", "", "state");
        assert_eq!((all.link.as_str(), all.chosen), ("/deliveries?range=1h", false));
        assert!(list.choice("Dead", "dead", "state").chosen);
        assert_eq!(list.chip("event_type", "A", "A").name, "event type: A");
        assert_eq!(list.newest().unwrap(), "/deliveries?state=dead&range=1h");
        let now = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
        assert_eq!(list.since(now).as_deref(), Some("2026-11-22T19:00:00Z"));
        let older = "/deliveries?state=dead&since=2026-11-22T19%3A00%3A00Z&cursor=x";
        assert_eq!(list.older(Some("x".into()), now).unwrap(), older);
        assert_eq!(list.ranges().iter().filter(|range| range.chosen).count(), 1);
        let fields = Fields::parse(b"range=2h&cursor=x&d=y&q=z");
        let typed = Filtered { path: "/deliveries", fields: &fields };
        assert_eq!((typed.ranges()[0].name.as_str(), typed.ranges()[0].chosen), ("Last 2h", true));
        assert_eq!(
            typed.older(Some("n".into()), now).unwrap(),
            "/deliveries?since=2026-11-22T18%3A00%3A00Z&cursor=n",
            "nothing stays open"
        );
        let none = Fields::parse(b"range=oops");
        let list = Filtered { path: "/events", fields: &none };
        assert_eq!((list.since(now), list.newest(), list.older(None, now)), (None, None, None));
    }
}
