//! Events and the names of their types.

use std::fmt;
use std::sync::Arc;

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
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
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

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", " a", "a ", "a\nb", "a\u{0}", &"é".repeat(129)] {
            assert_eq!(EventType::parse(bad), Err(BadEventType), "{bad:?}");
        }
        assert!(EventType::parse(&"é".repeat(128)).is_ok());
    }
}
