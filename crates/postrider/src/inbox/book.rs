//! What an inbox remembers: for each name its secret, how it answers, and the requests that came.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postrider_core::profile::{Scheme, SignatureSpec};
use postrider_core::{Timestamp, signature};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::relay::Relays;
use super::verify::{Verifier, signature_of};
use crate::ledger::Ledger;
use crate::settings::Secret;

/// The most names.
const MAX_NAMES: usize = 256;
/// The longest name, bytes.
const MAX_NAME_BYTES: usize = 128;
/// The most requests that are kept for one name.
const MAX_REQUESTS: usize = 1_000;
/// The most bytes that are kept of all requests together.
const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;
/// The most bytes that are kept of one body.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// The most bytes that are kept of one header's value.
const MAX_HEADER_BYTES: usize = 1024;

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// Not at all, until the sender gives up.
    Hang(Hang),
}

/// The word for an answer that does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hang {
    /// `hang`.
    Hang,
}

impl Answer {
    /// Success.
    pub const OK: Self = Self::Status(200);
    /// No answer.
    pub const HANG: Self = Self::Hang(Hang::Hang);

    /// Reads a status or `hang`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "hang" => Some(Self::HANG),
            _ => text.parse().ok().map(Self::Status).filter(|answer| answer.is_legal()),
        }
    }

    fn is_legal(self) -> bool {
        matches!(self, Self::Hang(_) | Self::Status(200..=599))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Hang(_) => f.write_str("hang"),
        }
    }
}

/// What an inbox is told about one name. What is missing stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    /// The signing secret, to verify what comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The profile that requests are signed by: `postrider`, unless it was told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// For this many requests, then 200 again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// For this long, then 200 again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// `Retry-After` of the answer, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// A request that came, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// To which name.
    pub name: String,
    /// When, RFC 3339.
    pub received_at: String,
    /// The method.
    pub method: String,
    /// The path and, if there is one, the query.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text; what is no UTF-8 is replaced.
    pub body: String,
    /// Whether the body was cut.
    pub body_cut: bool,
    /// The event's type, or the product's code for it, where body or headers say so.
    pub event_type: Option<String>,
    /// How the signature was verified; nothing where it was not.
    pub scheme: Option<Scheme>,
    /// Whether the signature is good; nothing is known without a secret.
    pub verified: Option<bool>,
    /// Why it is not, or why nothing is known.
    pub reason: Option<String>,
    /// How it was answered.
    pub answer: Answer,
}

impl Received {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let verified = match (self.verified, &self.reason) {
            (Some(true), _) => "✓ verified".to_owned(),
            (Some(false), Some(reason)) => format!("✕ {reason}"),
            (Some(false), None) => "✕ not verified".to_owned(),
            (None, _) => "not checked".to_owned(),
        };
        let text = format!(
            "{:<24}  {}  {}  {}  attempt {}  {}  → {}",
            self.received_at,
            self.name,
            self.event_type.as_deref().unwrap_or("-"),
            self.header("webhook-id").unwrap_or("-"),
            self.header("webhook-attempt").unwrap_or("-"),
            verified,
            self.answer,
        );
        crate::table::printable(&text)
    }

    fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        self.body.len() + self.path.len() + headers + 256
    }
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// To which name.
    pub name: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The method.
    pub method: &'a str,
    /// The path and, if there is one, the query.
    pub path: &'a str,
    /// The headers, names in lower case.
    pub headers: &'a [(String, String)],
    /// The whole body.
    pub body: &'a [u8],
}

/// Everything that an inbox remembers.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Verifies what has no secret of its own.
    any: Option<Verifier>,
    ledger: Option<Ledger>,
    names: Mutex<Names>,
    /// What is handed to listeners has nothing to do with these names.
    relays: Relays,
}

#[derive(Debug, Default)]
struct Names {
    of: BTreeMap<String, Entry>,
    kept_bytes: usize,
    sequence: u64,
}

