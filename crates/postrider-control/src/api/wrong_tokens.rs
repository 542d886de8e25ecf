//! Limits for wrong tokens: for each address that they come from, and in all.
//!
//! A wrong token costs a look into the store, and whoever sends many is guessing. So each address may send some, and more only
//! slowly; all together may send more than that. Beyond it a token is not looked at: the answer is 429, whatever the token is.
//! Only a token that was right before from the same address is always looked at. So nobody can lock out those who work with
//! Postrider, not even from behind the same proxy. The memory is the same whoever sends what: tables of fixed size, in which an
//! address has its place by a hash that nobody outside knows.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::keys::KeyHash;

/// Places for addresses, and as many for tokens that were right.
const PLACES: usize = 4096;
/// Wrong tokens that an address may send at once, and one more for each second after that. Until it is looked up each token
/// counts as a wrong one, so it is also how many requests may begin at the same time with a key that is new there.
const OF_ADDRESS: Limit = Limit { at_once: 100.0, per_second: 1.0 };
/// The same for all addresses together.
const OF_ALL: Limit = Limit { at_once: 500.0, per_second: 50.0 };

/// Where a request comes from, as the socket says: never what a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer(pub(super) IpAddr);

impl Peer {
    /// Of a request that came over no socket.
    pub(super) const UNKNOWN: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// What one sender can be told by: an IPv4 address, or the network of an IPv6 address, of which one sender has as many as
    /// it likes.
    fn network(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        }
    }
}

/// A limit.
#[derive(Clone, Copy, Debug)]
struct Limit {
    at_once: f64,
    per_second: f64,
}

/// What somebody has used of a limit.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    wrong: f64,
    at: Option<Instant>,
}

impl Used {
    /// Takes one, or says how many seconds later there is one.
    fn take(&mut self, limit: Limit, now: Instant) -> Result<(), u64> {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.wrong = (self.wrong - passed * limit.per_second).max(0.0);
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
        let beyond = self.wrong + 1.0 - limit.at_once;
        if beyond > 0.0 {
            return Err((beyond / limit.per_second).ceil().max(1.0) as u64);
        }
        self.wrong += 1.0;
        Ok(())
    }

    fn give_back(&mut self) {
        self.wrong = (self.wrong - 1.0).max(0.0);
    }
}

/// Who sent wrong tokens, and which were right.
pub(crate) struct WrongTokens {
    secret: RandomState,
    state: Mutex<State>,
}

struct State {
    addresses: Box<[Used]>,
    all: Used,
    /// Hashes of address and token; 0 where there is none.
    right: Box<[u64]>,
}

/// A token that may be looked at. What came of it has to be said.
#[derive(Debug)]
#[must_use = "what came of it has to be said"]
pub(super) struct Look {
    address: usize,
    pair: u64,
    was_right: bool,
}

impl Default for WrongTokens {
    fn default() -> Self {
        let state = State {
            addresses: vec![Used::default(); PLACES].into(),
            all: Used::default(),
            right: vec![0; PLACES].into(),
        };
        Self { secret: RandomState::new(), state: Mutex::new(state) }
    }
}

impl std::fmt::Debug for WrongTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrongTokens(…)")
    }
}

impl WrongTokens {
    /// Whether a token may be looked at; if not, in how many seconds to try again. It counts as a wrong one until it is said to
    /// be right, so that many at the same time are no more than one after the other.
    pub(super) fn look(&self, peer: Peer, token: &KeyHash, now: Instant) -> Result<Look, u64> {
        let network = peer.network();
        let address = place(self.secret.hash_one(network));
        let pair = self.secret.hash_one((network, token.as_bytes()));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_right = state.right[place(pair)] == pair;
        if !was_right {
            state.addresses[address].take(OF_ADDRESS, now)?;
            if let Err(seconds) = state.all.take(OF_ALL, now) {
                state.addresses[address].give_back();
                return Err(seconds);
            }
        }
        Ok(Look { address, pair, was_right })
    }

    /// The token was right.
    pub(super) fn right(&self, look: Look) {
        if look.was_right {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.right[place(look.pair)] = look.pair;
        state.addresses[look.address].give_back();
        state.all.give_back();
    }

    /// The token was wrong; one that was right before is so no more.
    pub(super) fn wrong(&self, look: Look) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.right[place(look.pair)] == look.pair {
            state.right[place(look.pair)] = 0;
        }
    }

