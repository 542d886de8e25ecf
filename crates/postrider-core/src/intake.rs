//! From an AMQP message to events and actions, or to the reason why it is neither.
//!
//! Upstream is trusted less than our own code: whatever it sends becomes a [`Report`] or a [`Refusal`] with a reason from
//! a closed list; nothing panics, nothing is changed silently (DESIGN §6, `reference/reliability.md` §3.1).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{self, Action, Event, EventType};
use crate::id::{self, EventId, TenantId};
use crate::time::Timestamp;

/// The largest message, bytes.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The content type of one event as CloudEvents 1.0.
pub const CLOUD_EVENT: &str = "application/cloudevents+json";
/// The content type of an array of them.
pub const CLOUD_EVENT_BATCH: &str = "application/cloudevents-batch+json";

/// The most events and actions in one message.
pub const MAX_PER_MESSAGE: usize = 100;

/// The deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 128;

/// What came in, apart from the body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Envelope<'a> {
    /// The AMQP routing key: the tenant.
    pub routing_key: &'a str,
    /// The AMQP `content_type`; missing means JSON.
    pub content_type: Option<&'a str>,
    /// The AMQP `content_encoding`; none is supported.
    pub content_encoding: Option<&'a str>,
    /// The AMQP `message_id`.
    pub message_id: Option<&'a str>,
    /// W3C trace context from the headers.
    pub traceparent: Option<&'a str>,
    /// Of one of several parts of a message: which, from 0.
    pub place: Option<usize>,
}

impl<'a> Envelope<'a> {
    /// The same for one part of a message, as if it had come alone.
    fn of_part(self, place: usize) -> Self {
        let is_batch = self.content_type.is_some_and(|given| essence(given) == CLOUD_EVENT_BATCH);
        let content_type = if is_batch { Some(CLOUD_EVENT) } else { self.content_type };
        Self { content_type, place: Some(place), ..self }
    }

    /// The id of an event whose body has none: the message's, or for one of several parts an id that is made from it and from the
    /// place, the same each time.
    pub fn given_id(&self) -> Option<Cow<'a, str>> {
        let given = self.message_id.filter(|id| !id.is_empty())?;
        let Some(place) = self.place else { return Some(given.into()) };
        let digest = id::digest_of(&[self.routing_key, given, &place.to_string()]);
        Some(format!("part_{}", id::hex(&digest[..16])).into())
    }

    /// Whose what came in is, and how it is written.
    fn read(&self) -> Result<(TenantId, Form), Refusal> {
        use RefusalReason as Why;
        if self.content_encoding.is_some_and(|encoding| !encoding.is_empty() && encoding != "identity") {
            let detail = "content_encoding must not be set: send plain JSON";
            return Err(Refusal::new(Why::UnsupportedEncoding, detail));
        }
        let tenant = TenantId::parse(self.routing_key).map_err(|e| {
            Refusal::new(Why::UnknownTenant, format!("the routing key names the tenant: {e}"))
        })?;
        let form = match essence(self.content_type.unwrap_or_default()).as_str() {
            "application/json" | "" => Form::Own,
            CLOUD_EVENT => Form::CloudEvent,
            CLOUD_EVENT_BATCH => Form::CloudEventBatch,
            _ => {
                let detail = "content_type must be application/json, application/cloudevents+json or \
                    application/cloudevents-batch+json";
                return Err(Refusal::new(Why::UnsupportedContentType, detail));
            }
        };
        Ok((tenant, form))
    }
}

/// How events are written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Own,
    CloudEvent,
    CloudEventBatch,
}

/// A content type without its parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What a message consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// One event or action; or what is neither, and is refused as a whole.
    One,
    /// Several, from 1 to [`MAX_PER_MESSAGE`], by where they are in the body. Each is read, or refused, by itself.
    Several(Vec<Range<usize>>),
}

