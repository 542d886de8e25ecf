//! `postrider bench`: how fast it is here, beside what the same machine and broker do without it.
//!
//! The roles run as processes of their own, with everything durable that is durable in operation: confirms, a store that
//! syncs, signatures, the journal, the recorder. The baselines take turns with them, so that whatever else the machine does
//! befalls both. Nothing of an installation that is there is touched: the bench has names of its own on the broker
//! (`bench-` and eight random digits), deleted at its end, and a store of its own.
//!
//! [`plan`] is what is measured, [`rig`] what is run for it, one file for each kind of workload how it is measured, [`targets`]
//! what the numbers have to be.

mod alone;
mod bare;
mod behind;
mod burst;
mod chart;
mod figures;
mod naked;
mod patience;
mod place;
mod plan;
mod produce;
mod publish;
mod report;
mod rig;
mod run;
mod sink;
mod speed;
mod steady;
mod system;
mod targets;
mod usage;

use std::time::Duration;

use crate::args::{Bench, BenchCommand};
use crate::commands::Context;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::serve::Signals;
use place::Place;
pub use plan::NAMES;
use plan::Plan;
use report::Report;
use rig::Rig;
use system::Fleet;
use usage::Machine;

/// Measures, and prints what came of it.
///
/// # Errors
/// [`Failure`] when something could not be measured. A target that is missed is no failure.
pub async fn run(context: &Context, bench: Bench) -> Result<Exit, Failure> {
    if let Some(BenchCommand::Sink { retry_ms }) = bench.command {
        return sink::run(Duration::from_millis(retry_ms)).await;
    }
    let plan = match (bench.quick, bench.tiny) {
        (_, true) => Plan::tiny(),
        (true, false) => Plan::quick(),
        (false, false) => Plan::full(),
    };
    let plan = plan.only(&bench.only);
    let mut signals = Signals::listen()?;
    let place = Place::new(context, bench.dir.as_deref(), bench.shards)?;
    let fleet =
        Fleet { workers: bench.workers.unwrap_or(1), routers: bench.routers.unwrap_or(1), pinned: bench.pin };
    let measured = tokio::select! {
        measured = measure(context, &plan, &place, fleet) => measured.map(Some),
        () = signals.next() => Ok(None),
    };
    // Whatever came of it.
    let cleared = tokio::select! {
        cleared = place.clear() => cleared,
        () = signals.next() => {
            output::note(&format!("postrider: second signal: what is called {}.* stays on the broker", place.prefix()));
            return Ok(Exit::Interrupted);
        }
    };
    let report = match measured {
        Ok(Some(report)) => report,
        Ok(None) => return cleared.map(|()| Exit::Interrupted),
        Err(failure) => {
            // A broker that is not there is said once.
            if let Err(left) = &cleared
                && left.what != failure.what
            {
                output::failure(left);
            }
            return Err(failure);
        }
    };
    let mut out = context.out;
    if bench.json {
        out.format = Format::Json;
    }
    match (out.quiet, out.format) {
        (true, _) => out.text(&report.names())?,
        (false, Format::Json | Format::Jsonl) => out.text(&report.json())?,
        (false, Format::Table) => out.text(report.text(out).trim_end())?,
    }
    if let Some(path) = &bench.svg {
        std::fs::write(path, chart::svg(&report)).map_err(|error| {
            Failure::new(Exit::Other, format!("cannot write the chart to {}", path.display()), error)
        })?;
    }
    cleared?;
    Ok(Exit::Ok)
}

/// Gives every workload its turns.
async fn measure(context: &Context, plan: &Plan, place: &Place, fleet: Fleet) -> Result<Report, Failure> {
    let mut progress = context.out.progress("measured", u64::try_from(plan.turns()).ok());
    progress.at(0, "starting");
    let mut rig = Rig::start(plan, place, fleet).await?;
    let (mut runs, mut turns) = (Vec::new(), 0);
    for round in 0..plan.rounds {
        for workload in plan.round(round) {
            progress.at(turns, &format!("round {}: {}", round + 1, workload.name));
            for run in rig.turn(workload).await? {
                runs.push(run::Run { round: round + 1, ..run });
            }
            turns += 1;
        }
    }
    progress.end();
    let conditions = (Machine::this(place.dir()), place.address()?, rig.broker_unseen.clone());
    let baseline = |name: &str| plan.workloads.iter().find(|workload| workload.name == name)?.baseline;
    Ok(Report::of(plan.size, conditions, runs, baseline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_explains_every_workload_and_target() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance.md");
        let page = std::fs::read_to_string(page).unwrap();
        let parts = ["publish-alone", "route-alone", "backlog-drain", "recorder-alone", "recorder-apart"];
        let targets = targets::Results::default().verdicts();
        for name in NAMES.into_iter().chain(parts).chain(targets.iter().map(|target| target.name)) {
            assert!(page.contains(&format!("`{name}`")), "docs/performance.md does not say what {name} is");
        }
    }
}
