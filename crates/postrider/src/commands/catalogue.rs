//! `postrider catalogue`.

use std::io::IsTerminal as _;
use std::path::Path;

use postrider_core::catalogue::{
    self as core_catalogue, Catalogue as Read, Finding, MAX_CATALOGUE_BYTES, Severity,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Context, asked, each, read_text};
use crate::api::Answer;
use crate::args::{Catalogue, CatalogueText, OneCatalogue};
use crate::builtin;
use crate::exit::{Exit, Failure};
use crate::output::{self, Column, Output, Tone};
use crate::table;

const COLUMNS: &[Column] = &[
    ("PRODUCT", "/product"),
    ("NAME", "/name"),
    ("EVENT TYPES", "/event_types"),
    ("CATEGORIES", "/categories"),
    ("GROUPS", "/groups"),
    ("TRIGGERS", "/triggers"),
    ("PROFILE", "/profile"),
];

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what is wrong with a catalogue, or what the API said.
pub async fn run(context: &Context, command: Catalogue) -> Result<Exit, Failure> {
    match command {
        Catalogue::Import { which, yes, dry_run } => import(context, &which, yes, dry_run).await,
        Catalogue::Export { product, text } => export(context, &product, text).await,
        Catalogue::Diff(which) => diff(context, &which).await,
        Catalogue::Check { files, builtin } => {
            let files = files.iter().map(|file| (shown(file), None));
            let builtin = builtin.into_iter().map(|name| (name.clone(), Some(name)));
            check(context, files.chain(builtin).collect())
        }
        Catalogue::List => {
            let answer = context.api()?.get("cannot list catalogues", &["catalogues"], &[]).await?;
            context.out.list(&answer.raw, answer.items(), COLUMNS)?;
            Ok(Exit::Ok)
        }
        Catalogue::Delete { product } => {
            each(context, Method::DELETE, "cannot delete the catalogue", &[product], |product| {
                vec!["catalogues", product]
            })
            .await?;
            Ok(Exit::Ok)
        }
    }
}

/// A catalogue that was read, and what looks wrong with it.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) catalogue: Read,
    pub(super) suspects: Vec<Finding>,
}

/// Reads a text as a catalogue, TOML or JSON, and checks it. What is wrong is all that comes back if something is.
///
/// # Errors
/// [`Failure`] when it cannot be read at all.
fn read(name: &str, text: &str) -> Result<Result<Sound, Vec<Finding>>, Failure> {
    let unreadable = |why: String| {
        Failure::new(Exit::Invalid, format!("cannot read the catalogue {name}"), why)
            .next("docs/catalogues.md says what a catalogue holds")
    };
    let json = text.trim_start().starts_with('{');
    if text.len() > 4 * MAX_CATALOGUE_BYTES {
        return Err(unreadable(format!("it is larger than {} bytes", 4 * MAX_CATALOGUE_BYTES)));
    }
    let in_toml = |error: toml::de::Error| match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or_default();
            format!("line {}: {}", before.matches('\n').count() + 1, error.message())
        }
        None => error.message().to_owned(),
    };
    let value: Value = if json {
        serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?
    } else {
        toml::from_str(text).map_err(|error| unreadable(in_toml(error)))?
    };
    // A misspelt member is often the reason why another is missing, so these are told first.
    let unknown = core_catalogue::unknown_members(&value);
    if !unknown.is_empty() {
        return Ok(Err(unknown));
    }
    // From the text once more, since that knows its lines.
    let catalogue: Read = if json {
        serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?
    } else {
        toml::from_str(text).map_err(|error| unreadable(in_toml(error)))?
    };
    let findings = core_catalogue::check(&catalogue);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Ok(Err(findings));
    }
    Ok(Ok(Sound { catalogue, suspects: findings }))
}

/// What a file is called in messages.
fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// Reads a file, or one that comes with the program, and checks it.
fn read_any(path: &Path, builtin: Option<&str>) -> Result<Result<Sound, Vec<Finding>>, Failure> {
    match builtin {
        Some(name) => {
            let text = builtin::text(name)
                .ok_or_else(|| Failure::usage("--builtin", format!("there is no catalogue {name:?}")))?;
            read(name, text)
        }
        None => read(&shown(path), &read_text(path)?),
    }
}

/// Reads a catalogue that must be sound.
///
/// # Errors
/// [`Failure`] when something is wrong with it; everything that is wrong was said before.
pub(super) fn read_sound(path: &Path, builtin: Option<&str>) -> Result<Sound, Failure> {
    let name = builtin.map_or_else(|| shown(path), str::to_owned);
    match read_any(path, builtin)? {
        Ok(sound) => Ok(sound),
        Err(findings) => {
            for finding in &findings {
                output::note(&line(finding));
            }
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            let what =
                format!("the catalogue {name} has {errors} error{}", if errors == 1 { "" } else { "s" });
            Err(Failure::new(Exit::Invalid, what, "").next("correct what is listed above"))
        }
    }
}

