use std::{
    fs::{self, OpenOptions},
    io::Write,
    thread,
};

use crate::{must, target_dir};

/// Records that the running test needs something that this machine lacks; return from the test after it.
///
/// `dev/test` lists these at its end, and fails where `CI` is set: there nothing may be left out.
pub fn not_run(reason: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("unknown test");
    let directory = target_dir().join("test-report");
    must("make the directory of the test report", fs::create_dir_all(&directory));
    let file = OpenOptions::new().create(true).append(true).open(directory.join("not-run.txt"));
    // One write: several test binaries append at once.
    must(
        "write the test report",
        file.and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes())),
    );
}
