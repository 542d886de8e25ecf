//! Tables for people.

/// Rows under a header, columns aligned, two spaces between them.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| width(cell)).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            match widths.get_mut(column) {
                Some(widest) => *widest = (*widest).max(width(cell)),
                None => widths.push(width(cell)),
            }
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (column, cell) in cells.enumerate() {
            line.push_str(cell);
            let padding = widths.get(column).copied().unwrap_or(0).saturating_sub(width(cell)) + 2;
            line.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    if !header.is_empty() {
        line(&mut header.iter().copied());
    }
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Names and values, one pair a line.
pub fn pairs(pairs: &[(String, String)]) -> String {
    let rows: Vec<Vec<String>> =
        pairs.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    render(&[], &rows)
}

/// Text from elsewhere that is safe to show: what could move the cursor or hide text is replaced.
pub fn printable(text: &str) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if hides(c) { '\u{fffd}' } else { c }).collect()
}

/// The first `most` characters, with an ellipsis where something was cut.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// How many columns a cell takes. Colours take none.
fn width(cell: &str) -> usize {
    let mut columns = 0;
    let mut colour = false;
    for c in cell.chars() {
        match (colour, c) {
            (false, '\u{1b}') => colour = true,
            (true, 'm') => colour = false,
            (true, _) => {}
            (false, _) => columns += 1,
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = vec![
            vec!["wh_1".to_owned(), "\u{1b}[32mactive\u{1b}[0m".to_owned(), "https://a.example".to_owned()],
            vec!["wh_22".to_owned(), "paused".to_owned(), String::new()],
        ];
        assert_eq!(
            render(&["ID", "STATE", "URL"], &rows),
            "ID     STATE   URL\nwh_1   \u{1b}[32mactive\u{1b}[0m  https://a.example\nwh_22  paused\n"
        );
    }

    #[test]
    fn rows_may_be_ragged_or_missing() {
        assert_eq!(render(&["ID"], &[]), "ID\n");
        assert_eq!(render(&["ID"], &[vec!["a".into(), "b".into()]]), "ID\na   b\n");
        assert_eq!(pairs(&[("name".into(), "x".into())]), "name  x\n");
    }

    #[test]
    fn terminals_are_not_driven_by_data() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
