//! The checker itself: one pass over the deliveries, each with its series, its attempts in the log, its requests on the
//! wire and its dead letters.

use std::collections::{BTreeMap, HashSet};

use super::report::{Invariant, Report};
use super::run::{Attempt, Delivery, Fate, Letter, Request, Run, Series, State};
use crate::event::OWN_ID_PREFIX;

/// What ids begin with that Postrider makes itself: own events, reminders, and messages that were no events.
const MADE: [&str; 3] = [OWN_ID_PREFIX, "rem_", "invalid_"];

/// A request that is this far from an attempt in the log is not that one, if there are several series, milliseconds.
const OTHER_SERIES_MS: i64 = 1_000;

/// Judges a run.
pub fn check(run: &Run) -> Report {
    let mut report = Report {
        accepted: run.events.iter().filter(|event| event.published).count() as u64,
        requests: run.requests.len() as u64 + run.unnamed_requests,
        attempts: run.attempts.len() as u64,
        seed: run.seed,
        ..Report::default()
    };
    let (derived, known_actions) = run.derive();
    let mut judge =
        Judge { run, report: &mut report, counted: vec![0; run.events.len()], late_ms: Vec::new() };
    judge.pairs();
    judge.events(&derived, &known_actions);
    judge.rest();
    let mut not_judged = Vec::new();
    if run.peak_mib.is_none() {
        not_judged.push(Invariant::Bounded);
    }
    if run.verified + run.unverified == 0 {
        not_judged.push(Invariant::Signed);
    }
    report.judge(&not_judged);
    report
}

struct Judge<'a> {
    run: &'a Run,
    report: &'a mut Report,
    /// Owed series of each event.
    counted: Vec<u32>,
    /// How late later attempts were.
    late_ms: Vec<u32>,
}

/// A delivery with all that belongs to it.
struct Pair<'a> {
    delivery: &'a Delivery,
    series: Vec<&'a Series>,
    rows: Vec<&'a Attempt>,
    requests: Vec<&'a Request>,
    letters: Vec<&'a Letter>,
}

/// Rows of a table in the order of their deliveries, handed out delivery by delivery.
struct Sorted<'a, T> {
    rows: &'a [T],
    order: Vec<u32>,
    next: usize,
    delivery: fn(&T) -> u32,
}

impl<'a, T> Sorted<'a, T> {
    fn by<K: Ord>(rows: &'a [T], delivery: fn(&T) -> u32, then: impl Fn(&T) -> K) -> Self {
        let mut order: Vec<u32> = (0..rows.len()).map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect();
        order.sort_unstable_by_key(|at| {
            let row = &rows[*at as usize];
            (delivery(row), then(row))
        });
        Self { rows, order, next: 0, delivery }
    }

    fn of(&mut self, delivery: u32) -> Vec<&'a T> {
        let rows = self.rows;
        let rest = self.order[self.next..].iter().map(|at| &rows[*at as usize]);
        let taken: Vec<&T> = rest.take_while(|row| (self.delivery)(row) == delivery).collect();
        self.next += taken.len();
        taken
    }
}

