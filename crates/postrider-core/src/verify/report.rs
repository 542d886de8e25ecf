//! What the checker found.

use std::fmt;

use serde::Serialize;

/// Examples of each violation, at most.
pub(super) const MOST_EXAMPLES: usize = 10;

/// An invariant of `reference/reliability.md` §0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Invariant {
    /// Every accepted event is in the books: routed, unmatched or invalid.
    #[serde(rename = "I-1")]
    Events,
    /// What is owed is delivered, dead, cancelled, skipped or pending; at rest nothing is pending but what is held.
    #[serde(rename = "I-2")]
    Pairs,
    /// No pair is lost: delivered ones are at the receiver, dead ones have a dead letter.
    #[serde(rename = "I-3")]
    NoLoss,
    /// No invention: the receiver has nothing that was not published.
    #[serde(rename = "I-4")]
    NoInvention,
    /// Duplicates: none without faults, bounded with them.
    #[serde(rename = "I-5")]
    Duplicates,
    /// The attempt log is the truth of the wire.
    #[serde(rename = "I-6")]
    HonestLog,
    /// No series has more attempts than its policy allows.
    #[serde(rename = "I-7")]
    AttemptCap,
    /// No attempt is early.
    #[serde(rename = "I-8")]
    NeverEarly,
    /// Memory is bounded.
    #[serde(rename = "I-9")]
    Bounded,
    /// Every request verifies.
    #[serde(rename = "I-12")]
    Signed,
    /// Every series has exactly one end.
    #[serde(rename = "I-14")]
    OneEnd,
}

impl Invariant {
    /// All that this checker judges.
    pub const ALL: [Self; 11] = [
        Self::Events,
        Self::Pairs,
        Self::NoLoss,
        Self::NoInvention,
        Self::Duplicates,
        Self::HonestLog,
        Self::AttemptCap,
        Self::NeverEarly,
        Self::Bounded,
        Self::Signed,
        Self::OneEnd,
    ];

    /// Its number, such as `I-3`.
    pub fn id(self) -> &'static str {
        match self {
            Self::Events => "I-1",
            Self::Pairs => "I-2",
            Self::NoLoss => "I-3",
            Self::NoInvention => "I-4",
            Self::Duplicates => "I-5",
            Self::HonestLog => "I-6",
            Self::AttemptCap => "I-7",
            Self::NeverEarly => "I-8",
            Self::Bounded => "I-9",
            Self::Signed => "I-12",
            Self::OneEnd => "I-14",
        }
    }

    /// What it says, in a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Events => "every accepted event is in the books",
            Self::Pairs => "the books add up",
            Self::NoLoss => "no pair is lost",
            Self::NoInvention => "nothing arrived that was not published",
            Self::Duplicates => "duplicates within the bound",
            Self::HonestLog => "the attempt log is what was on the wire",
            Self::AttemptCap => "no more attempts than allowed",
            Self::NeverEarly => "no attempt was early",
            Self::Bounded => "memory within the bound",
            Self::Signed => "every request verifies",
            Self::OneEnd => "every series has one end",
        }
    }
}

/// Whether an invariant held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It held.
    Held,
    /// It did not.
    Violated,
    /// Nothing was given by which it could be judged.
    NotJudged,
}

/// One invariant and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Which.
    pub invariant: Invariant,
    /// What it says.
    pub words: &'static str,
    /// Whether it held.
    pub verdict: Verdict,
    /// How often it did not.
    pub count: u64,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How often.
    pub count: u64,
    /// The first ones, in words; at most ten.
    pub examples: Vec<String>,
}

