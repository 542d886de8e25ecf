//! What triggers a webhook: the page that a product shows to its own customers, made from its catalogue, to print or as Markdown.

use std::fmt::Write as _;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header;
use postrider_core::catalogue::{Catalogue, Cause, EmitSpec, TriggerSpec, TypeEntry};

use crate::Console;
use crate::api::{Refused, segment};
use crate::page::{Answer, Part, Shell, Visit, page};

/// The page of a product, as a page and as a file; and its catalogue as a file.
pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/catalogue/products/{product}/triggers", get(show))
        .route("/catalogue/products/{product}/triggers.md", get(markdown_file))
        .route("/catalogue/products/{product}/catalogue.json", get(catalogue_file))
}

/// The page: a title, and a part for each category.
#[derive(Debug, PartialEq, Eq)]
struct Document {
    product: String,
    note: String,
    parts: Vec<Category>,
}

#[derive(Debug, PartialEq, Eq)]
struct Category {
    label: String,
    description: String,
    groups: Vec<Group>,
}

/// Event types of one group; those of no group come first, under no name.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    label: String,
    description: String,
    types: Vec<Entry>,
}

/// An event type: when it is sent, and what makes it so.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    label: String,
    description: String,
    /// What stands before the list of reasons; empty when there are none.
    lead: &'static str,
    reasons: Vec<String>,
    /// What else is to be known, each in a sentence.
    remarks: Vec<String>,
}

impl Document {
    fn of(catalogue: &Catalogue) -> Self {
        let parts = catalogue.categories.iter().map(|category| {
            let none = std::iter::once((None, String::new(), String::new()));
            let named = catalogue.groups.iter().filter(|group| group.category == category.id);
            let named =
                named.map(|group| (Some(group.id.as_str()), group.label.clone(), group.description.clone()));
            let groups = none.chain(named).map(|(id, label, description)| {
                let of_group =
                    |entry: &&TypeEntry| entry.category == category.id && entry.group.as_deref() == id;
                let types = catalogue.event_types.iter().filter(of_group);
                let types = types.map(|entry| Entry::of(entry, &catalogue.triggers)).collect();
                Group { label, description, types }
            });
            Category {
                label: category.label.clone(),
                description: category.description.clone(),
                groups: groups.filter(|group| !group.types.is_empty()).collect(),
            }
        });
        Self {
            product: catalogue.product.name.clone(),
            note: catalogue.product.note.clone(),
            parts: parts.filter(|part| !part.groups.is_empty()).collect(),
        }
    }
}

impl Entry {
    fn of(entry: &TypeEntry, triggers: &[TriggerSpec]) -> Self {
        let lead = match (entry.conditions.is_empty(), entry.conditions_open) {
            (true, _) => "",
            (false, true) => "Common reasons:",
            (false, false) => "Sent when:",
        };
        let mut remarks = Vec::new();
        match (entry.trigger, entry.lead_days) {
            (Cause::Scheduled, Some(1)) => {
                remarks.push("Sent 1 day before the date; the number of days is a setting.".to_owned())
            }
            (Cause::Scheduled, Some(days)) => {
                remarks.push(format!("Sent {days} days before the date; the number of days is a setting."));
            }
            (Cause::Scheduled, None) => remarks.push("Sent before a date.".to_owned()),
            (Cause::Own, _) => remarks.push("Sent by Postrider itself, to webhooks that name it.".to_owned()),
            (Cause::Action, _) => {}
        }
        for trigger in triggers {
            let emits = trigger.emit.iter().filter(|emit| emit.event_type == entry.name);
            remarks.extend(emits.map(|emit| by_action(trigger, emit)));
        }
        Self {
            name: entry.name.to_string(),
            label: entry.label.clone(),
            description: entry.description.clone(),
            lead,
            reasons: entry.conditions.clone(),
            remarks,
        }
    }

    /// Whether people call it otherwise than programs do.
    fn has_label(&self) -> bool {
        !self.label.is_empty() && self.label != self.name
    }
}

/// What an action has to do with a type, in a sentence.
fn by_action(trigger: &TriggerSpec, emit: &EmitSpec) -> String {
    let mut text = format!("Follows from the action {}", trigger.action);
    match emit.for_each.as_slice() {
        [] => {}
        [one] => write!(text, ", one event for {one}").unwrap_or_default(),
        many => write!(text, ", one event for each of {}", many.join(", ")).unwrap_or_default(),
    }
    let conditions: Vec<&str> = trigger.when.iter().chain(&emit.when).map(String::as_str).collect();
    if !conditions.is_empty() {
        write!(text, ", where {}", conditions.join(" and ")).unwrap_or_default();
    }
    text.push('.');
    if !trigger.description.is_empty() {
        write!(text, " {}", trigger.description).unwrap_or_default();
    }
    text
}

/// Text that means nothing to Markdown.
fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|') {
            safe.push('\\');
        }
        safe.push(if c == '\n' { ' ' } else { c });
    }
    safe
}

