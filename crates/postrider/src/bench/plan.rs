//! What is measured, as data.

use std::time::Duration;

/// Every workload, in the order in which they take turns: each beside its baseline.
const WORKLOADS: [Workload; 19] = [
    naked_loop("naked-loop-1k", KIB),
    Workload {
        baseline: Some("naked-loop-1k"),
        ..workload("bare-one-to-one-1k", Kind::Bare { fan_out: 1 }, KIB)
    },
    Workload { baseline: Some("naked-loop-1k"), ..speed("one-to-one-1k", 1, 1, KIB) },
    Workload {
        baseline: Some("naked-loop-1k"),
        by_producer: true,
        ..speed("arrays-one-to-one-1k", 1, 1, KIB)
    },
    workload("naked-post-1k", Kind::NakedPost, KIB),
    Workload {
        baseline: Some("naked-post-1k"),
        ..workload("bare-one-to-ten-1k", Kind::Bare { fan_out: 10 }, KIB)
    },
    Workload { baseline: Some("naked-post-1k"), ..speed("one-to-ten-1k", 10, 1, KIB) },
    Workload { baseline: Some("naked-post-1k"), ..speed("one-to-hundred-1k", 100, 1, KIB) },
    Workload { baseline: Some("naked-loop-1k"), ..speed("thousand-webhooks-1k", 1, 1_000, KIB) },
    naked_loop("naked-loop-200b", 200),
    Workload { baseline: Some("naked-loop-200b"), ..speed("one-to-one-200b", 1, 1, 200) },
    naked_loop("naked-loop-16k", 16 * KIB),
    Workload { baseline: Some("naked-loop-16k"), ..speed("one-to-one-16k", 1, 1, 16 * KIB) },
    workload("steady-500", Kind::Steady, KIB),
    workload("retry-burst", Kind::Burst, KIB),
    workload("alone", Kind::Alone, KIB),
    speed("ten-webhooks-1k", 1, 10, KIB),
    Workload {
        baseline: Some("ten-webhooks-1k"),
        tenants: 10,
        ..speed("hundred-thousand-webhooks-1k", 1, 100_000, KIB)
    },
    Workload {
        baseline: Some("ten-webhooks-1k"),
        behind: 1_000_000,
        ..speed("million-behind-1k", 1, 10, KIB)
    },
];

/// What shows how the cost grows: so large that it is measured only where it is asked for.
const GROWN: [&str; 3] = ["ten-webhooks-1k", "hundred-thousand-webhooks-1k", "million-behind-1k"];

/// The name of every workload.
pub const NAMES: [&str; WORKLOADS.len()] = {
    let mut names = [""; WORKLOADS.len()];
    let mut at = 0;
    while at < WORKLOADS.len() {
        names[at] = WORKLOADS[at].name;
        at += 1;
    }
    names
};

const KIB: usize = 1024;

/// Webhooks of the retry burst: so many that none fails ten times in a row, which would open its breaker.
pub(super) const BURST_WEBHOOKS: u32 = 100;

/// Something to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    /// What it is called.
    pub(super) name: &'static str,
    /// What is done.
    pub(super) kind: Kind,
    /// Bytes of an event.
    pub(super) body_bytes: usize,
    /// What its throughput is compared with.
    pub(super) baseline: Option<&'static str>,
    /// Whether our producer publishes it; otherwise bare lapin does, each event in a message of its own.
    pub(super) by_producer: bool,
    /// Whose its webhooks are, in turn: of the default tenant, or of so many. One tenant may have 10,000.
    pub(super) tenants: u32,
    /// Deliveries that wait meanwhile for a webhook whose receiver is busy.
    pub(super) behind: u64,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Publish with confirms, consume, POST, ack; nothing else.
    NakedLoop,
    /// POST, nothing else.
    NakedPost,
    /// From queue to queue to receivers, nothing else.
    Bare {
        /// To so many receivers each.
        fan_out: u32,
    },
    /// As many events as go through.
    Speed {
        /// To so many webhooks each.
        fan_out: u32,
        /// So many such groups of webhooks, in turn.
        groups: u32,
    },
    /// Events at a steady rate.
    Steady,
    /// Deliveries that fail once.
    Burst,
    /// Router, worker and recorder, one after the other.
    Alone,
}

