//! The relay of an inbox: requests to `/relay/NAME` are handed to whoever listens under that name, who answers them.
//!
//! These names have nothing to do with those of `/in`: what comes to them is kept nowhere, is in no list, and is handed out
//! only against the token that the listener gave at its beginning. Without an answer of the listener nobody is told that a
//! request went well: a name of `/in` that was told nothing answers 200, one of these never does.
//!
//! A listener shows by asking for requests, again and again, that it is there. When it has not asked for [`SILENT_AFTER`],
//! requests are answered with 503: they come again. After [`OVER_AFTER`] they are answered with 410: nobody comes back, and
//! Postrider disables the webhook.

mod client;
mod server;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::{Notify, oneshot};

use crate::settings::Secret;

pub use client::{Listener, Lost};
pub(super) use server::routes;

/// A listener that has not asked for so long is away: requests are to come again.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);
/// A listener that has not asked for so long is gone.
pub const OVER_AFTER: Duration = Duration::from_secs(60);
/// The most names, with those whose listener is gone.
const MAX_NAMES: usize = 16;
/// The longest name, bytes.
const MAX_NAME_BYTES: usize = 128;
/// How long a token may be, bytes.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=256;
/// The most requests of one name that have no answer yet.
const MAX_OPEN: usize = 256;
/// The most bytes of one name that wait to be handed out.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Bytes as they are, in JSON as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Headers in their order; values are bytes.
pub type Headers = Vec<(String, Raw)>;

/// A request that is handed to a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Its number, by which it is answered.
    pub id: u64,
    /// The method.
    pub method: String,
    /// What follows the name in the URL, path and query; empty where nothing does.
    pub path: String,
    /// The headers that are about the request, names in lower case.
    pub headers: Headers,
    /// The whole body.
    pub body: Raw,
}

impl Relayed {
    /// A header's value, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(&value.0).ok()
    }

    fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.0.len()).sum();
        self.body.0.len() + self.path.len() + headers
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers that are about the answer.
    pub headers: Headers,
    /// The body.
    pub body: Raw,
}

/// Why a request is not handed to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// This inbox has never heard of the name; another one before it may have.
    #[error("nobody listens under this name")]
    Unknown,
    /// The listener has not asked for a while.
    #[error("whoever listens under this name has not asked for {} s", SILENT_AFTER.as_secs())]
    Silent,
    /// The listener is gone.
    #[error("nobody listens under this name any more")]
    Over,
    /// Too much waits already.
    #[error("{MAX_OPEN} requests or {MAX_WAITING_BYTES} bytes wait for whoever listens under this name")]
    Full,
}

/// Why a listener is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadListener {
    /// The name.
    #[error("a name has 1 to {MAX_NAME_BYTES} letters, digits, - and _")]
    Name,
    /// The token cannot be one.
    #[error("a token has {} to {} bytes", TOKEN_BYTES.start(), TOKEN_BYTES.end())]
    Token,
    /// Another token opens this name.
    #[error("the token does not open this name")]
    Foreign,
    /// There are too many.
    #[error("{MAX_NAMES} others listen already")]
    Full,
    /// The name is not listened under, or no longer.
    #[error("the inbox does not know this name, or its listener has not asked for {} s", OVER_AFTER.as_secs())]
    Unknown,
}

/// Everything that is relayed.
#[derive(Debug, Default)]
pub struct Relays {
    names: Mutex<BTreeMap<String, Relay>>,
}

#[derive(Debug)]
struct Relay {
    token: Secret,
    /// When the listener last asked.
    asked: Instant,
    /// The listener said goodbye.
    ended: bool,
    /// What nobody has taken yet, oldest first.
    waiting: VecDeque<Relayed>,
    /// What has no answer yet, waiting or taken.
    open: BTreeMap<u64, oneshot::Sender<Reply>>,
    last_id: u64,
    wake: Arc<Notify>,
}

