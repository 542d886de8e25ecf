//! Who has logged in. A session holds the token that it was begun with, in memory alone: when control restarts, everybody
//! logs in again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Sessions at the same time; one more ends the one that was used least lately.
const MAX_SESSIONS: usize = 1024;
/// Links at the same time that nobody has followed yet.
const MAX_LINKS: usize = 256;
/// How long a session lasts without a request. A page that refreshes itself keeps it.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How long a session lasts at most.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// How long a link for logging in can be followed.
pub const LINK: Duration = Duration::from_secs(5 * 60);

/// What is kept of something secret: its SHA-256.
type Hash = [u8; 32];

fn hash(secret: &str) -> Hash {
    Sha256::digest(secret).into()
}

/// 256 bits that nobody has seen before.
pub(crate) fn fresh() -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// Everybody who has logged in, and links for logging in.
#[derive(Default)]
pub struct Sessions {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<Hash, Kept>,
    links: HashMap<Hash, Link>,
}

struct Kept {
    session: Session,
    begun: Instant,
    used: Instant,
}

struct Link {
    token: Zeroizing<String>,
    made: Instant,
}

/// Somebody who has logged in.
#[derive(Clone)]
pub(crate) struct Session {
    /// What the API is asked with.
    pub(crate) token: Zeroizing<String>,
    /// What every form of this session has in it, so that no other site can send one.
    pub(crate) csrf: String,
    /// Whose things are shown; the API's choice without it.
    pub(crate) tenant: Option<String>,
}

impl Kept {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) >= IDLE || now.duration_since(self.begun) >= LONGEST
    }
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a link for logging in with this token: the code in it, which works once and for five minutes.
    pub fn link(&self, token: &str) -> String {
        self.link_at(token, Instant::now())
    }

    fn link_at(&self, token: &str, now: Instant) -> String {
        let mut state = self.state();
        state.links.retain(|_, link| now.duration_since(link.made) < LINK);
        if state.links.len() >= MAX_LINKS
            && let Some(oldest) = state.links.iter().min_by_key(|(_, link)| link.made).map(|(code, _)| *code)
        {
            state.links.remove(&oldest);
        }
        let code = fresh();
        state.links.insert(hash(&code), Link { token: Zeroizing::new(token.to_owned()), made: now });
        code.to_string()
    }

    /// The token behind the code of a link. A second time there is none.
    pub(crate) fn follow(&self, code: &str, now: Instant) -> Option<Zeroizing<String>> {
        let link = self.state().links.remove(&hash(code))?;
        (now.duration_since(link.made) < LINK).then_some(link.token)
    }

    /// Begins a session with a token that the API takes: its id, which only the browser keeps.
    pub(crate) fn begin(&self, token: Zeroizing<String>, now: Instant) -> Zeroizing<String> {
        let mut state = self.state();
        state.sessions.retain(|_, kept| !kept.is_over(now));
        if state.sessions.len() >= MAX_SESSIONS
            && let Some(idlest) = state.sessions.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id)
        {
            state.sessions.remove(&idlest);
        }
        let id = fresh();
        let session = Session { token, csrf: fresh().to_string(), tenant: None };
        state.sessions.insert(hash(&id), Kept { session, begun: now, used: now });
        id
    }

    /// The session of this id, if it is not over; that uses it.
    pub(crate) fn get(&self, id: &str, now: Instant) -> Option<Session> {
        let mut state = self.state();
        let id = hash(id);
        let kept = state.sessions.get_mut(&id)?;
        if kept.is_over(now) {
            state.sessions.remove(&id);
            return None;
        }
        kept.used = now;
        Some(kept.session.clone())
    }

    /// Shows the things of another tenant from now on.
    pub(crate) fn choose_tenant(&self, id: &str, tenant: Option<String>) {
        if let Some(kept) = self.state().sessions.get_mut(&hash(id)) {
            kept.session.tenant = tenant;
        }
    }

    /// Ends a session.
    pub(crate) fn end(&self, id: &str) {
        self.state().sessions.remove(&hash(id));
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("Sessions")
            .field("sessions", &state.sessions.len())
            .field("links", &state.links.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn a_session_ends_when_it_is_idle_or_old_or_told_to() {
        let (sessions, begun) = (Sessions::default(), Instant::now());
        let id = sessions.begin(token("t"), begun);
        let mut now = begun;
        while now.duration_since(begun) + IDLE / 2 < LONGEST {
            now += IDLE / 2;
            assert_eq!(sessions.get(&id, now).unwrap().token.as_str(), "t");
        }
        assert!(sessions.get(&id, begun + LONGEST).is_none(), "in use, but old");

        let id = sessions.begin(token("t"), begun);
        assert!(sessions.get(&id, begun + IDLE).is_none(), "idle");
        let id = sessions.begin(token("t"), begun);
        sessions.end(&id);
        assert!(sessions.get(&id, begun).is_none());
        assert!(sessions.get("", begun).is_none());
    }

    #[test]
    fn each_session_has_an_id_and_a_proof_of_its_own() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (one, other) = (sessions.begin(token("t"), now), sessions.begin(token("t"), now));
        assert_ne!(*one, *other);
        assert_eq!(one.len(), 43, "256 random bits");
        assert_ne!(sessions.get(&one, now).unwrap().csrf, sessions.get(&other, now).unwrap().csrf);
    }

    #[test]
    fn a_link_works_once_and_not_for_long() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let code = sessions.link_at("t", now);
        assert_eq!(sessions.follow(&code, now).unwrap().as_str(), "t");
        assert!(sessions.follow(&code, now).is_none(), "a second time");
        let code = sessions.link_at("t", now);
        assert!(sessions.follow(&code, now + LINK).is_none(), "too late");
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let first = sessions.begin(token("t"), now);
        let second = sessions.begin(token("t"), now + Duration::from_secs(1));
        for _ in 2..MAX_SESSIONS {
            sessions.begin(token("t"), now + Duration::from_secs(2));
        }
        assert!(sessions.get(&first, now + Duration::from_secs(3)).is_some(), "used again");
        sessions.begin(token("t"), now + Duration::from_secs(4));
        assert!(sessions.get(&second, now + Duration::from_secs(4)).is_none(), "the idlest made room");
        assert!(sessions.get(&first, now + Duration::from_secs(4)).is_some());
        let first = sessions.link_at("t", now);
        for _ in 0..MAX_LINKS {
            sessions.link_at("t", now + Duration::from_secs(1));
        }
        assert!(sessions.follow(&first, now).is_none());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let sessions = Sessions::default();
        sessions.link("secret");
        assert_eq!(format!("{sessions:?}"), "Sessions { sessions: 0, links: 1 }");
    }
}
