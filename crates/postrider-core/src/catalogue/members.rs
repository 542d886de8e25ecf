//! Members of a catalogue's text that mean nothing.

use serde_json::Value;

use super::{Finding, Severity};
use crate::spelling::suggestion;

/// The members of one kind of object, and what is in them.
struct Shape {
    members: &'static [(&'static str, Option<&'static Shape>)],
}

const CATALOGUE: Shape = Shape {
    members: &[
        ("schema", None),
        ("product", Some(&PRODUCT)),
        ("category", Some(&CATEGORY)),
        ("group", Some(&GROUP)),
        ("event_type", Some(&TYPE)),
        ("trigger", Some(&TRIGGER)),
        ("profile", Some(&PROFILE)),
    ],
};
const PRODUCT: Shape = Shape { members: &[("id", None), ("name", None), ("note", None)] };
const CATEGORY: Shape = Shape { members: &[("id", None), ("label", None), ("description", None)] };
const GROUP: Shape =
    Shape { members: &[("id", None), ("category", None), ("label", None), ("description", None)] };
const TYPE: Shape = Shape {
    members: &[
        ("name", None),
        ("label", None),
        ("aliases", None),
        ("category", None),
        ("group", None),
        ("code", None),
        ("description", None),
        ("conditions", None),
        ("conditions_open", None),
        ("trigger", None),
        ("lead_days", None),
        ("split_from", None),
        ("sensitive", None),
        ("data_schema", None),
        ("example", None),
    ],
};
const TRIGGER: Shape =
    Shape { members: &[("action", None), ("when", None), ("description", None), ("emit", Some(&EMIT))] };
const EMIT: Shape = Shape {
    members: &[("event_type", None), ("when", None), ("for_each", None), ("data", None), ("key", None)],
};
const PROFILE: Shape = Shape {
    members: &[
        ("name", None),
        ("description", None),
        ("body", None),
        ("content_type", None),
        ("member", Some(&MEMBER)),
        ("header", Some(&MEMBER)),
        ("version", None),
        ("other_version", Some(&VERSION)),
        ("signature", Some(&SIGNATURE)),
        ("secret", Some(&SECRET)),
        ("success", None),
        ("retried", None),
        ("retry", Some(&RETRY)),
        ("timeout_ms", None),
        ("disable_after_failures", None),
        ("disable_after_ms", None),
        ("max_active_webhooks", None),
        ("https_only", None),
    ],
};
const MEMBER: Shape = Shape {
    members: &[
        ("name", None),
        ("path", None),
        ("only_text", None),
        ("id", None),
        ("time", None),
        ("event_type", None),
        ("text", None),
        ("value", None),
        ("optional", None),
    ],
};
const VERSION: Shape = Shape { members: &[("name", None), ("member", Some(&MEMBER))] };
const SIGNATURE: Shape = Shape { members: &[("scheme", None), ("header", None), ("key", None)] };
const SECRET: Shape =
    Shape { members: &[("shown", None), ("rotation", None), ("rotation_interval_secs", None)] };
const RETRY: Shape = Shape {
    members: &[
        ("initial_ms", None),
        ("factor", None),
        ("max_interval_ms", None),
        ("max_attempts", None),
        ("max_age_ms", None),
        ("jitter", None),
        ("schedule_ms", None),
    ],
};

/// What a catalogue as it was written holds that this release does not know, each as an error.
///
/// Reading one skips such members, as records on the config stream must be; so whoever takes a catalogue from a person
/// asks this first.
pub fn unknown_members(catalogue: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    look(&CATALOGUE, catalogue, "", &mut findings);
    findings
}

fn look(shape: &Shape, value: &Value, at: &str, findings: &mut Vec<Finding>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let at = match name_of(item) {
                    Some(name) => format!("{at} {name:?}"),
                    None => format!("{at} {}", index + 1),
                };
                look(shape, item, &at, findings);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                match shape.members.iter().find(|(known, _)| known == name) {
                    Some((_, Some(inner))) => {
                        let at = if at.is_empty() { name.clone() } else { format!("{at}, {name}") };
                        look(inner, value, &at, findings);
                    }
                    Some((_, None)) => {}
                    None if findings.len() < super::check::MAX_FINDINGS => findings.push(Finding {
                        severity: Severity::Error,
                        at: if at.is_empty() { "the catalogue".to_owned() } else { at.to_owned() },
                        problem: format!(
                            "there is no member {name:?}{}",
                            suggestion(name, shape.members.iter().map(|(known, _)| *known))
                        ),
                        hint: "remove it or correct its name".to_owned(),
                    }),
                    None => {}
                }
            }
        }
        // What is no object or list at all is told by whoever reads it.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What an item of a list is called in it.
fn name_of(item: &Value) -> Option<&str> {
    ["name", "id", "action", "event_type"].iter().find_map(|member| item.get(member)?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_known_is_named_with_where_it_is_and_what_was_meant() {
        let catalogue = json!({
            "schema": 1, "product": {"id": "a", "name": "A", "profile": "a"}, "categories": [],
            "event_type": [{"name": "A", "labl": "a"}],
            "trigger": [{"action": "x", "emit": [{"event_type": "A", "for_eahc": []}]}],
            "profile": {"name": "a", "member": [{"name": "id", "pth": "/id"}], "retry": {"attempts": 3}},
        });
        let mut findings: Vec<String> =
            unknown_members(&catalogue).into_iter().map(|f| format!("{}: {}", f.at, f.problem)).collect();
        findings.sort();
        assert_eq!(
            findings,
            [
                r#"event_type "A": there is no member "labl"; did you mean label?"#,
                r#"product: there is no member "profile""#,
                r#"profile, member "id": there is no member "pth"; did you mean path?"#,
                r#"profile, retry: there is no member "attempts""#,
                r#"the catalogue: there is no member "categories"; did you mean category?"#,
                r#"trigger "x", emit "A": there is no member "for_eahc"; did you mean for_each?"#,
            ]
        );
    }
}
