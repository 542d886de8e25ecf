//! Whether a role stands still: it says that it is ready, it has work, and nothing of it gets done.
//!
//! Such a role is worse than one that has ended: everything looks well, and nothing is delivered. The watchdog ends it,
//! so that whatever supervises the process starts another.
//!
//! Time is counted by what passed between two looks. A long step between them means that the whole process was stopped, or
//! its machine slept: it stood still through no fault of its own, and is judged anew by what it does afterwards.

/// A step longer than this is a standstill of the watch itself, milliseconds.
pub const LONGEST_STEP_MS: u64 = 5_000;

/// Messages that a role could settle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Waiting in the queues that it consumes.
    pub ready: u64,
    /// Handed to it and not settled yet.
    pub held: u64,
}

impl Work {
    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self.ready == 0 && self.held == 0
    }
}

/// What a role shows of itself at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// How often its runtime has shown that it runs.
    pub beats: u64,
    /// Messages that it has settled since its start.
    pub settled: u64,
    /// What it could settle; nothing when that is not known.
    pub work: Option<Work>,
    /// It says itself why it cannot work: then it is not quiet, and starting it again would change nothing.
    pub excused: bool,
    /// How long one message may rightly take, milliseconds: this is added to the limit.
    pub allowed_ms: u64,
}

/// What is wrong with a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// Its runtime does not run: no timer fires any more.
    Frozen {
        /// For how long, milliseconds.
        for_ms: u64,
    },
    /// It has work and settles nothing.
    Still {
        /// For how long, milliseconds.
        for_ms: u64,
        /// What it could settle.
        work: Work,
    },
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frozen { for_ms } => write!(f, "no timer has fired for {} s", for_ms / 1000),
            Self::Still { for_ms, work: Work { ready, held } } => write!(
                f,
                "it says that it is ready, holds {held} messages, {ready} more wait, and it has settled none for {} s",
                for_ms / 1000
            ),
        }
    }
}

/// Looks at one role again and again.
#[derive(Clone, Debug)]
pub struct Watch {
    limit_ms: Option<u64>,
    last: Signs,
    frozen_ms: u64,
    still_ms: u64,
}

impl Watch {
    /// Bears standing still for this long, milliseconds; without a limit it only counts.
    pub fn new(limit_ms: Option<u64>) -> Self {
        Self { limit_ms, last: Signs::default(), frozen_ms: 0, still_ms: 0 }
    }

    /// How long the role has stood still with work at hand, milliseconds.
    pub fn still_ms(&self) -> u64 {
        self.still_ms
    }

    /// Whether half of what is borne has passed.
    pub fn is_worrying(&self) -> bool {
        self.limit_ms.is_some_and(|limit| self.still_ms >= (limit + self.last.allowed_ms) / 2)
            && self.still_ms > 0
    }