impl Relay {
    fn state(&self, now: Instant) -> Result<(), Unheard> {
        let silent = now.saturating_duration_since(self.asked);
        if self.ended || silent >= OVER_AFTER {
            Err(Unheard::Over)
        } else if silent >= SILENT_AFTER {
            Err(Unheard::Silent)
        } else {
            Ok(())
        }
    }

    fn opens(&self, token: &str) -> bool {
        let (own, given) = (self.token.reveal().as_bytes(), token.as_bytes());
        // As long for a wrong token as for a good one.
        own.len() == given.len() && own.iter().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl Relays {
    /// Begins to relay what comes to `name`, or goes on.
    ///
    /// # Errors
    /// [`BadListener`]; nothing has changed then.
    pub fn begin(&self, name: &str, token: &str, now: Instant) -> Result<(), BadListener> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(BadListener::Name);
        }
        if !TOKEN_BYTES.contains(&token.len()) {
            return Err(BadListener::Token);
        }
        let mut names = self.lock();
        if let Some(relay) = names.get_mut(name) {
            if !relay.opens(token) {
                return Err(BadListener::Foreign);
            }
            (relay.asked, relay.ended) = (now, false);
            return Ok(());
        }
        if names.len() >= MAX_NAMES {
            // The one that has been gone the longest is forgotten.
            let gone = names.iter().filter(|(_, relay)| relay.state(now) == Err(Unheard::Over));
            let Some(longest) = gone.min_by_key(|(_, relay)| relay.asked).map(|(name, _)| name.clone())
            else {
                return Err(BadListener::Full);
            };
            names.remove(&longest);
        }
        let relay = Relay {
            token: Secret::new(token),
            asked: now,
            ended: false,
            waiting: VecDeque::new(),
            open: BTreeMap::new(),
            last_id: 0,
            wake: Arc::default(),
        };
        names.insert(name.to_owned(), relay);
        Ok(())
    }

    /// Whether somebody listens under `name`.
    ///
    /// # Errors
    /// [`Unheard`] when nobody does.
    pub fn heard(&self, name: &str, now: Instant) -> Result<(), Unheard> {
        self.lock().get(name).ok_or(Unheard::Unknown)?.state(now)
    }

    /// Offers a request to whoever listens under `name`; its number is given here. What comes back is its number, and where the
    /// answer will come.
    ///
    /// # Errors
    /// [`Unheard`] when nobody will take it.
    pub fn offer(
        &self,
        name: &str,
        request: Relayed,
        now: Instant,
    ) -> Result<(u64, oneshot::Receiver<Reply>), Unheard> {
        let mut names = self.lock();
        let relay = names.get_mut(name).ok_or(Unheard::Unknown)?;
        relay.state(now)?;
        let waiting: usize = relay.waiting.iter().map(Relayed::weight).sum();
        if relay.open.len() >= MAX_OPEN || waiting + request.weight() > MAX_WAITING_BYTES {
            return Err(Unheard::Full);
        }
        relay.last_id += 1;
        let id = relay.last_id;
        let (sender, reply) = oneshot::channel();
        relay.open.insert(id, sender);
        relay.waiting.push_back(Relayed { id, ..request });
        relay.wake.notify_one();
        Ok((id, reply))
    }

    /// Nobody waits for the answer to a request any more.
    pub fn withdraw(&self, name: &str, id: u64) {
        if let Some(relay) = self.lock().get_mut(name) {
            relay.open.remove(&id);
            relay.waiting.retain(|request| request.id != id);
        }
    }

    /// Hands out up to `most` of what waits, and shows that the listener is there. Beside it comes what wakes whoever wants
    /// to ask again.
    ///
    /// # Errors
    /// [`BadListener`] for another token, and for a name that is not known or over.
    pub fn take(
        &self,
        name: &str,
        token: &str,
        most: usize,
        now: Instant,
    ) -> Result<(Vec<Relayed>, Arc<Notify>), BadListener> {
        let mut names = self.lock();
        let relay = opened(&mut names, name, token)?;
        if relay.state(now) == Err(Unheard::Over) {
            return Err(BadListener::Unknown);
        }
        relay.asked = now;
        let most = most.min(relay.waiting.len());
        Ok((relay.waiting.drain(..most).collect(), Arc::clone(&relay.wake)))
    }