impl Parts {
    /// Finds the events and actions of a message: one, or those of an array. What is no array of objects, or is refused for what came
    /// with it, is not taken apart: [`read`] refuses it as a whole, once.
    pub fn of(envelope: &Envelope<'_>, body: &[u8]) -> Self {
        let begins_with = |text: &[u8], byte| text.iter().find(|b| !b.is_ascii_whitespace()) == Some(&byte);
        if !begins_with(body, b'[') || body.len() > MAX_MESSAGE_BYTES || envelope.read().is_err() {
            return Self::One;
        }
        let Ok(parts) = serde_json::from_slice::<Vec<&RawValue>>(body) else { return Self::One };
        let are_objects = parts.iter().all(|part| begins_with(part.get().as_bytes(), b'{'));
        if parts.is_empty() || parts.len() > MAX_PER_MESSAGE || !are_objects {
            return Self::One;
        }
        let begin = body.as_ptr().addr();
        let range = |part: &&RawValue| {
            let from = part.get().as_ptr().addr() - begin;
            from..from + part.get().len()
        };
        Self::Several(parts.iter().map(range).collect())
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Several(ranges) => ranges.len(),
        }
    }

    /// Each, with what came with it.
    pub fn each<'a>(
        &'a self,
        envelope: Envelope<'a>,
        body: &'a [u8],
    ) -> impl Iterator<Item = (Envelope<'a>, &'a [u8])> + 'a {
        let (one, several) = match self {
            Self::One => (Some((envelope, body)), [].as_slice()),
            Self::Several(ranges) => (None, ranges.as_slice()),
        };
        let of_part = move |(place, range): (usize, &Range<usize>)| {
            (envelope.of_part(place), body.get(range.clone()).unwrap_or_default())
        };
        one.into_iter().chain(several.iter().enumerate().map(of_part))
    }
}

/// What upstream reports.
#[derive(Clone, Debug)]
pub enum Report {
    /// Something that happened; receivers hear of it.
    Event(Event),
    /// Something from which triggers make events.
    Action(Action),
}

impl Report {
    /// Whose.
    pub fn tenant(&self) -> &TenantId {
        match self {
            Self::Event(event) => &event.tenant,
            Self::Action(action) => &action.tenant,
        }
    }

    /// The id of the event or the action.
    pub fn id(&self) -> &EventId {
        match self {
            Self::Event(event) => &event.id,
            Self::Action(action) => &action.id,
        }
    }

    /// W3C trace context, if it came with one.
    pub fn traceparent(&self) -> Option<&Arc<str>> {
        match self {
            Self::Event(event) => event.traceparent.as_ref(),
            Self::Action(action) => action.traceparent.as_ref(),
        }
    }

    /// The event, unless it is an action.
    pub fn event(self) -> Option<Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Action(_) => None,
        }
    }
}

/// Why a message is refused: a closed list, shown to people and used as metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// No bytes.
    EmptyBody,
    /// More than [`MAX_MESSAGE_BYTES`].
    TooLarge,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Not JSON, or not UTF-8.
    NotJson,
    /// JSON, but neither an object nor an array of 1 to [`MAX_PER_MESSAGE`] of them, or an object that is event and action at once.
    WrongShape,
    /// A member of another JSON type than it must have.
    WrongType,
    /// A member given twice.
    DuplicateField,
    /// Neither `event_type` nor `action`.
    MissingEventType,
    /// An `event_type` or `action` that breaks the rule for names.
    BadEventType,
    /// An id that breaks the rule for ids.
    BadEventId,
    /// An `event_time` that is not RFC 3339.
    BadEventTime,
    /// An action without an id, from which its events' ids could be made.
    ActionWithoutId,
    /// An action that no trigger is defined for.
    UnknownAction,
    /// A trigger that cannot be evaluated on this action, or that would make too many events.
    TriggerFailed,
    /// An action without a subject for which a trigger makes an event.
    SubjectAbsent,
    /// A type that no catalogue of the tenant has, where the tenant takes none of these.
    UnknownEventType,
    /// Data that does not fit its type's schema, where the tenant takes none of these.
    SchemaViolation,
    /// A content type that is not read.
    UnsupportedContentType,
    /// A content encoding.
    UnsupportedEncoding,
    /// A CloudEvents version or feature that is not read.
    UnsupportedCloudEvent,
    /// A routing key that is no tenant.
    UnknownTenant,
    /// Too many webhooks for so large an event, or too much work to judge their filters on it.
    FanOutTooLarge,
}