fn of_which(which: &OneCatalogue) -> Result<Sound, Failure> {
    let path = which.file.as_deref().unwrap_or(Path::new("-"));
    read_sound(path, which.builtin.as_deref())
}

/// A finding in one line, and what to do about it in a second.
fn line(finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Error => "error",
        Severity::Suspect => "suspect",
    };
    let problem = table::printable(&format!("{word}: {}: {}", finding.at, finding.problem));
    format!("{problem}\n  next: {}", table::printable(&finding.hint))
}

/// A change in one line, with a mark.
fn change_line(out: Output, how: &str, sentence: &str) -> String {
    let (mark, tone) = match how {
        "added" => ("+", Tone::Good),
        "removed" => ("-", Tone::Bad),
        _ => ("~", Tone::Open),
    };
    out.paint(tone, &format!("{mark} {}", table::printable(sentence)))
}

fn check(context: &Context, files: Vec<(String, Option<String>)>) -> Result<Exit, Failure> {
    const COLUMNS: &[Column] = &[
        ("CATALOGUE", "/catalogue"),
        ("PRODUCT", "/product"),
        ("EVENT TYPES", "/event_types"),
        ("ERRORS", "/errors"),
        ("SUSPECTS", "/suspects"),
    ];
    let mut items = Vec::new();
    let mut wrong = 0;
    for (name, builtin) in &files {
        let path = if name == "standard input" { Path::new("-") } else { Path::new(name) };
        let (product, types, findings) = match read_any(path, builtin.as_deref())? {
            Ok(sound) => {
                let types = json!(sound.catalogue.event_types.len());
                (json!(sound.catalogue.product.id), types, sound.suspects)
            }
            Err(findings) => (Value::Null, Value::Null, findings),
        };
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        wrong += usize::from(errors > 0);
        if context.out.is_table() {
            for finding in &findings {
                context.out.note(&format!("{}: {}", table::printable(name), line(finding)));
            }
        }
        items.push(json!({
            "catalogue": name, "product": product, "event_types": types,
            "errors": errors, "suspects": findings.len() - errors, "findings": findings,
        }));
    }
    let raw = json!({"items": items, "next": null}).to_string();
    context.out.list(&raw, &items, COLUMNS)?;
    if wrong == 0 {
        return Ok(Exit::Ok);
    }
    let what = format!("{wrong} of {} catalogues would be refused", files.len());
    Err(Failure::new(Exit::Invalid, what, "").next("correct the errors; suspects are only worth a look"))
}

async fn import(context: &Context, which: &OneCatalogue, yes: bool, dry_run: bool) -> Result<Exit, Failure> {
    let sound = of_which(which)?;
    let product = sound.catalogue.product.id.clone();
    let from_stdin = which.file.as_deref() == Some(Path::new("-"));
    let may_ask = std::io::stdin().is_terminal() && !from_stdin;
    let what = format!("cannot import the catalogue {product}");
    // Said before anything is asked of the API, so that scripts fail alike whatever is there.
    if !yes && !dry_run && !may_ask {
        return Err(Failure::usage(
            what,
            "standard input is no terminal, so nobody can be asked, and --yes was not given",
        )
        .next("look with --dry-run, then give --yes"));
    }
    let body = serde_json::to_string(&sound.catalogue).map_err(|error| Failure::usage(&what, error))?;
    let trial = put(context, &what, &product, &body, true).await?;
    let changes = trial.value.get("changes").and_then(Value::as_array).map_or(0, Vec::len);
    if dry_run {
        return show_import(context, &trial, &sound.suspects);
    }
    if !yes {
        show_import(&Context { out: context.out.as_table(), ..context.clone() }, &trial, &sound.suspects)?;
        if changes > 0 && !asked(&format!("Import {changes} changes?"))? {
            context.out.note("nothing was changed");
            return Ok(Exit::Ok);
        }
    }
    let done = put(context, &what, &product, &body, false).await?;
    if yes {
        show_import(context, &done, &sound.suspects)?;
    }
    if context.out.is_table() {
        let count = if changes == 0 { "nothing changed".to_owned() } else { format!("{changes} changes") };
        context.out.note(&format!("imported {product}: {count}"));
    }
    Ok(Exit::Ok)
}

async fn put(
    context: &Context,
    what: &str,
    product: &str,
    body: &str,
    dry_run: bool,
) -> Result<Answer, Failure> {
    let query: &[(&str, String)] = if dry_run { &[("dry_run", "true".to_owned())] } else { &[] };
    context.api()?.call(Method::PUT, what, &["catalogues", product], query, Some(body.to_owned())).await
}

