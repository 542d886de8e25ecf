//! What a form or a query says: names with values, some of them more than once.

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::request::Parts;
use url::form_urlencoded;

/// The most fields of one form: every event type of a large catalogue is one.
const MAX_FIELDS: usize = 5000;

/// Names with values, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Those of a query or of a form's body.
    pub(crate) fn parse(text: &[u8]) -> Self {
        Self(
            form_urlencoded::parse(text)
                .take(MAX_FIELDS)
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect(),
        )
    }

    /// The first value of a name without the spaces around it; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// The first value of a name as it was written.
    pub(crate) fn exactly(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Every value of a name that is not empty.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Whether there is a value that is not empty.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// The query of a link to the same page with other values: those that are empty are left out.
    pub(crate) fn with(&self, changes: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let kept = self
            .0
            .iter()
            .filter(|(name, value)| !value.is_empty() && !changes.iter().any(|(changed, _)| changed == name));
        query.extend_pairs(kept);
        query.extend_pairs(changes.iter().filter(|(_, value)| !value.is_empty()));
        let query = query.finish();
        if query.is_empty() { String::new() } else { format!("?{query}") }
    }
}

/// The fields of the query.
#[derive(Clone, Debug)]
pub(crate) struct Query(pub(crate) Fields);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(Fields::parse(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

/// The fields of a form that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Form(pub(crate) Fields);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = (StatusCode, &'static str);

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let bytes = axum::body::Bytes::from_request(request, state).await;
        let bytes = bytes
            .map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "The form is larger than 1 MiB: send less."))?;
        Ok(Self(Fields::parse(&bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_once_or_more_often() {
        let fields = Fields::parse(b"name=+a+b+&type=X&type=Y&type=&empty=");
        assert_eq!(fields.get("name"), "a b");
        assert_eq!(fields.exactly("name"), " a b ");
        assert_eq!(fields.all("type").collect::<Vec<_>>(), ["X", "Y"]);
        assert!(fields.has("type") && !fields.has("empty") && !fields.has("other"));
    }

    #[test]
    fn a_link_changes_some_and_keeps_the_others() {
        let fields = Fields::parse(b"state=dead&cursor=abc&webhook=&type=a%26b");
        assert_eq!(fields.with(&[("cursor", "")]), "?state=dead&type=a%26b");
        assert_eq!(fields.with(&[("state", "held"), ("cursor", "")]), "?type=a%26b&state=held");
        assert_eq!(Fields::default().with(&[]), "");
    }
}
