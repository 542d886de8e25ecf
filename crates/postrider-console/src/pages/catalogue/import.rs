//! Importing a catalogue: what it would change, and then the change.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::Console;
use crate::api::{Refused, segment};
use crate::page::{Answer, Part, Sent, Shell, Visit, page, page_with};
use crate::words::{Html, counted, state};

/// The form, what it would change, and doing it.
pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/catalogue/import", get(form).post(look))
        .route("/catalogue/import/confirm", post(confirm))
        .route("/catalogue/import/edit", post(edit))
}

/// What an import changes, as the API answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Import {
    product: String,
    revision: Option<u64>,
    changes: Vec<Change>,
    findings: Vec<Finding>,
}

/// One change.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    how: String,
    sentence: String,
}

impl Change {
    fn mark(&self) -> Html {
        match self.how.as_str() {
            "added" => state("ok", "Added"),
            "removed" => state("bad", "Removed"),
            _ => state("warn", "Changed"),
        }
    }
}

/// Something that is wrong with a catalogue, or looks wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Finding {
    severity: String,
    at: String,
    problem: String,
    hint: String,
}

impl Finding {
    fn mark(&self) -> Html {
        if self.severity == "error" { state("bad", "Error") } else { state("warn", "Suspect") }
    }
}

/// Members of the API's problem that say what stands in the way.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InTheWay {
    findings: Vec<Finding>,
    clashes: Vec<Clash>,
    uses: Vec<Use>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Clash {
    kind: String,
    name: String,
    product: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Use {
    kind: String,
    name: String,
    webhooks: u64,
    reminders: u64,
}

/// Why a text is not imported.
#[derive(Debug, Default)]
struct Problem {
    text: String,
    way: InTheWay,
}

impl Problem {
    fn of(refused: &Refused) -> Self {
        let way = serde_json::from_value(Value::Object(refused.more.clone())).unwrap_or_default();
        Self { text: format!("{}. {}", refused.detail.trim_end_matches('.'), refused.hint), way }
    }

    fn unreadable(text: String) -> Self {
        Self { text, way: InTheWay::default() }
    }

    /// Names that stand in the way, each in a phrase.
    fn names(&self) -> Vec<String> {
        let clashes = self.way.clashes.iter().map(|it| {
            format!("{} {}: the catalogue {} has it", it.kind.replace('_', " "), it.name, it.product)
        });
        let uses = self.way.uses.iter().map(|it| {
            let webhooks = (it.webhooks > 0).then(|| counted(it.webhooks, "webhook", "webhooks"));
            let reminders = (it.reminders > 0).then(|| counted(it.reminders, "reminder", "reminders"));
            let by: Vec<String> = webhooks.into_iter().chain(reminders).collect();
            format!("{} {}: used by {}", it.kind.replace(['_', '.'], " "), it.name, by.join(" and "))
        });
        clashes.chain(uses).collect()
    }
}

#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    shell: Shell,
    text: String,
    problem: Option<Problem>,
}

#[derive(Template)]
#[template(path = "import_confirm.html")]
struct ConfirmPage {
    shell: Shell,
    text: String,
    import: Import,
    count: String,
    is_new: bool,
}

/// A catalogue, TOML or JSON, and the product that it is of.
fn read(text: &str) -> Result<(String, Value), String> {
    let value: Value = if text.trim().is_empty() {
        return Err("Paste a catalogue first.".to_owned());
    } else if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| format!("This is not JSON: {error}."))?
    } else {
        toml::from_str(text).map_err(|error| format!("This is not TOML: {}.", in_toml(text, &error)))?
    };
    match value.pointer("/product/id").and_then(Value::as_str) {
        Some(product) if !product.is_empty() => Ok((product.to_owned(), value)),
        _ => Err("The catalogue does not say of which product it is: [product] needs an id.".to_owned()),
    }
}

fn in_toml(text: &str, error: &toml::de::Error) -> String {
    match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or_default();
            format!("line {}: {}", before.matches('\n').count() + 1, error.message())
        }
        None => error.message().to_owned(),
    }
}

async fn put(visit: &Visit, product: &str, body: &Value, dry_run: &str) -> Result<Import, Refused> {
    let path = format!("/v1/catalogues/{}", segment(product));
    visit.api.send_with(Method::PUT, &path, &[("dry_run", dry_run)], Some(body)).await
}

