//! Histograms of durations: small enough to keep one for each interval of time, close enough for the percentiles of a plot.

/// The upper bounds of the bins, milliseconds; each bound belongs to its bin. What is longer than the last, a day, has a bin of
/// its own.
pub const BOUNDS_MS: [u64; 20] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000,
    7_200_000, 28_800_000, 86_400_000,
];

const BINS: usize = BOUNDS_MS.len() + 1;

/// How many durations fell into each bin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    bins: [u64; BINS],
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, ms: u64) {
        self.bins[BOUNDS_MS.partition_point(|bound| *bound < ms)] += 1;
    }

    /// Counts what another one has counted, too.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.bins.iter_mut().zip(other.bins) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// How many durations it has counted.
    pub fn count(&self) -> u64 {
        self.bins.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The duration that so many percent do not exceed, milliseconds; nothing if there are none.
    ///
    /// Within a bin durations are taken to lie evenly (linear interpolation), so the answer is in the right bin and not exact.
    /// What is longer than the last bound is told as the last bound.
    pub fn percentile(&self, percent: u32) -> Option<u64> {
        // In hundredths of a duration, so that no rank is rounded.
        let count = self.count();
        let rank = u128::from(count) * u128::from(percent.min(100));
        let (mut before, mut lower) = (0, 0);
        for (n, upper) in self.bins.iter().zip(BOUNDS_MS) {
            let here = u128::from(*n) * 100;
            if here > 0 && before + here >= rank {
                let part = u128::from(upper - lower) * (rank - before) / here;
                return Some(lower + u64::try_from(part).unwrap_or(upper - lower));
            }
            before += here;
            lower = upper;
        }
        (count > 0).then_some(lower)
    }

    /// It as it is stored: the counts as LEB128, without the zeros at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let used = self.bins.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
        let mut bytes = Vec::with_capacity(used);
        for n in &self.bins[..used] {
            let mut rest = *n;
            while rest >= 0x80 {
                bytes.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
        bytes
    }

    /// What [`Self::to_bytes`] wrote; nothing if it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut bins = [0; BINS];
        let (mut bin, mut shift) = (0, 0);
        for byte in bytes {
            let n: &mut u64 = bins.get_mut(bin)?;
            *n |= u64::from(byte & 0x7f)
                .checked_shl(shift)
                .filter(|part| part >> shift == u64::from(byte & 0x7f))?;
            (bin, shift) = if byte & 0x80 == 0 { (bin + 1, 0) } else { (bin, shift + 7) };
        }
        (shift == 0).then_some(Self { bins })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(durations: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        durations.iter().for_each(|ms| histogram.add(*ms));
        histogram
    }

    #[test]
    fn bounds_rise_from_a_millisecond_to_a_day() {
        assert!(BOUNDS_MS.is_sorted_by(|a, b| a < b));
        assert_eq!((BOUNDS_MS[0], BOUNDS_MS[BOUNDS_MS.len() - 1]), (1, 24 * 3600 * 1000));
    }

    #[test]
    fn percentiles_lie_evenly_within_a_bin() {
        assert_eq!(Histogram::default().percentile(50), None);
        // One alone, between 100 and 200.
        assert_eq!([0, 50, 95, 100].map(|p| of(&[150]).percentile(p)), [100, 150, 195, 200].map(Some));
        // A bound belongs to the bin below it.
        assert_eq!(of(&[100]).percentile(100), Some(100));
        assert_eq!(of(&[0]).percentile(100), Some(1));
        // Nine up to 10 ms, one between 500 ms and a second.
        let most_are_quick = of(&[7, 7, 7, 7, 7, 7, 7, 7, 7, 800]);
        assert_eq!(most_are_quick.percentile(45), Some(7), "half way from 5 to 10");
        assert_eq!(most_are_quick.percentile(90), Some(10));
        assert_eq!(most_are_quick.percentile(95), Some(750), "half way from 500 to 1000");
        // Bins between them that are empty hold nothing.
        assert_eq!(most_are_quick.percentile(91), Some(550));
        assert_eq!(of(&[200_000_000]).percentile(50), Some(86_400_000), "longer than can be told");
        assert_eq!(of(&[5, 200_000_000]).percentile(99), Some(86_400_000));
    }

    #[test]
    fn what_is_no_histogram_is_not_read() {
        for bad in [
            &[0x80][..],
            &[1, 0xff],
            &[0; BINS + 1],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(Histogram::from_bytes(bad), None, "{bad:?}");
        }
        assert_eq!(Histogram::from_bytes(&[]), Some(Histogram::default()));
    }

    proptest! {
        #[test]
        fn it_is_read_as_it_was_written(bins: [u64; BINS]) {
            let histogram = Histogram { bins };
            prop_assert_eq!(Histogram::from_bytes(&histogram.to_bytes()), Some(histogram));
        }

        #[test]
        fn merged_is_as_counted_together(
            a in prop::collection::vec(0..100_000_000_u64, 0..50), b in prop::collection::vec(0..100_000_000_u64, 0..50),
        ) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged.count(), (a.len() + b.len()) as u64);
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }

        /// A percentile is in the bin of the duration that has its rank, or on its edge.
        #[test]
        fn a_percentile_is_where_the_duration_of_its_rank_is(
            mut durations in prop::collection::vec(1..86_400_000_u64, 1..200), percent in 1..=100_u32,
        ) {
            durations.sort_unstable();
            let rank = (durations.len() * percent as usize).div_ceil(100);
            let exact = durations[rank - 1];
            let bin = BOUNDS_MS.partition_point(|bound| *bound < exact);
            let lower = if bin == 0 { 0 } else { BOUNDS_MS[bin - 1] };
            let told = of(&durations).percentile(percent).unwrap();
            prop_assert!((lower..=BOUNDS_MS[bin]).contains(&told), "{} is not in {}..={}", told, lower, BOUNDS_MS[bin]);
        }

        #[test]
        fn percentiles_do_not_fall(durations in prop::collection::vec(0..100_000_000_u64, 1..100)) {
            let histogram = of(&durations);
            let told: Vec<_> = (0..=100).map(|percent| histogram.percentile(percent).unwrap()).collect();
            prop_assert!(told.is_sorted(), "{:?}", told);
        }
    }
}