/// What an import changes, and what looks wrong.
fn show_import(context: &Context, answer: &Answer, suspects: &[Finding]) -> Result<Exit, Failure> {
    if !context.out.is_table() {
        context.out.one(&answer.raw, &answer.value)?;
        return Ok(Exit::Ok);
    }
    for suspect in suspects {
        context.out.note(&line(suspect));
    }
    let changes = answer.value.get("changes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for change in changes {
        let sentence = change["sentence"].as_str().unwrap_or_default();
        context.out.text(&change_line(context.out, change["how"].as_str().unwrap_or_default(), sentence))?;
    }
    if changes.is_empty() {
        context.out.note("nothing changes");
    }
    Ok(Exit::Ok)
}

/// The catalogue that the tenant has of this product.
async fn stored(context: &Context, product: &str) -> Result<Option<Answer>, Failure> {
    let what = format!("cannot get the catalogue {product}");
    match context.api()?.get(&what, &["catalogues", product], &[]).await {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.exit == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Every catalogue that the tenant has.
pub(super) async fn all_stored(context: &Context) -> Result<Vec<Read>, Failure> {
    let answer = context.api()?.get("cannot list catalogues", &["catalogues"], &[]).await?;
    let mut catalogues = Vec::new();
    for item in answer.items().iter().filter(|item| item["built_in"] != true) {
        let product = item["product"].as_str().unwrap_or_default();
        if let Some(answer) = stored(context, product).await? {
            catalogues.push(answer.parse()?);
        }
    }
    Ok(catalogues)
}

async fn diff(context: &Context, which: &OneCatalogue) -> Result<Exit, Failure> {
    let sound = of_which(which)?;
    let product = &sound.catalogue.product.id;
    let old: Option<Read> = match stored(context, product).await? {
        Some(answer) => Some(answer.parse()?),
        None => None,
    };
    let changes = core_catalogue::diff(old.as_ref(), &sound.catalogue);
    let items: Vec<Value> = changes.iter().map(|change| json!(change)).collect();
    if context.out.is_table() {
        for suspect in &sound.suspects {
            context.out.note(&line(suspect));
        }
        for (item, change) in items.iter().zip(&changes) {
            let how = item["how"].as_str().unwrap_or_default();
            context.out.text(&change_line(context.out, how, &change.sentence))?;
        }
    } else {
        context.out.list(&json!({"items": items, "next": null}).to_string(), &items, &[])?;
    }
    if changes.is_empty() {
        context.out.note("they are the same");
        return Ok(Exit::Ok);
    }
    Ok(Exit::Conflict)
}

async fn export(context: &Context, product: &str, text: CatalogueText) -> Result<Exit, Failure> {
    let what = format!("cannot export the catalogue {product}");
    let answer = context.api()?.get(&what, &["catalogues", product], &[]).await?;
    let catalogue: Read = answer.parse()?;
    let text = match text {
        CatalogueText::Json => serde_json::to_string_pretty(&catalogue)
            .map_err(|error| Failure::new(Exit::Other, &what, error))?,
        CatalogueText::Toml => toml::to_string_pretty(&catalogue).map_err(|error| {
            // TOML has no null, and a JSON Schema or a profile may hold one.
            Failure::new(Exit::Other, &what, error).next("give --format json")
        })?,
    };
    context.out.text(text.trim_end())?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_ones_are_sound_and_survive_both_forms() {
        for (name, text) in builtin::all() {
            let sound = read(name, text).unwrap().unwrap();
            assert_eq!((sound.catalogue.product.id.as_str(), sound.suspects.len()), (name, 0));
            let toml = toml::to_string_pretty(&sound.catalogue).unwrap();
            let json = serde_json::to_string_pretty(&sound.catalogue).unwrap();
            for text in [toml, json] {
                let again = read(name, &text).unwrap().unwrap();
                assert_eq!(json!(again.catalogue), json!(sound.catalogue), "{name}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let failure = read("f", "schema = 1\n[product\n").unwrap_err();
        assert!(failure.to_string().starts_with("cannot read the catalogue f: line 2: "), "{failure}");
        let failure = read("f", "schema = 1\n[product]\nid = \"a\"\n").unwrap_err();
        assert!(failure.to_string().contains("missing field `name`"), "{failure}");
        assert!(failure.to_string().contains("line 2"), "{failure}");
        let failure = read("f", "{\"schema\": 1,\n").unwrap_err();
        assert!(failure.to_string().contains("line 2"), "{failure}");
        let failure = read("f", &format!("#{}", "x".repeat(4 * MAX_CATALOGUE_BYTES))).unwrap_err();
        assert!(failure.to_string().contains("larger than"), "{failure}");
    }

    #[test]
    fn misspelt_members_come_with_a_suggestion() {
        let text = "schema = 1\n[product]\nid = \"a\"\nname = \"A\"\n[[event_typ]]\nname = \"A\"\n";
        let findings = read("f", text).unwrap().unwrap_err();
        assert_eq!(
            line(&findings[0]),
            "error: the catalogue: there is no member \"event_typ\"; did you mean event_type?\n  \
             next: remove it or correct its name"
        );
    }
}
