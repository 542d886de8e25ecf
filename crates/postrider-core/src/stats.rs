//! What is counted over time, in which steps it is kept, and which of them a plot is made of.

use crate::histogram::Histogram;
use crate::time::Timestamp;

const MINUTE_MS: u64 = 60 * 1000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Whoever asks for the last three hours says so a moment before.
const SLACK_MS: u64 = 5 * MINUTE_MS;
const THREE_HOURS_MS: u64 = 3 * HOUR_MS;
const THREE_DAYS_MS: u64 = 3 * DAY_MS;
const EIGHT_DAYS_MS: u64 = 8 * DAY_MS;

/// The longest range that can be asked for: a hundred days.
pub const MAX_RANGE_MS: u64 = 100 * DAY_MS + SLACK_MS;
/// The longest range of a sparkline: eight days.
pub const MAX_SPARK_RANGE_MS: u64 = EIGHT_DAYS_MS + SLACK_MS;
/// How many buckets a sparkline has.
pub const SPARK_BUCKETS: usize = 24;

/// The words for how requests were answered, in the order of [`Figures::by_status`]. `4xx` is without 429; `5xx` is with what is
/// above; `none` means that there was no answer.
pub const STATUSES: [&str; 6] = ["2xx", "3xx", "4xx", "429", "5xx", "none"];

/// How long the time is over which something is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A minute, of tenants alone; kept for 48 hours.
    Minute,
    /// Ten minutes; kept for 7 days.
    TenMinutes,
    /// An hour; kept for 90 days.
    Hour,
}

impl Step {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::TenMinutes, Self::Hour];

    /// Those of webhooks.
    pub const OF_WEBHOOKS: [Self; 2] = [Self::TenMinutes, Self::Hour];

    /// Its length.
    pub const fn ms(self) -> u64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::TenMinutes => 10 * MINUTE_MS,
            Self::Hour => HOUR_MS,
        }
    }

    /// The oldest time at which a bucket of this step may begin.
    pub const fn kept_from(self, now: Timestamp) -> Timestamp {
        now.minus_ms(match self {
            Self::Minute => 48 * HOUR_MS,
            Self::TenMinutes => 7 * DAY_MS,
            Self::Hour => 90 * DAY_MS,
        })
    }

    /// When the bucket begins into which this time falls.
    pub const fn bucket(self, at: Timestamp) -> Timestamp {
        floor(at, self.ms())
    }
}

/// The last multiple of `ms` since the epoch that is not later.
const fn floor(at: Timestamp, ms: u64) -> Timestamp {
    Timestamp::from_millis(at.as_millis() - at.as_millis().rem_euclid(ms as i64))
}

/// The first that is not earlier.
const fn ceil(at: Timestamp, ms: u64) -> Timestamp {
    let before = floor(at, ms);
    if before.as_millis() == at.as_millis() { before } else { before.plus_ms(ms) }
}

/// What a plot is made of: buckets of one length, each of whole steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plot {
    /// The step of what is read.
    pub step: Step,
    /// When the first bucket begins.
    pub since: Timestamp,
    /// When the last one ends.
    pub until: Timestamp,
    /// How long each is.
    pub bucket_ms: u64,
}

impl Plot {
    /// The plot of a range that is not longer than [`MAX_RANGE_MS`]: at most about 200 buckets, and the range is in them.
    ///
    /// Where what is short is not kept any more the buckets are longer.
    pub fn of(since: Timestamp, until: Timestamp, steps: &[Step], now: Timestamp) -> Self {
        let range_ms = until.since_ms(since).saturating_sub(SLACK_MS);
        let lengths =
            [(THREE_HOURS_MS, MINUTE_MS), (THREE_DAYS_MS, 30 * MINUTE_MS), (EIGHT_DAYS_MS, 2 * HOUR_MS)];
        let wanted_ms = lengths.iter().find(|(most, _)| range_ms <= *most).map_or(DAY_MS, |(_, ms)| *ms);
        let kept = |step: &&Step| floor(since, wanted_ms.max(step.ms())) >= step.kept_from(now);
        // The longest that fits needs the fewest rows; else the shortest that there is.
        let fitting = steps.iter().filter(kept).rfind(|step| step.ms() <= wanted_ms);
        let step = fitting.or_else(|| steps.iter().find(kept)).copied().unwrap_or(Step::Hour);
        let bucket_ms = wanted_ms.max(step.ms());
        Self { step, since: floor(since, bucket_ms), until: ceil(until, bucket_ms), bucket_ms }
    }

