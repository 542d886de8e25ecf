//! What every template holds to. Browsers run and send nothing else: see `guard`.

use std::fs;
use std::path::Path;

/// The proof that every form has which changes something.
const PROOF: &str = r#"<input type="hidden" name="csrf" value="{{ shell.csrf }}">"#;
/// Whoever logs in has no proof yet.
const LOGIN: &str = r#"action="/login""#;
/// What no template has: styles and scripts that are no files, text that is not escaped, changes that need JavaScript.
const FORBIDDEN: [&str; 12] = [
    "style=",
    "<style",
    "javascript:",
    "hx-on",
    "hx-vals",
    "hx-post",
    "hx-put",
    "hx-patch",
    "hx-delete",
    "data-hx-",
    "|safe",
    "escape=\"none\"",
];

/// Names and texts of all templates.
fn templates() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut found = Vec::new();
    let mut directories = vec![directory];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(found.len() > 5, "the templates are somewhere else: {found:?}");
    found
}

/// What stands in tags of this kind, each from its `<` on.
fn tags<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let ends = |rest: &str| rest.starts_with(|next: char| next.is_whitespace() || next == '>');
    text.match_indices('<')
        .map(|(at, _)| &text[at..])
        .filter(move |tag| tag[1..].strip_prefix(name).is_some_and(ends))
}

/// The text without spaces that mean nothing, in small letters.
fn plain(text: &str) -> String {
    text.to_lowercase().replace("| ", "|").replace(" |", "|").replace(" = ", "=").replace(" =", "=")
}

/// What a template has that it must not have.
fn faults(text: &str) -> Vec<String> {
    let plain = plain(text);
    let mut faults: Vec<String> =
        FORBIDDEN.iter().filter(|word| plain.contains(*word)).map(|word| format!("has {word}")).collect();
    for tag in tags(&plain, "script") {
        let opening = tag.split('>').next().unwrap_or_default();
        if !opening.contains(" src=\"{{") {
            faults.push(format!("has a script that is no file of ours: {opening}"));
        }
    }
    // onclick= and the like: an attribute of which the browser would run the value.
    for (at, _) in plain.match_indices("on") {
        let before = plain[..at].chars().next_back();
        let (word, after) =
            plain[at..].split_at(plain[at..].find(|c: char| !c.is_ascii_lowercase()).unwrap_or(2));
        if before.is_some_and(char::is_whitespace) && after.starts_with("=\"") {
            faults.push(format!("has {word}="));
        }
    }
    for form in tags(text, "form") {
        let form = form.split("</form>").next().unwrap_or_default();
        let opening = form.split('>').next().unwrap_or_default();
        let changes = opening.to_lowercase().contains("method=\"post\"");
        if changes && !form.contains(PROOF) && !opening.contains(LOGIN) {
            faults.push(format!("has a form without its proof: {opening}"));
        }
    }
    faults
}

#[test]
fn templates_have_nothing_that_the_browser_must_not_run_and_forms_have_their_proof() {
    let mut wrong = Vec::new();
    for (name, text) in templates() {
        wrong.extend(faults(&text).into_iter().map(|fault| format!("{name} {fault}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_must_not_be_there_is_found() {
    let proven = format!("<form method=\"post\" action=\"/x\">{PROOF}<button>Go</button></form>");
    for good in [
        proven.as_str(),
        "<form method=\"get\"><input name=\"a\"></form>",
        "<form method=\"post\" action=\"/login\"></form>",
        "<script src=\"{{ shell.assets.htmx }}\" defer></script>",
        "<p class=\"on\" data-once=\"1\">It goes on</p>",
        "{% if one || other %}{{ safe }}{% endif %}",
    ] {
        assert_eq!(faults(good), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "<p style=\"color: red\">",
        "<p STYLE = \"color: red\">",
        "<style>p { color: red }</style>",
        "<script>alert(1)</script>",
        "<script src=\"https://elsewhere.example/x.js\"></script>",
        "<button onclick=\"go()\">",
        "<button\nonclick=\"go()\">",
        "<div hx-on:click=\"go()\">",
        "<div hx-post=\"/x\">",
        "<a href=\"javascript:go()\">",
        "{{ text|safe }}",
        "{{ text | safe }}",
        "<form method=\"post\" action=\"/x\"></form>",
        "<form action=\"/x\" method=\"POST\"><input name=\"csrf\"></form>",
        "<form method=\"post\" action=\"/x\"></form><p>{{ shell.csrf }}</p>",
    ] {
        assert!(!faults(bad).is_empty(), "{bad}");
    }
    let second = format!("{proven}<form method=\"post\" action=\"/y\"></form>");
    assert_eq!(faults(&second).len(), 1, "each form has its own");
}
