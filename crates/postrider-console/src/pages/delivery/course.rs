//! Where the time of one attempt went, as a bar and in words.

use crate::words::{Html, duration, escaped};

/// How long an attempt and its parts took, milliseconds, as the API tells them.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
pub(crate) struct Times {
    pub(crate) duration_ms: u64,
    #[serde(default)]
    dns_ms: Option<u64>,
    #[serde(default)]
    connect_ms: Option<u64>,
    #[serde(default)]
    first_byte_ms: Option<u64>,
}

/// A part of an attempt.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    name: &'static str,
    class: &'static str,
    ms: u64,
}

/// Nothing where nothing was measured. `class` is how it ended.
fn steps(times: Times, class: &str) -> Vec<Step> {
    let Times { duration_ms, dns_ms, connect_ms, first_byte_ms } = times;
    if dns_ms.or(connect_ms).or(first_byte_ms).is_none() {
        return Vec::new();
    }
    let step = |name, class, ms: Option<u64>| ms.map(|ms| Step { name, class, ms });
    let until_sent = dns_ms.unwrap_or(0).saturating_add(connect_ms.unwrap_or(0));
    let waited = first_byte_ms.unwrap_or(duration_ms).saturating_sub(until_sent);
    // A deadline may have passed while it connected, or waited over a connection that came free meanwhile.
    let for_what = match (first_byte_ms, class) {
        (Some(_), _) => "waiting for the answer",
        (None, "dns" | "connect" | "tls" | "local") => "no connection",
        (None, _) => "no answer",
    };
    let all = [
        step("name", "accent", dns_ms),
        step("connection", "warn", connect_ms),
        step(for_what, if first_byte_ms.is_some() { "ok" } else { "bad" }, Some(waited)),
        step("reading the answer", "idle", first_byte_ms.map(|first| duration_ms.saturating_sub(first))),
    ];
    all.into_iter().flatten().collect()
}

/// The bar with its words; empty where nothing was measured.
pub(super) fn course(times: Times, class: &str) -> Html {
    let steps = steps(times, class);
    let whole = steps.iter().map(|step| step.ms).sum::<u64>().max(1) as f64;
    let mut bar = String::new();
    let mut legend = String::new();
    let mut x = 0.0;
    for Step { name, class, ms } in &steps {
        let width = 100.0 * *ms as f64 / whole;
        bar.push_str(&format!("<rect class=\"{class}\" x=\"{x:.2}\" width=\"{width:.2}\" height=\"6\"/>"));
        x += width;
        legend.push_str(&format!("<li class=\"{class}\">{} {}</li>", escaped(name), duration(*ms)));
    }
    if steps.is_empty() {
        return Html::default();
    }
    // The words beside it say the same.
    let svg = format!(
        "<svg class=\"bar-of\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{bar}</svg>"
    );
    let made = times.first_byte_ms.is_none() || times.connect_ms.is_some();
    let kept = if made { "" } else { "<li class=\"note\">over a connection that was kept</li>" };
    Html(format!(
        "<div class=\"course\" data-testid=\"course\">{svg}<ul class=\"legend\">{legend}{kept}</ul></div>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(times: Times, class: &str) -> Vec<(&'static str, u64)> {
        steps(times, class).iter().map(|step| (step.name, step.ms)).collect()
    }

    #[test]
    fn the_parts_are_the_whole() {
        let new =
            Times { duration_ms: 250, dns_ms: Some(20), connect_ms: Some(30), first_byte_ms: Some(240) };
        assert_eq!(
            told(new, "none"),
            [("name", 20), ("connection", 30), ("waiting for the answer", 190), ("reading the answer", 10)]
        );
        assert!(!course(new, "none").0.contains("kept"));
        let kept = Times { dns_ms: None, connect_ms: None, ..new };
        assert_eq!(told(kept, "none"), [("waiting for the answer", 240), ("reading the answer", 10)]);
        assert!(course(kept, "none").0.contains("over a connection that was kept"));
    }

    #[test]
    fn an_attempt_without_an_answer_says_how_far_it_came() {
        let times = Times { duration_ms: 5_000, dns_ms: Some(2), ..Times::default() };
        assert_eq!(told(times, "connect"), [("name", 2), ("no connection", 4_998)]);
        assert_eq!(told(times, "timeout"), [("name", 2), ("no answer", 4_998)], "nobody knows how far");
        let times = Times { connect_ms: Some(8), ..times };
        assert_eq!(told(times, "reset"), [("name", 2), ("connection", 8), ("no answer", 4_990)]);
        assert!(!course(times, "reset").0.contains("kept"));
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        assert_eq!(course(Times { duration_ms: 5, ..Times::default() }, "none").0, "");
        let odd = Times { duration_ms: 1, dns_ms: Some(9), connect_ms: Some(9), first_byte_ms: Some(3) };
        let drawn = course(odd, "none").0;
        assert!(!drawn.contains("NaN") && !drawn.contains("=\"-"), "{drawn}");
    }
}
