//! What is typed into the box above the list, such as `state:dead status:5xx webhook:billing since:2h`: as filters of the address.

use postrider_core::event::OWN_ID_PREFIX;
use postrider_core::outcome::CLASSES;
use postrider_core::{EventId, Timestamp};

use crate::pages::listing::ago;

/// The longest text, characters.
pub(super) const MOST_CHARS: usize = 500;
/// The words that are known.
const KNOWN: &str =
    "Known are state, status (or code), class, attempts, webhook, type, event, since and until.";
/// States that the API knows.
const STATES: [&str; 6] = ["pending", "held", "delivered", "dead", "skipped", "cancelled"];

/// What a text asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// The list with these filters set, in place of what they were.
    Filters {
        /// Names and values, as in the address.
        fields: Vec<(&'static str, String)>,
        /// A webhook by its name or id, which has to be looked up.
        webhook: Option<String>,
    },
    /// This delivery.
    Delivery(String),
    /// This event.
    Event(String),
}

/// One word of a text.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    /// What stands before the colon; nothing where there is none.
    name: Option<String>,
    value: String,
}

/// Reads a text.
///
/// # Errors
/// A sentence that says what is wrong, and what is known.
pub(super) fn read(text: &str, now: Timestamp) -> Result<Typed, String> {
    if text.chars().count() > MOST_CHARS {
        return Err(format!("At most {MOST_CHARS} characters are read."));
    }
    let words = words(text)?;
    if let [Word { name: None, value }] = words.as_slice() {
        if let Some(id) = delivery_id(value) {
            return Ok(Typed::Delivery(id.to_owned()));
        }
        if is_event_id(value) {
            return Ok(Typed::Event(value.clone()));
        }
    }
    let mut all = Filters::default();
    for word in words {
        all.add(word, now)?;
    }
    if all.since.zip(all.until).is_some_and(|(since, until)| since >= until) {
        return Err("The time of until must be later than that of since.".to_owned());
    }
    Ok(Typed::Filters { fields: all.fields, webhook: all.webhook })
}

/// The words of a text. A value with spaces stands between quotation marks.
fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let name_end = rest.find(|c: char| c == ':' || c == '"' || c.is_whitespace());
        let name = name_end.filter(|end| rest[*end..].starts_with(':')).map(|end| &rest[..end]);
        let value = name.map_or(rest, |name| &rest[name.len() + 1..]);
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => {
                quoted.split_once('"').ok_or("A quotation mark is open: close it behind the value.")?
            }
            None => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
        };
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err("Write a space behind the second quotation mark.".to_owned());
        }
        words.push(Word { name: name.map(str::to_lowercase), value: value.to_owned() });
        rest = after.trim_start();
    }
    Ok(words)
}

