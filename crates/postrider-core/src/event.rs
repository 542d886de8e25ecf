//! Events and the names of their types.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{EventId, TenantId};
use crate::time::Timestamp;

/// JSON that is passed on byte for byte: it was checked once and is never written anew.
pub type Json = Arc<RawValue>;

/// The JSON text `null`.
pub fn null() -> Json {
    Arc::from(RawValue::NULL.to_owned())
}

/// The value at a JSON pointer (RFC 6901), byte for byte as it stands in `json`.
///
/// Finds what [`serde_json::Value::pointer`] finds: the empty pointer is the whole, `~1` is a slash and `~0` a tilde, a
/// number with neither sign nor leading zero is an index, and of a key that is there twice the last counts. Nothing else
/// of the document is kept or checked, and a pointer that leads nowhere is `None`.
pub fn pointer<'a>(json: &'a RawValue, pointer: &str) -> Option<&'a RawValue> {
    if pointer.is_empty() {
        return Some(json);
    }
    pointer.strip_prefix('/')?.split('/').try_fold(json, |json, token| {
        let token = token.replace("~1", "/").replace("~0", "~");
        let mut deserializer = serde_json::Deserializer::from_str(json.get());
        deserializer.deserialize_any(Step(&token)).ok()?
    })
}

/// One step of a pointer: the member or element that this token names.
struct Step<'t>(&'t str);

