//! What was measured, for people and for programs.

use serde::Serialize;
use serde_json::json;

use super::run::Run;
use super::targets::{Bound, Results, Verdict};
use super::usage::Machine;
use crate::output::{Output, Tone};
use crate::table;

/// The processes, in the order of a delivery's way.
pub(super) const PROCESSES: [&str; 6] = ["publisher", "broker", "router", "worker", "control", "sink"];

/// What a bench found.
#[derive(Debug)]
pub(super) struct Report {
    /// How much was measured.
    pub(super) size: &'static str,
    /// What it was measured on.
    pub(super) machine: Machine,
    /// The broker's address.
    pub(super) broker: String,
    /// Why the broker's processor time is not known, where it is not.
    pub(super) broker_unseen: Option<String>,
    /// Every turn.
    pub(super) runs: Vec<Run>,
    /// The medians.
    pub(super) results: Results,
}

/// The medians of a workload with what follows from them.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    run: &'a Run,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    cpu_sum_seconds_per_1000: f64,
    cpu_allows_per_second: Option<f64>,
}

impl Report {
    /// Puts a number of turns together. `baselines` says with what each workload is compared.
    pub(super) fn of(
        size: &'static str,
        (machine, broker, broker_unseen): (Machine, String, Option<String>),
        runs: Vec<Run>,
        baseline: impl Fn(&str) -> Option<&'static str>,
    ) -> Self {
        let mut names: Vec<&'static str> = Vec::new();
        for run in &runs {
            if !names.contains(&run.workload) {
                names.push(run.workload);
            }
        }
        let medians = names.into_iter().filter_map(|name| {
            let turns: Vec<&Run> = runs.iter().filter(|run| run.workload == name).collect();
            Some((Run::medians(&turns)?, baseline(name)))
        });
        let results = Results(medians.collect());
        Self { size, machine, broker, broker_unseen, runs, results }
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let medians: Vec<Summary<'_>> = self
            .results
            .0
            .iter()
            .map(|(run, baseline)| Summary {
                run,
                baseline: *baseline,
                ratio: self.results.ratio(run.workload),
                cpu_sum_seconds_per_1000: run.cpu_sum(),
                cpu_allows_per_second: run.cpu_allows(self.machine.cores),
            })
            .collect();
        json!({
            "targets": self.results.verdicts(),
            "medians": medians,
            "runs": self.runs,
            "size": self.size,
            "version": env!("CARGO_PKG_VERSION"),
            "machine": self.machine,
            "broker": { "address": self.broker, "cpu_unknown": self.broker_unseen },
        })
        .to_string()
    }

    /// For people.
    pub(super) fn text(&self, out: Output) -> String {
        let medians = || self.results.0.iter().map(|(run, _)| run);
        let mut text = format!("{}\n\n", self.conditions());
        let header = [
            "WORKLOAD",
            "DELIVERIES/S",
            "OF BASELINE",
            "P50 MS",
            "P95 MS",
            "P99 MS",
            "CPU S/1000",
            "CPU ALLOWS/S",
        ];
        let rows: Vec<Vec<String>> = medians().map(|run| self.row(run)).collect();
        text.push_str(&table::render(&header, &rows));

        let header = |last| -> Vec<&str> {
            ["CPU S/1000", "PUBLISHER", "BROKER", "ROUTER", "WORKER", "CONTROL", "SINK", last].to_vec()
        };
        let rows: Vec<Vec<String>> = medians()
            .map(|run| {
                let of = |name: &&str| number(run.cpu_seconds_per_1000.get(name).copied(), 3);
                let sum = number(Some(run.cpu_sum()), 3);
                [run.workload.to_owned()].into_iter().chain(PROCESSES.iter().map(of)).chain([sum]).collect()
            })
            .collect();
        text.push('\n');
        text.push_str(&table::render(&header("SUM"), &rows));

        let mut header = header("LAG S");
        header[0] = "PEAK MIB";
        header.push("RECORDED AFTER S");
        let rows: Vec<Vec<String>> = medians()
            .map(|run| {
                let of = |name: &&str| number(run.peak_mib.get(name).copied(), 0);
                let more = [number(run.journal_lag_seconds, 2), number(run.recorded_after_seconds, 2)];
                [run.workload.to_owned()].into_iter().chain(PROCESSES.iter().map(of)).chain(more).collect()
            })
            .collect();
        text.push('\n');
        text.push_str(&table::render(&header, &rows));

        for (run, retries) in medians().filter_map(|run| Some((run, run.retries?))) {
            text.push_str(&format!(
                "\n{}: {} retried, {} of them early; late by at most {:.2} s, 99 of 100 by at most {:.2} s\n",
                run.workload,
                retries.retried,
                retries.early,
                retries.late_most_seconds,
                retries.late_p99_seconds
            ));
        }
        for run in medians().filter(|run| run.repeated > 0) {
            text.push_str(&format!("\n{}: {} requests were repeated\n", run.workload, run.repeated));
        }

        let rows: Vec<Vec<String>> =
            self.results.verdicts().iter().map(|verdict| verdict_row(verdict, out)).collect();
        text.push('\n');
        text.push_str(&table::render(&["TARGET", "MEASURED", "WANTED", "AIM", "VERDICT"], &rows));
        text
    }