/// The page as Markdown.
fn markdown(document: &Document) -> String {
    let mut text = format!("# What triggers a webhook: {}\n", plain(&document.product));
    let mut paragraph = |words: &str| {
        if !words.is_empty() {
            text.push('\n');
            text.push_str(words);
            text.push('\n');
        }
    };
    paragraph(&plain(&document.note));
    for part in &document.parts {
        paragraph(&format!("## {}", plain(&part.label)));
        paragraph(&plain(&part.description));
        for group in &part.groups {
            let deeper = if group.label.is_empty() { "###" } else { "####" };
            if !group.label.is_empty() {
                paragraph(&format!("### {}", plain(&group.label)));
                paragraph(&plain(&group.description));
            }
            for entry in &group.types {
                paragraph(&format!("{deeper} {}", plain(&entry.name)));
                if entry.has_label() {
                    paragraph(&format!("*{}*", plain(&entry.label)));
                }
                paragraph(&plain(&entry.description));
                paragraph(entry.lead);
                let reasons: Vec<String> =
                    entry.reasons.iter().map(|reason| format!("- {}", plain(reason))).collect();
                paragraph(&reasons.join("\n"));
                for remark in &entry.remarks {
                    paragraph(&plain(remark));
                }
            }
        }
    }
    text
}

async fn catalogue(visit: &Visit, product: &str) -> Result<Catalogue, Refused> {
    visit.api.get(&format!("/v1/catalogues/{}", segment(product)), &[]).await
}

#[derive(Template)]
#[template(path = "triggers.html")]
struct TriggersPage {
    shell: Shell,
    document: Document,
    path: String,
    back: String,
}

async fn show(visit: Visit, Path(product): Path<String>) -> Response {
    let made = shown(&visit, &product).await;
    visit.or_refused(Part::Catalogue, made)
}

async fn shown(visit: &Visit, product: &str) -> Answer {
    let document = Document::of(&catalogue(visit, product).await?);
    let mut shell = visit.shell(Part::Catalogue, format!("What triggers a webhook: {}", document.product));
    shell.command = format!("postrider catalogue export '{}'", product.replace('\'', ""));
    shell.live = false;
    let path = format!("/catalogue/products/{}", segment(product));
    page(&TriggersPage { shell, document, path, back: format!("/catalogue?product={}", segment(product)) })
}

async fn markdown_file(visit: Visit, Path(product): Path<String>) -> Response {
    let made = catalogue(&visit, &product).await.map(|catalogue| {
        let name = format!("{}-triggers.md", catalogue.product.id);
        file(&name, "text/markdown; charset=utf-8", markdown(&Document::of(&catalogue)))
    });
    visit.or_refused(Part::Catalogue, made.map_err(Into::into))
}

async fn catalogue_file(visit: Visit, Path(product): Path<String>) -> Response {
    let made = catalogue(&visit, &product).await.map(|catalogue| {
        let name = format!("{}.json", catalogue.product.id);
        file(&name, "application/json", serde_json::to_string_pretty(&catalogue).unwrap_or_default())
    });
    visit.or_refused(Part::Catalogue, made.map_err(Into::into))
}

/// A file to be kept. Its name is made from the id of a product, which has letters, digits, `-` and `_` alone.
fn file(name: &str, kind: &'static str, text: String) -> Response {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> Catalogue {
        serde_json::from_value(serde_json::json!({
            "schema": 1,
            "product": { "id": "shop", "name": "Shop", "note": "Read me." },
            "category": [{ "id": "orders", "label": "Orders", "description": "From basket to parcel." }, { "id": "none", "label": "Empty" }],
            "group": [{ "id": "new", "category": "orders", "label": "New orders" }],
            "event_type": [
                { "name": "ORDER_PAID", "label": "Order paid", "category": "orders", "group": "new", "description": "It is paid.",
                  "conditions": ["a card is charged", "a bill is settled"] },
                { "name": "OFFER_ENDS", "label": "OFFER_ENDS", "category": "orders", "conditions": ["time"], "conditions_open": true,
                  "trigger": "scheduled", "lead_days": 7 }
            ],
            "trigger": [{ "action": "pay", "when": "has(data.n)", "description": "Money comes in.",
                "emit": [{ "event_type": "ORDER_PAID", "for_each": ["/data/a", "/data/b"] }] }]
        }))
        .unwrap()
    }

    #[test]
    fn the_page_is_made_from_the_catalogue() {
        let text = markdown(&Document::of(&read()));
        let expected = "# What triggers a webhook: Shop\n\nRead me.\n\n## Orders\n\nFrom basket to parcel.\n\n### OFFER\\_ENDS\n\n\
            Common reasons:\n\n- time\n\nSent 7 days before the date; the number of days is a setting.\n\n### New orders\n\n\
            #### ORDER\\_PAID\n\n*Order paid*\n\nIt is paid.\n\nSent when:\n\n- a card is charged\n- a bill is settled\n\n\
            Follows from the action pay, one event for each of /data/a, /data/b, where has(data.n). Money comes in.\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn own_events_have_such_a_page_too() {
        let text = markdown(&Document::of(&postrider_core::catalogue::own()));
        assert!(
            text.contains("### postrider.webhook.failing") && text.contains("Sent by Postrider itself"),
            "{text}"
        );
    }

    #[test]
    fn names_of_files_have_nothing_else_in_them() {
        let response = file("a\"b/c\n.md", "text/markdown; charset=utf-8", String::new());
        assert_eq!(response.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"abc.md\"");
    }
}