impl Judge<'_> {
    fn pairs(&mut self) {
        let run = self.run;
        let mut series = Sorted::by(&run.series, |row| row.delivery, |row| row.number);
        let mut rows = Sorted::by(&run.attempts, |row| row.delivery, |row| (row.series, row.n, row.at));
        let mut requests = Sorted::by(&run.requests, |row| row.delivery, |row| row.at);
        let mut letters = Sorted::by(&run.letters, |row| row.delivery, |row| row.series);
        for (at, delivery) in run.deliveries.iter().enumerate() {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            let pair = Pair {
                delivery,
                series: series.of(at),
                rows: rows.of(at),
                requests: requests.of(at),
                letters: letters.of(at),
            };
            self.pair(&pair);
        }
    }

    fn pair(&mut self, pair: &Pair<'_>) {
        if !pair.delivery.known {
            return self.unknown(pair);
        }
        let webhook = self.run.webhooks[pair.delivery.webhook as usize];
        let on_the_wire = Wire::of(pair, self.run.allowance_ms());
        for (at, series) in pair.series.iter().enumerate() {
            self.books(pair, series, at);
            self.end(pair, series);
            self.log(pair, series);
            self.attempts(pair, series, webhook.max_attempts);
            if webhook.covered {
                self.wire(pair, series, &on_the_wire);
            }
        }
        for row in &pair.rows {
            if !pair.series.iter().any(|series| series.number == row.series) {
                self.violate(
                    Invariant::Pairs,
                    pair,
                    row.series,
                    "has attempts, and the books have no such series",
                );
            }
        }
    }

    fn unknown(&mut self, pair: &Pair<'_>) {
        let shown = self.run.shown(pair.delivery);
        if !pair.requests.is_empty() {
            self.report.unexpected += 1;
            self.report.violate(Invariant::NoInvention, || {
                format!("{shown}: {} requests, and the books know no such delivery", pair.requests.len())
            });
        }
        if !pair.series.is_empty() || !pair.rows.is_empty() {
            self.report.drift += 1;
            self.report
                .violate(Invariant::Pairs, || format!("{shown}: series or attempts without a delivery"));
        }
    }

    /// What the books say of a series, and whether they say one thing.
    fn books(&mut self, pair: &Pair<'_>, series: &Series, at: usize) {
        let report = &mut *self.report;
        match series.state {
            State::Pending => report.pending += 1,
            State::Delivered => report.delivered += 1,
            State::Dead => report.dead += 1,
            State::Cancelled => report.cancelled += 1,
            State::Skipped => report.skipped += 1,
            State::Unknown => {}
        }
        report.held += u64::from(series.held);
        if series.owed {
            report.n += 1;
            if let Some(event) = pair.delivery.event {
                self.counted[event as usize] += 1;
            }
        }
        if self.run.at_rest {
            if !series.owed {
                self.report.drift += 1;
                self.violate(
                    Invariant::Pairs,
                    pair,
                    series.number,
                    "was reported, and nobody said that it is owed",
                );
            }
            if series.state == State::Pending && !series.held {
                self.report.drift += 1;
                self.violate(Invariant::Pairs, pair, series.number, "is pending at rest");
            }
        }
        if series.state == State::Unknown {
            self.report.drift += 1;
            self.violate(Invariant::OneEnd, pair, series.number, "is in a state that nobody knows");
        }
        let number = usize::try_from(series.number).unwrap_or(usize::MAX);
        if number != at + 1 {
            let what = "is not the next: one is missing, or there twice";
            self.violate(Invariant::OneEnd, pair, series.number, what);
        }
    }

    /// Whether a series has one end, and nothing says another.
    fn end(&mut self, pair: &Pair<'_>, series: &Series) {
        let number = series.number;
        let ended = series.state != State::Pending;
        if ended != series.ended || (ended && series.held) {
            let what = "is pending and ended, or ended and held";
            self.violate(Invariant::OneEnd, pair, number, what);
        }
        let letters = pair.letters.iter().filter(|letter| letter.series == number).count();
        match series.state {
            // A dead letter for each of the two ways to die, at most.
            State::Dead if letters == 0 && !series.test => {
                self.report.lost += 1;
                self.violate(Invariant::NoLoss, pair, number, "is dead, and there is no dead letter of it");
            }
            State::Pending | State::Cancelled | State::Skipped if letters > 0 => {
                self.violate(Invariant::OneEnd, pair, number, "has a dead letter and another state");
            }
            // Copies of a delivery, which faults leave behind, may end differently; the first end counts.
            State::Delivered if letters > 0 && self.run.faults.total() == 0 => {
                self.violate(Invariant::OneEnd, pair, number, "is delivered, and has a dead letter");
            }
            _ => {}
        }
        let of_series = || pair.rows.iter().filter(|row| row.series == number);
        let delivered = of_series().any(|row| row.delivered);
        let complete = of_series().count() >= usize::from(series.attempts);
        let faultless = self.run.faults.total() == 0;
        if series.state == State::Delivered && complete && !delivered {
            self.violate(Invariant::OneEnd, pair, number, "is delivered, and no attempt of it succeeded");
        }
        let otherwise = matches!(series.state, State::Dead | State::Cancelled | State::Skipped);
        if otherwise && delivered && faultless {
            self.violate(Invariant::OneEnd, pair, number, "was delivered, and its end is another");
        }
    }

    /// Whether the log has every attempt that the end of a series speaks of.
    fn log(&mut self, pair: &Pair<'_>, series: &Series) {
        let numbers: HashSet<u16> =
            pair.rows.iter().filter(|row| row.series == series.number).map(|row| row.n).collect();
        let logged = numbers.len();
        if usize::from(series.logged) != logged {
            self.report.drift += 1;
            let what = format!("counts {} attempts, and the log has {logged}", series.logged);
            self.violate(Invariant::Pairs, pair, series.number, &what);
        }
        let missing = usize::from(series.attempts).saturating_sub(logged) as u64;
        if missing > 0 && series.state != State::Pending {
            self.report.drift += missing;
            let what = format!("ended after {} attempts, and the log has {logged}", series.attempts);
            self.report.violate_times(Invariant::HonestLog, missing, || {
                said(self.run, pair.delivery, series.number, &what)
            });
        }
    }

    /// Whether there were no more attempts than the policy allows, and each was made once.
    fn attempts(&mut self, pair: &Pair<'_>, series: &Series, most: Option<u32>) {
        let mut answered: BTreeMap<u16, u64> = BTreeMap::new();
        let mut over = 0;
        for row in pair.rows.iter().filter(|row| row.series == series.number) {
            over += u64::from(most.is_some_and(|most| u32::from(row.n) > most));
            // One that got no answer may be made again at once, on a fresh connection.
            *answered.entry(row.n).or_default() += u64::from(row.status > 0);
        }
        // A fault may leave a copy of a delivery behind, which makes the same attempts.
        let copies = 1 + self.run.faults.total();
        over += answered.values().map(|times| times.saturating_sub(copies)).sum::<u64>();
        if over > 0 {
            self.report.over_attempted += over;
            let what = format!("has {over} attempts more than allowed");
            self.report.violate_times(Invariant::AttemptCap, over, || {
                said(self.run, pair.delivery, series.number, &what)
            });
        }
    }

    /// What the receiver saw of a series, against what the books say.
    fn wire(&mut self, pair: &Pair<'_>, series: &Series, wire: &Wire) {
        let number = series.number;
        let of_series = || {
            let all = pair.requests.iter().zip(&wire.requests);
            all.filter(|(_, place)| place.series == number)
        };
        let ok = |request: &Request| (200..300).contains(&request.status);
        let mut successes = 0u64;
        let mut unlogged = 0u64;
        for (request, place) in of_series() {
            let row = place.row.map(|row| pair.rows[row]);
            match row {
                None => unlogged += 1,
                Some(row) if request.status > 0 && row.status > 0 && request.status != row.status => {
                    let what = format!(
                        "attempt {}: the log says {}, the receiver answered {}",
                        row.n, row.status, request.status
                    );
                    self.violate(Invariant::HonestLog, pair, number, &what);
                }
                Some(_) => {}
            }
            match row {
                Some(row) if row.delivered => successes += 1,
                Some(_) if ok(request) => self.report.unheard += 1,
                Some(_) => {}
                None if ok(request) => successes += 1,
                None => {}
            }
        }
        for (at, row) in pair.rows.iter().enumerate().filter(|(_, row)| row.series == number) {
            let seen = wire.requests.iter().any(|place| place.row == Some(at));
            if row.status > 0 && !seen {
                let what = format!("attempt {} is in the log and was never on the wire", row.n);
                self.violate(Invariant::HonestLog, pair, number, &what);
            }
        }
        if series.state == State::Delivered && successes == 0 && series.owed {
            self.report.lost += 1;
            self.violate(Invariant::NoLoss, pair, number, "is delivered, and the receiver has it not");
        }
        let duplicates = successes.saturating_sub(1);
        self.report.duplicated += duplicates;
        if duplicates > self.run.faults.total() {
            let what = format!("arrived {successes} times after {} faults", self.run.faults.total());
            self.report.violate_times(Invariant::Duplicates, duplicates, || {
                said(self.run, pair.delivery, number, &what)
            });
        }
        self.report.unlogged += unlogged;
        let allowed = match self.run.faults.workers {
            0 => 0,
            faults if series.poison => faults,
            _ => series.repeats.into(),
        };
        if unlogged > allowed {
            let what = format!("has {unlogged} requests that are not in the log, where {allowed} may be");
            self.report.violate_times(Invariant::HonestLog, unlogged - allowed, || {
                said(self.run, pair.delivery, number, &what)
            });
        }
        // An attempt that a crash kept out of the log may have asked for the next one at a time that nobody knows.
        let unlogged: Vec<u16> =
            of_series().filter(|(_, place)| place.row.is_none()).map(|(request, _)| request.n).collect();
        let known = of_series().map(|(request, _)| *request);
        self.early(pair, number, known.filter(|request| !unlogged.contains(&request.n.saturating_sub(1))));
    }

    /// Whether an attempt came before the one before it said.
    fn early<'r>(&mut self, pair: &Pair<'_>, series: u32, requests: impl Iterator<Item = &'r Request>) {
        for request in requests.filter(|request| request.n > 1) {
            let before = pair.rows.iter().filter(|row| row.series == series && row.n + 1 == request.n);
            // Copies of a delivery have schedules of their own.
            let Some(due) = before.map(|row| row.next_at).filter(|due| *due > 0).min() else { continue };
            let late_ms = request.at - due;
            if late_ms < -self.run.allowance_ms() {
                self.report.early += 1;
                self.report.earliest_ms = self.report.earliest_ms.max(late_ms.unsigned_abs());
                let what = format!("attempt {} came {} ms early", request.n, -late_ms);
                self.violate(Invariant::NeverEarly, pair, series, &what);
            } else {
                self.late_ms.push(u32::try_from(late_ms.max(0)).unwrap_or(u32::MAX));
            }
        }
    }

    fn events(&mut self, derived: &HashSet<u32>, known_actions: &HashSet<u32>) {
        let run = self.run;
        for (at, event) in run.events.iter().enumerate() {
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            let (tenant, id) = run.name_of(event);
            let shown = || format!("{tenant}/{id}");
            let Some(fate) = event.fate else {
                let known = event.action && known_actions.contains(&index);
                if event.published && !known {
                    self.report.lost += 1;
                    self.report.violate(Invariant::Events, || {
                        format!("{}: confirmed, and not in the books", shown())
                    });
                } else if !event.published && run.at_rest {
                    self.report.drift += 1;
                    self.report.violate(Invariant::Pairs, || {
                        format!("{}: it has deliveries, and the books do not know it", shown())
                    });
                }
                continue;
            };
            if fate == Fate::Unknown {
                self.report.drift += 1;
                self.report.violate(Invariant::Events, || {
                    format!("{}: what became of it is no word of ours", shown())
                });
            }
            let made = MADE.iter().any(|prefix| id.starts_with(prefix));
            if !event.published && !run.others && !made && !derived.contains(&index) {
                self.report.unexpected += 1;
                self.report.violate(Invariant::NoInvention, || {
                    format!("{}: in the books, and never published", shown())
                });
            }
            let counted = self.counted[at];
            let routed = fate == Fate::Routed;
            if event.owed != counted || (routed != (counted > 0) && fate != Fate::Unknown) {
                self.report.drift += 1;
                self.report.violate(Invariant::Pairs, || {
                    format!("{}: owes {} series, and {counted} are owed", shown(), event.owed)
                });
            }
        }
    }

    fn rest(&mut self) {
        let run = self.run;
        let report = &mut *self.report;
        if run.at_rest && run.counters.missing_facts > 0 {
            report.drift += run.counters.missing_facts;
            report.violate_times(Invariant::Pairs, run.counters.missing_facts, || {
                format!("{} facts have not arrived", run.counters.missing_facts)
            });
        }
        if run.counters.wrong_tallies > 0 {
            report.drift += run.counters.wrong_tallies;
            report.violate_times(Invariant::Pairs, run.counters.wrong_tallies, || {
                format!("the tallies of the books are off by {} rows", run.counters.wrong_tallies)
            });
        }
        if run.faults.total() == 0 {
            report.violate_times(Invariant::OneEnd, run.counters.late_ends, || {
                format!("{} series ended a second time, without a fault", run.counters.late_ends)
            });
        }
        if run.unnamed_requests > 0 {
            report.unexpected += run.unnamed_requests;
            report.violate_times(Invariant::NoInvention, run.unnamed_requests, || {
                format!("{} requests without a webhook-id", run.unnamed_requests)
            });
        }
        report.violate_times(Invariant::Signed, run.unverified, String::new);
        if let Some(signed) = report.violations.iter_mut().find(|known| known.invariant == Invariant::Signed)
        {
            signed.examples.clone_from(&run.unverified_examples);
        }
        if let Some((measured, most)) = run.peak_mib.filter(|(measured, most)| measured > most) {
            report.violate(Invariant::Bounded, || format!("{measured} MiB, where {most} are allowed"));
        }
        let fan_out = self.counted.iter().copied().max().unwrap_or(0).max(1);
        report.most_duplicated = run.faults.most_duplicates(u64::from(fan_out));
        report.most_unlogged = run.faults.workers * run.faults.in_flight;
        if report.duplicated > report.most_duplicated && report.violation(Invariant::Duplicates).is_none() {
            let (duplicated, most) = (report.duplicated, report.most_duplicated);
            report.violate_times(Invariant::Duplicates, duplicated - most, || {
                format!("{duplicated} duplicates, where {most} may be")
            });
        }
        if report.unlogged > report.most_unlogged && report.violation(Invariant::HonestLog).is_none() {
            let (unlogged, most) = (report.unlogged, report.most_unlogged);
            report.violate_times(Invariant::HonestLog, unlogged - most, || {
                format!("{unlogged} requests are not in the log, where {most} may be")
            });
        }
        self.late_ms.sort_unstable();
        let p99 = self.late_ms.len().saturating_sub(1) * 99 / 100;
        report.late_p99_ms = self.late_ms.get(p99).copied().unwrap_or(0).into();
        report.bound_percent = if report.n == 0 { 100.0 } else { (300.0 / report.n as f64).min(100.0) };
    }

    fn violate(&mut self, invariant: Invariant, pair: &Pair<'_>, series: u32, what: &str) {
        let run = self.run;
        self.report.violate(invariant, || said(run, pair.delivery, series, what));
    }
}

