//! What somebody may have meant.

/// The known name that is closest to a wrong one, if one is close.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let close = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= close)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean …?` if something close is known, else nothing.
pub fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(name, known).map(|candidate| format!("; did you mean {candidate}?")).unwrap_or_default()
}

/// How many characters must be inserted, removed or replaced to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_what_must_change() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(suggestion("zzz", ["prefix"]), "");
    }

    #[test]
    fn only_what_is_close_is_suggested() {
        let known = ["event_type", "category", "group"];
        assert_eq!(suggestion("event_typ", known), "; did you mean event_type?");
        assert_eq!(suggestion("categroy", known), "; did you mean category?");
        assert_eq!(suggestion("webhook", known), "");
        assert_eq!(closest("grop", known), Some("group"));
    }
}
