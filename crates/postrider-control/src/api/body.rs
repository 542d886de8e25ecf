//! Reading what a request says: strictly, and naming the member that is wrong.

use std::fmt;

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::request::Parts;
use postrider_core::Timestamp;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::problem::{Code, Problem};

/// The body as a `T`. Unknown members, members given twice and wrong types are refused by name.
pub(crate) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|_| {
            Problem::new(Code::BadJson, "the body could not be read", "Send the request again.")
        })?;
        read(&bytes).map(Self)
    }
}

/// Reads JSON strictly.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Strict.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(|e| bad_json(&e))?;
    serde_json::from_slice(bytes).map_err(|e| bad_member(bytes, &e))
}

/// The body is not JSON; the text says where.
pub(crate) fn bad_json(error: &serde_json::Error) -> Problem {
    let detail = match error.classify() {
        Category::Eof if error.line() <= 1 && error.column() == 0 => "the body is empty".to_owned(),
        _ => error.to_string(),
    };
    Problem::new(Code::BadJson, detail, "Send one JSON value, without members given twice.")
}

/// A time in the body, by the name of its member.
pub(super) fn moment(name: &str, given: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let read = Timestamp::parse_rfc3339(given).map(Some);
    read.ok_or_else(|| Problem::body(name, format!("{name} must be RFC 3339, such as 2026-11-21T20:00:00Z")))
}

fn bad_member(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let mut path = path_at(bytes, error.line(), error.column());
    let named = |start: &str| what.strip_prefix(start)?.split('`').nth(1).map(str::to_owned);
    if let Some(name) = named("missing field ") {
        path.push(Step::Member(name));
    } else if let Some(name) = named("unknown field ") {
        if path.last() != Some(&Step::Member(name.clone())) {
            path.push(Step::Member(name));
        }
        let known = what.split_once(", expected ").map_or("none", |(_, known)| known);
        let detail =
            format!("there is no member of this name; known are {}", known.trim_start_matches("one of "));
        return Problem::body(show(&path), detail.replace('`', ""));
    }
    // An error may quote the value; a value may be a secret.
    let detail = match what.split_once(", expected ") {
        Some((_, "u8" | "u16" | "u32" | "u64")) => {
            "expected a whole number that is not negative and not too large".to_owned()
        }
        Some((_, "f64")) => "expected a number".to_owned(),
        Some((_, expected)) => format!("expected {expected}"),
        None => what.replace('`', ""),
    };
    Problem::body(show(&path), detail)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Item(usize),
}

fn show(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Member(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(name.chars().take(64));
            }
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Which member of the JSON in `bytes` is at this line and column. The JSON is known to be well-formed.
fn path_at(bytes: &[u8], line: usize, column: usize) -> Vec<Step> {
    let before: usize =
        bytes.split_inclusive(|b| *b == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let end = before.saturating_add(column).min(bytes.len());
    // Each open array or object, with the item or member that we are in.
    let mut open: Vec<Option<Step>> = Vec::new();
    let mut key = None;
    let mut at = 0;
    while at < end {
        match bytes[at] {
            b'{' => open.push(None),
            b'[' => open.push(Some(Step::Item(0))),
            b'}' | b']' => {
                open.pop();
            }
            b',' => match open.last_mut() {
                Some(Some(Step::Item(index))) => *index += 1,
                Some(member) => *member = None,
                None => {}
            },
            b':' => {
                if let Some(member) = open.last_mut() {
                    *member = key.take().map(Step::Member);
                }
            }
            b'"' => {
                let start = at;
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                key = serde_json::from_slice(&bytes[start..(at + 1).min(bytes.len())]).ok();
            }
            _ => {}
        }
        at += 1;
    }
    open.into_iter().flatten().collect()
}

/// Accepts any JSON whose objects do not have a member twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(Self)?;
            if seen.contains(&name) {
                let name: String = name.chars().take(64).collect();
                return Err(A::Error::custom(format_args!("the member {name:?} is given twice")));
            }
            seen.insert(name);
        }
        Ok(())
    }
}

/// The query as a `T`. Unknown parameters are refused.
pub(crate) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(query) => Ok(Self(query.0)),
            Err(rejection) => {
                let text = rejection.body_text();
                let what = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, what)| what);
                let field = what.split(['`', ':']).nth(usize::from(what.starts_with("unknown field")));
                Err(Problem::parameter(field.unwrap_or_default().trim(), what.replace('`', "")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        name: String,
        inner: Option<Vec<Inner>>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        n: u8,
    }

    fn check(text: &str) -> (u16, String, String) {
        let problem = read::<Outer>(text.as_bytes()).unwrap_err();
        let shown = format!("{problem:?}");
        (problem.code().status().as_u16(), problem.named().to_owned(), shown)
    }

    #[test]
    fn the_member_that_is_wrong_is_named() {
        for (text, status, field) in [
            (r#"{"name":"a","inner":[{"n":1},{"n":"x"}]}"#, 422, "inner[1].n"),
            (r#"{"name":"a","inner":[{"n":1,"m":2}]}"#, 422, "inner[0].m"),
            ("{\"name\":\"a\",\n \"inner\":[{}]}", 422, "inner[0].n"),
            (r#"{"inner":null}"#, 422, "name"),
            (r#"{"name":["x"]}"#, 422, "name"),
            (r#"{"name":"a","nmae":"b"}"#, 422, "nmae"),
            (r#"{"name":"a","inner":[{"n":300}]}"#, 422, "inner[0].n"),
            (r#"{"name":"a","inner":[{"n":1e30}]}"#, 422, "inner[0].n"),
        ] {
            let (got, named, shown) = check(text);
            assert_eq!((got, named.as_str()), (status, field), "{text}: {shown}");
        }
        let (_, _, shown) = check(r#"{"name":5,"inner":null}"#);
        assert!(shown.contains("expected a string"), "{shown}");
        let (_, _, shown) = check(r#"{"name":{"password":"canary"}}"#);
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        for text in
            ["", "{", "{} x", "{\"a\":NaN}", "hello", &deep, r#"{"name":"a","name":"b"}"#, "\u{feff}{}"]
        {
            let (status, _, shown) = check(text);
            assert_eq!(status, 400, "{shown}");
        }
        assert!(check("{\n \"a\" 1}").2.contains("line 2"));
        assert!(check(r#"{"a":{"x":1,"x":2}}"#).2.contains("given twice"));
    }
}