#[derive(Debug, Default)]
struct Entry {
    signature: Option<SignatureSpec>,
    /// As it was told: another profile may read it in another way.
    secret: Option<Secret>,
    verifier: Option<Verifier>,
    script: Option<Script>,
    requests: VecDeque<(u64, Received)>,
    total: u64,
}

/// An answer other than 200, and how long it lasts.
#[derive(Clone, Copy, Debug)]
struct Script {
    answer: Answer,
    retry_after: Option<u64>,
    times: Option<u32>,
    until: Option<Instant>,
}

/// Why an order is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOrder {
    /// The secret.
    #[error("secret: {0}")]
    Secret(#[from] signature::BadKey),
    /// The profile.
    #[error("profile: it must be one that is known here: {known}")]
    Profile {
        /// All of them.
        known: String,
    },
    /// The answer.
    #[error("answer: it must be a status from 200 to 599, or \"hang\"")]
    Answer,
    /// Too many names, or too long a name.
    #[error("a name has at most {MAX_NAME_BYTES} bytes, and there are at most {MAX_NAMES} of them")]
    Full,
}

impl Inbox {
    /// An empty inbox. `any` verifies what has no secret of its own.
    pub fn new(any: Option<Verifier>) -> Self {
        Self { any, ..Self::default() }
    }

    /// The same, which has every request written down before it is answered.
    #[must_use]
    pub fn with_ledger(self, ledger: Option<Ledger>) -> Self {
        Self { ledger, ..self }
    }

    /// Where requests are written down.
    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// What is handed to listeners.
    pub(super) fn relays(&self) -> &Relays {
        &self.relays
    }

    /// Does what it is told about `name`.
    ///
    /// # Errors
    /// [`BadOrder`]; nothing has changed then.
    pub fn order(&self, name: &str, order: &Order, now: Instant) -> Result<(), BadOrder> {
        let signature = order.profile.as_deref().map(signature_of).transpose()?;
        if order.answer.is_some_and(|answer| !answer.is_legal()) {
            return Err(BadOrder::Answer);
        }
        let mut names = self.lock();
        if !names.takes(name) {
            return Err(BadOrder::Full);
        }
        let known = names.of.get(name);
        let signature = signature.or_else(|| known.and_then(|entry| entry.signature.clone()));
        let secret = order.secret.as_deref().map(Secret::new);
        let secret = secret.or_else(|| known.and_then(|entry| entry.secret.clone()));
        let verifier = secret
            .as_ref()
            .map(|secret| Verifier::new(signature.clone().unwrap_or_default(), secret.reveal()))
            .transpose()?;
        let entry = names.of.entry(name.to_owned()).or_default();
        (entry.signature, entry.secret, entry.verifier) = (signature, secret, verifier);
        if let Some(answer) = order.answer {
            let until = order.for_ms.map(Duration::from_millis).and_then(|lasts| now.checked_add(lasts));
            entry.script = Some(Script { answer, retry_after: order.retry_after, times: order.times, until });
        }
        Ok(())
    }

    /// Takes a request, and says how to answer it: status or hang, and `Retry-After`. `None` when there are too many
    /// names already, or this one is too long.
    pub fn take(&self, given: &Given<'_>, at: Timestamp, now: Instant) -> Option<(Received, Option<u64>)> {
        let mut names = self.lock();
        if !names.takes(given.name) {
            return None;
        }
        let entry = names.of.entry(given.name.to_owned()).or_default();
        let (answer, retry_after) = entry.answer(now);
        let verifier = entry.verifier.as_ref().or(self.any.as_ref());
        let verdict = match verifier {
            None => Verdict::unknown("the inbox does not know the secret of this name"),
            Some(verifier) => match (verifier.scheme(), verifier.verify(given, at)) {
                (None, _) => Verdict::unknown("the profile of this name signs nothing"),
                (scheme, Ok(())) => Verdict { scheme, verified: Some(true), reason: None },
                (scheme, Err(untrusted)) => {
                    Verdict { scheme, verified: Some(false), reason: Some(untrusted.to_string()) }
                }
            },
        };
        let received = keep(given, at, answer, verdict);
        entry.total += 1;
        names.remember(received.clone());
        Some((received, retry_after))
    }