    /// A sparkline: [`SPARK_BUCKETS`] buckets of whole steps, the last of which is under way. Together they are about as long as
    /// the time since then, and four hours at least.
    pub fn spark(since: Timestamp, now: Timestamp) -> Self {
        let asked_ms = now.since_ms(since).div_ceil(SPARK_BUCKETS as u64);
        let step = if asked_ms < HOUR_MS { Step::TenMinutes } else { Step::Hour };
        // To the nearest: whoever says "a day ago" says it a moment before.
        let steps = (asked_ms + step.ms() / 2) / step.ms();
        let bucket_ms = steps.max(1) * step.ms();
        let until = ceil(now, step.ms());
        Self { step, since: until.minus_ms(bucket_ms * SPARK_BUCKETS as u64), until, bucket_ms }
    }

    /// How many buckets it has.
    pub fn count(&self) -> usize {
        usize::try_from(self.until.since_ms(self.since) / self.bucket_ms).unwrap_or(usize::MAX)
    }

    /// When each bucket begins.
    pub fn buckets(&self) -> impl Iterator<Item = Timestamp> {
        let (since, bucket_ms) = (self.since, self.bucket_ms);
        (0..self.count() as u64).map(move |n| since.plus_ms(n * bucket_ms))
    }

    /// Into which bucket this time falls, counted from 0.
    pub fn bucket_of(&self, at: Timestamp) -> Option<usize> {
        let inside = self.since <= at && at < self.until;
        inside.then(|| usize::try_from(at.since_ms(self.since) / self.bucket_ms).unwrap_or(usize::MAX))
    }
}

/// An attempt, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Of which series of its delivery.
    pub series: u32,
    /// Which attempt of the series.
    pub n: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// Whether the receiver took it.
    pub delivered: bool,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// When the event was accepted, if that is known.
    pub accepted_at: Option<Timestamp>,
}

/// What is counted of a tenant, or of a webhook, over some time. Everything is counted at the time when it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events that were accepted.
    pub accepted: u64,
    /// Attempts that were the first of their delivery.
    pub first_tried: u64,
    /// Those of them that delivered.
    pub first_delivered: u64,
    /// Attempts that delivered.
    pub delivered: u64,
    /// Attempts that did not.
    pub failed: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// Attempts by how they were answered, in the order of [`STATUSES`].
    pub by_status: [u64; STATUSES.len()],
    /// When the newest attempt began.
    pub last_at: Option<Timestamp>,
    /// From when an event was accepted to the first attempt of its delivery.
    pub first_attempt: Histogram,
    /// From when an event was accepted to the answer that says it is delivered, in its first series.
    pub delivery: Histogram,
    /// How long attempts took.
    pub attempt: Histogram,
}

impl Figures {
    /// Counts an attempt.
    pub fn tried(&mut self, tried: &Tried) {
        let of_first_series = tried.accepted_at.filter(|_| tried.series == 1);
        let counted = if tried.delivered { &mut self.delivered } else { &mut self.failed };
        *counted += 1;
        self.by_status[status_place(tried.status)] += 1;
        self.last_at = self.last_at.max(Some(tried.at));
        self.attempt.add(tried.duration_ms);
        if (tried.series, tried.n) == (1, 1) {
            self.first_tried += 1;
            self.first_delivered += u64::from(tried.delivered);
            if let Some(accepted_at) = of_first_series {
                self.first_attempt.add(tried.at.since_ms(accepted_at));
            }
        }
        if let Some(accepted_at) = of_first_series.filter(|_| tried.delivered) {
            self.delivery.add(tried.at.plus_ms(tried.duration_ms).since_ms(accepted_at));
        }
    }

