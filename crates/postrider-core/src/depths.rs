//! How full queues were: measured at intervals, kept for an hour, and what that says of the minutes that come.
//!
//! An interval in which nothing was measured is a gap, never a zero.

use std::collections::{BTreeMap, VecDeque};

use crate::time::Timestamp;

/// How often queues are measured, milliseconds.
pub const INTERVAL_MS: u64 = 15_000;
/// How many intervals are kept of each queue: an hour.
pub const KEPT: usize = 240;
/// How many measurements a trend looks at: those of two minutes.
const RECENT: usize = 9;
/// Fewer measurements than this make no trend.
const FEWEST: usize = 3;
/// Nobody knows what is further away than a day.
const FORESEEN_MS: f64 = 24.0 * 3600.0 * 1000.0;

/// How much waited in queues, by their names.
#[derive(Debug, Default)]
pub struct Depths {
    /// The number of the newest interval in which something was measured.
    newest: i64,
    queues: BTreeMap<String, Measured>,
}

/// What was measured of one queue.
#[derive(Debug)]
struct Measured {
    since: Timestamp,
    /// One for each interval, up to the newest.
    ready: VecDeque<Option<u32>>,
}

/// What waited in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When the interval began.
    pub at: Timestamp,
    /// Messages that nobody held; nothing where it was not measured.
    pub ready: Option<u64>,
}

/// The number of the interval into which this time falls.
const fn interval(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(INTERVAL_MS as i64)
}

/// How long it is until the next interval begins, milliseconds.
pub const fn until_next_ms(now: Timestamp) -> u64 {
    INTERVAL_MS - now.as_millis().rem_euclid(INTERVAL_MS as i64) as u64
}

impl Measured {
    /// The same so many intervals later, in which nothing was measured yet.
    fn after(mut self, intervals: usize) -> Self {
        self.ready.extend(std::iter::repeat_n(None, intervals));
        let old = self.ready.len().saturating_sub(KEPT);
        self.ready.drain(..old);
        self
    }
}

impl Depths {
    /// Notes what all queues hold at this time. Queues that are not among them are forgotten.
    pub fn note<'a>(&mut self, at: Timestamp, ready: impl IntoIterator<Item = (&'a str, Option<u32>)>) {
        let mut before = std::mem::take(&mut self.queues);
        let mut number = interval(at);
        match number - self.newest {
            // The clock was set back: what was measured has no place before it any more.
            ..-1 => before.clear(),
            -1 => number = self.newest,
            _ => {}
        }
        let passed = usize::try_from(number - self.newest).unwrap_or(0).min(KEPT);
        self.newest = number;
        for (name, ready) in ready {
            let mut measured = match before.remove(name) {
                Some(measured) => measured.after(passed),
                None => Measured { since: at, ready: VecDeque::from([None]) },
            };
            if let Some(last) = measured.ready.back_mut() {
                *last = ready;
            }
            self.queues.insert(name.to_owned(), measured);
        }
    }

    /// Since when one of these queues is measured; nothing where none is.
    pub fn since(&self, names: &[&str]) -> Option<Timestamp> {
        names.iter().filter_map(|name| self.queues.get(*name)).map(|measured| measured.since).min()
    }

    /// What waited in these queues together, over the last hour at most, oldest first; a gap where one of them was not measured. The
    /// interval of `now` is there once it was measured.
    pub fn points(&self, names: &[&str], now: Timestamp) -> Vec<Point> {
        let found = || names.iter().filter_map(|name| self.queues.get(*name));
        let Some(longest) = found().map(|measured| measured.ready.len()).max() else { return Vec::new() };
        let missed = usize::try_from(interval(now) - 1 - self.newest).unwrap_or(0).min(KEPT);
        // Of queues that were there; a sum without one of them would be too low.
        let sum = |back: usize| {
            let each = found().filter_map(|measured| {
                measured.ready.len().checked_sub(1 + back).and_then(|i| measured.ready.get(i)).copied()
            });
            let each = each.collect::<Option<Vec<u32>>>().filter(|each| !each.is_empty())?;
            Some(each.into_iter().map(u64::from).sum())
        };
        let at = |back: i64| Timestamp::from_millis((self.newest - back) * INTERVAL_MS as i64);
        let known = (0..longest).rev().map(|back| Point { at: at(back as i64), ready: sum(back) });
        let gap = (1..=missed).map(|ahead| Point { at: at(-(ahead as i64)), ready: None });
        let mut points: Vec<Point> = known.chain(gap).collect();
        points.drain(..points.len().saturating_sub(KEPT));
        points
    }
}

