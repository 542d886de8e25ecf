//! `postrider settings`: what a tenant decided. `postrider config` is about the program.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Context, show};
use crate::args::{SettingsSet, TenantSettings};
use crate::exit::{Exit, Failure};

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: TenantSettings) -> Result<Exit, Failure> {
    let changes = match command {
        TenantSettings::Show => return show(context, "cannot show the settings", &["settings"], &[]).await,
        TenantSettings::Set(changes) => changes,
    };
    let body = body(changes);
    if body.is_empty() {
        return Err(Failure::usage("there is nothing to change", "no option was given")
            .next("postrider settings set --help"));
    }
    let what = "cannot change the settings";
    let body = Value::Object(body).to_string();
    let answer = context.api()?.call(Method::PATCH, what, &["settings"], &[], Some(body)).await?;
    context.out.one(&answer.raw, &answer.value)?;
    Ok(Exit::Ok)
}

/// The changes as the API takes them: null sets a member back to its default.
fn body(changes: SettingsSet) -> Map<String, Value> {
    let SettingsSet { unknown_types, schemas, time_zone, send_at, lead_days, .. } = changes;
    let mut body = Map::new();
    let texts = [
        ("unknown_types", unknown_types),
        ("schemas", schemas),
        ("time_zone", time_zone),
        ("send_at", send_at),
    ];
    body.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?)))));
    if !lead_days.is_empty() {
        let days = lead_days.into_iter().map(|(name, days)| (name, json!(days))).collect();
        body.insert("lead_days".to_owned(), Value::Object(days));
    }
    let limits = [
        ("max_active_webhooks", changes.max_active_webhooks),
        ("max_in_flight", changes.max_in_flight),
        ("rate_per_second", changes.rate_per_second),
    ];
    body.extend(limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), json!(limit?.0)))));
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Limit;

    #[test]
    fn only_what_was_given_is_changed_and_null_means_the_default() {
        let nothing = SettingsSet {
            unknown_types: None,
            schemas: None,
            time_zone: None,
            send_at: None,
            lead_days: Vec::new(),
            max_active_webhooks: None,
            max_in_flight: None,
            rate_per_second: None,
        };
        assert!(body(nothing).is_empty());
        let some = SettingsSet {
            unknown_types: Some("refuse".into()),
            schemas: None,
            time_zone: Some("Europe/Berlin".into()),
            send_at: None,
            lead_days: vec![("PointsWillExpire".into(), Some(14)), ("CouponWillExpire".into(), None)],
            max_active_webhooks: Some(Limit(None)),
            max_in_flight: Some(Limit(Some(50))),
            rate_per_second: None,
        };
        assert_eq!(
            Value::Object(body(some)),
            json!({
                "unknown_types": "refuse", "time_zone": "Europe/Berlin",
                "lead_days": {"PointsWillExpire": 14, "CouponWillExpire": null}, "max_active_webhooks": null,
                "max_in_flight": 50,
            })
        );
    }
}
