//! Members of a body and headers: what fills them.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{IdSource, Member, TimeFormat, TypeSource};
use crate::catalogue::TypeEntry;
use crate::event::{Event, pointer};
use crate::id::{DeliveryId, WebhookId};
use crate::time::Timestamp;

/// The most characters of a member's name.
pub(super) const MAX_NAME_CHARS: usize = 128;
/// The most bytes of a pointer, and of a text with placeholders.
const MAX_TEXT_BYTES: usize = 1_024;
/// The most bytes of a constant.
const MAX_VALUE_BYTES: usize = 16 * 1024;
/// The deepest nesting of a constant: far from what readers of the configuration refuse.
const MAX_VALUE_DEPTH: usize = 32;

/// What a body tells of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What happened.
    pub event: &'a Event,
    /// What the catalogue says of the event's type.
    pub entry: Option<&'a TypeEntry>,
    /// The delivery.
    pub delivery: &'a DeliveryId,
    /// To which webhook.
    pub webhook: &'a WebhookId,
}

/// A member or header, checked.
#[derive(Clone, Debug)]
pub(super) struct Filling {
    /// The name as it stands in a body: quoted, with the colon.
    key: Vec<u8>,
    /// The name as it stands among headers.
    header: String,
    path: Option<Path>,
    only_text: bool,
    other: Option<Source>,
    optional: bool,
}

/// Where in the event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    /// In the data; the rest of the pointer.
    Data(String),
    /// In the context; the rest of the pointer.
    Context(String),
    Key,
    CorrelationId,
    Id,
    EventType,
    EventTime,
    Tenant,
}

#[derive(Clone, Debug)]
enum Source {
    Id(IdSource),
    Time(TimeFormat),
    EventType(TypeSource),
    Text(Vec<Piece>),
    Value(Box<RawValue>),
}

/// A piece of a text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Tenant,
    EventId,
    DeliveryId,
    EventType,
    WebhookId,
}

