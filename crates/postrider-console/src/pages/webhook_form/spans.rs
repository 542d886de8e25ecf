//! How long something takes, as people type it: `5 s`, `90 min`, `1 h 30 min`.

/// Units with their milliseconds, the longest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// What to type when it cannot be read.
pub(crate) const HOW: &str = "Write a time with its unit: 500 ms, 5 s, 2 min, 1 h 30 min, 3 d.";

/// Reads one, as milliseconds. A number without a unit is none, but for 0.
pub(crate) fn read(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total_ms) = (text, 0u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let unit_ms = UNITS.iter().find(|(name, _)| *name == unit || (*name == "min" && unit == "m"))?.1;
        total_ms = total_ms.checked_add(times(number, unit_ms)?)?;
        rest = behind.trim_start();
    }
    (!text.is_empty()).then_some(total_ms)
}

/// So many units, in whole milliseconds.
fn times(number: &str, unit_ms: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit_ms);
    }
    let part: f64 = number.parse().ok()?;
    let ms = (part * unit_ms as f64).round();
    (ms <= u64::MAX as f64 / 2.0).then_some(ms as u64)
}

/// Writes one so that it is read as the same: in the longest unit of which it is a whole number.
pub(crate) fn written(ms: u64) -> String {
    if ms == 0 {
        return "0".to_owned();
    }
    let unit = UNITS.into_iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms));
    let (name, unit_ms) = unit.unwrap_or(("ms", 1));
    format!("{} {name}", ms / unit_ms)
}

/// Reads several, with commas between them.
pub(crate) fn read_all(text: &str) -> Option<Vec<u64>> {
    text.split(',').map(read).collect()
}

/// Writes several.
pub(crate) fn written_all(all: &[u64]) -> String {
    all.iter().map(|ms| written(*ms)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_write_times_in_many_ways() {
        for (text, ms) in [
            ("0", 0),
            ("500 ms", 500),
            ("15s", 15_000),
            (" 0.5 s ", 500),
            ("2m", 120_000),
            ("1 h 30 min", 5_400_000),
            ("1h30min", 5_400_000),
            ("3 d", 259_200_000),
        ] {
            assert_eq!(read(text), Some(ms), "{text}");
        }
        for text in
            ["", "5", "s", "5 weeks", "-5 s", "1.2.3 s", "5 s later", "99999999999999999999 d", "1 h 30"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn several_have_commas_between_them() {
        assert_eq!(read_all("5 s, 5 min,30 min"), Some(vec![5_000, 300_000, 1_800_000]));
        assert_eq!(read_all("5 s,,5 min"), None);
        assert_eq!(written_all(&[5_000, 5_400_000, 86_400_000]), "5 s, 90 min, 1 d");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(ms in 0u64..=3_000_000_000) {
            prop_assert_eq!(read(&written(ms)), Some(ms));
        }
    }
}