/// By how much more waits each minute, or less, over the last two minutes; to a tenth. Nothing where too little was measured, or
/// nothing lately.
///
/// It is the change of what waits, and no throughput: what comes and goes at the same pace changes nothing.
pub fn trend_per_minute(points: &[Point]) -> Option<f64> {
    let recent = &points[points.len().saturating_sub(RECENT)..];
    let known: Vec<(usize, u64)> =
        recent.iter().enumerate().filter_map(|(i, point)| Some((i, point.ready?))).collect();
    let ((begin, first), (end, last)) = (*known.first()?, *known.last()?);
    if known.len() < FEWEST || end + 2 < recent.len() {
        return None;
    }
    let minutes = (end - begin) as f64 * INTERVAL_MS as f64 / 60_000.0;
    let tenths = ((last as f64 - first as f64) / minutes * 10.0).round();
    // Without the sign that a zero may have.
    Some(tenths / 10.0 + 0.0)
}

/// When a queue is empty if it goes on like this, milliseconds; nothing where nobody consumes it, where it holds nothing or does not
/// shrink, and where it would take more than a day.
pub fn empty_in_ms(ready: u64, consumers: u64, trend_per_minute: Option<f64>) -> Option<u64> {
    let shrinks = trend_per_minute.filter(|trend| *trend < 0.0 && ready > 0 && consumers > 0)?;
    let ms = ready as f64 / -shrinks * 60_000.0;
    (ms <= FORESEEN_MS).then_some(ms as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUEUE: &[&str] = &["q"];

    fn at(intervals: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_010_000 + intervals * INTERVAL_MS as i64)
    }

    /// One queue, measured in these intervals.
    fn measured(ready: &[(i64, u32)]) -> Depths {
        let mut depths = Depths::default();
        for (n, ready) in ready {
            depths.note(at(*n), [("q", Some(*ready))]);
        }
        depths
    }

    fn told(depths: &Depths, names: &[&str], now: Timestamp) -> Vec<Option<u64>> {
        depths.points(names, now).iter().map(|point| point.ready).collect()
    }

    fn points(ready: &[Option<u64>]) -> Vec<Point> {
        (0..).zip(ready).map(|(n, ready)| Point { at: at(n), ready: *ready }).collect()
    }

    #[test]
    fn nothing_is_known_before_the_first_measurement() {
        let depths = Depths::default();
        assert_eq!((depths.points(QUEUE, at(5)), depths.since(QUEUE)), (vec![], None));
        let depths = measured(&[(5, 7)]);
        assert_eq!(depths.since(QUEUE), Some(at(5)));
        assert_eq!(depths.points(QUEUE, at(5)), [Point { at: at(5), ready: Some(7) }]);
        assert!(depths.points(&["other"], at(5)).is_empty());
    }

    #[test]
    fn what_was_not_measured_is_a_gap() {
        let depths = measured(&[(0, 1), (1, 0), (4, 3)]);
        assert_eq!(told(&depths, QUEUE, at(4)), [Some(1), Some(0), None, None, Some(3)]);
        // The interval that has just begun is none yet.
        assert_eq!(told(&depths, QUEUE, at(5)).len(), 5);
        assert_eq!(told(&depths, QUEUE, at(7))[5..], [None, None]);
        // A queue that is missing has a gap beside those that are there.
        let mut depths = measured(&[(0, 1)]);
        depths.note(at(1), [("q", None)]);
        assert_eq!(told(&depths, QUEUE, at(1)), [Some(1), None]);
    }

    #[test]
    fn an_interval_has_one_measurement() {
        let mut depths = measured(&[(0, 1)]);
        depths.note(at(0).plus_ms(14_000), [("q", Some(2))]);
        assert_eq!(told(&depths, QUEUE, at(0)), [Some(2)]);
        assert_eq!(until_next_ms(at(0)), INTERVAL_MS);
        assert_eq!(until_next_ms(at(0).plus_ms(14_999)), 1);
        assert_eq!(depths.since(QUEUE), Some(at(0)));
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let all: Vec<(i64, u32)> = (0..1000).zip(0..1000).collect();
        let depths = measured(&all);
        let points = depths.points(QUEUE, at(999));
        assert_eq!((points.len(), points[0]), (KEPT, Point { at: at(760), ready: Some(760) }));
        assert!(depths.queues["q"].ready.len() <= KEPT);
        // Since when it goes on is still known.
        assert_eq!(depths.since(QUEUE), Some(at(0)));
        let later = depths.points(QUEUE, at(100_000));
        assert_eq!(later.len(), KEPT);
        assert!(later.iter().all(|point| point.ready.is_none()));
    }

    #[test]
    fn queues_that_go_are_forgotten_and_new_ones_begin() {
        let mut depths = Depths::default();
        depths.note(at(0), [("q", Some(1)), ("old", Some(5))]);
        depths.note(at(2), [("q", Some(2)), ("new", Some(7))]);
        assert_eq!(told(&depths, QUEUE, at(2)), [Some(1), None, Some(2)]);
        assert_eq!(told(&depths, &["new"], at(2)), [Some(7)]);
        assert_eq!(depths.since(&["new"]), Some(at(2)));
        assert!(depths.points(&["old"], at(2)).is_empty());
        // Together, each at its time.
        assert_eq!(told(&depths, &["q", "new", "old"], at(2)), [Some(1), None, Some(9)]);
        depths.note(at(3), [("q", Some(2)), ("new", None)]);
        assert_eq!(told(&depths, &["q", "new"], at(3)).last(), Some(&None), "a part is not the whole");
    }

    #[test]
    fn a_clock_that_is_set_back_begins_anew() {
        let mut depths = measured(&[(100, 1), (101, 2)]);
        depths.note(at(100), [("q", Some(3))]);
        assert_eq!(told(&depths, QUEUE, at(100)), [Some(1), Some(3)], "by a moment");
        depths.note(at(10), [("q", Some(4))]);
        assert_eq!(told(&depths, QUEUE, at(10)), [Some(4)]);
        assert_eq!(depths.since(QUEUE), Some(at(10)));
    }

    #[test]
    fn a_trend_is_the_change_a_minute() {
        let (some, none) = (Some, None);
        for (ready, trend) in [
            (vec![], None),
            (vec![some(4), some(4)], None),
            (vec![some(4), some(4), some(4)], Some(0.0)),
            (vec![some(0), some(9), some(10)], Some(20.0)),
            (vec![some(100), some(50), some(10), some(0), some(0)], Some(-100.0)),
            // Two minutes and no more.
            (
                vec![
                    some(900),
                    some(9),
                    some(9),
                    some(9),
                    some(9),
                    some(9),
                    some(9),
                    some(9),
                    some(9),
                    some(8),
                ],
                Some(-0.5),
            ),
            // Gaps take time and have no value.
            (vec![some(10), none, none, some(7), some(6)], Some(-4.0)),
            (vec![some(10), none, none, none, some(6)], None),
            (vec![some(10), some(8), some(6), none], Some(-8.0)),
            // What was is not what is.
            (vec![some(10), some(8), some(6), none, none], None),
            (vec![none, none, none], None),
            (
                vec![
                    some(1_000_000),
                    some(1),
                    some(1),
                    some(1),
                    some(1),
                    some(1),
                    some(1),
                    some(1),
                    some(999_999),
                ],
                Some(-0.5),
            ),
        ] {
            assert_eq!(trend_per_minute(&points(&ready)), trend, "{ready:?}");
        }
        let zero = trend_per_minute(&points(&[some(1), some(1), some(1)])).unwrap();
        assert!(zero.is_sign_positive());
    }

    #[test]
    fn only_what_is_consumed_and_shrinks_will_be_empty() {
        assert_eq!(empty_in_ms(100, 1, Some(-25.0)), Some(240_000));
        for (ready, consumers, trend) in [
            (0, 1, Some(-25.0)),
            (100, 0, Some(-25.0)),
            (100, 1, Some(0.0)),
            (100, 1, Some(3.0)),
            (100, 1, None),
        ] {
            assert_eq!(empty_in_ms(ready, consumers, trend), None, "{ready} {consumers} {trend:?}");
        }
        assert_eq!(empty_in_ms(1_000_000, 1, Some(-0.1)), None, "in nineteen years");
    }

    proptest! {
        #[test]
        fn points_follow_each_other_whatever_the_clock_does(
            notes in prop::collection::vec((-600i64..600, prop::option::of(0u32..9)), 0..60), now in -600i64..900
        ) {
            let mut depths = Depths::default();
            for (n, ready) in notes {
                depths.note(at(n), [("q", ready)]);
                let points = depths.points(QUEUE, at(now));
                prop_assert!(points.len() <= KEPT);
                for pair in points.windows(2) {
                    prop_assert_eq!(pair[1].at.since_ms(pair[0].at), INTERVAL_MS);
                }
                if let Some(trend) = trend_per_minute(&points) {
                    prop_assert!(trend.is_finite());
                }
            }
        }
    }
}