fn form_page(visit: &Visit, text: &str, problem: Option<Problem>) -> Answer {
    let mut shell = visit.shell(Part::Catalogue, "Import a catalogue");
    shell.command = "postrider catalogue import mine.toml --dry-run".to_owned();
    shell.live = false;
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    page_with(status, &ImportPage { shell, text: text.to_owned(), problem })
}

async fn form(visit: Visit) -> Response {
    let made = form_page(&visit, "", None);
    visit.or_refused(Part::Catalogue, made)
}

/// The form again, with the text that was looked at.
async fn edit(Sent { visit, fields }: Sent) -> Response {
    let made = form_page(&visit, fields.exactly("text"), None);
    visit.or_refused(Part::Catalogue, made)
}

async fn look(Sent { visit, fields }: Sent) -> Response {
    let made = previewed(&visit, fields.exactly("text")).await;
    visit.or_refused(Part::Catalogue, made)
}

async fn previewed(visit: &Visit, text: &str) -> Answer {
    let (product, body) = match read(text) {
        Ok(read) => read,
        Err(why) => return form_page(visit, text, Some(Problem::unreadable(why))),
    };
    let import = match put(visit, &product, &body, "true").await {
        Ok(import) => import,
        Err(refused) if matches!(refused.status, 401 | 403) => return Err(refused.into()),
        Err(refused) => return form_page(visit, text, Some(Problem::of(&refused))),
    };
    let mut shell = visit.shell(Part::Catalogue, "Import a catalogue");
    shell.live = false;
    page(&ConfirmPage {
        shell,
        text: text.to_owned(),
        count: counted(import.changes.len() as u64, "change", "changes"),
        is_new: import.revision.is_none(),
        import,
    })
}

async fn confirm(Sent { visit, fields }: Sent) -> Response {
    let made = confirmed(&visit, fields.exactly("text")).await;
    visit.or_refused(Part::Catalogue, made)
}

async fn confirmed(visit: &Visit, text: &str) -> Answer {
    let (product, body) = match read(text) {
        Ok(read) => read,
        Err(why) => return form_page(visit, text, Some(Problem::unreadable(why))),
    };
    match put(visit, &product, &body, "").await {
        Ok(import) => {
            let changes = counted(import.changes.len() as u64, "change", "changes");
            let path = format!("/catalogue?product={}", segment(&product));
            Ok(visit.done(&path, &format!("Imported {product}: {changes}.")))
        }
        Err(refused) if matches!(refused.status, 401 | 403) => Err(refused.into()),
        Err(refused) => form_page(visit, text, Some(Problem::of(&refused))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_catalogue_is_toml_or_json() {
        let toml = "schema = 1\n[product]\nid = \"shop\"\nname = \"Shop\"\n";
        let json = r#" {"schema": 1, "product": {"id": "shop", "name": "Shop"}}"#;
        let expected = json!({ "schema": 1, "product": { "id": "shop", "name": "Shop" } });
        assert_eq!(read(toml), Ok(("shop".to_owned(), expected.clone())));
        assert_eq!(read(json), Ok(("shop".to_owned(), expected)));
    }

    #[test]
    fn what_is_none_says_where() {
        assert_eq!(read(" \n").unwrap_err(), "Paste a catalogue first.");
        assert!(read("schema = 1\n[product\n").unwrap_err().starts_with("This is not TOML: line 2: "));
        assert!(read("{").unwrap_err().starts_with("This is not JSON: EOF"));
        assert!(read("schema = 1").unwrap_err().contains("[product] needs an id"));
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let refused: Refused = serde_json::from_value(json!({
            "status": 409, "code": "catalogue_in_use", "detail": "the type \"A\" would be removed, and is used", "hint": "Look.",
            "uses": [{ "kind": "event_type", "name": "A", "webhooks": 2, "reminders": 1 }],
            "clashes": [{ "kind": "alias", "name": "B", "product": "other" }]
        }))
        .unwrap();
        let problem = Problem::of(&refused);
        assert_eq!(
            problem.names(),
            ["alias B: the catalogue other has it", "event type A: used by 2 webhooks and 1 reminder"]
        );
        assert!(problem.text.ends_with("is used. Look."), "{}", problem.text);
    }
}