fn said(run: &Run, delivery: &Delivery, series: u32, what: &str) -> String {
    let event = delivery.event.map(|event| run.name_of(&run.events[event as usize]));
    let of = event.map(|(tenant, id)| format!(" of {tenant}/{id}")).unwrap_or_default();
    format!("{} series {series}{of}: {what}", run.shown(delivery))
}

/// Where each request of a delivery belongs.
struct Wire {
    requests: Vec<Place>,
}

struct Place {
    series: u32,
    /// The row of the log that is about it.
    row: Option<usize>,
}

impl Wire {
    /// A request does not say its series, so it is found by its number, its time and its answer: each row of the log takes
    /// the request that fits best, and what is left belongs to the series that ran at that time.
    fn of(pair: &Pair<'_>, clock_ms: i64) -> Self {
        // With one series a request can only be of that, whatever the clocks say.
        let most_ms = if pair.series.len() > 1 { clock_ms.max(OTHER_SERIES_MS) } else { i64::MAX };
        let mut fits = Vec::new();
        for (r, request) in pair.requests.iter().enumerate() {
            for (a, row) in pair.rows.iter().enumerate().filter(|(_, row)| row.n == request.n) {
                let differs = request.status > 0 && row.status > 0 && request.status != row.status;
                let end = row.at + i64::from(row.took_ms);
                let apart_ms = (row.at - request.at).max(request.at - end).max(0);
                if apart_ms <= most_ms {
                    fits.push((differs, apart_ms, row.status == 0, r, a));
                }
            }
        }
        fits.sort_unstable();
        let mut rows = vec![None; pair.requests.len()];
        let mut taken = vec![false; pair.rows.len()];
        for (_, _, _, request, row) in fits {
            if rows[request].is_none() && !taken[row] {
                rows[request] = Some(row);
                taken[row] = true;
            }
        }
        let requests = pair.requests.iter().zip(rows).map(|(request, row)| {
            let running = || {
                let begun = pair.series.iter().rev().find(|series| series.born_at <= request.at);
                begun.or(pair.series.first()).map_or(1, |series| series.number)
            };
            Place { series: row.map_or_else(running, |row| pair.rows[row].series), row }
        });
        Self { requests: requests.collect() }
    }
}
