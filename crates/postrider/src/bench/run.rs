//! What one turn of a workload came to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Histogram, median};

/// What one turn of a workload came to, or the medians of several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Run {
    /// The workload, or a part of it.
    pub(super) workload: &'static str,
    /// Which turn, from 1; 0 where these are medians.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) round: u32,
    /// Deliveries (of `route-alone`: events) while it was measured.
    pub(super) deliveries: u64,
    /// How long it was measured.
    pub(super) seconds: f64,
    /// Deliveries a second.
    pub(super) per_second: f64,
    /// From the publisher to the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_ms: Option<Latency>,
    /// Processor time for each 1,000 deliveries, by process, from the first publish until everything is recorded.
    pub(super) cpu_seconds_per_1000: BTreeMap<&'static str, f64>,
    /// The most resident memory, by process.
    pub(super) peak_mib: BTreeMap<&'static str, f64>,
    /// The most that the recorder was behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) journal_lag_seconds: Option<f64>,
    /// From the last request until the books were complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recorded_after_seconds: Option<f64>,
    /// Requests beyond one for each delivery.
    pub(super) repeated: u64,
    /// What was refused once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retries: Option<Retries>,
}

/// From the publisher to the receiver, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    /// Half of them take no longer.
    pub(super) p50: f64,
    /// 95 of 100 take no longer.
    pub(super) p95: f64,
    /// 99 of 100 take no longer.
    pub(super) p99: f64,
}

/// Deliveries that were refused once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Retries {
    /// How many came again.
    pub(super) retried: u64,
    /// Of these, how many came before they were due.
    pub(super) early: u64,
    /// How late 99 of 100 were at most, seconds.
    pub(super) late_p99_seconds: f64,
    /// How late they were at most, seconds.
    pub(super) late_most_seconds: f64,
}

impl Latency {
    /// Of microseconds; nothing where there are none.
    pub(super) fn of(histogram: &Histogram) -> Option<Self> {
        let ms = |part| histogram.percentile(part).map(|us| us as f64 / 1000.0);
        Some(Self { p50: ms(0.5)?, p95: ms(0.95)?, p99: ms(0.99)? })
    }
}

impl Run {
    /// Processor time of all processes for each 1,000 deliveries.
    pub(super) fn cpu_sum(&self) -> f64 {
        self.cpu_seconds_per_1000.values().sum()
    }

    /// The deliveries a second that so many cores would allow if nothing but processor time mattered.
    pub(super) fn cpu_allows(&self, cores: usize) -> Option<f64> {
        let sum = self.cpu_sum();
        (sum > 0.0).then(|| cores as f64 * 1000.0 / sum)
    }

    /// The medians of the turns of one workload. What must never happen is summed up, and of memory the most counts.
    pub(super) fn medians(runs: &[&Self]) -> Option<Self> {
        let first = *runs.first()?;
        let of = |value: fn(&Self) -> f64| median(runs.iter().map(|run| value(run))).unwrap_or(0.0);
        let some = |value: fn(&Self) -> Option<f64>| median(runs.iter().filter_map(|run| value(run)));
        let latency = |value: fn(&Latency) -> f64| {
            median(runs.iter().filter_map(|run| run.latency_ms.as_ref().map(value)))
        };
        let cpu = |name: &&'static str| {
            let values = runs.iter().filter_map(|run| run.cpu_seconds_per_1000.get(name).copied());
            (*name, median(values).unwrap_or(0.0))
        };
        let peak = |name: &&'static str| {
            let values = runs.iter().filter_map(|run| run.peak_mib.get(name).copied());
            (*name, values.fold(0.0, f64::max))
        };
        let retries = || runs.iter().filter_map(|run| run.retries);
        Some(Self {
            workload: first.workload,
            round: 0,
            deliveries: runs.iter().map(|run| run.deliveries).sum(),
            seconds: runs.iter().map(|run| run.seconds).sum(),
            per_second: of(|run| run.per_second),
            latency_ms: latency(|l| l.p50)
                .zip(latency(|l| l.p95))
                .zip(latency(|l| l.p99))
                .map(|((p50, p95), p99)| Latency { p50, p95, p99 }),
            cpu_seconds_per_1000: first.cpu_seconds_per_1000.keys().map(cpu).collect(),
            peak_mib: first.peak_mib.keys().map(peak).collect(),
            journal_lag_seconds: some(|run| run.journal_lag_seconds),
            recorded_after_seconds: some(|run| run.recorded_after_seconds),
            repeated: runs.iter().map(|run| run.repeated).sum(),
            retries: first.retries.map(|_| Retries {
                retried: retries().map(|retries| retries.retried).sum(),
                early: retries().map(|retries| retries.early).sum(),
                late_p99_seconds: retries().map(|retries| retries.late_p99_seconds).fold(0.0, f64::max),
                late_most_seconds: retries().map(|retries| retries.late_most_seconds).fold(0.0, f64::max),
            }),
        })
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(round: &u32) -> bool {
    *round == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(per_second: f64, worker: f64, mib: f64, early: u64) -> Run {
        Run {
            workload: "x",
            round: 1,
            deliveries: 10,
            seconds: 1.0,
            per_second,
            latency_ms: Some(Latency { p50: per_second, p95: 2.0, p99: 3.0 }),
            cpu_seconds_per_1000: [("worker", worker), ("sink", 0.1)].into(),
            peak_mib: [("worker", mib)].into(),
            journal_lag_seconds: Some(worker),
            retries: Some(Retries { retried: 5, early, late_p99_seconds: 1.0, late_most_seconds: worker }),
            ..Run::default()
        }
    }

    #[test]
    fn medians_are_of_each_number_and_the_worst_is_kept_where_it_matters() {
        let runs = [run(100.0, 0.4, 50.0, 0), run(300.0, 0.2, 70.0, 1), run(200.0, 0.3, 60.0, 0)];
        let medians = Run::medians(&runs.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((medians.per_second, medians.deliveries, medians.round), (200.0, 30, 0));
        assert_eq!(medians.latency_ms.unwrap().p50, 200.0);
        assert_eq!(medians.cpu_seconds_per_1000["worker"], 0.3);
        assert_eq!(medians.peak_mib["worker"], 70.0);
        assert_eq!(medians.journal_lag_seconds, Some(0.3));
        let retries = medians.retries.unwrap();
        assert_eq!((retries.retried, retries.early, retries.late_most_seconds), (15, 1, 0.4));
        assert_eq!(Run::medians(&[]), None);
    }

    #[test]
    fn processor_time_says_what_the_cores_allow() {
        let run = run(100.0, 0.4, 50.0, 0);
        assert_eq!(run.cpu_allows(2), Some(4_000.0));
        assert_eq!(Run::default().cpu_allows(2), None);
    }
}
