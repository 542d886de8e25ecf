//! Times, numbers and states, as people read them.

use std::fmt;

use askama::filters::HtmlSafe;
use postrider_core::Timestamp;

/// A piece of a page that is written as it is. Whoever makes one has escaped what others wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Html(pub(crate) String);

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Html {}

/// Text with the characters that mean something in HTML written otherwise.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A moment that the API told, as text that says how long ago it was; exactly in its title.
pub(crate) fn when(told: &str, now: Timestamp) -> Html {
    let Some(at) = Timestamp::parse_rfc3339(told) else { return Html(escaped(told)) };
    let exact = exactly(at);
    Html(format!("<time datetime=\"{}\" title=\"{exact}\">{}</time>", at.to_rfc3339(), relative(at, now)))
}

/// The same of a moment that may be missing.
pub(crate) fn when_if(told: Option<&str>, now: Timestamp) -> Html {
    told.map_or_else(|| Html("–".to_owned()), |told| when(told, now))
}

/// A moment with its date and milliseconds, in UTC.
pub(crate) fn exactly(at: Timestamp) -> String {
    let text = Timestamp::from_millis(at.as_millis().div_euclid(1000) * 1000).to_rfc3339();
    let text = text.trim_end_matches('Z').replace('T', " ");
    format!("{text}.{:03} UTC", at.as_millis().rem_euclid(1000))
}

/// The time of day with milliseconds, in UTC.
pub(crate) fn clock(at: Timestamp) -> String {
    let exact = exactly(at);
    exact.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// How long ago, or how long until then.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", duration(at.since_ms(now)))
    } else {
        format!("{} ago", duration(now.since_ms(at)))
    }
}

/// How long something takes, in at most two units.
pub(crate) fn duration(ms: u64) -> String {
    const SECOND: u64 = 1000;
    const MINUTE: u64 = 60 * SECOND;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let two = |large: u64, name: &str, small: u64, of: &str| {
        let (n, rest) = (ms / large, ms % large / small);
        if rest == 0 { format!("{n} {name}") } else { format!("{n} {name} {rest} {of}") }
    };
    match ms {
        0..SECOND => format!("{ms} ms"),
        SECOND..10_000 => {
            let tenths = ms / 100;
            if tenths.is_multiple_of(10) {
                format!("{} s", tenths / 10)
            } else {
                format!("{}.{} s", tenths / 10, tenths % 10)
            }
        }
        10_000..MINUTE => format!("{} s", ms / SECOND),
        MINUTE..HOUR => two(MINUTE, "min", SECOND, "s"),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        _ => two(DAY, "d", HOUR, "h"),
    }
}

/// How much of a disk something takes.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = UNITS.iter().find(|(unit, _)| n >= *unit);
    match fits {
        None => format!("{n} bytes"),
        Some((unit, name)) => {
            let tenths = u128::from(n) * 10 / u128::from(*unit);
            if tenths < 100 {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            } else {
                format!("{} {name}", tenths / 10)
            }
        }
    }
}

/// A number with its thousands apart.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in percent, with one digit behind the point where that says more; nothing of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> Option<String> {
    if whole == 0 {
        return None;
    }
    let thousandths = u128::from(part) * 1000 / u128::from(whole);
    Some(if thousandths % 10 == 0 {
        format!("{}", thousandths / 10)
    } else {
        format!("{}.{}", thousandths / 10, thousandths % 10)
    })
}

/// One of several things, or more.
pub(crate) fn counted(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { more })
}

/// The state of something: a mark, a word and a colour; never the colour alone.
pub(crate) fn state(kind: &str, word: &str) -> Html {
    Html(format!("<span class=\"state {kind}\">{}</span>", escaped(word)))
}

/// The state of a delivery, with which attempt it is at.
pub(crate) fn delivery_state(state_word: &str, held: bool, cancelling: bool, attempts: u32) -> Html {
    match state_word {
        "delivered" => state("ok", "Delivered"),
        "dead" => state("bad", "Dead"),
        "skipped" => state("skipped", "Skipped"),
        "cancelled" => state("off", "Cancelled"),
        "pending" if held => state("paused", "Held"),
        "pending" if cancelling => state("off", "Cancelling"),
        "pending" if attempts > 0 => state("warn", "Retrying"),
        "pending" => state("still", "Waiting"),
        other => state("still", other),
    }
}

/// The state of a webhook.
pub(crate) fn webhook_state(word: &str, failing: bool) -> Html {
    match word {
        "active" if failing => state("bad", "Failing"),
        "active" => state("ok", "Active"),
        "paused" => state("paused", "Paused"),
        "disabled" => state("off", "Disabled"),
        other => state("still", other),
    }
}

