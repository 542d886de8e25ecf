//! JSON Schema for the data of events.
//!
//! A schema is checked before the `jsonschema` crate sees it: it may refer only to itself, and, with what it refers to
//! written out, it has at most [`MAX_PARTS`] parts. Short schemas that become endless that way are a known trick; so
//! each part looks at each part of the data at most once. Patterns run in linear time.

use std::collections::{HashMap, HashSet};

use jsonschema::PatternOptions;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;
use serde_json::value::RawValue;

/// The largest schema, bytes of JSON.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// The deepest nesting of a schema, with what it refers to written out.
pub const MAX_DEPTH: usize = 64;

/// The most parts (objects, lists, texts, numbers) of a schema, with what it refers to written out.
pub const MAX_PARTS: usize = 5000;

/// The most patterns.
pub const MAX_PATTERNS: usize = 50;

/// Parts of the schema times values of the data: what one check may cost, a few tens of ms.
pub const MAX_WORK: usize = 10_000_000;

/// The most misfits that are told.
pub const MAX_MISFITS: usize = 10;

/// The longest message, and the longest pointer, characters.
pub const MAX_MISFIT_CHARACTERS: usize = 200;

/// The largest data of which all misfits are looked for; of larger data the first is told.
const MAX_LISTED_BYTES: usize = 16 * 1024;

/// The largest pattern once it is compiled, bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// A schema, compiled.
#[derive(Clone, Debug)]
pub struct Schema {
    validator: jsonschema::Validator,
    /// How many there are, with references written out.
    parts: usize,
}

/// Where and how data does not fit. No value is quoted; names of members are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {pointer:?}: {message}")]
pub struct Misfit {
    /// A JSON pointer into the data.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

/// Why a schema cannot be used: a closed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSchema {
    /// Neither an object nor a boolean.
    #[error("a schema is an object, true or false; write {{}} for one that takes everything")]
    NotASchema,
    /// Larger than [`MAX_SCHEMA_BYTES`].
    #[error("the schema has {bytes} bytes, and {MAX_SCHEMA_BYTES} are allowed; describe less of the data")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// Deeper than [`MAX_DEPTH`].
    #[error(
        "the schema is nested deeper than {MAX_DEPTH}, with its references written out; describe less of the data"
    )]
    TooDeep,
    /// More than [`MAX_PARTS`].
    #[error(
        "the schema has more than {MAX_PARTS} parts, with its references written out; describe less of the data"
    )]
    TooManyParts,
    /// More than [`MAX_PATTERNS`].
    #[error("the schema has more than {MAX_PATTERNS} patterns; use fewer")]
    TooManyPatterns,
    /// A reference to something else than a place within the schema.
    #[error(
        "the reference {reference:?} does not lead to a place within the schema; write what it means under $defs, and \
         refer to it as #/$defs/name: nothing is ever fetched"
    )]
    Reference {
        /// What it says.
        reference: String,
    },
    /// A reference that leads back to itself.
    #[error("the reference {reference:?} leads back to itself; write out as many levels as the data has")]
    Recursive {
        /// What it says.
        reference: String,
    },
    /// A keyword that is left out.
    #[error(
        "the keyword {keyword} cannot be used here; use $ref with a place within the schema, as in #/$defs/name"
    )]
    Keyword {
        /// Which.
        keyword: &'static str,
    },
    /// No JSON Schema.
    #[error("the schema is no JSON Schema: at {pointer:?}: {problem}")]
    Invalid {
        /// A JSON pointer into the schema.
        pointer: String,
        /// What is wrong there.
        problem: String,
    },
}

impl Schema {
    /// Compiles a schema: draft 2020-12, or the one that its `$schema` names.
    ///
    /// # Errors
    /// [`BadSchema`] when it is none, or goes beyond a bound.
    pub fn compile(schema: &Value) -> Result<Self, BadSchema> {
        if !schema.is_object() && !schema.is_boolean() {
            return Err(BadSchema::NotASchema);
        }
        let mut writing_out = WritingOut::of(schema);
        // Its own nesting first: nothing else may recurse into a schema that is too deep.
        writing_out.check_nesting()?;
        let bytes = schema.to_string().len();
        if bytes > MAX_SCHEMA_BYTES {
            return Err(BadSchema::TooLarge { bytes });
        }
        let (parts, _) = writing_out.size(schema, 0)?;
        if writing_out.patterns > MAX_PATTERNS {
            return Err(BadSchema::TooManyPatterns);
        }
        let patterns =
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
        let options = jsonschema::options().with_pattern_options(patterns).offline();
        let validator = options.build(schema).map_err(|error| BadSchema::Invalid {
            pointer: shortened(error.instance_path().as_str()),
            problem: shortened(&error.to_string()),
        })?;
        Ok(Self { validator, parts })
    }

