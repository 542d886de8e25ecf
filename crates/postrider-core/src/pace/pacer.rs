//! The state of one webhook in one worker, and what follows from it for the next delivery.

use super::backlog::{Backlog, Budget, rung};
use super::breaker::{Breaker, Health, Permission};
use super::bucket::Bucket;
use super::pulse::Pulse;
use super::room::{self, MAX_WAIT_MS};
use crate::outcome::Outcome;
use crate::retry::Chance;
use crate::time::Timestamp;

/// Lanes that deliveries come on, numbered from 0; none starves another.
pub const LANES: usize = 3;

/// The longest that a receiver may silence its webhook with `Retry-After`, milliseconds.
pub const MAX_PAUSE_MS: u64 = 3_600_000;

/// How long a lane that found no room has a part of the requests in flight kept for it, milliseconds.
const HUNGRY_MS: u64 = 10_000;

/// What is forgotten of a webhook for which nothing came for so long, milliseconds.
const IDLE_MS: u64 = 120_000;

/// This worker's share of what the webhook allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Requests in flight; at least 1.
    pub most: u32,
    /// Requests a second, if limited.
    pub per_second: Option<f64>,
    /// When a delivery that failed at first comes again, at the latest, milliseconds.
    pub first_retry_ms: u64,
}

/// What a decision depends on beside the webhook itself.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// The time.
    pub now: Timestamp,
    /// A draw of chance.
    pub chance: Chance,
    /// Workers in the fleet.
    pub workers: u32,
    /// Webhooks of which something is parked.
    pub backlogged: u32,
    /// How many may wait in place for this webhook on one lane: [`super::places`].
    pub places: u32,
    /// Most requests in flight to this webhook while it is slow.
    pub slow_most: u32,
    /// How many it has on the average while it is slow, when all slow ones want some.
    pub slow_share: u32,
    /// Whether slow webhooks may begin anything: a part of the slow slots is for others.
    pub slow_room: bool,
    /// Whether slow slots are scarce: then only webhooks that answered lately, and at once, have the quick ones.
    pub scarce: bool,
}

/// What is to be expected of a webhook's next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speed {
    /// An answer within a moment.
    Quick,
    /// Nobody knows, and there is no room to find out among the quick.
    Unproven,
    /// That it takes long.
    Slow,
}

/// A delivery that wants to begin.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// Its lane.
    pub lane: usize,
    /// It has failed before.
    pub retried: bool,
    /// Somebody tries the webhook: begin in any case.
    pub test: bool,
    /// Others are in the same message and must not be held up.
    pub batched: bool,
    /// Whether it may wait in place; one that has waited may not again.
    pub may_wait: bool,
    /// For how long its series may still begin attempts, milliseconds: it is not parked for much longer.
    pub left_ms: u64,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// It begins.
    Start(Ticket),
    /// It waits in place until [`Pacer::call`] names its lane, or [`Pacer::leave`].
    Wait,
    /// It could begin but would hold up the others in its message: it is to come again alone.
    Apart,
    /// It is parked.
    Refuse(Refusal),
}

/// Why a delivery may not begin, and for how long to park it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: Reason,
    /// One of [`super::RUNGS_SECS`].
    pub rung_secs: u32,
}

/// Why a delivery may not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The webhook has as many requests in flight as it may.
    Full,
    /// The webhook's requests a second are used up.
    Rate,
    /// The receiver fails every time.
    Breaker,
    /// The receiver asked for silence.
    RetryAfter,
    /// The webhook is slow, and slow webhooks have what they may have together.
    Slow,
    /// The tenant has what it may have.
    Tenant,
}

impl Reason {
    /// Every word of [`Self::as_str`].
    pub const WORDS: [&str; 6] = ["full", "rate", "breaker", "retry_after", "slow", "tenant"];

    /// One word from a closed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Rate => "rate",
            Self::Breaker => "breaker",
            Self::RetryAfter => "retry_after",
            Self::Slow => "slow",
            Self::Tenant => "tenant",
        }
    }
}

