//! Events and actions before they are published.

use postrider_core::intake::{self, Envelope, Refusal, RefusalReason};
use postrider_core::{EventId, Timestamp};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::producer::Error;

/// An event to publish.
#[derive(Clone, Debug)]
pub struct NewEvent {
    event_type: String,
    data: Result<Box<RawValue>, String>,
    context: Option<Result<Box<RawValue>, String>>,
    time: Option<String>,
    id: Option<String>,
    key: Option<String>,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    tenant: String,
}

/// An event ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) id: EventId,
    pub(crate) tenant: String,
    pub(crate) traceparent: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl NewEvent {
    /// An event of this type, with this data. Anything that serialises to JSON will do, also a `Box<RawValue>`, which
    /// is sent as it is.
    pub fn new(event_type: impl Into<String>, data: &(impl Serialize + ?Sized)) -> Self {
        Self {
            event_type: event_type.into(),
            data: to_raw_value(data).map_err(|e| e.to_string()),
            context: None,
            time: None,
            id: None,
            key: None,
            correlation_id: None,
            traceparent: None,
            tenant: "default".into(),
        }
    }

    /// Who and where: any JSON.
    pub fn context(mut self, context: &(impl Serialize + ?Sized)) -> Self {
        self.context = Some(to_raw_value(context).map_err(|e| e.to_string()));
        self
    }

    /// When it happened, RFC 3339.
    pub fn time(mut self, time: impl Into<String>) -> Self {
        self.time = Some(time.into());
        self
    }

    /// What makes it the same event when it is published again: 1 to 128 printable ASCII characters.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The subject it is about.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Ties events of one action together.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// W3C trace context, passed on to the receivers.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Whose event it is.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// The message's body, checked with the very rules that the router applies.
    pub(crate) fn encode(&self, now: Timestamp) -> Result<Encoded, Error> {
        self.encode_as(Kind::Event, now)
    }

    fn encode_as(&self, kind: Kind, now: Timestamp) -> Result<Encoded, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            action: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            event_type: Option<&'a str>,
            event_time: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            current_context: Option<&'a RawValue>,
            data: &'a RawValue,
            id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            key: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            correlation_id: Option<&'a str>,
        }
        let not_json = |why: &String| Error::Refused(Refusal::new(RefusalReason::NotJson, why));
        let made = format!("evt_{}", uuid::Uuid::now_v7().simple());
        let id = self.id.as_deref().unwrap_or(&made);
        let body = Body {
            action: (kind == Kind::Action).then_some(self.event_type.as_str()),
            event_type: (kind == Kind::Event).then_some(self.event_type.as_str()),
            event_time: self.time.clone().unwrap_or_else(|| now.to_rfc3339()),
            current_context: self.context.as_ref().map(Result::as_deref).transpose().map_err(not_json)?,
            data: self.data.as_deref().map_err(not_json)?,
            id,
            key: self.key.as_deref(),
            correlation_id: self.correlation_id.as_deref(),
        };
        let body = serde_json::to_vec(&body).map_err(|e| not_json(&e.to_string()))?;
        let envelope = Envelope { routing_key: &self.tenant, ..Envelope::default() };
        let made = EventId::from_trusted(made.as_str());
        let report = intake::read(envelope, &body, now, made).map_err(Error::Refused)?;
        let id = report.id().clone();
        Ok(Encoded { id, tenant: self.tenant.clone(), traceparent: self.traceparent.clone(), body })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    Action,
}

/// An action to publish: triggers of the tenant's catalogues make events of it, all of them or none.
#[derive(Clone, Debug)]
pub struct NewAction {
    report: NewEvent,
}

impl NewAction {
    /// An action of this name, with this data. The ids of its events are made from `id`, so it must be another for each
    /// action and the same when an action is published again: 1 to 128 printable ASCII characters.
    pub fn new(name: impl Into<String>, id: impl Into<String>, data: &(impl Serialize + ?Sized)) -> Self {
        Self { report: NewEvent::new(name, data).id(id) }
    }

    /// Who and where: any JSON.
    pub fn context(self, context: &(impl Serialize + ?Sized)) -> Self {
        Self { report: self.report.context(context) }
    }

    /// When it happened, RFC 3339.
    pub fn time(self, time: impl Into<String>) -> Self {
        Self { report: self.report.time(time) }
    }

    /// The subject it is about.
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { report: self.report.key(key) }
    }

    /// What its events carry as correlation id; the action's id by default.
    pub fn correlation_id(self, id: impl Into<String>) -> Self {
        Self { report: self.report.correlation_id(id) }
    }

    /// W3C trace context, passed on to the receivers.
    pub fn traceparent(self, traceparent: impl Into<String>) -> Self {
        Self { report: self.report.traceparent(traceparent) }
    }

    /// Whose action it is.
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        Self { report: self.report.tenant(tenant) }
    }

    /// The message's body, checked with the very rules that the router applies.
    pub(crate) fn encode(&self, now: Timestamp) -> Result<Encoded, Error> {
        self.report.encode_as(Kind::Action, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_763_755_200_000);

    #[test]
    fn the_body_holds_what_was_said() {
        let encoded = NewEvent::new("USER_CREATED", &serde_json::json!({ "n": 1 }))
            .id("e1")
            .key("u1")
            .encode(NOW)
            .unwrap();
        assert_eq!(
            String::from_utf8(encoded.body).unwrap(),
            r#"{"event_type":"USER_CREATED","event_time":"2025-11-21T20:00:00Z","data":{"n":1},"id":"e1","key":"u1"}"#
        );
        assert_eq!(encoded.tenant, "default");
    }

    #[test]
    fn an_action_says_that_it_is_one() {
        let action = NewAction::new("points transferred", "a1", &serde_json::json!({ "n": 1 })).key("m-1");
        assert_eq!(
            String::from_utf8(action.encode(NOW).unwrap().body).unwrap(),
            r#"{"action":"points transferred","event_time":"2025-11-21T20:00:00Z","data":{"n":1},"id":"a1","key":"m-1"}"#
        );
        for action in [NewAction::new("a ", "a1", &()), NewAction::new("a", "", &())] {
            assert!(matches!(action.encode(NOW), Err(Error::Refused(_))), "{action:?}");
        }
    }

    #[test]
    fn what_the_router_would_refuse_is_refused_before_it_is_sent() {
        let refused = |event: NewEvent| match event.encode(NOW).unwrap_err() {
            Error::Refused(refusal) => refusal.reason,
            other => panic!("{other}"),
        };
        assert_eq!(refused(NewEvent::new("", &())), RefusalReason::BadEventType);
        assert_eq!(refused(NewEvent::new("A", &()).id("")), RefusalReason::BadEventId);
        assert_eq!(refused(NewEvent::new("A", &()).time("today")), RefusalReason::BadEventTime);
        assert_eq!(refused(NewEvent::new("A", &()).tenant("a.b")), RefusalReason::UnknownTenant);
        assert_eq!(refused(NewEvent::new("A", &"x".repeat(300_000))), RefusalReason::TooLarge);
    }
}
