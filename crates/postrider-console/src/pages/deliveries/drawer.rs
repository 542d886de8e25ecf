//! One delivery beside the list, in short: `?d=` in the address of the list.

use super::{Delivery, Names, PATH, Row};
use crate::api::{Refused, segment};
use crate::fields::Fields;
use crate::page::Visit;
use crate::pages::delivery::{Series, Whole, summary};
use crate::words::{Html, duration, shortened, state, when, when_if};

/// Attempts that are shown, the newest.
const MOST_ATTEMPTS: usize = 8;

/// What is open beside the list.
pub(crate) struct Drawer {
    /// The list without it, at its row.
    pub(crate) close: String,
    /// The list with it, for the forms in it.
    pub(crate) back: String,
    /// The list with the delivery before it open, if there is one on this page.
    pub(crate) newer: Option<String>,
    /// The same of the one behind it.
    pub(crate) older: Option<String>,
    /// The delivery, if it could be read.
    pub(crate) shown: Option<Shown>,
    /// Why not.
    pub(crate) problem: String,
}

/// A delivery in short.
pub(crate) struct Shown {
    pub(crate) delivery: Delivery,
    pub(crate) path: String,
    pub(crate) event_path: String,
    pub(crate) webhook_name: String,
    pub(crate) summary: String,
    pub(crate) next: Html,
    pub(crate) attempts: Vec<Line>,
    /// How many attempts more there are.
    pub(crate) untold: usize,
    pub(crate) is_over: bool,
    pub(crate) asks_twice: bool,
}

/// One attempt.
pub(crate) struct Line {
    pub(crate) n: String,
    pub(crate) mark: Html,
    pub(crate) took: String,
    pub(crate) at: Html,
}

/// The list with this delivery open beside it.
pub(super) fn link(fields: &Fields, id: &str) -> String {
    format!("{PATH}{}#drawer", fields.with(&[("d", id), ("q", "")]))
}

impl Drawer {
    /// Reads the delivery that the address names; nothing where it names none. One that cannot be read is no reason not to show
    /// the list.
    ///
    /// # Errors
    /// [`Refused`] where the session is over.
    pub(super) async fn read(
        visit: &Visit,
        fields: &Fields,
        rows: &[Row],
        names: &Names,
    ) -> Result<Option<Self>, Refused> {
        if !fields.has("d") {
            return Ok(None);
        }
        let id = fields.get("d");
        let at = rows.iter().position(|row| row.delivery.id == id);
        let beside = |at: Option<usize>| at.and_then(|at| rows.get(at)).map(|row| row.opens.clone());
        let (shown, problem) =
            match visit.api.get::<Whole>(&format!("/v1/deliveries/{}", segment(id)), &[]).await {
                Ok(whole) => (Some(Shown::new(whole, names, visit)), String::new()),
                Err(refused) if refused.is_logged_out() => return Err(refused),
                Err(refused) => (None, why_not(id, &refused)),
            };
        let list = |d: &str| format!("{PATH}{}", fields.with(&[("d", d), ("q", "")]));
        let row = at.map(|_| format!("#d-{id}")).unwrap_or_default();
        Ok(Some(Self {
            close: format!("{}{row}", list("")),
            back: list(id),
            newer: beside(at.and_then(|at| at.checked_sub(1))),
            older: beside(at.map(|at| at + 1)),
            shown,
            problem,
        }))
    }
}

fn why_not(id: &str, refused: &Refused) -> String {
    match refused.status {
        404 => format!(
            "There is no delivery {}: it is none of this tenant, or it was removed by age.",
            shortened(id, 40)
        ),
        _ => format!("{}. {}", refused.detail.trim_end_matches('.'), refused.hint),
    }
}

impl Shown {
    fn new(whole: Whole, names: &Names, visit: &Visit) -> Self {
        let Whole { delivery, all_series } = whole;
        let all: usize = all_series.iter().map(|series| series.attempts.len()).sum();
        let next = delivery.next_at.as_ref().map(|next| when_if(Some(next), visit.now));
        Self {
            path: format!("{PATH}/{}", segment(&delivery.id)),
            event_path: format!("/events/{}", segment(&delivery.event)),
            webhook_name: names.of(&delivery.webhook),
            summary: summary(&delivery),
            next: next.unwrap_or_default(),
            attempts: newest(&all_series, visit),
            untold: all.saturating_sub(MOST_ATTEMPTS),
            is_over: delivery.state != "pending",
            asks_twice: delivery.state == "delivered",
            delivery,
        }
    }
}

/// The newest attempts, newest first. They come in the order of time.
fn newest(all: &[Series], visit: &Visit) -> Vec<Line> {
    let attempts =
        all.iter().flat_map(|series| series.attempts.iter().map(move |attempt| (series.series, attempt)));
    let attempts: Vec<_> = attempts.collect();
    attempts
        .into_iter()
        .rev()
        .take(MOST_ATTEMPTS)
        .map(|(series, attempt)| Line {
            n: if series > 1 { format!("{series}.{}", attempt.n) } else { attempt.n.to_string() },
            mark: state(if attempt.well() { "ok" } else { "bad" }, &attempt.answer()),
            took: duration(attempt.times.duration_ms),
            at: when(&attempt.at, visit.now),
        })
        .collect()
}