    /// Checks an event's data.
    ///
    /// # Errors
    /// Where it does not fit: 1 to [`MAX_MISFITS`] places.
    pub fn check(&self, data: &RawValue) -> Result<(), Vec<Misfit>> {
        let whole = |message: String| vec![Misfit { pointer: String::new(), message }];
        let value: Value = serde_json::from_str(data.get())
            .map_err(|_| whole("has a number out of range or a text that is no Unicode".to_owned()))?;
        let values = count(&value);
        if self.parts.saturating_mul(values) > MAX_WORK {
            return Err(whole(format!(
                "has {values} values, too many to check against a schema of {} parts; send less, or describe less",
                self.parts
            )));
        }
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        let mut misfits: Vec<Misfit> = if data.get().len() <= MAX_LISTED_BYTES {
            self.validator.iter_errors(&value).take(MAX_MISFITS).map(|error| misfit(&error)).collect()
        } else {
            self.validator.validate(&value).err().iter().map(misfit).collect()
        };
        if misfits.is_empty() {
            misfits = whole("does not fit".to_owned());
        }
        Err(misfits)
    }
}

/// How many values there are, at every depth.
fn count(value: &Value) -> usize {
    1 + children(value).map(count).sum::<usize>()
}

fn misfit(error: &jsonschema::ValidationError<'_>) -> Misfit {
    let message = match error.kind() {
        ValidationErrorKind::PropertyNames { .. } => "has a member whose name is not allowed".to_owned(),
        _ => error.masked().to_string(),
    };
    Misfit { pointer: shortened(error.instance_path().as_str()), message: shortened(&message) }
}

/// At most [`MAX_MISFIT_CHARACTERS`] of a text, on one line.
fn shortened(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(MAX_MISFIT_CHARACTERS).map(clean).collect();
    if short.len() < text.len() {
        short.pop();
        short.push('…');
    }
    short
}

/// How large a schema is with its references written out.
struct WritingOut<'s> {
    schema: &'s Value,
    /// Parts and depth of what references lead to.
    sizes: HashMap<&'s str, (usize, usize)>,
    /// References that are being written out.
    within: HashSet<&'s str>,
    patterns: usize,
    /// What an identity is called: `id` up to draft 4.
    identity: &'static str,
}

impl<'s> WritingOut<'s> {
    fn of(schema: &'s Value) -> Self {
        let old =
            schema.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04"));
        let identity = if old { "id" } else { "$id" };
        Self { schema, sizes: HashMap::new(), within: HashSet::new(), patterns: 0, identity }
    }

    fn check_nesting(&self) -> Result<(), BadSchema> {
        let mut level = vec![self.schema];
        for _ in 0..MAX_DEPTH {
            level = level.into_iter().flat_map(children).collect();
        }
        if level.is_empty() { Ok(()) } else { Err(BadSchema::TooDeep) }
    }

