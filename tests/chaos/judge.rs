//! The judgement of a whole run.

use std::path::{Path, PathBuf};

use postrider_control::audit;
use postrider_core::verify::{Faults, Report, Run, check};
use postrider_testkit::ledger::{Published, Received};

/// Judges what the ledgers of the publisher and of the receiver, and the store, say.
pub(crate) async fn judge(
    ledgers: &[PathBuf; 2],
    store: &Path,
    faults: Faults,
    more: impl FnOnce(&mut Run),
) -> Report {
    let mut run = Run::new();
    run.faults(faults);
    run.at_rest();
    more(&mut run);
    let [published, received] = ledgers;
    Published::read(published).iter().for_each(|line| run.published(line));
    Received::read(received).iter().for_each(|line| run.received(line));
    audit::read(&format!("sqlite:{}", store.display()), &mut run).await.unwrap();
    check(&run)
}

/// Judges a store alone, in the middle of a run.
pub(crate) async fn copy(store: &Path) -> Report {
    let mut run = Run::new();
    audit::read(&format!("sqlite:{}", store.display()), &mut run).await.unwrap();
    check(&run)
}

/// What did not hold, each a sentence.
pub(crate) fn words(report: &Report) -> Vec<String> {
    let sentence = |violation: &postrider_core::verify::Violation| {
        let (id, words) = (violation.invariant.id(), violation.invariant.words());
        format!("{id} ({words}): {} times, such as {}", violation.count, violation.examples.join(", "))
    };
    report.violations.iter().map(sentence).collect()
}
