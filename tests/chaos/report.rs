//! What each row found, one JSON line each, in the file that `POSTRIDER_CHAOS_REPORT` names.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde::Serialize;

/// A row of the report.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// The fault's id in `reference/reliability.md` §2.3.
    pub(crate) id: String,
    /// What was done, in a few words.
    pub(crate) fault: String,
    /// Why it was not run; then all the rest says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_run: Option<String>,
    /// Events that the publisher had confirmed.
    pub(crate) accepted: u64,
    /// Pairs of event and webhook.
    pub(crate) pairs: u64,
    /// Accepted events that the books do not know, and pairs that are nowhere.
    pub(crate) lost: u64,
    /// Requests answered 2xx beyond the first of their pair.
    pub(crate) duplicated: u64,
    /// The most that there may be.
    pub(crate) bound: u64,
    /// A pair is lost with at most this probability (95 %), percent.
    pub(crate) bound_percent: f64,
    /// How far the books are from adding up.
    pub(crate) drift: u64,
    /// The longest time from the end of a fault to the first delivery, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovery_s: Option<f64>,
    /// The most resident memory of a router, worker and control, MiB.
    pub(crate) peak_mib: [u64; 3],
    /// How long the row took, seconds.
    pub(crate) took_s: u64,
    /// What else there is to say.
    pub(crate) remarks: String,
    /// What did not hold; nothing in a report that is published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) violations: Vec<String>,
}

/// Appends a row, and prints it.
pub(crate) fn row(row: &Row) {
    match &row.not_run {
        Some(reason) => eprintln!("{} {}: not run: {reason}", row.id, row.fault),
        None => eprintln!(
            "{} {}: {} accepted, {} pairs, {} lost, {} duplicated (at most {}), drift {}, recovered in {}, \
             router {} MiB, worker {} MiB, control {} MiB, {} s; {}",
            row.id,
            row.fault,
            row.accepted,
            row.pairs,
            row.lost,
            row.duplicated,
            row.bound,
            row.drift,
            row.recovery_s.map_or("no time".into(), |seconds| format!("{seconds:.1} s")),
            row.peak_mib[0],
            row.peak_mib[1],
            row.peak_mib[2],
            row.took_s,
            row.remarks,
        ),
    }
    let Ok(path) = std::env::var("POSTRIDER_CHAOS_REPORT") else { return };
    let mut line = serde_json::to_string(row).unwrap();
    line.push('\n');
    // One write: rows may be written side by side.
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
}

/// Says that a row could not be run here; return from the test then.
pub(crate) fn not_run(id: &str, fault: &str, reason: &str) {
    postrider_testkit::not_run(&format!("{id} {fault}: {reason}"));
    row(&Row { id: id.into(), fault: fault.into(), not_run: Some(reason.into()), ..Row::default() });
}