/// A request that began. It is given back with [`Pacer::ended`] or [`Pacer::undo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a request that is not given back counts as in flight for ever"]
pub struct Ticket {
    number: u64,
    lane: usize,
    probe: bool,
    /// Whether the request belongs to the slow slots from its beginning.
    pub slow: bool,
}

/// Somebody who waits is called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    /// The first who waits on this lane begins.
    Begin(usize, Ticket),
    /// The first who waits on this lane asks again, and does not wait any more: things have changed.
    Again(usize),
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// What it says of the receiver.
    pub health: Health,
    /// How long the receiver asked us to wait, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Any number that tells deliveries apart.
    pub delivery: u64,
    /// Whether it counts for the breaker: what somebody asked for does not.
    pub counts: bool,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

impl End {
    /// What an outcome says.
    pub fn of(outcome: &Outcome, delivery: u64, counts: bool, took_ms: u64) -> Self {
        let retry_after_ms = match outcome {
            Outcome::Busy { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        };
        Self { health: Health::of(outcome), retry_after_ms, delivery, counts, took_ms }
    }
}

/// How a webhook is, for gauges and for those who keep pacers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its requests take long.
    pub slow: bool,
    /// Its breaker holds deliveries back.
    pub breaker: bool,
    /// Something is parked.
    pub backlogged: bool,
    /// There is nothing to remember.
    pub idle: bool,
}

/// The state of one webhook.
#[derive(Clone, Debug, Default)]
pub struct Pacer {
    in_flight: [u32; LANES],
    waiting: [u32; LANES],
    refused_at: [Option<Timestamp>; LANES],
    last_called: usize,
    next_number: u64,
    used_at: Timestamp,
    paused_until: Timestamp,
    bucket: Bucket,
    breaker: Breaker,
    pulse: Pulse,
    backlog: Backlog,
}

impl Pacer {
    /// Decides about a delivery.
    pub fn ask(&mut self, scene: &Scene, limits: Limits, asking: Asking) -> Answer {
        let now = scene.now;
        self.used_at = self.used_at.max(now);
        if asking.test {
            return Answer::Start(self.start(now, asking.lane, false));
        }
        let silent_ms = self.paused_until.since_ms(now);
        if silent_ms > 0 {
            // The retry of the very delivery that was told to wait comes at this time.
            if silent_ms <= MAX_WAIT_MS && asking.may_wait && self.waiting[asking.lane] < scene.places {
                self.waiting[asking.lane] += 1;
                return Answer::Wait;
            }
            return Answer::Refuse(self.refuse(scene, limits, asking, Reason::RetryAfter, silent_ms));
        }
        match self.breaker.permits(now, asking.retried) {
            Permission::Not(until) => {
                let until_ms = until.since_ms(now);
                return Answer::Refuse(self.refuse(scene, limits, asking, Reason::Breaker, until_ms));
            }
            // Nobody knows how long a probe takes.
            Permission::Probe if asking.batched => return Answer::Apart,
            Permission::Probe => {
                self.breaker.probe(now);
                return Answer::Start(self.start(now, asking.lane, true));
            }
            Permission::All | Permission::Few(_) => {}
        }
        let most = self.most(limits);
        let waiting: u32 = self.waiting.iter().sum();
        let free = self.is_free(now, most, asking.lane);
        let speed = self.speed(scene);
        if speed != Speed::Quick {
            return self.ask_slow(scene, limits, asking, free, speed);
        }
        if waiting == 0 && free && limits.per_second.is_none_or(|rate| self.bucket.take(now, rate)) {
            return Answer::Start(self.start(now, asking.lane, false));
        }
        let ahead = self.ahead(asking.lane);
        let full_ms =
            if waiting == 0 && free { 0 } else { room::wait_ms(ahead, most, self.pulse.expected_ms(now)) };
        let rate_ms = limits.per_second.map_or(0, |rate| self.bucket.wait_ms(now, rate, ahead));
        let may_wait = asking.may_wait && self.waiting[asking.lane] < scene.places;
        if may_wait && full_ms.max(rate_ms) <= MAX_WAIT_MS {
            self.waiting[asking.lane] += 1;
            return Answer::Wait;
        }
        let why = if rate_ms > full_ms { Reason::Rate } else { Reason::Full };
        Answer::Refuse(self.refuse(scene, limits, asking, why, rate_ms))
    }