/// What is measured, and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// What it is called.
    pub(super) size: &'static str,
    /// How often everything has its turn.
    pub(super) rounds: u32,
    /// In how many of these rounds what takes long has its turn, too.
    pub(super) long_rounds: u32,
    /// How long a workload runs before it is measured.
    pub(super) warm: Duration,
    /// How long it is measured.
    pub(super) measured: Duration,
    /// Events a second at the steady rate.
    pub(super) steady_rate: f64,
    /// How long the steady rate is measured.
    pub(super) steady: Duration,
    /// Deliveries that fail once: the same number for each of [`BURST_WEBHOOKS`].
    pub(super) failing: u64,
    /// After how long these are due again.
    pub(super) retry: Duration,
    /// Events that pile up.
    pub(super) pile: u64,
    /// Most groups of webhooks, and most deliveries that wait, of one workload.
    pub(super) most: (u32, u64),
    /// What has its turn in a round.
    pub(super) workloads: Vec<Workload>,
}

impl Plan {
    /// Everything: about a quarter of an hour.
    pub(super) fn full() -> Self {
        Self {
            size: "full",
            rounds: 3,
            long_rounds: 3,
            warm: Duration::from_secs(2),
            measured: Duration::from_secs(10),
            steady_rate: 500.0,
            steady: Duration::from_secs(30),
            failing: 10_000,
            // Two hops on the ladder, and where the retries of a webhook usually begin.
            retry: Duration::from_secs(5),
            pile: 50_000,
            most: (u32::MAX, u64::MAX),
            workloads: WORKLOADS.iter().filter(|workload| !workload.is_grown()).copied().collect(),
        }
    }

    /// What the targets need, but for those of growth: less than three minutes.
    pub(super) fn quick() -> Self {
        Self {
            size: "quick",
            long_rounds: 1,
            warm: Duration::from_secs(1),
            measured: Duration::from_secs(4),
            steady: Duration::from_secs(8),
            failing: 3_000,
            pile: 8_000,
            ..Self::full()
        }
        .for_targets()
    }

    /// Next to nothing: whether it works.
    pub(super) fn tiny() -> Self {
        Self {
            size: "tiny",
            rounds: 1,
            long_rounds: 1,
            warm: Duration::from_millis(50),
            measured: Duration::from_millis(200),
            steady_rate: 100.0,
            steady: Duration::from_millis(300),
            failing: 100,
            retry: Duration::from_secs(1),
            pile: 100,
            most: (50, 200),
            ..Self::full()
        }
        .for_targets()
    }

    /// Only what the targets need, and what the machine allows at all.
    fn for_targets(mut self) -> Self {
        let needed = [
            "naked-loop-1k",
            "bare-one-to-one-1k",
            "one-to-one-1k",
            "arrays-one-to-one-1k",
            "naked-post-1k",
            "bare-one-to-ten-1k",
            "one-to-ten-1k",
        ];
        self.workloads.retain(|workload| workload.is_long() || needed.contains(&workload.name));
        self
    }

    /// Only these workloads, and their baselines; all of them if there are none.
    pub(super) fn only(mut self, names: &[String]) -> Self {
        if names.is_empty() {
            return self;
        }
        let named = |name: &str| names.iter().any(|wanted| wanted == name);
        let baselines: Vec<&str> =
            WORKLOADS.iter().filter(|one| named(one.name)).filter_map(|one| one.baseline).collect();
        self.workloads = WORKLOADS.to_vec();
        self.workloads.retain(|workload| named(workload.name) || baselines.contains(&workload.name));
        if self.workloads.iter().any(Workload::is_grown) {
            // What has grown stays: whatever came after it would not be without it.
            self.rounds = 1;
            self.measured *= 2;
        }
        let (groups_most, behind_most) = self.most;
        for workload in &mut self.workloads {
            workload.behind = workload.behind.min(behind_most);
            if let Kind::Speed { groups, .. } = &mut workload.kind {
                *groups = groups_most.min(*groups);
            }
        }
        self
    }

    /// What has its turn in this round, from 0.
    pub(super) fn round(&self, round: u32) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(move |workload| !workload.is_long() || round < self.long_rounds)
    }

    /// How many turns there are.
    pub(super) fn turns(&self) -> usize {
        (0..self.rounds).map(|round| self.round(round).count()).sum()
    }
}