    /// What came to `name`, newest last, and how much came in all.
    pub fn received(&self, name: &str) -> (Vec<Received>, u64) {
        self.newest(name, usize::MAX)
    }

    /// The newest `most` of what came to `name`, newest last, and how much came in all.
    pub fn newest(&self, name: &str, most: usize) -> (Vec<Received>, u64) {
        let names = self.lock();
        names.of.get(name).map_or((Vec::new(), 0), |entry| {
            let older = entry.requests.len().saturating_sub(most);
            let newest = entry.requests.iter().skip(older);
            (newest.map(|(_, received)| received.clone()).collect(), entry.total)
        })
    }

    /// Every name that it knows, and how much came to it.
    pub fn names(&self) -> Vec<(String, u64)> {
        self.lock().of.iter().map(|(name, entry)| (name.clone(), entry.total)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn answer(&mut self, now: Instant) -> (Answer, Option<u64>) {
        let over =
            |script: &mut Script| script.times == Some(0) || script.until.is_some_and(|until| now >= until);
        if self.script.as_mut().is_some_and(over) {
            self.script = None;
        }
        match &mut self.script {
            None => (Answer::OK, None),
            Some(script) => {
                script.times = script.times.map(|times| times - 1);
                (script.answer, script.retry_after)
            }
        }
    }
}

impl Names {
    fn takes(&self, name: &str) -> bool {
        name.len() <= MAX_NAME_BYTES && (self.of.len() < MAX_NAMES || self.of.contains_key(name))
    }

    /// Keeps a request, and forgets the oldest ones where there is no room.
    fn remember(&mut self, received: Received) {
        self.sequence += 1;
        self.kept_bytes += received.weight();
        let entry = self.of.entry(received.name.clone()).or_default();
        entry.requests.push_back((self.sequence, received));
        if entry.requests.len() > MAX_REQUESTS
            && let Some((_, oldest)) = entry.requests.pop_front()
        {
            self.kept_bytes -= oldest.weight();
        }
        while self.kept_bytes > MAX_KEPT_BYTES {
            let oldest = self
                .of
                .values_mut()
                .filter(|entry| !entry.requests.is_empty())
                .min_by_key(|entry| entry.requests.front().map(|(sequence, _)| *sequence));
            let Some((_, oldest)) = oldest.and_then(|entry| entry.requests.pop_front()) else { return };
            self.kept_bytes -= oldest.weight();
        }
    }
}

/// What an inbox thinks of a signature.
struct Verdict {
    scheme: Option<Scheme>,
    verified: Option<bool>,
    reason: Option<String>,
}

impl Verdict {
    fn unknown(reason: &str) -> Self {
        Self { scheme: None, verified: None, reason: Some(reason.to_owned()) }
    }
}

fn keep(given: &Given<'_>, at: Timestamp, answer: Answer, verdict: Verdict) -> Received {
    let (body, body_cut) = match given.body.get(..MAX_BODY_BYTES) {
        Some(beginning) if given.body.len() > MAX_BODY_BYTES => (beginning, true),
        Some(_) | None => (given.body, false),
    };
    let ce_type = given.headers.iter().find(|(name, _)| name == "ce-type").map(|(_, name)| name.as_str());
    let event_type = event_type_of(given.body, ce_type);
    let Verdict { scheme, verified, reason } = verdict;
    Received {
        name: given.name.to_owned(),
        received_at: at.to_rfc3339(),
        method: given.method.to_owned(),
        path: crate::table::cut(given.path, 2048),
        headers: given
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), crate::table::cut(value, MAX_HEADER_BYTES)))
            .collect(),
        body: String::from_utf8_lossy(body).into_owned(),
        body_cut,
        event_type,
        scheme,
        verified,
        reason,
        answer,
    }
}

