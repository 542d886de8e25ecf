//! What a retry policy means, in words.

use postrider_core::RetryPolicy;

use crate::words::{counted, duration};

/// The most intervals that are told one by one.
const TOLD: usize = 16;

/// When attempts follow one another, if all of them fail at once.
pub(crate) fn in_words(policy: &RetryPolicy) -> String {
    let intervals = policy.intervals_ms();
    if intervals.is_empty() {
        return "1 attempt, at once. It is not tried again.".to_owned();
    }
    let attempts = counted(intervals.len() as u64 + 1, "attempt", "attempts");
    let over = duration(intervals.iter().sum());
    let spread = match (policy.jitter() * 100.0).round() as u64 {
        0 => String::new(),
        percent => format!(", each {percent} % shorter or longer by chance"),
    };
    format!("{attempts} over {over}: at once, then after {}{spread}.", told(&intervals))
}

/// The intervals, equal ones together.
fn told(intervals: &[u64]) -> String {
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for interval in intervals {
        match runs.last_mut() {
            Some((last, n)) if last == interval => *n += 1,
            _ => runs.push((*interval, 1)),
        }
    }
    let text = |(ms, n): &(u64, usize)| {
        if *n == 1 { duration(*ms) } else { format!("{} ({n} times)", duration(*ms)) }
    };
    let mut words: Vec<String> = runs.iter().take(TOLD).map(text).collect();
    if runs.len() > TOLD {
        words.push("…".to_owned());
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use postrider_core::retry::RetrySpec;

    use super::*;

    fn words(change: fn(&mut RetrySpec)) -> String {
        let mut spec = RetrySpec::default();
        change(&mut spec);
        in_words(&RetryPolicy::new(spec).unwrap())
    }

    #[test]
    fn a_policy_is_told_as_people_would() {
        assert_eq!(
            words(|_| {}),
            "12 attempts over 2 d 7 h: at once, then after 5 s, 20 s, 1 min 20 s, 5 min 20 s, 21 min 20 s, 1 h 25 min, 5 h 41 \
             min, 12 h (4 times), each 20 % shorter or longer by chance."
        );
        let own = |spec: &mut RetrySpec| {
            spec.schedule_ms = Some(vec![60_000, 300_000, 600_000]);
            spec.jitter = 0.0;
        };
        assert_eq!(words(own), "4 attempts over 16 min: at once, then after 1 min, 5 min, 10 min.");
        assert_eq!(words(|spec| spec.max_attempts = 1), "1 attempt, at once. It is not tried again.");
        assert!(words(|spec| spec.max_age_ms = 30_000).starts_with("3 attempts over 25 s: "));
    }

    #[test]
    fn a_long_list_is_cut() {
        let long = |spec: &mut RetrySpec| {
            spec.schedule_ms = Some((1..=50).map(|n| n * 1_000).collect());
            spec.max_attempts = 100;
        };
        assert!(words(long).contains("16 s, …, each 20 %"));
    }
}