impl Step<'_> {
    fn index(&self) -> Option<usize> {
        let digits = self.0.bytes().all(|b| b.is_ascii_digit());
        let leading_zero = self.0.len() > 1 && self.0.starts_with('0');
        if digits && !leading_zero { self.0.parse().ok() } else { None }
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(named) = map.next_key_seed(IsKey(self.0))? {
            if named {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        if let Some(index) = self.index() {
            for _ in 0..index {
                if elements.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            found = elements.next_element()?;
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// Whether a key is this text, without copying it.
struct IsKey<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// The name of an event type: opaque, case-sensitive, compared exactly.
///
/// 1 to 128 characters, no control characters, no white space at either end (DESIGN §6). A dot or a space in it means
/// nothing to us, and it is never used as a routing key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EventType(Arc<str>);

/// Why a text is not the name of an event type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event type must have 1 to 128 characters, no control characters and no space at either end")]
pub struct BadEventType;

impl EventType {
    /// Reads a name.
    ///
    /// # Errors
    /// [`BadEventType`] when it breaks the rule.
    pub fn parse(text: &str) -> Result<Self, BadEventType> {
        let characters = text.chars().count();
        let bad =
            characters == 0 || characters > 128 || text.chars().any(char::is_control) || text.trim() != text;
        if bad { Err(BadEventType) } else { Ok(Self(text.into())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as text that is shared, not copied.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = EventType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an event type")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<EventType, E> {
                EventType::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventType({})", &self.0)
    }
}

/// One thing that happened, as upstream reported it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Whose event it is.
    pub tenant: TenantId,
    /// What makes it the same event when it is published twice.
    pub id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// When it happened, as upstream wrote it (RFC 3339), or the time of arrival.
    pub event_time: Arc<str>,
    /// Any JSON: who and where, as upstream sees it.
    pub current_context: Json,
    /// Any JSON: what happened.
    pub data: Json,
    /// The subject the event is about, if upstream says.
    pub key: Option<Arc<str>>,
    /// Ties events of one action together.
    pub correlation_id: Option<Arc<str>>,
    /// W3C trace context, passed on to the request.
    pub traceparent: Option<Arc<str>>,
    /// When the router first saw it.
    pub accepted_at: Timestamp,
}

/// What upstream reports for triggers to make events of. It reaches no receiver itself.
#[derive(Clone, Debug)]
pub struct Action {
    /// Whose.
    pub tenant: TenantId,
    /// Its id, from which the ids of its events are made.
    pub id: EventId,
    /// Its name: the same rule as for event types.
    pub name: EventType,
    /// When it happened, as upstream wrote it (RFC 3339), or the time of arrival.
    pub time: Arc<str>,
    /// Any JSON: who and where, as upstream sees it.
    pub current_context: Json,
    /// Any JSON: what happened.
    pub data: Json,
    /// The subject it is about, if upstream says.
    pub key: Option<Arc<str>>,
    /// Ties it to other things that happened; its events carry it, or else the action's id.
    pub correlation_id: Option<Arc<str>>,
    /// W3C trace context, passed on to the requests.
    pub traceparent: Option<Arc<str>>,
    /// When the router first saw it.
    pub accepted_at: Timestamp,
}

/// What the ids of Postrider's own events begin with.
pub const OWN_ID_PREFIX: &str = "own_";

impl Event {
    /// Whether Postrider itself made it. Such an event never causes another, and a subscription to everything does not
    /// take it.
    pub fn is_own(&self) -> bool {
        self.id.as_str().starts_with(OWN_ID_PREFIX)
    }

    /// Bytes of the two free-form members: what a copy of this event weighs.
    pub fn weight(&self) -> usize {
        self.current_context.get().len() + self.data.get().len() + 256
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn names_of_all_four_products_are_legal_and_stay_as_they_are() {
        for name in [
            "authentication.succeeded",
            "USER_LOGIN",
            "TransactionRegistered",
            "Client added two factor auth",
            "ü",
        ] {
            assert_eq!(EventType::parse(name).unwrap().as_str(), name);
        }
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_pointer_finds_the_bytes_as_they_stand() {
        let json =
            raw(r#"{"a": {"b" : [ 1, {"c":  1.50 }, [ ] ]}, "": 7, "x/y": 8, "m~n": 9, "~1": 10, "é": 11}"#);
        let found = |at: &str| pointer(json, at).map(RawValue::get);
        assert_eq!(found(""), Some(json.get()));
        assert_eq!(found("/a/b"), Some(r#"[ 1, {"c":  1.50 }, [ ] ]"#));
        assert_eq!(found("/a/b/1/c"), Some("1.50"));
        assert_eq!(found("/a/b/2"), Some("[ ]"));
        assert_eq!(found("/"), Some("7"));
        assert_eq!(found("/x~1y"), Some("8"));
        assert_eq!(found("/m~0n"), Some("9"));
        assert_eq!(found("/~01"), Some("10"));
        assert_eq!(found("/é"), Some("11"));
        for nowhere in [
            "a",
            "/b",
            "/a/b/3",
            "/a/b/01",
            "/a/b/+1",
            "/a/b/-",
            "/a/b/0/c",
            "/a/b/",
            "/a/b/99999999999999999999",
        ] {
            assert_eq!(found(nowhere), None, "{nowhere}");
        }
        assert_eq!(pointer(raw(r#"{"\u0061b":1}"#), "/ab").map(RawValue::get), Some("1"));
        assert_eq!(pointer(raw(r#"{"a":1,"a":2}"#), "/a").map(RawValue::get), Some("2"), "the last counts");
        assert!(pointer(raw(r#"{"\ud800":1,"a":2}"#), "/a").is_none(), "a key that is no text");
    }

    #[test]
    fn a_pointer_into_deep_json_needs_no_stack() {
        let json = RawValue::from_string(format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000))).unwrap();
        assert!(pointer(&json, &"/0".repeat(200)).is_some());
    }

    fn json() -> impl Strategy<Value = Value> {
        let key = proptest::sample::select(vec!["a", "b", "0", "1", "", "~", "/", "~1", "ü"]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..4)
                    .prop_map(|members| members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_pointer_agrees_with_serde_json(json in json(), at in "(/(a|b|0|1|01|~0|~1|~01|~|ü|)){0,4}") {
            let text = serde_json::to_string_pretty(&json).unwrap();
            let found = pointer(raw(&text), &at).map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap());
            prop_assert_eq!(found.as_ref(), json.pointer(&at));
        }

        #[test]
        fn a_pointer_never_panics(text: String, at: String) {
            let quoted = serde_json::to_string(&text).unwrap();
            for json in [text, quoted] {
                if let Ok(raw) = serde_json::from_str::<&RawValue>(&json) {
                    pointer(raw, &at);
                }
            }
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", " a", "a ", "a\nb", "a\u{0}", &"é".repeat(129)] {
            assert_eq!(EventType::parse(bad), Err(BadEventType), "{bad:?}");
        }
        assert!(EventType::parse(&"é".repeat(128)).is_ok());
    }
}