/// A text's beginning, where it is longer than so many characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// JSON with its members under one another; other text as it is.
pub(crate) fn indented(text: &str) -> String {
    laid_out(text, true)
}

/// The same on one line, without spaces that mean nothing.
pub(crate) fn on_one_line(text: &str) -> String {
    laid_out(text, false)
}

/// How deep JSON may be nested to be laid out: each level indents what is in it.
const MOST_LEVELS: usize = 64;

/// JSON with other spaces between its parts. Members keep their order, and numbers their spelling. What is nested deeper than
/// anybody reads stays as it is.
fn laid_out(text: &str, indent: bool) -> String {
    if serde_json::from_str::<&serde_json::value::RawValue>(text).is_err() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let line = |out: &mut String, depth: usize| {
        if indent {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
        }
    };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(inside) = chars.next() {
                    out.push(inside);
                    match inside {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None if depth == MOST_LEVELS => return text.to_owned(),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(if indent { ": " } else { ":" }),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// A text of a catalogue: what stands between two backticks is code.
pub(crate) fn marked(text: &str) -> Html {
    let mut parts = text.split('`');
    let mut html = escaped(parts.next().unwrap_or_default());
    while let Some(code) = parts.next() {
        match parts.next() {
            Some(after) => html.push_str(&format!("<code>{}</code>{}", escaped(code), escaped(after))),
            // There is no second one.
            None => html.push_str(&format!("`{}", escaped(code))),
        }
    }
    Html(html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_and_stays_what_it_is() {
        let text = r#" {"z":1.10,"a" : [ ],"n":[1e3, {"s":"{ \" , :"}],"e":{}} "#;
        assert_eq!(
            indented(text),
            "{\n  \"z\": 1.10,\n  \"a\": [],\n  \"n\": [\n    1e3,\n    {\n      \"s\": \"{ \\\" , :\"\n    }\n  ],\n  \"e\": {}\n}"
        );
        assert_eq!(on_one_line(text), r#"{"z":1.10,"a":[],"n":[1e3,{"s":"{ \" , :"}],"e":{}}"#);
        assert_eq!(on_one_line("{oops"), "{oops");
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(indented(&deep), deep, "and not a line for each level");
        assert_eq!(indented("\"a b\""), "\"a b\"");
    }

    #[test]
    fn what_stands_between_backticks_is_code() {
        assert_eq!(marked("a `b<c>` d `e`").0, "a <code>b&lt;c&gt;</code> d <code>e</code>");
        assert_eq!(marked("`a` and ` alone").0, "<code>a</code> and ` alone");
        assert_eq!(marked("<b>").0, "&lt;b&gt;");
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        for (n, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (48 << 20, "48 MiB"),
            (u64::MAX, "17179869183 GiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (5_250, "5.2 s"),
            (15_000, "15 s"),
            (60_000, "1 min"),
            (61_999, "1 min 1 s"),
            (3_600_000, "1 h"),
            (5_400_000, "1 h 30 min"),
            (86_400_000, "1 d"),
            (99_300_000, "1 d 3 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn times_say_how_long_ago_and_exactly() {
        let now = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
        assert_eq!(
            when("2026-11-22T19:59:57.5Z", now).0,
            "<time datetime=\"2026-11-22T19:59:57.5Z\" title=\"2026-11-22 19:59:57.500 UTC\">2.5 s ago</time>"
        );
        assert_eq!(relative(now.plus_ms(240_000), now), "in 4 min");
        assert_eq!(clock(now.plus_ms(7)), "20:00:00.007");
        assert_eq!(when("<b>", now).0, "&lt;b&gt;");
        assert_eq!(when_if(None, now).0, "–");
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(percent(984, 1000).as_deref(), Some("98.4"));
        assert_eq!(percent(3, 3).as_deref(), Some("100"));
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(u64::MAX, u64::MAX).as_deref(), Some("100"));
        assert_eq!(counted(1, "webhook", "webhooks"), "1 webhook");
        assert_eq!(counted(1200, "webhook", "webhooks"), "1,200 webhooks");
    }

    #[test]
    fn what_others_wrote_is_text() {
        assert_eq!(escaped("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
        assert_eq!(state("ok", "<b>").0, "<span class=\"state ok\">&lt;b&gt;</span>");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("abc", 3), "abc");
    }

    #[test]
    fn json_is_laid_out_and_other_text_left_alone() {
        assert_eq!(indented("{\"b\":1}"), "{\n  \"b\": 1\n}");
        assert_eq!(indented("no json"), "no json");
    }
}
