//! Medians and percentiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Parts of each power of two: a value is known to 1 in so many.
const PARTS: u64 = 64;

/// How often values came, in classes that are at most 1.6 % wide: small, however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Histogram {
    counts: BTreeMap<u32, u64>,
    most: u64,
}

impl Histogram {
    /// A value came.
    pub(super) fn add(&mut self, value: u64) {
        *self.counts.entry(class(value)).or_default() += 1;
        self.most = self.most.max(value);
    }

    /// How many values came.
    pub(super) fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The largest value.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// The value that this part of all values does not exceed, rounded up; nothing without values.
    pub(super) fn percentile(&self, part: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        self.counts.iter().find_map(|(class, n)| {
            seen += n;
            (seen >= rank).then(|| upper(*class).min(self.most))
        })
    }
}

/// The class of a value.
fn class(value: u64) -> u32 {
    if value < PARTS {
        return value as u32;
    }
    // Below the highest bit, as many bits as tell the parts apart.
    let power = value.ilog2() - PARTS.ilog2();
    power * PARTS as u32 + (value >> power) as u32
}

/// The largest value of a class.
fn upper(class: u32) -> u64 {
    let class = u64::from(class);
    if class < 2 * PARTS {
        return class;
    }
    let power = class / PARTS - 1;
    let part = class - power * PARTS;
    ((part + 1) << power) - 1
}

/// The median; nothing without values.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (middle, even) = (values.len() / 2, values.len().is_multiple_of(2));
    match (even, values.get(middle)) {
        (true, Some(upper)) => Some(f64::midpoint(values[middle - 1], *upper)),
        (false, value) => value.copied(),
        (true, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_each_other_and_hold_their_values() {
        let mut before = None;
        for value in (0..100_000).chain([1 << 40, u64::MAX / 2]) {
            let class = class(value);
            assert!(upper(class) >= value, "{value}");
            assert!((upper(class) - value) as f64 <= value as f64 / 60.0, "{value}");
            assert!(before.is_none_or(|before| class == before || upper(class) > upper(before)));
            before = Some(class);
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        (1..=1000).for_each(|value| histogram.add(value));
        assert_eq!(histogram.count(), 1000);
        for (part, exact) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let value = histogram.percentile(part).unwrap() as f64;
            assert!((exact..=exact * 1.02).contains(&value), "{part}: {value}");
        }
        assert_eq!(histogram.percentile(1.0), Some(1000));
        assert_eq!(histogram.percentile(0.0), Some(1));
        assert_eq!(histogram.most(), 1000);
    }

    #[test]
    fn a_histogram_travels_as_text() {
        let mut histogram = Histogram::default();
        [3, 3, 70_000].into_iter().for_each(|value| histogram.add(value));
        let text = serde_json::to_string(&histogram).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), histogram);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median([1.0, 2.0]), Some(1.5));
    }
}