    /// Nobody could say what the token is.
    pub(super) fn unknown(&self, look: Look) {
        if !look.was_right {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.addresses[look.address].give_back();
            state.all.give_back();
        }
    }
}

fn place(hash: u64) -> usize {
    usize::try_from(hash % PLACES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(text: &str) -> Peer {
        Peer(text.parse().unwrap())
    }

    fn token(n: u64) -> KeyHash {
        KeyHash::of(&n.to_string())
    }

    /// Sends wrong tokens, and says how many were looked at.
    fn guesses(limits: &WrongTokens, peer: Peer, n: u64, now: Instant) -> u64 {
        let looks = (0..n).filter_map(|n| limits.look(peer, &token(n), now).ok());
        looks.map(|look| limits.wrong(look)).count() as u64
    }

    #[test]
    fn an_address_may_guess_some_and_then_slowly() {
        let (limits, now) = (WrongTokens::default(), Instant::now());
        let one = peer("192.0.2.1");
        assert_eq!(guesses(&limits, one, 1000, now), 100);
        assert_eq!(limits.look(one, &token(1), now).unwrap_err(), 1);
        assert_eq!(guesses(&limits, peer("192.0.2.2"), 10, now), 10, "others go on");
        // A thousand a second for a minute: one of each thousand is looked at.
        let looked: u64 =
            (1..=60).map(|second| guesses(&limits, one, 1000, now + Duration::from_secs(second))).sum();
        assert_eq!(looked, 60);
        assert_eq!(guesses(&limits, one, 1000, now + Duration::from_secs(3600)), 100);
        assert_eq!(guesses(&limits, one, 9, now), 0, "a clock does not give any back");
    }

    #[test]
    fn all_addresses_together_may_not_guess_much_more() {
        let (limits, now) = (WrongTokens::default(), Instant::now());
        let address = |n: u32| Peer(IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
        let round = |at| (0..100).map(|n| guesses(&limits, address(n), 10, at)).sum::<u64>();
        assert_eq!(round(now), 500);
        assert_eq!(limits.look(address(101), &token(1), now).unwrap_err(), 1);
        let looked: u64 = (1..=10).map(|second| round(now + Duration::from_secs(second))).sum();
        assert_eq!(looked, 500);
        assert_eq!(limits.state.lock().unwrap().addresses.len(), PLACES);
    }

    #[test]
    fn a_network_of_ipv6_is_one_sender() {
        let (limits, now) = (WrongTokens::default(), Instant::now());
        let looked: u64 =
            (0..200).map(|n| guesses(&limits, peer(&format!("2001:db8:1:2::{n:x}")), 1, now)).sum();
        assert_eq!(looked, 100);
        assert_eq!(peer("::ffff:192.0.2.1").network(), peer("192.0.2.1").network());
        assert_ne!(peer("2001:db8:1:3::1").network(), peer("2001:db8:1:2::1").network());
    }

    /// Whoever works with Postrider goes on, also behind the address from which somebody guesses.
    #[test]
    fn a_token_that_was_right_is_always_looked_at() {
        let (limits, now) = (WrongTokens::default(), Instant::now());
        let (one, right) = (peer("192.0.2.1"), KeyHash::of("right"));
        for _ in 0..100 {
            limits.right(limits.look(one, &right, now).unwrap());
        }
        assert_eq!(guesses(&limits, one, 100, now), 100, "right ones cost nothing");
        limits.right(limits.look(one, &right, now).unwrap());
        assert!(limits.look(one, &KeyHash::of("another"), now).is_err(), "even if it were right");
        assert!(limits.look(peer("192.0.2.2"), &right, now).is_ok(), "another address has its own");
        // It was revoked: once more, and then it is one of the wrong ones.
        limits.wrong(limits.look(one, &right, now).unwrap());
        assert!(limits.look(one, &right, now).is_err());
    }

    /// Those that are looked at at the same time count before anybody knows that they are wrong.
    #[test]
    fn many_at_once_are_no_more_than_one_after_the_other() {
        let (limits, now) = (WrongTokens::default(), Instant::now());
        let one = peer("192.0.2.1");
        let looks: Vec<Look> = (0..200).filter_map(|n| limits.look(one, &token(n), now).ok()).collect();
        assert_eq!(looks.len(), 100);
        looks.into_iter().for_each(|look| limits.unknown(look));
        assert_eq!(guesses(&limits, one, 100, now), 100, "when the store fails nobody is blamed");
    }
}