/// Every reason, for metrics that are created at start.
pub const REFUSAL_REASONS: [RefusalReason; 22] = [
    RefusalReason::EmptyBody,
    RefusalReason::TooLarge,
    RefusalReason::TooDeep,
    RefusalReason::NotJson,
    RefusalReason::WrongShape,
    RefusalReason::WrongType,
    RefusalReason::DuplicateField,
    RefusalReason::MissingEventType,
    RefusalReason::BadEventType,
    RefusalReason::BadEventId,
    RefusalReason::BadEventTime,
    RefusalReason::ActionWithoutId,
    RefusalReason::UnknownAction,
    RefusalReason::TriggerFailed,
    RefusalReason::SubjectAbsent,
    RefusalReason::UnknownEventType,
    RefusalReason::SchemaViolation,
    RefusalReason::UnsupportedContentType,
    RefusalReason::UnsupportedEncoding,
    RefusalReason::UnsupportedCloudEvent,
    RefusalReason::UnknownTenant,
    RefusalReason::FanOutTooLarge,
];

impl RefusalReason {
    /// One word from a closed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmptyBody => "empty_body",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::NotJson => "not_json",
            Self::WrongShape => "wrong_shape",
            Self::WrongType => "wrong_type",
            Self::DuplicateField => "duplicate_field",
            Self::MissingEventType => "missing_event_type",
            Self::BadEventType => "bad_event_type",
            Self::BadEventId => "bad_event_id",
            Self::BadEventTime => "bad_event_time",
            Self::ActionWithoutId => "action_without_id",
            Self::UnknownAction => "unknown_action",
            Self::TriggerFailed => "trigger_failed",
            Self::SubjectAbsent => "subject_absent",
            Self::UnknownEventType => "unknown_event_type",
            Self::SchemaViolation => "schema_violation",
            Self::UnsupportedContentType => "unsupported_content_type",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::UnsupportedCloudEvent => "unsupported_cloud_event",
            Self::UnknownTenant => "unknown_tenant",
            Self::FanOutTooLarge => "fan_out_too_large",
        }
    }
}

/// Why a message is refused, with what a person needs to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Refusal {
    /// From the closed list.
    pub reason: RefusalReason,
    /// What exactly, and what is expected; at most 300 characters, never the body itself.
    pub detail: String,
}

impl Refusal {
    /// A refusal; the detail is cut at 300 characters.
    pub fn new(reason: RefusalReason, detail: impl AsRef<str>) -> Self {
        Self { reason, detail: detail.as_ref().chars().take(300).collect() }
    }
}

/// Reads one message, or one of the [`Parts`] of one, as an event or an action.
///
/// The id is the body's `id`, else the CloudEvents `id`, else the AMQP `message_id` (of one of several parts:
/// made from it and the place), else, for an event, `made` (then a redelivery may get another). Whether the tenant, the type and the action exist is not known here; see
/// [`crate::directory::Directory::resolve`].
///
/// # Errors
/// [`Refusal`] for everything that is not exactly an event or an action.
pub fn read(envelope: Envelope<'_>, body: &[u8], now: Timestamp, made: EventId) -> Result<Report, Refusal> {
    use RefusalReason as Why;
    let refuse = |reason, detail: &str| Err(Refusal::new(reason, detail));
    if body.is_empty() {
        return refuse(Why::EmptyBody, "the message has no body");
    }
    if body.len() > MAX_MESSAGE_BYTES {
        let detail = format!("{} bytes; at most {MAX_MESSAGE_BYTES} are taken", body.len());
        return refuse(Why::TooLarge, &detail);
    }
    let (tenant, form) = envelope.read()?;
    check_shape(body)?;
    let raw = match form {
        Form::Own => read_own(body)?,
        Form::CloudEvent => read_cloud_event(body)?,
        Form::CloudEventBatch => {
            return refuse(Why::WrongShape, "a batch of CloudEvents must be a JSON array of them");
        }
    };

    let (given, is_action) = match (&raw.event_type, &raw.action) {
        (Some(event_type), None) => (event_type, false),
        (None, Some(action)) => (action, true),
        (Some(_), Some(_)) => {
            let detail = "give event_type for an event or action for an action, not both";
            return refuse(Why::WrongShape, detail);
        }
        (None, None) => {
            return refuse(Why::MissingEventType, "event_type (type in a CloudEvent) or action is required");
        }
    };
    let name = EventType::parse(given).map_err(|e| match is_action {
        true => Refusal::new(Why::BadEventType, format!("action: its name follows the same rule; {e}")),
        false => Refusal::new(Why::BadEventType, e.to_string()),
    })?;
    let id = match raw.id.map(Cow::Owned).or_else(|| envelope.given_id()) {
        Some(given) => EventId::parse(&given).map_err(|e| Refusal::new(Why::BadEventId, e.to_string()))?,
        None if is_action => {
            return refuse(Why::ActionWithoutId, "an action needs an id: its events' ids are made from it");
        }
        None => made,
    };
    let time = match raw.event_time {
        Some(given) if Timestamp::parse_rfc3339(&given).is_some() => given,
        Some(_) => {
            return refuse(Why::BadEventTime, "event_time must be RFC 3339, such as 2026-11-21T20:00:00Z");
        }
        None => now.to_rfc3339(),
    };
    let time = time.into();
    let (current_context, data) = (raw.current_context, raw.data);
    let (key, correlation_id) = (raw.key.map(Into::into), raw.correlation_id.map(Into::into));
    let traceparent = envelope.traceparent.filter(|text| is_traceparent(text)).map(Into::into);
    let accepted_at = now;
    Ok(if is_action {
        Report::Action(Action {
            tenant,
            id,
            name,
            time,
            current_context,
            data,
            key,
            correlation_id,
            traceparent,
            accepted_at,
        })
    } else {
        Report::Event(Event {
            tenant,
            id,
            event_type: name,
            event_time: time,
            current_context,
            data,
            key,
            correlation_id,
            traceparent,
            accepted_at,
        })
    })
}

