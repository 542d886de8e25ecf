//! `postrider verify`: judges a run by what a publisher and a receiver wrote down, and by the store.

use postrider_core::verify::{Faults, PublishedLine, ReceivedLine, Run, check};

use super::Context;
use crate::args::{Crashes, Verify};
use crate::exit::{Exit, Failure};
use crate::ledger;

/// Judges, and prints what it found. Ends with code 1 when something was violated.
///
/// # Errors
/// [`Failure`] when there is nothing to judge by.
pub async fn run(context: &Context, command: Verify) -> Result<Exit, Failure> {
    let mut run = Run::new();
    let faults = faults(&command);
    run.faults(faults);
    run.clock_ms(u64::try_from(command.clock.as_millis()).unwrap_or(u64::MAX));
    if command.at_rest {
        run.at_rest();
    }
    if command.other_publishers {
        run.other_publishers();
    }
    if let Some(seed) = command.seed {
        run.seed(seed);
    }
    for webhook in &command.webhooks {
        run.covers(webhook);
    }
    let mut unfinished = 0;
    for path in &command.published {
        unfinished += ledger::read(path, |line: &PublishedLine| run.published(line))?;
    }
    for path in &command.received {
        unfinished += ledger::read(path, |line: &ReceivedLine| run.received(line))?;
    }
    if unfinished > 0 {
        context.out.note(&format!("{unfinished} unfinished lines were left out: nobody relied on them"));
    }
    let store = command.store.unwrap_or_else(|| context.settings.store_url());
    postrider_control::audit::read(&store, &mut run)
        .await
        .map_err(|error| Failure::usage(format!("cannot read the store {store}"), error))?;
    let report = check(&run);
    if context.out.is_table() {
        context.out.text(&report.to_string())?;
    } else if context.out.quiet {
        for violation in &report.violations {
            context.out.text(violation.invariant.id())?;
        }
    } else {
        let json = serde_json::to_string(&report)
            .map_err(|error| Failure::new(Exit::Other, "cannot write the report", error))?;
        context.out.text(&json)?;
    }
    if report.is_clean() {
        return Ok(Exit::Ok);
    }
    let violated: Vec<&str> = report.violations.iter().map(|violation| violation.invariant.id()).collect();
    context.out.note(&format!("postrider: violated: {}", violated.join(", ")));
    Ok(Exit::Other)
}

fn faults(command: &Verify) -> Faults {
    let mut faults = Faults { in_flight: command.in_flight, ..Faults::NONE };
    for crashes in &command.crashes {
        match crashes {
            Crashes::Each(n) => {
                faults.workers += n;
                faults.routers += n;
                faults.controls += n;
            }
            Crashes::Workers(n) => faults.workers += n,
            Crashes::Routers(n) => faults.routers += n,
            Crashes::Controls(n) => faults.controls += n,
        }
    }
    faults
}
