//! The table of requirements names tests that exist, and leaves no requirement out.

use std::collections::BTreeMap;

use postrider_testkit::workspace_dir;

/// Products and how many requirements each has; X are those of all four together.
const REQUIREMENTS: [(&str, usize); 5] = [("UP", 11), ("SK", 11), ("OL", 12), ("EN", 11), ("X", 14)];

/// Cells of a row of a table: id, what is asked, where it is shown.
fn row(line: &str) -> Option<[&str; 3]> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    <[&str; 3]>::try_from(cells).ok()
}

#[test]
fn every_requirement_has_a_row_and_every_row_a_test_that_exists() {
    let root = workspace_dir();
    let text = std::fs::read_to_string(root.join("docs/requirements.md")).unwrap();
    let mut rows = BTreeMap::new();
    for [id, asked, shown] in text.lines().filter_map(row) {
        if REQUIREMENTS.iter().any(|(product, _)| id.starts_with(&format!("{product}-"))) {
            assert!(!asked.is_empty(), "{id}");
            assert!(rows.insert(id.to_owned(), shown.to_owned()).is_none(), "{id} is there twice");
        }
    }
    for (product, count) in REQUIREMENTS {
        for n in 1..=count {
            let id = format!("{product}-{n}");
            let shown = rows.remove(&id).unwrap_or_else(|| panic!("{id} has no row"));
            // Tests stand in backticks as `file::function`; a row without one says why.
            let tests: Vec<&str> =
                shown.split('`').skip(1).step_by(2).filter(|code| code.contains(".rs::")).collect();
            assert!(!tests.is_empty() || shown.starts_with("No test: "), "{id}: {shown}");
            for test in tests {
                let (file, function) = test.split_once("::").unwrap();
                let source = std::fs::read_to_string(root.join(file))
                    .unwrap_or_else(|error| panic!("{id}: {file}: {error}"));
                assert!(source.contains(&format!("fn {function}(")), "{id}: {file} has no {function}");
            }
        }
    }
    assert!(rows.is_empty(), "not requirements: {:?}", rows.keys());
}