/// What the words ask for so far.
#[derive(Default)]
struct Filters {
    fields: Vec<(&'static str, String)>,
    webhook: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filters {
    /// Takes one more word.
    fn add(&mut self, Word { name, value }: Word, now: Timestamp) -> Result<(), String> {
        let Some(name) = name else {
            if is_event_id(&value) {
                return self.set("event", value);
            }
            if delivery_id(&value).is_some() {
                return Err("The id of a delivery leads to it: write nothing else beside it.".to_owned());
            }
            return Err(format!(
                "“{}” is no filter and no id: write a name, a colon and a value, such as state:dead. {KNOWN}",
                begin(&value)
            ));
        };
        if value.is_empty() {
            return Err(format!("There is nothing behind “{}:”. {KNOWN}", begin(&name)));
        }
        match name.as_str() {
            "state" => self.set("state", one_of("state", &value, &STATES)?),
            "class" => self.set("class", one_of("class", &value, &CLASSES)?),
            "status" | "code" => self.set("status", status(&value)?),
            "attempts" => self.set("attempts_from", attempts(&value)?),
            "type" | "event_type" => self.set("event_type", value),
            "event" => {
                let id = EventId::parse(&value).map_err(|error| format!("In event, {error}."))?;
                self.set("event", id.as_str().to_owned())
            }
            "webhook" if self.webhook.is_none() => {
                self.webhook = Some(value);
                Ok(())
            }
            "webhook" => Err(twice("webhook")),
            "since" => self.begin_at(&value, now),
            "until" => {
                let at = moment("until", &value, now)?;
                self.until = Some(at);
                self.set("until", at.to_rfc3339())
            }
            other => Err(format!("There is no filter “{}”. {KNOWN}", begin(other))),
        }
    }

    fn set(&mut self, name: &'static str, value: String) -> Result<(), String> {
        if self.fields.iter().any(|(known, _)| *known == name) {
            return Err(twice(name));
        }
        self.fields.push((name, value));
        Ok(())
    }

    /// From when on: so long ago, which moves on with time, or a time. Either takes the place of the other.
    fn begin_at(&mut self, value: &str, now: Timestamp) -> Result<(), String> {
        self.since = Some(moment("since", value, now)?);
        let (range, since) = match ago(value) {
            Some(_) => (value.to_owned(), String::new()),
            None => (String::new(), value.to_owned()),
        };
        self.set("range", range).map_err(|_| twice("since"))?;
        self.set("since", since)
    }
}

fn twice(name: &str) -> String {
    let name = if name == "attempts_from" { "attempts" } else { name };
    format!("{} is there twice: write it once.", name.replace('_', " "))
}

/// The beginning of what was typed, to say what is meant.
fn begin(text: &str) -> String {
    crate::words::shortened(text, 40)
}

fn one_of(name: &str, value: &str, known: &[&str]) -> Result<String, String> {
    let value = value.to_lowercase();
    if known.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(format!("There is no {name} “{}”: it is one of {}.", begin(&value), known.join(", ")))
}

fn status(value: &str) -> Result<String, String> {
    let value = value.to_lowercase();
    let is_known = match value.as_bytes() {
        [b'1'..=b'9', b'x', b'x'] => true,
        [b'1'..=b'9', a, b] => a.is_ascii_digit() && b.is_ascii_digit(),
        _ => value == "none",
    };
    is_known.then_some(value.clone()).ok_or_else(|| {
        format!("“{}” is no status: write one such as 429, a hundred such as 5xx, or none.", begin(&value))
    })
}

fn attempts(value: &str) -> Result<String, String> {
    let number = value.parse::<u32>().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit()));
    let wrong =
        || format!("“{}” is no number of attempts: write one such as 3, for so many or more.", begin(value));
    Ok(number.ok_or_else(wrong)?.to_string())
}

/// A time, or how long ago it was.
fn moment(name: &str, value: &str, now: Timestamp) -> Result<Timestamp, String> {
    let at = ago(value).map(|ms| now.minus_ms(ms)).or_else(|| Timestamp::parse_rfc3339(value));
    at.ok_or_else(|| {
        format!(
            "“{}” is no time: in {name}, write how long ago such as 2h, or a time such as 2026-11-21T20:00:00Z.",
            begin(value)
        )
    })
}

/// The id in what may be the id of a delivery, or the `webhook-id` of one.
fn delivery_id(word: &str) -> Option<&str> {
    let id = word.strip_prefix("msg_").unwrap_or(word);
    let is_one = id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_one.then_some(id)
}

