//! The targets, and whether they are met.

use serde::Serialize;

use super::run::Run;

const LEAST: Bound = Bound::AtLeast;
const MOST: Bound = Bound::AtMost;

/// Every target. The numbers are those that the product promises on two cores.
const TARGETS: [Target; 14] = [
    Target {
        aim: Some(0.9),
        ..target("one-to-one-ratio", "of naked-loop-1k", LEAST, 0.6, |r| r.ratio("one-to-one-1k"))
    },
    Target {
        aim: Some(0.9),
        ..target("arrays-ratio", "of naked-loop-1k", LEAST, 0.6, |r| r.ratio("arrays-one-to-one-1k"))
    },
    Target {
        aim: Some(0.9),
        ..target("one-to-ten-ratio", "of naked-post-1k", LEAST, 0.6, |r| r.ratio("one-to-ten-1k"))
    },
    target("latency-p50", "ms", MOST, 10.0, |r| Some(r.of("steady-500")?.latency_ms?.p50)),
    target("latency-p99", "ms", MOST, 50.0, |r| Some(r.of("steady-500")?.latency_ms?.p99)),
    target("retries-early", "retries", MOST, 0.0, |r| Some(r.of("retry-burst")?.retries?.early as f64)),
    target("retries-late", "s", MOST, 10.0, |r| Some(r.of("retry-burst")?.retries?.late_most_seconds)),
    target("journal-lag", "s", MOST, 2.0, |r| r.most_at_full_speed(|run| run.journal_lag_seconds)),
    target("recorder-alone", "of one-to-one-1k", LEAST, 3.0, |r| r.times("recorder-alone", "one-to-one-1k")),
    target("recorder-apart", "of one-to-one-1k", LEAST, 3.0, |r| r.times("recorder-apart", "one-to-one-1k")),
    target("worker-memory", "MiB", MOST, 128.0, |r| {
        r.most_at_full_speed(|run| run.peak_mib.get("worker").copied())
    }),
    target("router-memory", "MiB", MOST, 128.0, |r| {
        r.most_at_full_speed(|run| run.peak_mib.get("router").copied())
    }),
    target("cost-of-webhooks", "of ten-webhooks-1k", MOST, 1.2, |r| {
        r.cost("hundred-thousand-webhooks-1k", "ten-webhooks-1k")
    }),
    target("cost-of-a-backlog", "of ten-webhooks-1k", MOST, 1.2, |r| {
        r.cost("million-behind-1k", "ten-webhooks-1k")
    }),
];

/// A number that is to be met.
#[derive(Clone, Copy, Debug)]
struct Target {
    name: &'static str,
    unit: &'static str,
    bound: Bound,
    target: f64,
    aim: Option<f64>,
    value: fn(&Results) -> Option<f64>,
}

/// On which side of the target a value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// The target or more.
    AtLeast,
    /// The target or less.
    AtMost,
}

/// Whether a target is met.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
    /// The target's name.
    pub(super) name: &'static str,
    /// What was measured; nothing where it was not.
    pub(super) value: Option<f64>,
    /// What it has to be.
    pub(super) target: f64,
    /// Whether it is; nothing where it was not measured.
    pub(super) met: Option<bool>,
    /// On which side of the target it has to be.
    pub(super) bound: Bound,
    /// What is wished for beyond the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aim: Option<f64>,
    /// Of what.
    pub(super) unit: &'static str,
}

/// The medians of every workload, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Results(pub(super) Vec<(Run, Option<&'static str>)>);

impl Results {
    /// The medians of a workload.
    pub(super) fn of(&self, workload: &str) -> Option<&Run> {
        self.0.iter().map(|(run, _)| run).find(|run| run.workload == workload)
    }

    /// Its throughput over that of its baseline.
    pub(super) fn ratio(&self, workload: &str) -> Option<f64> {
        let (_, baseline) = self.0.iter().find(|(run, _)| run.workload == workload)?;
        self.times(workload, (*baseline)?)
    }

    fn times(&self, workload: &str, other: &str) -> Option<f64> {
        let (one, other) = (self.of(workload)?.per_second, self.of(other)?.per_second);
        (other > 0.0).then(|| one / other)
    }

    /// The processor time of one delivery of a workload, over that of another.
    fn cost(&self, workload: &str, other: &str) -> Option<f64> {
        let (one, other) = (self.of(workload)?.cpu_sum(), self.of(other)?.cpu_sum());
        (other > 0.0).then(|| one / other)
    }