    /// Counts what another has counted, too.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.accepted, other.accepted),
            (&mut self.first_tried, other.first_tried),
            (&mut self.first_delivered, other.first_delivered),
            (&mut self.delivered, other.delivered),
            (&mut self.failed, other.failed),
            (&mut self.dead, other.dead),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in self.by_status.iter_mut().zip(other.by_status) {
            *mine = mine.saturating_add(theirs);
        }
        self.last_at = self.last_at.max(other.last_at);
        self.first_attempt.merge(&other.first_attempt);
        self.delivery.merge(&other.delivery);
        self.attempt.merge(&other.attempt);
    }
}

/// Where a status is counted.
fn status_place(status: Option<u16>) -> usize {
    match status {
        Some(..300) => 0,
        Some(300..400) => 1,
        Some(429) => 3,
        Some(400..500) => 2,
        Some(500..) => 4,
        None => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_123_456);

    fn ago(ms: u64) -> Timestamp {
        NOW.minus_ms(ms)
    }

    #[test]
    fn buckets_are_as_long_as_the_range_asks() {
        for (range_ms, of_tenant, of_webhook) in [
            (1, (Step::Minute, MINUTE_MS), (Step::TenMinutes, 10 * MINUTE_MS)),
            (3 * HOUR_MS, (Step::Minute, MINUTE_MS), (Step::TenMinutes, 10 * MINUTE_MS)),
            (
                3 * HOUR_MS + SLACK_MS + 1,
                (Step::TenMinutes, 30 * MINUTE_MS),
                (Step::TenMinutes, 30 * MINUTE_MS),
            ),
            (DAY_MS, (Step::TenMinutes, 30 * MINUTE_MS), (Step::TenMinutes, 30 * MINUTE_MS)),
            (3 * DAY_MS, (Step::TenMinutes, 30 * MINUTE_MS), (Step::TenMinutes, 30 * MINUTE_MS)),
            (8 * DAY_MS, (Step::Hour, 2 * HOUR_MS), (Step::Hour, 2 * HOUR_MS)),
            (8 * DAY_MS + SLACK_MS + 1, (Step::Hour, DAY_MS), (Step::Hour, DAY_MS)),
            (MAX_RANGE_MS, (Step::Hour, DAY_MS), (Step::Hour, DAY_MS)),
        ] {
            for (steps, expected) in [(&Step::ALL[..], of_tenant), (&Step::OF_WEBHOOKS[..], of_webhook)] {
                let plot = Plot::of(ago(range_ms), NOW, steps, NOW);
                assert_eq!((plot.step, plot.bucket_ms), expected, "{range_ms}");
                assert!((1..=200).contains(&plot.count()), "{plot:?} has {}", plot.count());
                assert!(plot.since <= ago(range_ms) && plot.until >= NOW, "{plot:?}");
                assert!(plot.bucket_ms.is_multiple_of(plot.step.ms()), "{plot:?}");
            }
        }
    }

    #[test]
    fn what_is_old_is_shown_in_the_steps_that_are_kept() {
        let hour = |days: u64| Plot::of(ago(days * DAY_MS), ago(days * DAY_MS - HOUR_MS), &Step::ALL, NOW);
        for (days, step) in [
            (1, Step::Minute),
            (2, Step::TenMinutes),
            (6, Step::TenMinutes),
            (7, Step::Hour),
            (200, Step::Hour),
        ] {
            let plot = hour(days);
            assert_eq!((plot.step, plot.bucket_ms), (step, step.ms()), "{days}");
        }
        let three_days = Plot::of(ago(20 * DAY_MS), ago(17 * DAY_MS), &Step::ALL, NOW);
        assert_eq!((three_days.step, three_days.bucket_ms), (Step::Hour, HOUR_MS));
        assert!(three_days.count() <= 73);
    }

    #[test]
    fn a_sparkline_has_its_buckets_whatever_is_asked() {
        for (range_ms, step, bucket_ms) in [
            (0, Step::TenMinutes, 10 * MINUTE_MS),
            (HOUR_MS, Step::TenMinutes, 10 * MINUTE_MS),
            (6 * HOUR_MS, Step::TenMinutes, 20 * MINUTE_MS),
            (12 * HOUR_MS, Step::TenMinutes, 30 * MINUTE_MS),
            (DAY_MS - 1000, Step::TenMinutes, HOUR_MS),
            (DAY_MS, Step::Hour, HOUR_MS),
            (DAY_MS + 1000, Step::Hour, HOUR_MS),
            (7 * DAY_MS, Step::Hour, 7 * HOUR_MS),
            (MAX_SPARK_RANGE_MS, Step::Hour, 8 * HOUR_MS),
        ] {
            let plot = Plot::spark(ago(range_ms), NOW);
            assert_eq!(
                (plot.step, plot.bucket_ms, plot.count()),
                (step, bucket_ms, SPARK_BUCKETS),
                "{range_ms}"
            );
            assert_eq!(plot.bucket_of(NOW), Some(SPARK_BUCKETS - 1), "now is in the last");
            assert_eq!(step.bucket(plot.since), plot.since, "of whole steps");
        }
    }

    #[test]
    fn every_time_of_a_plot_has_its_bucket() {
        let plot = Plot::of(ago(DAY_MS), NOW, &Step::ALL, NOW);
        let buckets: Vec<_> = plot.buckets().collect();
        assert_eq!(buckets.len(), plot.count());
        for (n, at) in buckets.into_iter().enumerate() {
            assert_eq!(plot.bucket_of(at), Some(n));
            assert_eq!(plot.bucket_of(at.plus_ms(plot.bucket_ms - 1)), Some(n));
        }
        assert_eq!((plot.bucket_of(plot.since.minus_ms(1)), plot.bucket_of(plot.until)), (None, None));
        assert_eq!(Step::Hour.bucket(Timestamp::from_millis(-1)).as_millis(), -3_600_000);
    }

    fn tried(series: u32, n: u32, status: Option<u16>) -> Tried {
        let at = NOW.plus_ms(u64::from(n) * 1000);
        let delivered = status == Some(200);
        Tried { series, n, at, duration_ms: 40, delivered, status, accepted_at: Some(NOW) }
    }

    #[test]
    fn attempts_are_counted_by_what_they_are() {
        let mut figures = Figures::default();
        for attempt in [
            tried(1, 1, Some(503)),
            tried(1, 2, Some(200)),
            tried(1, 1, Some(200)),
            tried(2, 1, Some(200)),
            tried(1, 3, None),
            tried(1, 4, Some(429)),
        ] {
            figures.tried(&attempt);
        }
        assert_eq!(
            (figures.first_tried, figures.first_delivered),
            (2, 1),
            "a series that was asked for is no first"
        );
        assert_eq!((figures.delivered, figures.failed), (3, 3));
        assert_eq!(figures.by_status, [3, 0, 0, 1, 1, 1]);
        assert_eq!(figures.last_at, Some(NOW.plus_ms(4000)));
        let counts = [&figures.first_attempt, &figures.delivery, &figures.attempt].map(Histogram::count);
        assert_eq!(counts, [2, 2, 6]);
        assert_eq!(figures.first_attempt.percentile(100), Some(1000));
        assert_eq!(figures.delivery.percentile(100), Some(5000), "2,040 ms lie between two and five seconds");
        // Nothing is known of its event.
        figures.tried(&Tried { accepted_at: None, ..tried(1, 1, Some(200)) });
        assert_eq!((figures.first_tried, figures.first_attempt.count(), figures.delivery.count()), (3, 2, 2));
    }

    #[test]
    fn statuses_are_counted_once_each() {
        let places =
            [100, 204, 301, 404, 410, 429, 499, 500, 999].map(|status| STATUSES[status_place(Some(status))]);
        assert_eq!(places, ["2xx", "2xx", "3xx", "4xx", "4xx", "429", "4xx", "5xx", "5xx"]);
        assert_eq!(STATUSES[status_place(None)], "none");
    }

    #[test]
    fn merged_is_as_counted_together() {
        let attempts: Vec<_> =
            (0..60).map(|n| tried(n % 2 + 1, n % 5, [None, Some(200), Some(404)][n as usize % 3])).collect();
        let of = |attempts: &[Tried]| {
            let mut figures = Figures { accepted: attempts.len() as u64, dead: 1, ..Figures::default() };
            attempts.iter().for_each(|attempt| figures.tried(attempt));
            figures
        };
        let mut merged = of(&attempts[..17]);
        merged.merge(&of(&attempts[17..]));
        assert_eq!(merged, Figures { dead: 2, ..of(&attempts) });
    }
}