/// A value that was found.
enum Found<'a> {
    Raw(&'a RawValue),
    Text(Cow<'a, str>),
    Number(i64),
}

/// What of a member is wrong, and how.
type Wrong = (&'static str, String);

impl Filling {
    pub(super) fn new(member: &Member) -> Result<Self, Wrong> {
        let sources = [
            ("id", member.id.is_some()),
            ("time", member.time.is_some()),
            ("event_type", member.event_type.is_some()),
            ("text", member.text.is_some()),
            ("value", member.value.is_some()),
        ];
        let mut given = sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            return Err((second, format!("{first} is there already; beside path one source is enough")));
        }
        if member.only_text && member.path.is_none() {
            return Err(("only_text", "is about a path, and there is none".into()));
        }
        let path =
            member.path.as_deref().map(Path::parse).transpose().map_err(|problem| ("path", problem))?;
        let other = if let Some(id) = member.id {
            Some(Source::Id(id))
        } else if let Some(format) = member.time {
            Some(Source::Time(format))
        } else if let Some(what) = member.event_type {
            Some(Source::EventType(what))
        } else if let Some(text) = &member.text {
            Some(Source::Text(pieces(text).map_err(|problem| ("text", problem))?))
        } else if let Some(value) = &member.value {
            if is_deeper(value, MAX_VALUE_DEPTH) {
                return Err(("value", format!("must be nested at most {MAX_VALUE_DEPTH} deep")));
            }
            let raw = serde_json::value::to_raw_value(value).map_err(|error| ("value", error.to_string()))?;
            if raw.get().len() > MAX_VALUE_BYTES {
                return Err(("value", format!("must have at most {MAX_VALUE_BYTES} bytes")));
            }
            Some(Source::Value(raw))
        } else {
            None
        };
        let mut key = Vec::new();
        quote(&member.name, &mut key);
        key.push(b':');
        Ok(Self {
            key,
            header: member.name.to_ascii_lowercase(),
            path,
            only_text: member.only_text,
            other,
            optional: member.optional,
        })
    }

    pub(super) fn header_name(&self) -> &str {
        &self.header
    }

    /// The value as a header, percent-encoded; `None` if there is none.
    pub(super) fn header_value(&self, subject: &Subject<'_>) -> Option<String> {
        Some(match self.find(subject)? {
            Found::Number(number) => number.to_string(),
            Found::Text(text) => percent_encoded(&text),
            Found::Raw(raw) => match text_of(raw) {
                Some(text) => percent_encoded(&text),
                None => percent_encoded(raw.get().trim_ascii()),
            },
        })
    }

    fn find<'a>(&'a self, subject: &Subject<'a>) -> Option<Found<'a>> {
        let at_path = self.path.as_ref().and_then(|path| path.find(subject));
        let at_path = if self.only_text { at_path.filter(Found::is_text) } else { at_path };
        at_path.or_else(|| self.other.as_ref()?.find(subject)).filter(|found| !found.is_null())
    }
}

/// Whether arrays and objects are nested deeper than that.
fn is_deeper(value: &serde_json::Value, most: usize) -> bool {
    use serde_json::Value;
    let below = |value: &Value| is_deeper(value, most - 1);
    match value {
        Value::Array(elements) => most == 0 || elements.iter().any(below),
        Value::Object(members) => most == 0 || members.values().any(below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

impl Path {
    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(format!("must have at most {MAX_TEXT_BYTES} bytes"));
        }
        let well_formed =
            text.split('~').skip(1).all(|after| after.starts_with('0') || after.starts_with('1'));
        let Some(inside) = text.strip_prefix('/').filter(|_| well_formed) else {
            return Err(format!("{text:?} is no JSON pointer: it begins with a slash, and ~ is written ~0"));
        };
        let (member, rest) = match inside.find('/') {
            Some(slash) => inside.split_at(slash),
            None => (inside, ""),
        };
        Ok(match (member, rest) {
            ("data", rest) => Self::Data(rest.to_owned()),
            ("current_context", rest) => Self::Context(rest.to_owned()),
            ("key", "") => Self::Key,
            ("correlation_id", "") => Self::CorrelationId,
            ("id", "") => Self::Id,
            ("event_type", "") => Self::EventType,
            ("event_time", "") => Self::EventTime,
            ("tenant", "") => Self::Tenant,
            _ => {
                return Err(format!(
                    "{text:?} leads to nothing in an event: use /data/…, /current_context/…, /key, /correlation_id, /id, \
                     /event_type, /event_time or /tenant"
                ));
            }
        })
    }

    fn find<'a>(&self, subject: &Subject<'a>) -> Option<Found<'a>> {
        let event = subject.event;
        let inside = |json: &'a RawValue, rest: &str| pointer(json, rest).map(Found::Raw);
        let found = match self {
            Self::Data(rest) => inside(&event.data, rest),
            Self::Context(rest) => inside(&event.current_context, rest),
            Self::Key => event.key.as_deref().map(text),
            Self::CorrelationId => event.correlation_id.as_deref().map(text),
            Self::Id => Some(text(event.id.as_str())),
            Self::EventType => Some(text(event.event_type.as_str())),
            Self::EventTime => Some(text(&event.event_time)),
            Self::Tenant => Some(text(event.tenant.as_str())),
        };
        found.filter(|found| !found.is_null())
    }
}

impl Source {
    fn find<'a>(&'a self, subject: &Subject<'a>) -> Option<Found<'a>> {
        let event = subject.event;
        match self {
            Self::Id(IdSource::Event) => Some(text(event.id.as_str())),
            Self::Id(IdSource::Delivery) => Some(text(subject.delivery.as_str())),
            Self::Id(IdSource::DeliveryUuid) => Some(Found::Text(subject.delivery.uuid().into())),
            Self::Id(IdSource::Correlation) => event.correlation_id.as_deref().map(text),
            Self::Time(format) => Some(format.write(event)),
            Self::EventType(TypeSource::Name) => Some(text(event.event_type.as_str())),
            Self::EventType(TypeSource::Code) => subject.entry?.code.as_deref().map(text),
            Self::EventType(TypeSource::Category) => Some(text(&subject.entry?.category)),
            Self::EventType(TypeSource::Group) => subject.entry?.group.as_deref().map(text),
            Self::Text(pieces) => {
                let filled = pieces.iter().map(|piece| match piece {
                    Piece::Literal(literal) => literal.as_str(),
                    Piece::Tenant => event.tenant.as_str(),
                    Piece::EventId => event.id.as_str(),
                    Piece::DeliveryId => subject.delivery.as_str(),
                    Piece::EventType => event.event_type.as_str(),
                    Piece::WebhookId => subject.webhook.as_str(),
                });
                Some(Found::Text(filled.collect::<String>().into()))
            }
            Self::Value(raw) => Some(Found::Raw(raw)),
        }
    }
}