    /// Slow webhooks never wait in place, and are not begun where they would hold up others.
    fn ask_slow(
        &mut self,
        scene: &Scene,
        limits: Limits,
        asking: Asking,
        free: bool,
        speed: Speed,
    ) -> Answer {
        let now = scene.now;
        let (why, least_ms) = if !free {
            (Reason::Full, 0)
        } else if speed == Speed::Slow && (self.all_in_flight() >= scene.slow_most.max(1) || !scene.slow_room)
        {
            (Reason::Slow, 0)
        } else if asking.batched {
            return Answer::Apart;
        } else if let Some(rate) = limits.per_second
            && !self.bucket.take(now, rate)
        {
            (Reason::Rate, self.bucket.wait_ms(now, rate, 0))
        } else {
            return Answer::Start(Ticket { slow: true, ..self.start(now, asking.lane, false) });
        };
        Answer::Refuse(self.refuse(scene, limits, asking, why, least_ms))
    }

    /// Parks a delivery that something outside of the webhook keeps from beginning, for at least `least_ms`.
    pub fn refuse(
        &mut self,
        scene: &Scene,
        limits: Limits,
        asking: Asking,
        why: Reason,
        least_ms: u64,
    ) -> Refusal {
        if why == Reason::Full {
            self.refused_at[asking.lane] = Some(scene.now);
        }
        let budget = Budget {
            drain_per_second: self.drains(scene, limits),
            workers: scene.workers,
            backlogged: scene.backlogged,
        };
        let parked = self.backlog.count(scene.now) + 1.0;
        let wait_ms = budget.wait_ms(parked).max(least_ms).min(asking.left_ms);
        let rung_secs = rung(wait_ms, scene.chance);
        self.backlog.add(scene.now, rung_secs);
        Refusal { why, rung_secs }
    }

    /// Calls one of those who wait, if things have changed so that one may begin or must not wait any longer. To be asked
    /// until it answers `None`, after everything that happens.
    pub fn call(&mut self, now: Timestamp, limits: Limits) -> Option<Call> {
        let waiting = |lane: &usize| self.waiting[*lane] > 0;
        let turns = (1..=LANES).map(|step| (self.last_called + step) % LANES);
        let first = turns.clone().find(waiting)?;
        let open = matches!(self.breaker.permits(now, false), Permission::All | Permission::Few(_));
        let silent_ms = self.paused_until.since_ms(now);
        if silent_ms > MAX_WAIT_MS || !open || self.pulse.is_slow(now) {
            self.waiting[first] -= 1;
            return Some(Call::Again(first));
        }
        if silent_ms > 0 {
            return None;
        }
        let most = self.most(limits);
        let lane = turns.filter(waiting).find(|lane| self.is_free(now, most, *lane))?;
        if limits.per_second.is_some_and(|rate| !self.bucket.take(now, rate)) {
            return None;
        }
        self.waiting[lane] -= 1;
        self.last_called = lane;
        Some(Call::Begin(lane, self.start(now, lane, false)))
    }

    /// When to [`Self::call`] again though nothing happens, milliseconds from now: a token comes, or a silence ends. `None`
    /// while nobody waits for one.
    pub fn call_in_ms(&mut self, now: Timestamp, limits: Limits) -> Option<u64> {
        let waiting = self.waiting.iter().sum::<u32>() > 0;
        let silent_ms = self.paused_until.since_ms(now);
        if waiting && silent_ms > 0 {
            return Some(silent_ms);
        }
        let rate = limits.per_second.filter(|_| waiting && self.all_in_flight() < self.most(limits))?;
        Some(self.bucket.wait_ms(now, rate, 0).max(1))
    }

    /// One who waited on this lane gives up.
    pub fn leave(&mut self, lane: usize) {
        self.waiting[lane] = self.waiting[lane].saturating_sub(1);
    }