/// The event's type, or the product's code for it, where the body or the header `ce-type` says so.
pub fn event_type_of(body: &[u8], ce_type: Option<&str>) -> Option<String> {
    let in_body = serde_json::from_slice::<Value>(body).ok().and_then(|body| {
        let names = ["event_type", "type", "hook_code"];
        names.iter().find_map(|name| body.get(name)?.as_str().map(str::to_owned))
    });
    in_body.or_else(|| ce_type.map(str::to_owned)).map(|name| crate::table::cut(&name, 128))
}

#[cfg(test)]
mod tests {
    use super::*;

    use postrider_core::signature::SigningKey;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn signed(body: &[u8]) -> Vec<(String, String)> {
        let signature = SigningKey::parse(SECRET).unwrap().sign("msg_1", AT, body);
        let headers = [
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", AT.as_secs().to_string()),
            ("webhook-signature", signature),
            ("webhook-attempt", "1".to_owned()),
            ("host", "127.0.0.1:8081".to_owned()),
        ];
        headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn take(inbox: &Inbox, name: &str, headers: &[(String, String)], body: &[u8]) -> Received {
        let path = format!("/in/{name}");
        let given = Given { name, scheme: "http", method: "POST", path: &path, headers, body };
        inbox.take(&given, AT, Instant::now()).unwrap().0
    }

    fn order(text: &str) -> Order {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn signatures_are_verified_where_the_secret_is_known() {
        let inbox = Inbox::new(None);
        let body = br#"{"event_type":"USER_CREATED","data":{}}"#;
        let headers = signed(body);
        let unknown = take(&inbox, "a", &headers, body);
        assert_eq!((unknown.verified, unknown.event_type.as_deref()), (None, Some("USER_CREATED")));
        inbox.order("a", &order(&format!(r#"{{"secret":"{SECRET}"}}"#)), Instant::now()).unwrap();
        assert_eq!(take(&inbox, "a", &headers, body).verified, Some(true));
        let changed = take(&inbox, "a", &headers, b"{}");
        assert_eq!(changed.verified, Some(false));
        assert!(changed.reason.unwrap().contains("no signature fits"));
        let unsigned = take(&inbox, "a", &headers[3..], body);
        assert!(unsigned.reason.unwrap().contains("webhook-id"));
        assert!(take(&inbox, "a", &headers[..3], body).reason.unwrap().contains("host"));
        assert_eq!(take(&inbox, "other", &headers, body).verified, None);
        let any = Inbox::new(Some(Verifier::new(SignatureSpec::default(), SECRET).unwrap()));
        let other = take(&any, "other", &headers, body);
        assert_eq!((other.verified, other.scheme), (Some(true), Some(Scheme::StandardWebhooks)));
    }

    #[test]
    fn each_name_has_a_profile_of_its_own() {
        let inbox = Inbox::new(None);
        let body = br#"{"webhook_event_id":"e","hook_code":"user_deleted_hook"}"#;
        // `printf %s BODY | openssl dgst -sha256 -hmac SECRET`
        let signature = "8b9060b9cbfb301fd9bc7818fd58506ddd07fd52aeea9f2b9547e9d5261624cb";
        let headers = [("host", "127.0.0.1"), ("x-webhook-signature", signature)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let tell = |text: &str| inbox.order("a", &order(text), Instant::now()).unwrap();
        tell(&format!(r#"{{"profile":"upmind","secret":"{SECRET}"}}"#));
        let good = take(&inbox, "a", &headers, body);
        assert_eq!((good.verified, good.scheme), (Some(true), Some(Scheme::BodyHex)));
        assert_eq!(good.event_type.as_deref(), Some("user_deleted_hook"));
        assert_eq!(take(&inbox, "a", &headers, b"{}").verified, Some(false));
        tell(r#"{"answer":503}"#);
        assert_eq!(take(&inbox, "a", &headers, body).verified, Some(true), "the profile stays");
        tell(r#"{"profile":"postrider"}"#);
        assert_eq!(take(&inbox, "a", &headers, body).verified, Some(false), "the secret stays");
        assert_eq!(take(&inbox, "a", &signed(body), body).verified, Some(true));
        let unknown = inbox.order("a", &order(r#"{"profile":"nobody's"}"#), Instant::now()).unwrap_err();
        assert!(unknown.to_string().contains("upmind"), "{unknown}");
        let form = inbox.order("b", &order(r#"{"profile":"upmind","secret":"short"}"#), Instant::now());
        assert_eq!(form, Err(BadOrder::Secret(signature::BadKey::Text)));
    }

    #[test]
    fn answers_last_as_long_as_they_should() {
        let inbox = Inbox::new(None);
        let now = Instant::now();
        let given =
            Given { name: "a", scheme: "http", method: "POST", path: "/in/a", headers: &[], body: b"" };
        let answers = |after_ms: u64| {
            let (received, retry_after) =
                inbox.take(&given, AT, now + Duration::from_millis(after_ms)).unwrap();
            (received.answer, retry_after)
        };
        assert_eq!(answers(0), (Answer::OK, None));
        inbox.order("a", &order(r#"{"answer":429,"times":2,"retry_after":7}"#), now).unwrap();
        assert_eq!(answers(0), (Answer::Status(429), Some(7)));
        assert_eq!(answers(0), (Answer::Status(429), Some(7)));
        assert_eq!(answers(0), (Answer::OK, None));
        inbox.order("a", &order(r#"{"answer":"hang","for_ms":100}"#), now).unwrap();
        assert_eq!(answers(99), (Answer::HANG, None));
        assert_eq!(answers(100), (Answer::OK, None));
        inbox.order("a", &order(r#"{"answer":500}"#), now).unwrap();
        inbox.order("a", &order(&format!(r#"{{"secret":"{SECRET}"}}"#)), now).unwrap();
        assert_eq!(answers(1_000_000), (Answer::Status(500), None), "another order leaves the answer alone");
    }

    #[test]
    fn memory_is_bounded() {
        let inbox = Inbox::new(None);
        for n in 0..MAX_REQUESTS + 10 {
            take(&inbox, "a", &[], format!("{n}").as_bytes());
        }
        let (kept, total) = inbox.received("a");
        assert_eq!((kept.len(), total), (MAX_REQUESTS, MAX_REQUESTS as u64 + 10));
        assert_eq!(kept[0].body, "10");
        let large = take(&inbox, "b", &[], &vec![b'x'; MAX_BODY_BYTES + 1]);
        assert!(large.body_cut && large.body.len() == MAX_BODY_BYTES);
        for n in 0..6_000 {
            take(&inbox, &format!("c{}", n % 6), &[], &vec![b'x'; MAX_BODY_BYTES]);
        }
        assert!(inbox.lock().kept_bytes <= MAX_KEPT_BYTES);
        assert!(inbox.received("a").0.is_empty(), "the oldest went first");
        for n in 0..MAX_NAMES {
            let name = format!("n{n}");
            let given =
                Given { name: &name, scheme: "http", method: "POST", path: "/", headers: &[], body: b"" };
            inbox.take(&given, AT, Instant::now());
        }
        assert_eq!(inbox.lock().of.len(), MAX_NAMES);
        assert_eq!(inbox.order("one more", &Order::default(), Instant::now()), Err(BadOrder::Full));
    }

    #[test]
    fn nonsense_is_refused() {
        let inbox = Inbox::new(None);
        let refused = |text: &str| inbox.order("a", &order(text), Instant::now()).unwrap_err();
        assert_eq!(refused(r#"{"answer":99}"#), BadOrder::Answer);
        assert!(matches!(refused(r#"{"secret":"whsec_x"}"#), BadOrder::Secret(_)));
        assert!(serde_json::from_str::<Order>(r#"{"anser":200}"#).is_err());
        assert_eq!(Answer::parse("hang"), Some(Answer::HANG));
        assert_eq!(Answer::parse("503"), Some(Answer::Status(503)));
        assert_eq!(Answer::parse("99"), None);
    }
}