    /// Answers a request, and says whether anybody still waited for it.
    ///
    /// # Errors
    /// As [`Relays::take`], but for a name that is over.
    pub fn reply(&self, name: &str, token: &str, id: u64, reply: Reply) -> Result<bool, BadListener> {
        let mut names = self.lock();
        let relay = opened(&mut names, name, token)?;
        Ok(relay.open.remove(&id).is_some_and(|sender| sender.send(reply).is_ok()))
    }

    /// The listener says goodbye.
    ///
    /// # Errors
    /// As [`Relays::reply`].
    pub fn end(&self, name: &str, token: &str) -> Result<(), BadListener> {
        let mut names = self.lock();
        let relay = opened(&mut names, name, token)?;
        relay.ended = true;
        relay.waiting.clear();
        // Whoever waits for an answer hears that there is none.
        relay.open.clear();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Relay>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn opened<'a>(
    names: &'a mut BTreeMap<String, Relay>,
    name: &str,
    token: &str,
) -> Result<&'a mut Relay, BadListener> {
    match names.get_mut(name) {
        None => Err(BadListener::Unknown),
        Some(relay) if !relay.opens(token) => Err(BadListener::Foreign),
        Some(relay) => Ok(relay),
    }
}

/// Whether a header is about one connection, or about how the body is cut up on it, and not about the message.
pub fn is_of_connection(name: &str) -> bool {
    const OF_CONNECTION: [&str; 10] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    OF_CONNECTION.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn request(body: &[u8]) -> Relayed {
        let headers = vec![("webhook-id".to_owned(), Raw(b"msg_1".to_vec()))];
        Relayed { id: 0, method: "POST".into(), path: String::new(), headers, body: Raw(body.to_vec()) }
    }

    fn reply(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Raw::default() }
    }

    #[test]
    fn a_request_is_handed_out_once_and_answered_once() {
        let (relays, now) = (Relays::default(), Instant::now());
        assert_eq!(relays.offer("a", request(b"1"), now).unwrap_err(), Unheard::Unknown);
        relays.begin("a", TOKEN, now).unwrap();
        let (first, mut answer) = relays.offer("a", request(b"1"), now).unwrap();
        let (second, _answer) = relays.offer("a", request(b"2"), now).unwrap();
        let (none, _) = relays.take("a", TOKEN, 0, now).unwrap();
        assert!(none.is_empty());
        let (taken, _) = relays.take("a", TOKEN, 1, now).unwrap();
        assert_eq!((taken.len(), taken[0].id, taken[0].body.0.as_slice()), (1, first, &b"1"[..]));
        assert_eq!(taken[0].header("webhook-id"), Some("msg_1"));
        assert_eq!(relays.take("a", TOKEN, 16, now).unwrap().0[0].id, second);
        assert_eq!(relays.reply("a", TOKEN, first, reply(503)), Ok(true));
        assert_eq!(answer.try_recv().unwrap().status, 503);
        assert_eq!(relays.reply("a", TOKEN, first, reply(200)), Ok(false), "it has its answer");
        relays.withdraw("a", second);
        assert_eq!(relays.reply("a", TOKEN, second, reply(200)), Ok(false), "nobody waits any more");
    }

    #[test]
    fn a_listener_that_does_not_ask_is_away_and_then_gone() {
        let (relays, now) = (Relays::default(), Instant::now());
        relays.begin("a", TOKEN, now).unwrap();
        let offered = |after: Duration| relays.offer("a", request(b""), now + after).map(|_| ());
        let moment = Duration::from_millis(1);
        assert_eq!(offered(SILENT_AFTER - moment), Ok(()));
        assert_eq!(offered(SILENT_AFTER), Err(Unheard::Silent));
        relays.take("a", TOKEN, 0, now + SILENT_AFTER).unwrap();
        assert_eq!(offered(SILENT_AFTER), Ok(()), "it is back");
        let over = SILENT_AFTER + OVER_AFTER;
        assert_eq!(offered(over - moment), Err(Unheard::Silent));
        assert_eq!(offered(over), Err(Unheard::Over));
        assert_eq!(relays.take("a", TOKEN, 1, now + over).unwrap_err(), BadListener::Unknown);
        // It sees that it is not known, and begins again.
        relays.begin("a", TOKEN, now + over).unwrap();
        assert_eq!(offered(over), Ok(()));
        let (_, mut answer) = relays.offer("a", request(b""), now + over).unwrap();
        relays.end("a", TOKEN).unwrap();
        assert!(answer.try_recv().is_err());
        assert_eq!(offered(over), Err(Unheard::Over));
        assert_eq!(relays.heard("b", now), Err(Unheard::Unknown));
    }

    #[test]
    fn only_its_token_opens_a_name() {
        let (relays, now) = (Relays::default(), Instant::now());
        relays.begin("a", TOKEN, now).unwrap();
        for other in ["0123456789abcdeX", "0123456789abcde", ""] {
            assert_eq!(relays.take("a", other, 1, now).unwrap_err(), BadListener::Foreign, "{other}");
            assert_eq!(relays.reply("a", other, 1, reply(200)), Err(BadListener::Foreign));
            assert_eq!(relays.end("a", other), Err(BadListener::Foreign));
        }
        assert_eq!(relays.begin("a", "fedcba9876543210", now), Err(BadListener::Foreign));
        assert_eq!(relays.begin("b", "short", now), Err(BadListener::Token));
        let long = "n".repeat(MAX_NAME_BYTES + 1);
        for name in ["", "a/b", "ä", long.as_str()] {
            assert_eq!(relays.begin(name, TOKEN, now), Err(BadListener::Name), "{name}");
        }
        assert!(!format!("{relays:?}").contains(TOKEN));
    }

    #[test]
    fn what_waits_is_bounded() {
        let (relays, now) = (Relays::default(), Instant::now());
        relays.begin("a", TOKEN, now).unwrap();
        let _answers: Vec<_> = (0..MAX_OPEN).map(|_| relays.offer("a", request(b""), now).unwrap()).collect();
        assert_eq!(relays.offer("a", request(b""), now).unwrap_err(), Unheard::Full);
        let taken = relays.take("a", TOKEN, usize::MAX, now).unwrap().0.len();
        assert_eq!(taken, MAX_OPEN);
        assert_eq!(relays.offer("a", request(b""), now).unwrap_err(), Unheard::Full, "they have no answer");
        relays.begin("b", TOKEN, now).unwrap();
        let large = vec![b'x'; MAX_WAITING_BYTES / 2];
        let _first = relays.offer("b", request(&large), now).unwrap();
        assert_eq!(relays.offer("b", request(&large), now).unwrap_err(), Unheard::Full);
        relays.take("b", TOKEN, 1, now).unwrap();
        assert!(relays.offer("b", request(&large), now).is_ok());
        for n in 2..MAX_NAMES {
            relays.begin(&format!("n{n}"), TOKEN, now).unwrap();
        }
        assert_eq!(relays.begin("more", TOKEN, now), Err(BadListener::Full));
        relays.end("n3", TOKEN).unwrap();
        relays.begin("more", TOKEN, now).unwrap();
        assert_eq!(relays.heard("n3", now), Err(Unheard::Unknown), "forgotten, since there was no room");
    }

    #[test]
    fn bytes_travel_as_they_are() {
        let all: Vec<u8> = (0..=255).collect();
        let sent = Relayed { headers: vec![("x".into(), Raw(vec![0xff, b'"']))], ..request(&all) };
        let text = serde_json::to_string(&sent).unwrap();
        assert_eq!(serde_json::from_str::<Relayed>(&text).unwrap(), sent);
        assert_eq!(sent.header("x"), None, "no text");
    }
}