    /// The largest of a number over the workloads at full speed: those that are compared with a baseline.
    fn most_at_full_speed(&self, value: fn(&Run) -> Option<f64>) -> Option<f64> {
        let full = self.0.iter().filter(|(_, baseline)| baseline.is_some());
        full.filter_map(|(run, _)| value(run)).max_by(f64::total_cmp)
    }

    /// Every target, met or not.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        TARGETS.iter().map(|target| target.judge(self)).collect()
    }
}

impl Target {
    fn judge(&self, results: &Results) -> Verdict {
        let value = (self.value)(results);
        let met = value.map(|value| match self.bound {
            Bound::AtLeast => value >= self.target,
            Bound::AtMost => value <= self.target,
        });
        let Self { name, unit, bound, target, aim, value: _ } = *self;
        Verdict { name, value, target, met, bound, aim, unit }
    }
}

const fn target(
    name: &'static str,
    unit: &'static str,
    bound: Bound,
    target: f64,
    value: fn(&Results) -> Option<f64>,
) -> Target {
    Target { name, unit, bound, target, aim: None, value }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::run::{Latency, Retries};
    use super::*;

    /// Results such as a run may have.
    pub(in super::super) fn results() -> Results {
        let run = |workload, per_second| Run {
            workload,
            deliveries: 40_000,
            seconds: 10.0,
            per_second,
            latency_ms: Some(Latency { p50: 4.0, p95: 9.5, p99: 21.25 }),
            cpu_seconds_per_1000: [("broker", 0.25), ("publisher", 0.1), ("sink", 0.05)].into(),
            peak_mib: [("broker", 180.0), ("sink", 8.0)].into(),
            ..Run::default()
        };
        let served = |workload, per_second| {
            let mut run = run(workload, per_second);
            run.cpu_seconds_per_1000.extend([("router", 0.125), ("worker", 0.25), ("control", 0.125)]);
            run.peak_mib.extend([("router", 40.0), ("worker", 129.0), ("control", 60.0)]);
            run.journal_lag_seconds = Some(0.5);
            run.recorded_after_seconds = Some(0.25);
            run
        };
        let retries = Retries { retried: 10_000, early: 0, late_p99_seconds: 2.5, late_most_seconds: 10.0 };
        Results(vec![
            (run("naked-loop-1k", 4_000.0), None),
            (served("one-to-one-1k", 3_000.0), Some("naked-loop-1k")),
            (served("arrays-one-to-one-1k", 2_000.0), Some("naked-loop-1k")),
            (run("naked-post-1k", 8_000.0), None),
            (served("one-to-ten-1k", 4_000.0), Some("naked-post-1k")),
            (served("steady-500", 500.0), None),
            (Run { retries: Some(retries), ..served("retry-burst", 2_000.0) }, None),
            (Run { latency_ms: None, ..served("recorder-alone", 9_000.0) }, None),
            (Run { latency_ms: None, ..served("recorder-apart", 6_000.0) }, None),
            (served("ten-webhooks-1k", 3_000.0), None),
            (served("hundred-thousand-webhooks-1k", 2_500.0), None),
            (served("million-behind-1k", 2_500.0), None),
        ])
    }

    fn verdict(results: &Results, name: &str) -> Verdict {
        results.verdicts().into_iter().find(|verdict| verdict.name == name).unwrap()
    }

    #[test]
    fn targets_are_met_at_their_very_number_and_not_beyond() {
        let results = results();
        for (name, value, met) in [
            ("one-to-one-ratio", 0.75, true),
            ("arrays-ratio", 0.5, false),
            ("one-to-ten-ratio", 0.5, false),
            ("latency-p50", 4.0, true),
            ("latency-p99", 21.25, true),
            ("retries-early", 0.0, true),
            ("retries-late", 10.0, true),
            ("journal-lag", 0.5, true),
            ("recorder-alone", 3.0, true),
            ("recorder-apart", 2.0, false),
            ("worker-memory", 129.0, false),
            ("router-memory", 40.0, true),
            ("cost-of-webhooks", 1.0, true),
            ("cost-of-a-backlog", 1.0, true),
        ] {
            let verdict = verdict(&results, name);
            assert_eq!((verdict.value, verdict.met), (Some(value), Some(met)), "{name}");
        }
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let nothing = Results::default();
        assert_eq!(nothing.verdicts().len(), TARGETS.len());
        assert!(nothing.verdicts().iter().all(|verdict| verdict.value.is_none() && verdict.met.is_none()));
        let mut results = results();
        results.0.retain(|(run, _)| run.workload != "naked-loop-1k");
        assert_eq!(verdict(&results, "one-to-one-ratio").met, None);
    }
}
