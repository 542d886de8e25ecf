//! The profiles that come with the program, as data.

use super::{Body, IdSource, Member, ProfileSpec, TimeFormat, TypeSource};
use crate::wire::RetryRecord;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// What one of [`super::BUILT_IN`] says.
pub(super) fn spec(name: &str) -> Option<ProfileSpec> {
    let spec = match name {
        "postrider" => ProfileSpec {
            description:
                "Four members: event_time, event_type, current_context, data; signed by Standard Webhooks."
                    .into(),
            members: vec![
                time("event_time"),
                type_name("event_type"),
                path("current_context", "/current_context"),
                path("data", "/data"),
            ],
            ..ProfileSpec::default()
        },
        "standard" => ProfileSpec {
            description: "The payload, the signature and the example schedule of Standard Webhooks.".into(),
            members: vec![type_name("type"), time("timestamp"), path("data", "/data")],
            retry: RetryRecord {
                schedule_ms: Some(vec![
                    5 * SECOND_MS,
                    5 * MINUTE_MS,
                    30 * MINUTE_MS,
                    2 * HOUR_MS,
                    5 * HOUR_MS,
                    10 * HOUR_MS,
                    14 * HOUR_MS,
                    20 * HOUR_MS,
                    24 * HOUR_MS,
                ]),
                // More than three days and three quarters of it, with the longest jitter.
                max_age_ms: Some(5 * 24 * HOUR_MS),
                ..RetryRecord::default()
            },
            ..ProfileSpec::default()
        },
        "cloudevents" => ProfileSpec {
            description: "CloudEvents 1.0 in structured mode; signed by Standard Webhooks.".into(),
            content_type: Some("application/cloudevents+json".into()),
            members: vec![
                text("specversion", "1.0"),
                id("id"),
                source("source"),
                type_name("type"),
                time("time"),
                subject("subject"),
                text("datacontenttype", "application/json"),
                path("data", "/data"),
            ],
            ..ProfileSpec::default()
        },
        "cloudevents-binary" => ProfileSpec {
            description: "CloudEvents 1.0 in binary mode; signed by Standard Webhooks.".into(),
            body: Body::Data,
            headers: vec![
                text("ce-specversion", "1.0"),
                id("ce-id"),
                source("ce-source"),
                type_name("ce-type"),
                time("ce-time"),
                subject("ce-subject"),
            ],
            ..ProfileSpec::default()
        },
        _ => return None,
    };
    Some(ProfileSpec { name: name.to_owned(), ..spec })
}

fn member(name: &str) -> Member {
    Member { name: name.to_owned(), ..Member::default() }
}

fn path(name: &str, path: &str) -> Member {
    Member { path: Some(path.to_owned()), ..member(name) }
}

fn text(name: &str, text: &str) -> Member {
    Member { text: Some(text.to_owned()), ..member(name) }
}

fn time(name: &str) -> Member {
    Member { time: Some(TimeFormat::AsGiven), ..member(name) }
}

fn type_name(name: &str) -> Member {
    Member { event_type: Some(TypeSource::Name), ..member(name) }
}

fn id(name: &str) -> Member {
    Member { id: Some(IdSource::Event), ..member(name) }
}

/// The source in CloudEvents: upstream's own, or the tenant.
fn source(name: &str) -> Member {
    Member {
        only_text: true,
        text: Some("/tenants/{tenant}".to_owned()),
        ..path(name, "/current_context/source")
    }
}

fn subject(name: &str) -> Member {
    Member { only_text: true, optional: true, ..path(name, "/key") }
}