    /// Parts of this value, and how deep it is.
    fn size(&mut self, value: &'s Value, depth: usize) -> Result<(usize, usize), BadSchema> {
        if depth > MAX_DEPTH {
            return Err(BadSchema::TooDeep);
        }
        let (mut parts, mut below) = (1, 0);
        if let Value::Object(members) = value {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("$ref", Value::String(reference)) => {
                        let (referred, deep) = self.referred(reference, depth + 1)?;
                        parts += referred;
                        below = below.max(deep);
                    }
                    ("$dynamicRef", Value::String(_)) => {
                        return Err(BadSchema::Keyword { keyword: "$dynamicRef" });
                    }
                    ("$recursiveRef", Value::String(_)) => {
                        return Err(BadSchema::Keyword { keyword: "$recursiveRef" });
                    }
                    // An identity within the schema would change what references below it mean.
                    (name, Value::String(_)) if depth > 0 && name == self.identity => {
                        return Err(BadSchema::Keyword { keyword: self.identity });
                    }
                    ("pattern", Value::String(_)) => self.patterns += 1,
                    ("patternProperties", Value::Object(patterns)) => self.patterns += patterns.len(),
                    _ => {}
                }
            }
        }
        for child in children(value) {
            let (more, deep) = self.size(child, depth + 1)?;
            parts += more;
            below = below.max(deep);
        }
        if parts > MAX_PARTS {
            return Err(BadSchema::TooManyParts);
        }
        Ok((parts, below + 1))
    }

    fn referred(&mut self, reference: &'s str, depth: usize) -> Result<(usize, usize), BadSchema> {
        if let Some(&(parts, deep)) = self.sizes.get(reference) {
            return if depth + deep > MAX_DEPTH { Err(BadSchema::TooDeep) } else { Ok((parts, deep)) };
        }
        let bad = || BadSchema::Reference { reference: shortened(reference) };
        let pointer = reference.strip_prefix('#').filter(|at| !at.contains('%')).ok_or_else(bad)?;
        let target = self.schema.pointer(pointer).ok_or_else(bad)?;
        if !self.within.insert(reference) {
            return Err(BadSchema::Recursive { reference: shortened(reference) });
        }
        let size = self.size(target, depth);
        self.within.remove(reference);
        self.sizes.insert(reference, size.clone()?);
        size
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(elements) => Box::new(elements.iter()),
        Value::Object(members) => Box::new(members.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn raw(data: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(data).unwrap()
    }

    fn misfits(schema: &Value, data: &Value) -> Vec<(String, String)> {
        match Schema::compile(schema).unwrap().check(&raw(data)) {
            Ok(()) => Vec::new(),
            Err(misfits) => misfits.into_iter().map(|misfit| (misfit.pointer, misfit.message)).collect(),
        }
    }

    fn misfit_of(schema: Value, data: Value) -> (String, String) {
        misfits(&schema, &data).into_iter().next().expect("it should not fit")
    }

    #[test]
    fn misfits_say_where_and_what_but_no_values() {
        let schema = json!({
            "type": "object",
            "required": ["user", "points"],
            "properties": {
                "user": { "$ref": "#/$defs/user" },
                "points": { "type": "integer", "minimum": 0 },
                "level": { "enum": ["gold", "silver"] }
            },
            "$defs": { "user": { "type": "object", "properties": { "mail": { "type": "string", "pattern": "@" } } } }
        });
        assert_eq!(misfits(&schema, &json!({"user": {"mail": "a@b"}, "points": 3, "more": [1]})), []);
        let found = misfits(&schema, &json!({"user": {"mail": "secret"}, "points": -77, "level": "hidden"}));
        let found: Vec<_> = found.iter().map(|(at, what)| (at.as_str(), what.as_str())).collect();
        assert_eq!(
            found,
            [
                ("/level", r#"value is not one of "gold" or "silver""#),
                ("/points", "value is less than the minimum of 0"),
                ("/user/mail", r#"value does not match "@""#),
            ]
        );
        let (at, what) = misfit_of(schema, json!({}));
        assert_eq!((at.as_str(), what.as_str()), ("", r#""user" is a required property"#));
        let names = misfit_of(json!({"propertyNames": {"maxLength": 2}}), json!({"secret": 1}));
        assert_eq!(names, (String::new(), "has a member whose name is not allowed".to_owned()));
    }

    #[test]
    fn ten_misfits_and_short_ones() {
        let schema = json!({"items": {"type": "string"}});
        assert_eq!(misfits(&schema, &json!(vec![1; 30])).len(), MAX_MISFITS);
        assert_eq!(misfits(&schema, &json!(vec![1; 20_000])).len(), 1, "of large data the first");
        let key = "k".repeat(100_000);
        let (at, what) =
            misfit_of(json!({"properties": {"a": {}}, "additionalProperties": false}), json!({ &key: 1 }));
        assert_eq!((at.chars().count(), what.chars().count()), (0, MAX_MISFIT_CHARACTERS));
        let (at, _) = misfit_of(json!({"additionalProperties": {"type": "null"}}), json!({ &key: 1 }));
        assert_eq!(at.chars().count(), MAX_MISFIT_CHARACTERS);
    }

    #[test]
    fn data_that_is_no_value_does_not_fit() {
        let data = RawValue::from_string("1e999".to_owned()).unwrap();
        assert_eq!(Schema::compile(&json!(true)).unwrap().check(&data).unwrap_err().len(), 1);
    }

    #[test]
    fn bad_schemas_are_refused_with_a_reason() {
        let refused = |schema: Value| Schema::compile(&schema).unwrap_err().to_string();
        assert_eq!(
            refused(json!([])),
            "a schema is an object, true or false; write {} for one that takes everything"
        );
        assert_eq!(
            refused(json!({"properties": {"a": {"type": "text"}}})),
            "the schema is no JSON Schema: at \"/properties/a/type\": \"text\" is not valid under any of the schemas \
             listed in the 'anyOf' keyword"
        );
        for reference in
            ["https://example.com/a.json", "file:///etc/passwd", "other.json", "#/$defs/none", "#anchor"]
        {
            assert_eq!(
                refused(json!({"$defs": {"a": {}}, "items": {"$ref": reference}})),
                format!(
                    "the reference {reference:?} does not lead to a place within the schema; write what it means under \
                     $defs, and refer to it as #/$defs/name: nothing is ever fetched"
                )
            );
        }
        assert_eq!(
            refused(json!({"properties": {"child": {"$ref": "#"}}})),
            "the reference \"#\" leads back to itself; write out as many levels as the data has"
        );
        assert!(refused(json!({"$dynamicRef": "#a"})).contains("$dynamicRef"));
        assert!(refused(json!({"items": {"$id": "https://example.com/b"}})).contains("$id"));
        assert!(refused(json!({"$schema": "https://example.com/own-draft"})).contains("JSON Schema"));
        assert!(refused(json!({"pattern": "("})).contains("/pattern"));
        assert!(
            refused(json!({"pattern": "(?=look)ahead"})).contains("/pattern"),
            "only what runs in linear time"
        );
        assert!(refused(json!({"pattern": "(a{1000}){1000}"})).contains("/pattern"));
        assert!(
            Schema::compile(&json!({"properties": {"$ref": {"type": "string"}}})).is_ok(),
            "a member of that name"
        );
        assert!(
            Schema::compile(&json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}))
                .is_ok()
        );
    }

    #[test]
    fn bounds_on_schemas() {
        let refused = |schema: Value| Schema::compile(&schema).unwrap_err();
        assert!(matches!(
            refused(json!({"description": "x".repeat(MAX_SCHEMA_BYTES)})),
            BadSchema::TooLarge { .. }
        ));
        assert_eq!(refused(json!({ "enum": vec![0; MAX_PARTS] })), BadSchema::TooManyParts);
        let deep = (0..5000).fold(json!({}), |inner, _| json!({ "not": inner }));
        assert_eq!(refused(deep), BadSchema::TooDeep);
        let names: Vec<String> = (0..=MAX_PATTERNS).map(|n| format!("^{n}$")).collect();
        let patterns: serde_json::Map<String, Value> =
            names.into_iter().map(|name| (name, json!({}))).collect();
        assert_eq!(refused(json!({ "patternProperties": patterns })), BadSchema::TooManyPatterns);
        // Twenty lines that would become a million.
        let mut definitions = serde_json::Map::new();
        for level in 0..20 {
            let next = format!("#/$defs/a{}", level + 1);
            definitions.insert(format!("a{level}"), json!({"anyOf": [{"$ref": next}, {"$ref": next}]}));
        }
        definitions.insert("a20".to_owned(), json!({"type": "null"}));
        assert_eq!(refused(json!({"$defs": definitions, "$ref": "#/$defs/a0"})), BadSchema::TooManyParts);
        // A chain of references, each in another place.
        let mut definitions = serde_json::Map::new();
        for level in 0..100 {
            definitions.insert(format!("a{level}"), json!({"$ref": format!("#/$defs/a{}", level + 1)}));
        }
        definitions.insert("a100".to_owned(), json!({}));
        assert_eq!(refused(json!({"$defs": definitions, "$ref": "#/$defs/a0"})), BadSchema::TooDeep);
    }

    #[test]
    fn a_check_has_a_bound() {
        let branches: Vec<Value> = (0..1000).map(|n| json!({ "minimum": n })).collect();
        let schema = json!({"items": {"anyOf": branches}});
        assert_eq!(misfits(&schema, &json!(vec![0; 3000])), []);
        let found = misfits(&schema, &json!(vec![0; 5000]));
        let told =
            "has 5001 values, too many to check against a schema of 2003 parts; send less, or describe less";
        assert_eq!(found, [(String::new(), told.to_owned())]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let word = proptest::sample::select(vec![
            "type",
            "properties",
            "items",
            "$ref",
            "#",
            "#/$defs/a",
            "$defs",
            "a",
            "pattern",
            "anyOf",
            "not",
            "enum",
            "object",
            "string",
            "required",
            "minimum",
            "format",
            "if",
            "then",
            "$id",
            "contains",
            "unevaluatedItems",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((word.clone(), inner), 0..4)
                    .prop_map(|members| members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_schema_and_no_data_panics(schema in any_json(), data in any_json()) {
            if let Ok(schema) = Schema::compile(&schema)
                && let Err(misfits) = schema.check(&raw(&data))
            {
                prop_assert!((1..=MAX_MISFITS).contains(&misfits.len()));
            }
        }
    }
}