    /// A request is over.
    pub fn ended(&mut self, now: Timestamp, limits: Limits, ticket: Ticket, end: End) {
        self.used_at = self.used_at.max(now);
        self.remove(now, ticket, (end.health != Health::Unknown).then_some(end.took_ms));
        if end.counts || ticket.probe {
            self.breaker.ended(now, end.health, end.delivery, end.took_ms, ticket.probe, limits);
        }
        if let Some(retry_after_ms) = end.retry_after_ms {
            self.paused_until = self.paused_until.max(now.plus_ms(retry_after_ms.min(MAX_PAUSE_MS)));
        }
    }

    /// A request did not begin after all, or nobody knows what became of it.
    pub fn undo(&mut self, now: Timestamp, ticket: Ticket) {
        self.remove(now, ticket, None);
        self.bucket.give_back();
        if ticket.probe {
            self.breaker.probe_was_nothing(now);
        }
    }

    /// How many are in flight, over all lanes.
    pub fn all_in_flight(&self) -> u32 {
        self.in_flight.iter().sum()
    }

    /// How the webhook is.
    pub fn state(&mut self, now: Timestamp) -> State {
        let backlogged = self.backlog.count(now) >= 0.5;
        let quiet = self.all_in_flight() == 0 && self.waiting.iter().sum::<u32>() == 0;
        let idle = quiet
            && !backlogged
            && self.breaker.is_fresh()
            && self.paused_until <= now
            && now.since_ms(self.used_at) > IDLE_MS;
        State { slow: self.pulse.is_slow(now), breaker: !self.breaker.is_closed(), backlogged, idle }
    }

    fn speed(&self, scene: &Scene) -> Speed {
        let (now, pulse) = (scene.now, &self.pulse);
        if pulse.is_slow(now) || (scene.scarce && pulse.oldest_ms(now) > MAX_WAIT_MS) {
            Speed::Slow
        } else if scene.scarce && !pulse.answered_lately(now) {
            Speed::Unproven
        } else {
            Speed::Quick
        }
    }

    fn start(&mut self, now: Timestamp, lane: usize, probe: bool) -> Ticket {
        self.next_number += 1;
        let number = self.next_number;
        self.in_flight[lane] += 1;
        self.pulse.began(now, number);
        Ticket { number, lane, probe, slow: probe }
    }

    fn remove(&mut self, now: Timestamp, ticket: Ticket, took_ms: Option<u64>) {
        self.in_flight[ticket.lane] = self.in_flight[ticket.lane].saturating_sub(1);
        self.pulse.ended(now, ticket.number, took_ms);
    }

    /// Requests in flight that the caps and the slow start allow.
    fn most(&self, limits: Limits) -> u32 {
        self.breaker.window().map_or(limits.most, |window| window.min(limits.most)).max(1)
    }

    /// Whether one of this lane may begin. A lane that found no room lately has a part kept for it: a quarter, all such
    /// lanes together at most a half.
    fn is_free(&self, now: Timestamp, most: u32, lane: usize) -> bool {
        let each = if most >= 4 { most / 4 } else { most / 2 };
        let hungry = |other: usize| {
            let refused = self.refused_at[other].is_some_and(|at| now.since_ms(at) < HUNGRY_MS);
            other != lane && (refused || self.waiting[other] > 0)
        };
        let kept = (0..LANES).filter(|other| hungry(*other));
        let kept: u32 = kept.map(|other| each.saturating_sub(self.in_flight[other])).sum();
        self.all_in_flight() + kept.min(most / 2) < most
    }

    /// How many of those who wait come before a newcomer on this lane, when lanes take turns.
    fn ahead(&self, lane: usize) -> u32 {
        let own = self.waiting[lane];
        self.waiting.iter().map(|waiting| (*waiting).min(own + 1)).sum()
    }

    /// Requests a second that this worker can begin to the webhook.
    fn drains(&self, scene: &Scene, limits: Limits) -> f64 {
        let open = matches!(self.breaker.permits(scene.now, false), Permission::All | Permission::Few(_));
        if !open {
            return 0.0;
        }
        let mut most = self.most(limits);
        if self.pulse.is_slow(scene.now) {
            most = most.min(scene.slow_share.max(1));
        }
        let by_time = f64::from(most) * 1000.0 / self.pulse.expected_ms(scene.now) as f64;
        limits.per_second.map_or(by_time, |rate| rate.min(by_time))
    }
}

#[cfg(test)]
mod tests;