/// The id under which the books know a message that is refused: the same for the same message.
pub fn invalid_id(envelope: &Envelope<'_>, body: &[u8]) -> EventId {
    use sha2::{Digest as _, Sha256};
    let body = id::hex(&Sha256::digest(body));
    let digest = id::digest_of(&[
        envelope.routing_key,
        envelope.content_type.unwrap_or_default(),
        &envelope.given_id().unwrap_or_default(),
        &body,
    ]);
    EventId::from_trusted(format!("invalid_{}", id::hex(&digest[..16])))
}

struct Raw {
    event_type: Option<String>,
    action: Option<String>,
    event_time: Option<String>,
    current_context: event::Json,
    data: event::Json,
    id: Option<String>,
    key: Option<String>,
    correlation_id: Option<String>,
}

fn read_own(body: &[u8]) -> Result<Raw, Refusal> {
    #[derive(Deserialize)]
    struct Members {
        event_type: Option<String>,
        event_time: Option<String>,
        current_context: Option<Arc<RawValue>>,
        data: Option<Arc<RawValue>>,
        id: Option<String>,
        key: Option<String>,
        correlation_id: Option<String>,
        action: Option<String>,
    }
    let members: Members = serde_json::from_slice(body).map_err(refusal_of)?;
    Ok(Raw {
        event_type: members.event_type,
        action: members.action,
        event_time: members.event_time,
        current_context: members.current_context.unwrap_or_else(event::null),
        data: members.data.unwrap_or_else(event::null),
        id: members.id,
        key: members.key,
        correlation_id: members.correlation_id,
    })
}

/// CloudEvents 1.0, structured mode. `source`, `subject`, `dataschema` and extensions become the context.
fn read_cloud_event(body: &[u8]) -> Result<Raw, Refusal> {
    #[derive(Deserialize)]
    struct Attributes {
        specversion: Option<String>,
        id: Option<String>,
        #[serde(rename = "type")]
        event_type: Option<String>,
        time: Option<String>,
        subject: Option<String>,
        data: Option<Arc<RawValue>>,
        data_base64: Option<String>,
        correlationid: Option<String>,
    }
    let attributes: Attributes = serde_json::from_slice(body).map_err(refusal_of)?;
    if attributes.specversion.as_deref() != Some("1.0") {
        return Err(Refusal::new(RefusalReason::UnsupportedCloudEvent, "specversion must be \"1.0\""));
    }
    if attributes.data_base64.is_some() {
        return Err(Refusal::new(RefusalReason::UnsupportedCloudEvent, "data must be JSON, not data_base64"));
    }
    // What else describes the event goes into the context, so that nothing upstream said is lost.
    let mut context: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).map_err(refusal_of)?;
    for own in ["specversion", "id", "type", "time", "data", "datacontenttype"] {
        context.remove(own);
    }
    let context = serde_json::value::to_raw_value(&context).map_err(refusal_of)?;
    Ok(Raw {
        event_type: attributes.event_type,
        action: None,
        event_time: attributes.time,
        current_context: Arc::from(context),
        data: attributes.data.unwrap_or_else(event::null),
        id: attributes.id,
        key: attributes.subject,
        correlation_id: attributes.correlationid,
    })
}

