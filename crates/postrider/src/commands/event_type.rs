//! `postrider event-type`.

use serde_json::Value;

use super::{Context, list};
use crate::args::EventType;
use crate::exit::{Exit, Failure};
use crate::output::Column;
use crate::table;

const COLUMNS: &[Column] = &[
    ("EVENT TYPE", "/name"),
    ("LABEL", "/label"),
    ("CATEGORY", "/category"),
    ("GROUP", "/group"),
    ("PRODUCT", "/product"),
    ("24 H", "/events_24h"),
    ("DESCRIPTION", "/description"),
];

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: EventType) -> Result<Exit, Failure> {
    match command {
        EventType::List { category, group, search, page } => {
            let filter =
                [("category", category.as_ref()), ("group", group.as_ref()), ("search", search.as_ref())];
            list(context, &["event-types"], &filter, &page, COLUMNS).await
        }
        EventType::Show { name } => show(context, &name).await,
    }
}

async fn show(context: &Context, name: &str) -> Result<Exit, Failure> {
    let what = format!("cannot show the event type {name}");
    let answer = context.api()?.get(&what, &["event-types", name], &[]).await?;
    if !context.out.is_table() {
        context.out.one(&answer.raw, &answer.value)?;
        return Ok(Exit::Ok);
    }
    // Lists and long texts go below the pairs, where they can be read.
    let mut entry = answer.value;
    let mut take = |member: &str| entry.as_object_mut().and_then(|entry| entry.remove(member));
    let (conditions, open) = (take("conditions"), take("conditions_open"));
    let (triggers, schema, example) = (take("triggers"), take("data_schema"), take("example"));
    context.out.one("", &entry)?;
    let conditions = texts(conditions.as_ref());
    if !conditions.is_empty() {
        let rest = if open == Some(Value::Bool(true)) { ", among others" } else { "" };
        context.out.text(&format!("\ncauses{rest}:"))?;
        conditions.iter().try_for_each(|condition| context.out.text(&format!("  {condition}")))?;
    }
    let triggers = triggers.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if !triggers.is_empty() {
        context.out.text("\nactions that become it:")?;
        for trigger in triggers {
            let text = |member: &str| table::printable(trigger[member].as_str().unwrap_or_default());
            context.out.text(&format!("  {}  {}", text("action"), text("description")))?;
        }
    }
    if let Some(schema) = schema.filter(|schema| !schema.is_null()) {
        context.out.text(&format!("\nschema of its data:\n{schema:#}"))?;
    }
    if let Some(Value::String(example)) = example {
        let pretty: Result<Value, _> = serde_json::from_str(&example);
        let example = pretty.map_or(example, |example| format!("{example:#}"));
        let lines: Vec<String> = example.lines().map(table::printable).collect();
        context.out.text(&format!("\nexample:\n{}", lines.join("\n")))?;
    }
    Ok(Exit::Ok)
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items.iter().filter_map(Value::as_str).map(table::printable).collect()
}
