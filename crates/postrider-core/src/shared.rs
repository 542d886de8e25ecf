//! Texts that are read to be shared.
//!
//! serde reads an `Arc<str>` by way of a `String`, which is memory twice for each. These take it once: messages are full of
//! ids.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::outcome::CLASSES;

/// Reads a text.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Arc<str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Arc<str>, E> {
            Ok(text.into())
        }
    }

    deserializer.deserialize_str(Text)
}

/// Reads a text that may be missing.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Shared(#[serde(deserialize_with = "text")] Arc<str>);

    Ok(Option::<Shared>::deserialize(deserializer)?.map(|shared| shared.0))
}

/// Reads what an attempt came to: one of [`CLASSES`], or that of a newer release.
pub(crate) fn class<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    struct Class;

    impl Visitor<'_> for Class {
        type Value = Cow<'static, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'static, str>, E> {
            let known = CLASSES.into_iter().find(|class| *class == text);
            Ok(known.map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed))
        }
    }

    deserializer.deserialize_str(Class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Texts {
        #[serde(deserialize_with = "text")]
        name: Arc<str>,
        #[serde(default, deserialize_with = "optional")]
        key: Option<Arc<str>>,
        #[serde(deserialize_with = "class")]
        class: Cow<'static, str>,
    }

    #[test]
    fn texts_are_read_whatever_is_in_them() {
        let read = |json: &str| serde_json::from_str::<Texts>(json);
        let one = read(r#"{"name":"a \u00fc \n","key":"k","class":"timeout"}"#).unwrap();
        assert_eq!((&*one.name, one.key.as_deref()), ("a ü \n", Some("k")));
        assert!(matches!(one.class, Cow::Borrowed("timeout")), "it is not copied");
        let other = read(r#"{"name":"","key":null,"class":"of a newer release"}"#).unwrap();
        assert_eq!((&*other.name, other.key, &*other.class), ("", None, "of a newer release"));
        assert_eq!(read(r#"{"name":"n","class":"none"}"#).unwrap().key, None);
        assert!(read(r#"{"name":1,"class":"none"}"#).is_err());
        assert!(read(r#"{"name":"n","key":1,"class":"none"}"#).is_err());
    }
}