fn refusal_of(error: serde_json::Error) -> Refusal {
    let reason = if !error.is_data() {
        RefusalReason::NotJson
    } else if error.to_string().starts_with("duplicate field") {
        RefusalReason::DuplicateField
    } else {
        RefusalReason::WrongType
    };
    // The text of a data error may quote a value; the position says enough.
    let text = error.to_string();
    let detail = match text.find("invalid type: ") {
        Some(_) => {
            let expected = text.rsplit_once("expected ").map_or("another type", |(_, rest)| rest);
            format!("expected {expected}")
        }
        None => text,
    };
    Refusal::new(reason, detail)
}

/// Finds out, without recursion, whether the body is an object that is not too deep.
fn check_shape(body: &[u8]) -> Result<(), Refusal> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let detail = format!("nested deeper than {MAX_DEPTH}");
                    return Err(Refusal::new(RefusalReason::TooDeep, detail));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
        return Ok(());
    }
    match serde_json::from_slice::<&RawValue>(body) {
        Ok(_) => {
            let detail = format!(
                "the body must be a JSON object; over AMQP it may be an array of 1 to {MAX_PER_MESSAGE} of them"
            );
            Err(Refusal::new(RefusalReason::WrongShape, detail))
        }
        Err(e) => Err(Refusal::new(RefusalReason::NotJson, e.to_string())),
    }
}

fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts.as_slice(), [version, trace, span, flags]
        if hex(version, 2) && *version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn read_report(body: &str) -> Result<Report, Refusal> {
        let envelope = Envelope { routing_key: "default", ..Envelope::default() };
        read(envelope, body.as_bytes(), NOW, EventId::from_trusted("made"))
    }

    fn read_text(body: &str) -> Result<Event, Refusal> {
        read_report(body).map(|report| report.event().expect("an event"))
    }

    fn reason(body: &str) -> RefusalReason {
        read_text(body).unwrap_err().reason
    }

    #[test]
    fn the_free_form_members_stay_as_they_are() {
        let event = read_text(
            r#" {"data" : [ 1.0, 1e400, "\ud800", {"a":1, "a":2} ] ,"event_type":"USER_CREATED","id":"e1","new":7}"#,
        )
        .unwrap();
        assert_eq!(event.data.get(), r#"[ 1.0, 1e400, "\ud800", {"a":1, "a":2} ]"#);
        assert_eq!(event.current_context.get(), "null");
        assert_eq!(event.event_time.as_ref(), NOW.to_rfc3339());
        assert_eq!(event.id.as_str(), "e1");
    }

    #[test]
    fn ids_come_from_the_body_then_the_message_then_us() {
        let with = |id: Option<&str>, body: &str| {
            let envelope = Envelope { routing_key: "default", message_id: id, ..Envelope::default() };
            read(envelope, body.as_bytes(), NOW, EventId::from_trusted("made")).unwrap().id().clone()
        };
        assert_eq!(with(Some("m"), r#"{"event_type":"A","id":"b"}"#).as_str(), "b");
        assert_eq!(with(Some("m"), r#"{"event_type":"A"}"#).as_str(), "m");
        assert_eq!(with(None, r#"{"event_type":"A"}"#).as_str(), "made");
    }

    /// The ids of the events of a message, or why they are refused.
    fn each(envelope: Envelope<'_>, body: &str) -> Vec<Result<String, RefusalReason>> {
        let read = |(envelope, body): (Envelope<'_>, &[u8])| {
            let made = EventId::from_trusted("made");
            read(envelope, body, NOW, made).map(|report| report.id().to_string()).map_err(|r| r.reason)
        };
        Parts::of(&envelope, body.as_bytes()).each(envelope, body.as_bytes()).map(read).collect()
    }

    fn named(message_id: Option<&str>) -> Envelope<'_> {
        Envelope { routing_key: "default", message_id, ..Envelope::default() }
    }

    #[test]
    fn each_part_of_an_array_is_read_or_refused_by_itself() {
        use RefusalReason::*;
        let body = r#" [ {"event_type":"A","id":"a","data":"}]"}, {"event_type":5} ,{"id":"x"}]"#;
        assert_eq!(each(named(None), body), [Ok("a".into()), Err(WrongType), Err(MissingEventType)]);
    }

    #[test]
    fn a_part_without_an_id_has_one_of_its_message_and_place() {
        let body = r#"[{"event_type":"A"},{"event_type":"A"},{"action":"A"}]"#;
        let longest = "m".repeat(255);
        let of_longest = each(named(Some(&longest)), body);
        for ids in [each(named(Some("m")), body), of_longest] {
            let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
            assert!(ids.iter().all(|id| id.starts_with("part_") && EventId::parse(id).is_ok()), "{ids:?}");
            assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
        }
        assert_eq!(each(named(Some("m")), body), each(named(Some("m")), body), "the same again");
        let elsewhere = Envelope { routing_key: "acme", ..named(Some("m")) };
        assert_ne!(each(elsewhere, body)[0], each(named(Some("m")), body)[0]);
        let nameless = each(named(None), body);
        assert_eq!(nameless[..2], [Ok("made".into()), Ok("made".into())]);
        assert_eq!(nameless[2], Err(RefusalReason::ActionWithoutId));
    }

    #[test]
    fn a_batch_of_cloud_events_is_read_as_its_parts() {
        let batch =
            r#"[{"specversion":"1.0","id":"a","type":"A"},{"specversion":"2.0","id":"b","type":"A"}]"#;
        let one = r#"{"specversion":"1.0","id":"a","type":"A"}"#;
        let (a, no_batch) = (Ok("a".to_owned()), Err(RefusalReason::WrongShape));
        for (content_type, alone) in [
            (CLOUD_EVENT, a.clone()),
            (CLOUD_EVENT_BATCH, no_batch.clone()),
            ("application/cloudevents-batch+json; charset=UTF-8", no_batch),
        ] {
            let envelope = Envelope { content_type: Some(content_type), ..named(None) };
            assert_eq!(each(envelope, batch), [a.clone(), Err(RefusalReason::UnsupportedCloudEvent)]);
            assert_eq!(each(envelope, one), [alone], "{content_type}");
        }
    }

    #[test]
    fn what_is_no_array_of_events_is_refused_whole_and_once() {
        use RefusalReason::*;
        let many = |count: usize| format!("[{}]", vec![r#"{"event_type":"A"}"#; count].join(","));
        assert_eq!(each(named(None), &many(MAX_PER_MESSAGE)).len(), MAX_PER_MESSAGE);
        let large = format!(r#"[{{"event_type":"A","data":"{}"}}]"#, "x".repeat(MAX_MESSAGE_BYTES));
        for (body, expected) in [
            (many(MAX_PER_MESSAGE + 1), WrongShape),
            ("[]".into(), WrongShape),
            (" [ ] ".into(), WrongShape),
            (r#"[{"event_type":"A"},7]"#.into(), WrongShape),
            (r#"[[{"event_type":"A"}]]"#.into(), WrongShape),
            (r#"[{"event_type":"A"},]"#.into(), NotJson),
            (r#"[{"event_type":"A"}"#.into(), NotJson),
            (r#"[{"event_type":"A"}]["#.into(), NotJson),
            (large, TooLarge),
            ("[".repeat(MAX_DEPTH + 1), TooDeep),
        ] {
            assert_eq!(each(named(None), &body), [Err(expected)], "{body:.60}");
        }
        for (envelope, expected) in [
            (Envelope { content_encoding: Some("gzip"), ..named(None) }, UnsupportedEncoding),
            (Envelope { content_type: Some("text/html"), ..named(None) }, UnsupportedContentType),
            (Envelope { routing_key: "a.b", ..named(None) }, UnknownTenant),
        ] {
            assert_eq!(each(envelope, &many(2)), [Err(expected)]);
        }
    }

    #[test]
    fn bad_parts_are_told_apart_by_their_place_in_a_message_that_has_an_id() {
        let body = b"[{},{}]";
        let ids = |id| -> Vec<EventId> {
            let parts = Parts::of(&named(id), body);
            parts.each(named(id), body).map(|(envelope, body)| invalid_id(&envelope, body)).collect()
        };
        assert_eq!(ids(Some("m")), ids(Some("m")), "again when it is handed out again");
        assert_ne!(ids(Some("m"))[0], ids(Some("m"))[1]);
        assert_eq!(ids(None)[0], ids(None)[1], "nothing but the bytes tells them apart: they are one");
    }

    /// An object with any text, number or array in it.
    fn object() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            any::<String>().prop_map(serde_json::Value::from),
            any::<i32>().prop_map(serde_json::Value::from),
            prop::collection::vec(any::<String>(), 0..4).prop_map(serde_json::Value::from),
        ];
        (any::<String>(), value).prop_map(|(name, value)| serde_json::json!({ name: value }).to_string())
    }

    proptest! {
        #[test]
        fn parts_are_what_was_written_byte_for_byte(
            objects in prop::collection::vec(object(), 1..9),
            space in "[ \n]{0,2}",
        ) {
            let body = format!("{space}[{space}{}{space}]", objects.join(&format!("{space},{space}")));
            let parts = Parts::of(&named(None), body.as_bytes());
            let found = parts.each(named(None), body.as_bytes()).map(|(_, body)| body);
            prop_assert!(found.eq(objects.iter().map(String::as_bytes)), "{body:?}");
        }
    }

    #[test]
    fn an_action_is_read_with_all_that_it_says() {
        let body = r#"{"action":"points transferred","id":"a1","event_time":"2026-11-21T20:00:00Z","key":"k",
            "current_context":{ "actor" : "staff" },"data":[ 1.0 ],"correlation_id":"c"}"#;
        let Ok(Report::Action(action)) = read_report(body) else { panic!("no action") };
        assert_eq!((action.id.as_str(), action.name.as_str()), ("a1", "points transferred"));
        assert_eq!(
            (action.current_context.get(), action.data.get()),
            (r#"{ "actor" : "staff" }"#, "[ 1.0 ]")
        );
        assert_eq!((action.key.as_deref(), action.correlation_id.as_deref()), (Some("k"), Some("c")));
        assert_eq!(action.time.as_ref(), "2026-11-21T20:00:00Z");
        assert_eq!((action.tenant, action.accepted_at), (TenantId::default_tenant(), NOW));
    }

    #[test]
    fn the_id_of_an_action_may_be_the_messages_but_is_never_made() {
        let with = |message_id| {
            let envelope = Envelope { routing_key: "default", message_id, ..Envelope::default() };
            read(envelope, br#"{"action":"A"}"#, NOW, EventId::from_trusted("made"))
        };
        assert_eq!(with(Some("m")).unwrap().id().as_str(), "m");
        assert_eq!(with(None).unwrap_err().reason, RefusalReason::ActionWithoutId);
        assert_eq!(with(Some("")).unwrap_err().reason, RefusalReason::ActionWithoutId);
    }

    #[test]
    fn everything_else_has_a_reason() {
        use RefusalReason::*;
        assert_eq!(reason(""), EmptyBody);
        assert_eq!(reason(&format!("{{\"data\":\"{}\"}}", "x".repeat(MAX_MESSAGE_BYTES))), TooLarge);
        assert_eq!(reason("{\"event_type\":\"A\""), NotJson);
        assert_eq!(reason("\u{feff}{\"event_type\":\"A\"}"), NotJson);
        assert_eq!(reason("{\"event_type\":\"A\"} x"), NotJson);
        assert_eq!(reason("hello"), NotJson);
        for shape in ["[]", "\"x\"", "1", "null"] {
            assert_eq!(reason(shape), WrongShape, "{shape}");
        }
        assert_eq!(reason(r#"{"event_type":5}"#), WrongType);
        assert_eq!(reason(r#"{"event_type":"A","event_time":{}}"#), WrongType);
        assert_eq!(reason(r#"{"event_type":"A","event_type":"B"}"#), DuplicateField);
        assert_eq!(reason(r#"{"data":{}}"#), MissingEventType);
        assert_eq!(reason(r#"{"event_type":null}"#), MissingEventType);
        assert_eq!(reason(&format!(r#"{{"event_type":"{}"}}"#, "x".repeat(129))), BadEventType);
        assert_eq!(reason(r#"{"event_type":"A","id":""}"#), BadEventId);
        assert_eq!(reason(r#"{"event_type":"A","id":"ü"}"#), BadEventId);
        assert_eq!(reason(r#"{"event_type":"A","event_time":"today"}"#), BadEventTime);
        assert_eq!(reason(r#"{"action":"transfer"}"#), ActionWithoutId);
        assert_eq!(reason(r#"{"action":" transfer","id":"a1"}"#), BadEventType);
        assert_eq!(reason(r#"{"action":"transfer","event_type":"A","id":"a1"}"#), WrongShape);
        assert_eq!(reason(r#"{"action":"transfer","id":"a1","event_time":"today"}"#), BadEventTime);
        assert_eq!(
            reason(&format!(r#"{{"event_type":"A","data":{}1{}}}"#, "[".repeat(200), "]".repeat(200))),
            TooDeep
        );
        let with = |envelope: Envelope<'_>| {
            read(envelope, br#"{"event_type":"A"}"#, NOW, EventId::from_trusted("m")).unwrap_err().reason
        };
        let good = Envelope { routing_key: "default", ..Envelope::default() };
        assert_eq!(with(Envelope { content_type: Some("text/html"), ..good }), UnsupportedContentType);
        assert_eq!(with(Envelope { content_encoding: Some("gzip"), ..good }), UnsupportedEncoding);
        assert_eq!(with(Envelope { routing_key: "a.b", ..good }), UnknownTenant);
        let invalid_utf8 =
            read(good, b"{\"event_type\":\"\xff\"}", NOW, EventId::from_trusted("m")).unwrap_err();
        assert_eq!(invalid_utf8.reason, NotJson);
    }

    #[test]
    fn a_refusal_does_not_quote_the_body() {
        let refusal = read_text(r#"{"event_type":"A","id":{"password":"canary"}}"#).unwrap_err();
        assert!(!refusal.detail.contains("canary"), "{refusal}");
        let refusal = read_text(r#"{"event_type":"A","id":12345678}"#).unwrap_err();
        assert_eq!(refusal.detail, "expected a string at line 1 column 31");
    }

    #[test]
    fn cloud_events_are_read() {
        let envelope = Envelope {
            routing_key: "default",
            content_type: Some("application/cloudevents+json; charset=utf-8"),
            ..Envelope::default()
        };
        let read = |body: &str| read(envelope, body.as_bytes(), NOW, EventId::from_trusted("m"));
        let report = read(
            r#"{"specversion":"1.0","id":"c1","source":"/shop","type":"order.paid","time":"2026-11-21T20:00:00Z",
                "subject":"o7","region":"eu","action":"x","data":{ "n" : 1 }}"#,
        );
        let event = report.unwrap().event().expect("a CloudEvent is an event, whatever its extensions");
        assert_eq!((event.id.as_str(), event.event_type.as_str()), ("c1", "order.paid"));
        assert_eq!(event.data.get(), "{ \"n\" : 1 }");
        assert_eq!(
            event.current_context.get(),
            r#"{"action":"x","region":"eu","source":"/shop","subject":"o7"}"#
        );
        assert_eq!(event.key.as_deref(), Some("o7"));
        for bad in
            [r#"{"id":"c1","type":"A"}"#, r#"{"specversion":"1.0","id":"c","type":"A","data_base64":"AA=="}"#]
        {
            assert_eq!(read(bad).unwrap_err().reason, RefusalReason::UnsupportedCloudEvent);
        }
    }

    #[test]
    fn trace_context_is_kept_only_if_it_is_one() {
        let with = |traceparent| {
            let envelope =
                Envelope { routing_key: "default", traceparent: Some(traceparent), ..Envelope::default() };
            let report = read(envelope, br#"{"event_type":"A"}"#, NOW, EventId::from_trusted("m")).unwrap();
            report.traceparent().cloned()
        };
        assert!(with("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        assert!(with("00-XYZ-b7ad6b7169203331-01").is_none());
        assert!(with("a\r\nb").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_report_or_a_reason(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let envelope = Envelope { routing_key: "default", ..Envelope::default() };
            if let Err(refusal) = read(envelope, &body, NOW, EventId::from_trusted("made")) {
                prop_assert!(REFUSAL_REASONS.contains(&refusal.reason));
            }
            let array = [b"[".as_slice(), &body, b"]"].concat();
            let parts = Parts::of(&envelope, &array);
            let found: Vec<&[u8]> = parts.each(envelope, &array).map(|(_, body)| body).collect();
            let whole = found == [array.as_slice()];
            prop_assert!(whole || found.iter().all(|part| part.first() == Some(&b'{')), "{found:?}");
        }
    }
}