impl Workload {
    /// Whether it may be left out of some rounds.
    fn is_long(&self) -> bool {
        matches!(self.kind, Kind::Steady | Kind::Burst | Kind::Alone)
    }

    /// Whether it shows how the cost grows.
    fn is_grown(&self) -> bool {
        GROWN.contains(&self.name)
    }

    /// Whether Postrider takes part in it.
    pub(super) fn is_naked(&self) -> bool {
        matches!(self.kind, Kind::NakedLoop | Kind::NakedPost | Kind::Bare { .. })
    }

    /// The groups of webhooks that it needs: so many of so many webhooks, each of which takes an event type of its own.
    pub(super) fn webhooks(&self) -> (u32, u32) {
        match self.kind {
            Kind::NakedLoop | Kind::NakedPost | Kind::Bare { .. } => (0, 0),
            Kind::Speed { fan_out, groups } => (groups, fan_out),
            Kind::Steady | Kind::Alone => (1, 1),
            Kind::Burst => (BURST_WEBHOOKS, 1),
        }
    }

    /// Whose events and webhooks of a group are.
    pub(super) fn tenant(&self, group: u32) -> String {
        match self.tenants {
            1 => "default".to_owned(),
            tenants => format!("bench-{}", group % tenants),
        }
    }

    /// The type of its events for a group of webhooks.
    pub(super) fn event_type(&self, group: u32) -> String {
        format!("bench.{}.{group}", self.name)
    }
}

const fn workload(name: &'static str, kind: Kind, body_bytes: usize) -> Workload {
    Workload { name, kind, body_bytes, baseline: None, by_producer: false, tenants: 1, behind: 0 }
}

const fn naked_loop(name: &'static str, body_bytes: usize) -> Workload {
    workload(name, Kind::NakedLoop, body_bytes)
}

const fn speed(name: &'static str, fan_out: u32, groups: u32, body_bytes: usize) -> Workload {
    workload(name, Kind::Speed { fan_out, groups }, body_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_baseline_is_measured_beside_what_is_compared_with_it() {
        for plan in [Plan::full(), Plan::quick(), Plan::tiny()] {
            let names: Vec<&str> = plan.workloads.iter().map(|workload| workload.name).collect();
            for workload in &plan.workloads {
                assert!(workload.baseline.is_none_or(|baseline| names.contains(&baseline)), "{workload:?}");
                assert!(NAMES.contains(&workload.name));
            }
        }
    }

    #[test]
    fn some_alone_come_with_their_baselines() {
        let plan = Plan::quick().only(&["one-to-one-16k".to_owned()]);
        let names: Vec<&str> = plan.workloads.iter().map(|workload| workload.name).collect();
        assert_eq!(names, ["naked-loop-16k", "one-to-one-16k"]);
        assert_eq!(Plan::quick().only(&[]), Plan::quick());
    }

    #[test]
    fn what_grows_is_measured_once_and_only_when_asked_for() {
        assert!(!Plan::full().workloads.iter().any(Workload::is_grown));
        let plan = Plan::full().only(&["million-behind-1k".to_owned()]);
        let names: Vec<&str> = plan.workloads.iter().map(|workload| workload.name).collect();
        assert_eq!(
            (names.as_slice(), plan.turns()),
            (["ten-webhooks-1k", "million-behind-1k"].as_slice(), 2)
        );
        assert_eq!(plan.workloads[1].behind, 1_000_000);
        let tiny = Plan::tiny().only(&["hundred-thousand-webhooks-1k".to_owned()]);
        assert_eq!(tiny.workloads[1].webhooks(), (50, 1));
    }

    #[test]
    fn as_many_fail_at_each_webhook() {
        for plan in [Plan::full(), Plan::quick(), Plan::tiny()] {
            assert_eq!(plan.failing % u64::from(BURST_WEBHOOKS), 0);
        }
    }

    #[test]
    fn what_takes_long_has_fewer_turns() {
        assert_eq!(Plan::quick().turns(), 3 * 7 + 3);
        assert_eq!(Plan::tiny().turns(), 7 + 3);
        assert_eq!(Plan::full().turns(), 3 * 16);
    }
}