/// Everything that the checker found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Trials: pairs of event and webhook that were owed, each series one.
    pub n: u64,
    /// Events in the publishers' ledgers.
    pub accepted: u64,
    /// Requests in the receivers' ledgers.
    pub requests: u64,
    /// Rows of the attempt log.
    pub attempts: u64,
    /// What chance was drawn from.
    pub seed: Option<u64>,
    /// With nothing lost in n trials, a pair is lost with at most this probability (95 %), percent: 3 / n.
    pub bound_percent: f64,
    /// Series that were delivered.
    pub delivered: u64,
    /// Series that were given up.
    pub dead: u64,
    /// Series that were cancelled.
    pub cancelled: u64,
    /// Series that were skipped.
    pub skipped: u64,
    /// Series that have not ended, the held ones among them.
    pub pending: u64,
    /// Series that wait for their webhook to be resumed.
    pub held: u64,
    /// Accepted events that the books do not know, and pairs that are nowhere.
    pub lost: u64,
    /// Ids that came from nowhere.
    pub unexpected: u64,
    /// Requests answered 2xx beyond the first of their series, which the log does not say failed.
    pub duplicated: u64,
    /// The most that there may be.
    pub most_duplicated: u64,
    /// Requests answered 2xx whose answer the worker never got, or could not use: a later attempt is no duplicate of ours.
    pub unheard: u64,
    /// Attempts that came early.
    pub early: u64,
    /// By how much the earliest of them did, milliseconds.
    pub earliest_ms: u64,
    /// 99 % of the later attempts were at most this late, milliseconds.
    pub late_p99_ms: u64,
    /// Attempts beyond what the policy allows.
    pub over_attempted: u64,
    /// Requests that are not in the log.
    pub unlogged: u64,
    /// The most that there may be.
    pub most_unlogged: u64,
    /// How far the books are from adding up, over everything that they count.
    pub drift: u64,
    /// Every invariant, in order.
    pub judged: Vec<Judged>,
    /// Those that did not hold.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Whether everything that could be judged held.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The violation of an invariant.
    pub fn violation(&self, invariant: Invariant) -> Option<&Violation> {
        self.violations.iter().find(|violation| violation.invariant == invariant)
    }

    pub(super) fn violate(&mut self, invariant: Invariant, example: impl FnOnce() -> String) {
        self.violate_times(invariant, 1, example);
    }

    pub(super) fn violate_times(
        &mut self,
        invariant: Invariant,
        count: u64,
        example: impl FnOnce() -> String,
    ) {
        if count == 0 {
            return;
        }
        let at = match self.violations.iter().position(|known| known.invariant == invariant) {
            Some(at) => at,
            None => {
                self.violations.push(Violation { invariant, count: 0, examples: Vec::new() });
                self.violations.len() - 1
            }
        };
        let violation = &mut self.violations[at];
        violation.count += count;
        if violation.examples.len() < MOST_EXAMPLES {
            violation.examples.push(example());
        }
    }

    /// Closes the list of violations, and lists every invariant with its verdict.
    pub(super) fn judge(&mut self, not_judged: &[Invariant]) {
        self.violations.sort_by_key(|violation| violation.invariant);
        self.judged = Invariant::ALL
            .into_iter()
            .map(|invariant| {
                let count = self.violation(invariant).map_or(0, |violation| violation.count);
                let verdict = match count {
                    0 if not_judged.contains(&invariant) => Verdict::NotJudged,
                    0 => Verdict::Held,
                    _ => Verdict::Violated,
                };
                Judged { invariant, words: invariant.words(), verdict, count }
            })
            .collect();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accepted {}   pairs {}   requests {}   attempts {}",
            self.accepted, self.n, self.requests, self.attempts
        )?;
        writeln!(
            f,
            "delivered {}   dead {}   cancelled {}   skipped {}   pending {} (held {})",
            self.delivered, self.dead, self.cancelled, self.skipped, self.pending, self.held
        )?;
        writeln!(f, "lost {}   unexpected {}   drift {}", self.lost, self.unexpected, self.drift)?;
        writeln!(
            f,
            "duplicated {} (at most {})   unlogged {} (at most {})   answers not heard {}",
            self.duplicated, self.most_duplicated, self.unlogged, self.most_unlogged, self.unheard
        )?;
        writeln!(
            f,
            "early {}   over-attempted {}   99 % of later attempts at most {} ms late",
            self.early, self.over_attempted, self.late_p99_ms
        )?;
        if let Some(seed) = self.seed {
            writeln!(f, "seed {seed}")?;
        }
        writeln!(f)?;
        for judged in &self.judged {
            let verdict = match judged.verdict {
                Verdict::Held => "held".to_owned(),
                Verdict::Violated => format!("VIOLATED {} times", judged.count),
                Verdict::NotJudged => "not judged".to_owned(),
            };
            writeln!(f, "{:<5} {:<42} {verdict}", judged.invariant.id(), judged.words)?;
            if let Some(violation) = self.violation(judged.invariant) {
                for example in &violation.examples {
                    writeln!(f, "        {example}")?;
                }
            }
        }
        writeln!(f)?;
        match self.violation(Invariant::NoLoss).or(self.violation(Invariant::Events)) {
            None if self.n > 0 => write!(
                f,
                "n = {}, lost 0: with 95 % confidence a pair is lost with a probability of at most {}",
                self.n,
                percent(self.bound_percent)
            ),
            None => write!(f, "n = 0: nothing was owed, and nothing is shown"),
            Some(_) => write!(f, "n = {}, lost {}", self.n, self.lost),
        }
    }
}

/// A percentage with two digits that say something.
fn percent(percent: f64) -> String {
    let digits = if percent > 0.0 && percent < 1.0 { (1.0 - percent.log10()).ceil() as usize } else { 1 };
    format!("{percent:.digits$} %")
}
