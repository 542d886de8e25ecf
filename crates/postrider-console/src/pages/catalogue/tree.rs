//! A JSON Schema as a list of fields, each with how deep it is.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The most fields that are shown.
const MOST: usize = 500;
/// How deep fields are shown.
const DEEPEST: usize = 8;
/// The most references that are followed for one field.
const MOST_REFERENCES: usize = 8;
/// The most values that are named of a field that has one of a list.
const MOST_VALUES: usize = 8;

/// A field of the data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// How many fields it is in.
    pub(super) depth: usize,
    /// Its name; `[ ]` stands for each element of a list.
    pub(super) name: String,
    /// Its type, in the schema's words.
    pub(super) kind: String,
    /// Whether it has to be there.
    pub(super) required: bool,
    /// What the schema says of it.
    pub(super) description: String,
}

/// The fields of what a schema describes, in the schema's order of names; at most 500.
pub(super) fn leaves(schema: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    below(schema, schema, 0, &mut found);
    found
}

/// Adds the fields that are in a value of this schema.
fn below(root: &Value, schema: &Value, depth: usize, found: &mut Vec<Leaf>) {
    if depth > DEEPEST {
        return;
    }
    let Some(schema) = resolved(root, schema) else { return };
    let required: BTreeSet<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            add(root, property, (name.clone(), required.contains(name.as_str())), depth, found);
        }
    }
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        add(root, items, ("[ ]".to_owned(), false), depth, found);
    }
    for combined in ["allOf", "anyOf", "oneOf"] {
        for one in schema.get(combined).and_then(Value::as_array).into_iter().flatten() {
            below(root, one, depth + 1, found);
        }
    }
}

fn add(root: &Value, schema: &Value, (name, required): (String, bool), depth: usize, found: &mut Vec<Leaf>) {
    if found.len() >= MOST {
        return;
    }
    let known = resolved(root, schema);
    let description = known.and_then(|it| it.get("description")).and_then(Value::as_str).unwrap_or_default();
    let kind = known.map_or_else(|| "any".to_owned(), kind_of);
    found.push(Leaf { depth, name, kind, required, description: description.to_owned() });
    below(root, schema, depth + 1, found);
}

/// The object of a schema, with references within the document followed.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Map<String, Value>> {
    let mut schema = schema.as_object()?;
    for _ in 0..MOST_REFERENCES {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return Some(schema) };
        schema = root.pointer(reference.strip_prefix('#')?)?.as_object()?;
    }
    None
}

/// The type of a schema in a few words.
fn kind_of(schema: &Map<String, Value>) -> String {
    if let Some(value) = schema.get("const") {
        return format!("always {value}");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let told: Vec<String> = values.iter().take(MOST_VALUES).map(Value::to_string).collect();
        let more = if values.len() > MOST_VALUES { ", …" } else { "" };
        return format!("one of {}{more}", told.join(", "));
    }
    let named = match schema.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ if schema.contains_key("properties") => "object".to_owned(),
        _ if schema.contains_key("items") => "array".to_owned(),
        _ => "any".to_owned(),
    };
    match schema.get("format").and_then(Value::as_str) {
        Some(format) => format!("{named}, {format}"),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_have_a_depth_a_type_and_whether_they_must_be_there() {
        let schema = json!({
            "type": "object", "required": ["id"],
            "properties": {
                "id": { "type": "string", "format": "uuid", "description": "Which" },
                "lines": { "type": "array", "items": { "$ref": "#/$defs/line" } },
                "state": { "enum": ["new", "paid"] },
                "who": { "type": ["string", "null"] }
            },
            "$defs": { "line": { "properties": { "sku": { "type": "string" } }, "required": ["sku"] } }
        });
        let told: Vec<String> = leaves(&schema)
            .into_iter()
            .map(|leaf| {
                format!(
                    "{}{} {}{}",
                    "  ".repeat(leaf.depth),
                    leaf.name,
                    leaf.kind,
                    if leaf.required { " !" } else { "" }
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "id string, uuid !",
                "lines array",
                "  [ ] object",
                "    sku string !",
                "state one of \"new\", \"paid\"",
                "who string or null"
            ]
        );
    }

    #[test]
    fn a_schema_that_holds_itself_ends() {
        let node = json!({ "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } } });
        let found = leaves(&node);
        assert!(found.len() <= MOST && found.iter().all(|leaf| leaf.depth <= DEEPEST), "{}", found.len());
        let round = json!({ "properties": { "a": { "$ref": "#/properties/a" } } });
        assert_eq!(leaves(&round).len(), 1);
        assert!(leaves(&json!(true)).is_empty());
    }
}