    /// The names of the targets.
    pub(super) fn names(&self) -> String {
        self.results.verdicts().iter().map(|verdict| verdict.name).collect::<Vec<_>>().join("\n")
    }

    /// What the numbers depend on, and what makes them worthless.
    pub(super) fn conditions(&self) -> String {
        let Machine { cores, processor, memory_gib, kernel, file_system, release_build } = &self.machine;
        let build = if *release_build { "release" } else { "debug" };
        let mut text = format!(
            "postrider {} ({build} build), size {}; {cores} cores of {processor}, {memory_gib} GiB, Linux {kernel}; store \
             on {file_system}; broker at {}",
            env!("CARGO_PKG_VERSION"),
            self.size,
            self.broker
        );
        if !release_build {
            text.push_str("\nThis is a debug build: its numbers say nothing about a release.");
        }
        if file_system == "tmpfs" {
            text.push_str(
                "\nThe store is in memory, where syncing costs nothing: give --dir a directory on a disk.",
            );
        }
        if let Some(why) = &self.broker_unseen {
            text.push_str(&format!("\nThe broker's processor time is left out: {why}."));
        }
        text
    }

    fn row(&self, run: &Run) -> Vec<String> {
        let latency = |value: fn(&super::run::Latency) -> f64| number(run.latency_ms.as_ref().map(value), 1);
        vec![
            run.workload.to_owned(),
            number(Some(run.per_second), 0),
            number(self.results.ratio(run.workload), 2),
            latency(|latency| latency.p50),
            latency(|latency| latency.p95),
            latency(|latency| latency.p99),
            number(Some(run.cpu_sum()), 3),
            number(run.cpu_allows(self.machine.cores), 0),
        ]
    }
}

fn verdict_row(verdict: &Verdict, out: Output) -> Vec<String> {
    let sign = match verdict.bound {
        Bound::AtLeast => "at least",
        Bound::AtMost => "at most",
    };
    vec![
        verdict.name.to_owned(),
        number(verdict.value, 2),
        format!("{sign} {} {}", verdict.target, verdict.unit),
        verdict.aim.map_or("-".to_owned(), |aim| aim.to_string()),
        match verdict.met {
            Some(true) => out.paint(Tone::Good, "✓ met"),
            Some(false) => out.paint(Tone::Bad, "✕ missed"),
            None => out.paint(Tone::Faint, "– not measured"),
        },
    ]
}

/// A number with so many decimals; a hyphen where there is none.
fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::targets::tests::results;
    use super::*;

    /// A report such as a run may have.
    pub(in super::super) fn report() -> Report {
        let machine = Machine {
            cores: 2,
            processor: "a processor".to_owned(),
            memory_gib: 8.0,
            kernel: "6.1".to_owned(),
            file_system: "ext4".to_owned(),
            release_build: true,
        };
        let results = results();
        let runs: Vec<Run> = results.0.iter().map(|(run, _)| Run { round: 1, ..run.clone() }).collect();
        let baseline = |name: &str| results.0.iter().find(|(run, _)| run.workload == name)?.1;
        Report::of("full", (machine, "127.0.0.1:5672".to_owned(), None), runs, baseline)
    }

    #[test]
    fn people_read_tables() {
        insta::assert_snapshot!(report().text(Output::plain()).replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn programs_read_json() {
        let mut value: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        value["version"] = json!("VERSION");
        for list in ["runs", "medians"] {
            value[list].as_array_mut().unwrap().retain(|run| run["workload"] == "retry-burst");
        }
        insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn what_spoils_the_numbers_is_said() {
        let mut report = report();
        assert_eq!(report.conditions().lines().count(), 1);
        report.machine.release_build = false;
        report.machine.file_system = "tmpfs".to_owned();
        report.broker_unseen = Some("it is another machine".to_owned());
        assert_eq!(report.conditions().lines().count(), 4);
    }
}
