//! Points in time, in whole milliseconds.

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch, UTC.
///
/// Core never asks for the current time; it is always an argument. On the wire a timestamp is an integer of
/// milliseconds, towards people it is RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point `ms` milliseconds after the Unix epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The point `ms` milliseconds later; stops at the end of time instead of wrapping.
    pub const fn plus_ms(self, ms: u64) -> Self {
        let ms = if ms > i64::MAX as u64 { i64::MAX } else { ms as i64 };
        Self(self.0.saturating_add(ms))
    }

    /// This point less `ms` milliseconds.
    pub const fn minus_ms(self, ms: u64) -> Self {
        let ms = if ms > i64::MAX as u64 { i64::MAX } else { ms as i64 };
        Self(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to this point; zero when `earlier` is later.
    pub const fn since_ms(self, earlier: Self) -> u64 {
        let ms = self.0.saturating_sub(earlier.0);
        if ms < 0 { 0 } else { ms as u64 }
    }

    /// RFC 3339 in UTC, such as `2026-11-21T20:00:00Z`, with a fraction only where there is one.
    ///
    /// A point outside the calendar (before year -9999, after 9999) is shown at the nearest end of it.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => at.to_string(),
            Err(_) if self.0 < 0 => jiff::Timestamp::MIN.to_string(),
            Err(_) => jiff::Timestamp::MAX.to_string(),
        }
    }

    /// Reads RFC 3339 with any offset; `None` when it is not.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        // The parser also takes other forms of ISO 8601; RFC 3339 has one.
        let bytes = text.as_bytes();
        let separators = [(4, b"--"), (7, b"--"), (10, b"Tt"), (13, b"::"), (16, b"::")];
        let separated = bytes.len() >= 20
            && separators.iter().all(|(at, either)| either.contains(&bytes[*at]))
            && bytes.iter().enumerate().all(|(at, b)| {
                b.is_ascii_digit()
                    || separators.iter().any(|(s, _)| *s == at)
                    || (at >= 19 && b".+-:Zz".contains(b))
            });
        let zoned = text.ends_with(['Z', 'z'])
            || (bytes.len() >= 25
                && matches!(bytes[bytes.len() - 6], b'+' | b'-')
                && bytes[bytes.len() - 3] == b':');
        let parsed = if separated && zoned { text.parse::<jiff::Timestamp>().ok() } else { None };
        parsed.map(|at| Self(at.as_millisecond()))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_goes_there_and_back() {
        let at = Timestamp::parse_rfc3339("2026-11-21T21:00:00.250+01:00").unwrap();
        assert_eq!(at.to_rfc3339(), "2026-11-21T20:00:00.25Z");
        assert_eq!(Timestamp::parse_rfc3339(&at.to_rfc3339()), Some(at));
        for other in [
            "yesterday",
            "20261121T200000Z",
            "2026-11-21T20:00:00",
            "2026-11-21 20:00:00Z",
            "2026-11-21T20:00:00+01",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(other), None, "{other}");
        }
        assert!(Timestamp::parse_rfc3339("2026-11-21t20:00:00.5-08:30").is_some());
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end.plus_ms(u64::MAX), end);
        assert_eq!(Timestamp::from_millis(5).since_ms(Timestamp::from_millis(9)), 0);
    }
}