/// Whether a word looks like the id of an event: as Postrider makes them, or a UUID.
fn is_event_id(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|b| b.is_ascii_hexdigit());
    let is_uuid = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(is_hex);
    let named =
        ["evt_", OWN_ID_PREFIX].iter().any(|prefix| word.len() > prefix.len() && word.starts_with(prefix));
    is_uuid || (named && EventId::parse(word).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn now() -> Timestamp {
        Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap()
    }

    fn filters(text: &str) -> (Vec<(&'static str, String)>, Option<String>) {
        match read(text, now()) {
            Ok(Typed::Filters { fields, webhook }) => (fields, webhook),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn words_become_filters() {
        let text = "state:dead status:5xx webhook:billing type:USER_LOGIN event:evt_1 class:timeout attempts:3 since:2h";
        let (fields, webhook) = filters(text);
        let told: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            told,
            [
                "state=dead",
                "status=5xx",
                "event_type=USER_LOGIN",
                "event=evt_1",
                "class=timeout",
                "attempts_from=3",
                "range=2h",
                "since="
            ]
        );
        assert_eq!(webhook.as_deref(), Some("billing"));
        assert_eq!(filters("").0, []);
        assert_eq!(filters("CODE:429 State:Dead").0, filters("status:429 state:dead").0);
        assert_eq!(filters("webhook:\"billing prod\" type:\"a b\"").1.as_deref(), Some("billing prod"));
        assert_eq!(filters("since:2026-11-21T20:00:00Z").0[1].1, "2026-11-21T20:00:00Z");
        assert_eq!(filters("until:1h").0, [("until", "2026-11-22T19:00:00Z".to_owned())]);
        assert_eq!(filters("event:a:b").0, [("event", "a:b".to_owned())], "an id may have colons");
        assert_eq!(
            filters("evt_1 state:dead").0[0],
            ("event", "evt_1".to_owned()),
            "beside others it is a filter"
        );
    }

    #[test]
    fn an_id_leads_to_what_it_names() {
        for text in [ID, &format!(" msg_{ID} ")] {
            assert_eq!(read(text, now()), Ok(Typed::Delivery(ID.to_owned())), "{text}");
        }
        for id in ["evt_0190", "own_test_1", "0190a3f2-7c1e-7000-8000-0123456789ab"] {
            assert_eq!(read(id, now()), Ok(Typed::Event(id.to_owned())));
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        for (text, said) in [
            ("colour:red", "There is no filter “colour”. Known are state,"),
            ("hello", "“hello” is no filter and no id"),
            ("state:", "nothing behind “state:”"),
            ("state:gone", "it is one of pending, held, delivered,"),
            ("state:dead state:held", "state is there twice"),
            ("status:500 code:429", "status is there twice"),
            ("attempts:1 attempts:2", "attempts is there twice"),
            ("webhook:a webhook:b", "webhook is there twice"),
            ("since:1h since:2026-11-21T20:00:00Z", "since is there twice"),
            ("code:99", "such as 429"),
            ("status:5x", "such as 429"),
            ("class:slow", "There is no class “slow”: it is one of none, dns,"),
            ("attempts:-1", "such as 3"),
            ("attempts:+3", "such as 3"),
            ("since:yesterday", "how long ago such as 2h"),
            ("until:99999999h", "in until, write"),
            ("since:1h until:2h", "later than that of since"),
            ("webhook:\"billing", "A quotation mark is open"),
            ("webhook:\"a\"b", "Write a space"),
            ("event:\u{e4}", "an event id must be"),
            (&format!("{ID} state:dead"), "leads to it"),
            (&"x".repeat(501), "At most 500 characters"),
        ] {
            let problem = read(text, now()).unwrap_err();
            assert!(problem.contains(said), "{text}: {problem}");
            assert!(problem.ends_with('.') && problem.chars().count() < 400, "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,600}") {
            let is_long = text.chars().count() > MOST_CHARS;
            prop_assert!(!is_long || read(&text, now()).is_err());
            if let Ok(Typed::Filters { fields, webhook }) = read(&text, now()) {
                // What was typed, and no more of it.
                let all: usize = fields.iter().filter(|(name, _)| *name != "until").map(|(_, value)| value.len()).sum();
                prop_assert!(all + webhook.map_or(0, |webhook| webhook.len()) <= text.len());
            }
        }

        #[test]
        fn words_with_colons_and_quotes_are_read_or_refused(text in "([a-z]{0,6}:?\"?[a-z0-9 :äx_-]{0,6}\"? ?){0,12}") {
            read(&text, now()).ok();
        }

        #[test]
        fn what_the_api_takes_is_read_as_it_is(
            state in proptest::sample::select(&STATES[..]),
            class in proptest::sample::select(&CLASSES[..]),
            code in 100u16..1000,
            attempts in any::<u32>(),
            webhook in "[a-zA-Z0-9 :_-]{1,20}",
        ) {
            let text = format!("webhook:\"{webhook}\"  state:{state} class:{class}\tcode:{code} attempts:{attempts} ");
            let (fields, found) = filters(&text);
            prop_assert_eq!(found, Some(webhook));
            let expected = [("state", state.to_owned()), ("class", class.to_owned()), ("status", code.to_string()),
                ("attempts_from", attempts.to_string())];
            prop_assert_eq!(fields, expected);
        }
    }
}