impl TimeFormat {
    fn write(self, event: &Event) -> Found<'_> {
        if self == Self::AsGiven {
            return text(&event.event_time);
        }
        // The router takes nothing but RFC 3339.
        let at = Timestamp::parse_rfc3339(&event.event_time).unwrap_or(event.accepted_at);
        let moment = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
        let clock = jiff::tz::Offset::UTC.to_datetime(moment);
        let (date, time) = (clock.date(), clock.time());
        let (year, month, day) = (date.year(), date.month(), date.day());
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        let written = match self {
            Self::Rfc3339Ms => {
                let ms = time.millisecond();
                format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
            }
            Self::SpaceSeparated => {
                format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
            }
            Self::Rfc3339 | Self::AsGiven => {
                format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
            }
            Self::UnixSecs => return Found::Number(at.as_secs()),
            Self::UnixMs => return Found::Number(at.as_millis()),
        };
        Found::Text(written.into())
    }
}

impl Found<'_> {
    fn is_null(&self) -> bool {
        matches!(self, Self::Raw(raw) if raw.get().trim_ascii() == "null")
    }

    fn is_text(&self) -> bool {
        match self {
            Self::Raw(raw) => {
                let json = raw.get().trim_ascii();
                json.starts_with('"') && json.len() > 2
            }
            Self::Text(text) => !text.is_empty(),
            Self::Number(_) => false,
        }
    }
}

fn text(text: &str) -> Found<'_> {
    Found::Text(Cow::Borrowed(text))
}

/// The string that a JSON text is, if it is one.
fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<String>(raw.get()).ok().map(Cow::Owned)
}

/// A JSON object of these members, in this order, without white space of its own.
pub(super) fn object(members: &[Filling], subject: &Subject<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(subject.event.weight());
    body.push(b'{');
    for member in members {
        let found = member.find(subject);
        if found.is_none() && member.optional {
            continue;
        }
        if body.len() > 1 {
            body.push(b',');
        }
        body.extend_from_slice(&member.key);
        match found {
            None => body.extend_from_slice(b"null"),
            Some(Found::Raw(raw)) => body.extend_from_slice(raw.get().trim_ascii().as_bytes()),
            Some(Found::Text(text)) => quote(&text, &mut body),
            Some(Found::Number(number)) => body.extend_from_slice(number.to_string().as_bytes()),
        }
    }
    body.push(b'}');
    body
}

/// Writes a string as JSON.
fn quote(text: &str, to: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    serde_json::to_writer(to, text).ok();
}

/// Everything but printable ASCII, and space, quotation mark and percent sign, as `%XY` (CloudEvents, HTTP binding
/// §3.1.3.2).
fn percent_encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    encoded
}

/// Takes a text with placeholders apart.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    const KNOWN: &str = "{tenant}, {event_id}, {delivery_id}, {event_type} and {webhook_id}";
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("must have at most {MAX_TEXT_BYTES} bytes"));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(format!("a brace opens and does not close; the placeholders are {KNOWN}"));
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        pieces.push(match name {
            "tenant" => Piece::Tenant,
            "event_id" => Piece::EventId,
            "delivery_id" => Piece::DeliveryId,
            "event_type" => Piece::EventType,
            "webhook_id" => Piece::WebhookId,
            other => return Err(format!("{{{other}}} is not known; the placeholders are {KNOWN}")),
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    Ok(pieces)
}
