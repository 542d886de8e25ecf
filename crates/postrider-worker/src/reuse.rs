//! Which connections have carried an answer before, so that a reset can be told from a reset.
//!
//! A receiver may close an idle connection at the very moment at which a request is written to it. hyper-util sends a
//! request again by itself only if nothing of it was written, and does not say of a failed request whether its connection
//! had been used before (`hyperium/hyper-util#145`). It does say which connection it was. So the two ends of each
//! connection that answered are kept for as long as it may be in a pool or in use: a request that such a connection
//! swallows says nothing of the receiver and is repeated at once.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpInfo;
use tokio::time::Instant;

/// Longer than a connection can be in use, idle and in use again after an answer: twice the longest deadline, and then
/// some.
const KEPT: Duration = Duration::from_secs(150);
/// Connections in one generation; there are two.
const MOST: usize = 16_384;

/// Both ends of a connection: ours, and the receiver's.
type Ends = (SocketAddr, SocketAddr);

/// Connections that carried an answer.
#[derive(Debug, Default)]
pub(crate) struct Answered(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    begun: Option<Instant>,
    current: HashSet<Ends>,
    before: HashSet<Ends>,
}

impl Answered {
    /// Notes the connection of an answer.
    pub(crate) fn note(&self, answer: &reqwest::Response) {
        if let Some(info) = answer.extensions().get::<HttpInfo>() {
            self.add((info.local_addr(), info.remote_addr()), Instant::now());
        }
    }

    /// Whether the connection that failed had carried an answer before.
    pub(crate) fn had(&self, error: &reqwest::Error) -> bool {
        ends_of(error).is_some_and(|ends| self.has(&ends))
    }

    fn add(&self, ends: Ends, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = *known.begun.get_or_insert(now);
        if known.current.len() >= MOST || now.duration_since(begun) > KEPT {
            known.before = std::mem::take(&mut known.current);
            known.begun = Some(now);
        }
        known.current.insert(ends);
    }

    fn has(&self, ends: &Ends) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.current.contains(ends) || known.before.contains(ends)
    }
}

/// The connection on which a request failed; none if there was none yet.
fn ends_of(error: &reqwest::Error) -> Option<Ends> {
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(client) = current.downcast_ref::<legacy::Error>() {
            let mut extensions = hyper::http::Extensions::new();
            client.connect_info()?.get_extras(&mut extensions);
            let info = extensions.get::<HttpInfo>()?;
            return Some((info.local_addr(), info.remote_addr()));
        }
        cause = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(port: usize) -> Ends {
        let port = u16::try_from(port).unwrap();
        (([127, 0, 0, 1], port).into(), ([127, 0, 0, 2], 443).into())
    }

    #[test]
    fn what_answered_is_known_for_long_enough_and_not_for_ever() {
        let answered = Answered::default();
        let start = Instant::now();
        answered.add(ends(1), start);
        assert!(answered.has(&ends(1)) && !answered.has(&ends(2)));
        answered.add(ends(2), start + KEPT + Duration::from_secs(1));
        assert!(answered.has(&ends(1)), "at least so long");
        answered.add(ends(3), start + KEPT * 3);
        assert!(!answered.has(&ends(1)), "at most twice so long");
        assert!(answered.has(&ends(2)) && answered.has(&ends(3)));
    }

    #[test]
    fn it_is_bounded() {
        let answered = Answered::default();
        let now = Instant::now();
        (0..MOST * 2 + 2).for_each(|port| answered.add(ends(port), now));
        let known = answered.0.lock().unwrap();
        assert!(known.current.len() + known.before.len() <= MOST * 2);
    }
}
