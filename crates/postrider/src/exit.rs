//! How a command ends: its exit code, and what it says when it fails.

use std::fmt;

/// What the process tells its caller. Scripts may rely on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed in a way that has no code of its own.
    Other = 1,
    /// Wrong arguments or settings, or not allowed.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The server refused what was sent.
    Invalid = 4,
    /// The server or the network did not answer as it should; trying again may help.
    Unavailable = 5,
    /// It is in a state in which this cannot be done.
    Conflict = 6,
    /// Some of it was done and some was not.
    Partly = 7,
    /// It was still not finished when the wait was over.
    TimedOut = 8,
    /// A role stood still: it had work, said that it was ready, and settled nothing. Starting it again is right.
    Stalled = 9,
    /// A second signal, or one where there was nothing to finish, or one that ended the wait for something that goes on.
    Interrupted = 130,
}

impl Exit {
    /// The code for an answer of the API.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Ok,
            401 | 403 => Self::Usage,
            404 | 410 => Self::NotFound,
            408 | 425 | 429 | 500..=599 => Self::Unavailable,
            409 | 412 => Self::Conflict,
            400 | 405 | 413..=428 | 431 => Self::Invalid,
            _ => Self::Other,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: what could not be done, why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code to end with.
    pub exit: Exit,
    /// What could not be done.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do next, where that is known.
    pub next: Option<String>,
}

impl Failure {
    /// A failure that knows no next step yet.
    pub fn new(exit: Exit, what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { exit, what: what.into(), why: why.to_string(), next: None }
    }

    /// Wrong arguments or settings.
    pub fn usage(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, what, why)
    }

    /// Adds the next step.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// An error and everything that it says caused it, on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many libraries repeat the cause in their own message.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// What is at the bottom of an error, in one sentence.
pub fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_a_code() {
        for (status, exit) in [
            (200, Exit::Ok),
            (202, Exit::Ok),
            (400, Exit::Invalid),
            (401, Exit::Usage),
            (403, Exit::Usage),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (413, Exit::Invalid),
            (422, Exit::Invalid),
            (429, Exit::Unavailable),
            (500, Exit::Unavailable),
            (503, Exit::Unavailable),
            (302, Exit::Other),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
    }

    #[test]
    fn codes_are_the_documented_numbers() {
        let all = [
            Exit::Ok,
            Exit::Other,
            Exit::Usage,
            Exit::NotFound,
            Exit::Invalid,
            Exit::Unavailable,
            Exit::Conflict,
            Exit::Partly,
            Exit::TimedOut,
            Exit::Stalled,
            Exit::Interrupted,
        ];
        assert_eq!(all.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130]);
    }

    #[test]
    fn a_failure_reads_as_one_sentence() {
        let failure = Failure::usage("--rate", "\"fast\" is no number").next("write --rate 200/s");
        assert_eq!(failure.to_string(), "--rate: \"fast\" is no number");
        assert_eq!(failure.next.as_deref(), Some("write --rate 200/s"));
    }

    #[test]
    fn causes_are_said_once() {
        let inner = std::io::Error::other("refused");
        let outer = std::io::Error::other(inner);
        assert_eq!(chain(&outer), "refused");
    }
}