    /// Takes one look, `passed_ms` after the one before.
    pub fn look(&mut self, passed_ms: u64, signs: &Signs) -> Option<Stall> {
        let before = std::mem::replace(&mut self.last, *signs);
        if passed_ms > LONGEST_STEP_MS {
            (self.frozen_ms, self.still_ms) = (0, 0);
            return None;
        }
        if signs.beats == before.beats {
            // What else it shows is as old as its last beat.
            self.frozen_ms += passed_ms;
            let frozen = self.limit_ms.is_some_and(|limit| self.frozen_ms >= limit);
            return frozen.then_some(Stall::Frozen { for_ms: self.frozen_ms });
        }
        self.frozen_ms = 0;
        let work = match signs.work {
            _ if signs.excused || signs.settled != before.settled => None,
            Some(work) if work.is_none() => None,
            Some(work) => Some(work),
            // Not known: neither better nor worse.
            None => return None,
        };
        let Some(work) = work else {
            self.still_ms = 0;
            return None;
        };
        self.still_ms += passed_ms;
        let stalled = self.limit_ms.is_some_and(|limit| self.still_ms >= limit + signs.allowed_ms);
        stalled.then_some(Stall::Still { for_ms: self.still_ms, work })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_MS: u64 = 300_000;

    /// Looks every second for so long, with signs that may change from look to look.
    fn watch(
        watch: &mut Watch,
        beats: &mut u64,
        seconds: u64,
        mut signs: impl FnMut(u64) -> Signs,
    ) -> Option<(u64, Stall)> {
        (1..=seconds).find_map(|second| {
            *beats += 1;
            let signs = Signs { beats: *beats, ..signs(second) };
            watch.look(1000, &signs).map(|stall| (second, stall))
        })
    }

    fn with(ready: u64, held: u64) -> Signs {
        Signs { work: Some(Work { ready, held }), ..Signs::default() }
    }

    const HOUR: u64 = 3600;

    #[test]
    fn standing_still_with_work_is_told_at_the_limit_and_not_before() {
        for (ready, held) in [(1, 0), (0, 1), (7, 100)] {
            let found = watch(&mut Watch::new(Some(LIMIT_MS)), &mut 0, HOUR, |_| with(ready, held));
            let stall = Stall::Still { for_ms: LIMIT_MS, work: Work { ready, held } };
            assert_eq!(found, Some((300, stall)));
        }
    }

    #[test]
    fn an_idle_role_is_left_alone() {
        assert_eq!(watch(&mut Watch::new(Some(LIMIT_MS)), &mut 0, 24 * HOUR, |_| with(0, 0)), None);
    }

    #[test]
    fn one_settled_message_every_minute_is_enough() {
        let slow = |second| Signs { settled: second / 60, ..with(1_000_000, 100) };
        assert_eq!(watch(&mut Watch::new(Some(LIMIT_MS)), &mut 0, 24 * HOUR, slow), None);
    }

    #[test]
    fn a_role_that_says_why_it_waits_is_left_alone_and_judged_anew_afterwards() {
        let (mut role, mut beats) = (Watch::new(Some(LIMIT_MS)), 0);
        assert_eq!(watch(&mut role, &mut beats, 299, |_| with(5, 5)), None);
        let blocked = |_| Signs { excused: true, ..with(5, 5) };
        assert_eq!(watch(&mut role, &mut beats, HOUR, blocked), None);
        assert_eq!(role.still_ms(), 0);
        let found = watch(&mut role, &mut beats, HOUR, |_| with(5, 5));
        assert_eq!(found.map(|(second, _)| second), Some(300));
    }

    #[test]
    fn what_may_take_long_is_given_its_time() {
        let hanging = |_| Signs { allowed_ms: 60_000, ..with(50, 256) };
        let found = watch(&mut Watch::new(Some(LIMIT_MS)), &mut 0, HOUR, hanging);
        assert_eq!(found.map(|(second, _)| second), Some(360));
        // Receivers that hang for a minute each: what they hold ends every minute.
        let ending = |second| Signs { settled: second / 65 * 256, allowed_ms: 60_000, ..with(50, 256) };
        assert_eq!(watch(&mut Watch::new(Some(10_000)), &mut 0, HOUR, ending), None);
    }

    #[test]
    fn not_knowing_the_work_neither_counts_nor_forgives() {
        let (mut role, mut beats) = (Watch::new(Some(LIMIT_MS)), 0);
        assert_eq!(watch(&mut role, &mut beats, 200, |_| with(1, 0)), None);
        assert_eq!(watch(&mut role, &mut beats, HOUR, |_| Signs::default()), None);
        assert_eq!(role.still_ms(), 200_000);
        assert_eq!(watch(&mut role, &mut beats, HOUR, |_| with(1, 0)).map(|(second, _)| second), Some(100));
    }

    #[test]
    fn a_runtime_that_stands_is_told_even_without_work() {
        let mut role = Watch::new(Some(LIMIT_MS));
        assert_eq!(role.look(1000, &Signs { beats: 7, ..with(0, 0) }), None);
        let standing = Signs { beats: 7, ..with(0, 0) };
        let found = (1..=HOUR).find_map(|second| role.look(1000, &standing).map(|stall| (second, stall)));
        assert_eq!(found, Some((300, Stall::Frozen { for_ms: LIMIT_MS })));
    }

    #[test]
    fn a_process_that_was_stopped_is_not_blamed_for_it() {
        let (mut role, mut beats) = (Watch::new(Some(LIMIT_MS)), 0);
        assert_eq!(watch(&mut role, &mut beats, 10, |_| with(1, 1)), None);
        // A day in one step: of the role's signs nothing has changed, since it was stopped too.
        assert_eq!(role.look(24 * HOUR * 1000, &Signs { beats, ..with(1, 1) }), None);
        assert_eq!(role.still_ms(), 0);
        assert_eq!(watch(&mut role, &mut beats, HOUR, |_| with(1, 1)).map(|(second, _)| second), Some(300));
    }

    #[test]
    fn without_a_limit_it_only_counts() {
        let mut role = Watch::new(None);
        assert_eq!(watch(&mut role, &mut 0, HOUR, |_| with(1, 1)), None);
        assert_eq!(role.still_ms(), HOUR * 1000);
        assert!(!role.is_worrying());
    }

    #[test]
    fn it_worries_at_half_the_limit() {
        let (mut role, mut beats) = (Watch::new(Some(LIMIT_MS)), 0);
        watch(&mut role, &mut beats, 149, |_| with(1, 1));
        assert!(!role.is_worrying());
        watch(&mut role, &mut beats, 1, |_| with(1, 1));
        assert!(role.is_worrying());
        assert_eq!(
            Stall::Still { for_ms: 300_999, work: Work { ready: 4, held: 2 } }.to_string(),
            "it says that it is ready, holds 2 messages, 4 more wait, and it has settled none for 300 s"
        );
    }
}
