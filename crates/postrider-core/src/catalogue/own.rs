//! The catalogue of Postrider's own events.

use super::{CATALOGUE_SCHEMA, Catalogue, Category, Cause, Product, TypeEntry};
use crate::event::EventType;

/// What Postrider says of a webhook that keeps failing.
pub const WEBHOOK_FAILING: &str = "postrider.webhook.failing";
/// What Postrider says when it disables a webhook by itself.
pub const WEBHOOK_DISABLED: &str = "postrider.webhook.disabled";
/// What Postrider says when it gives a delivery up.
pub const DELIVERY_DEAD: &str = "postrider.delivery.dead";

/// The types of all of them.
pub const OWN_TYPES: [&str; 3] = [WEBHOOK_FAILING, WEBHOOK_DISABLED, DELIVERY_DEAD];

/// The product and the category of Postrider's own events.
pub const OWN: &str = "postrider";

/// The catalogue of Postrider's own events: known to every tenant, stored nowhere.
pub fn own() -> Catalogue {
    let types = [
        (
            WEBHOOK_FAILING,
            "Webhook failing",
            "A webhook fails again and again; it is still active. `rule` says what would disable it, `share_percent` how near \
             that is. The webhook itself does not hear of it.",
            vec![
                "half, or nine tenths, of the deliveries in a row that the webhook or its profile allows were given up",
                "nothing has arrived for half, or nine tenths, of the time that the webhook or its profile allows",
            ],
            WEBHOOK_FAILING_EXAMPLE,
        ),
        (
            WEBHOOK_DISABLED,
            "Webhook disabled",
            "Postrider disabled a webhook by itself: deliveries to it are skipped until somebody enables it. The webhook \
             itself does not hear of it.",
            vec![
                "as many deliveries in a row are given up as the webhook or its profile allows",
                "nothing has arrived for as long as the webhook or its profile allows, and failures go on",
                "the receiver answers 410",
            ],
            WEBHOOK_DISABLED_EXAMPLE,
        ),
        (
            DELIVERY_DEAD,
            "Delivery dead",
            "A delivery was given up and is a dead letter; it can be delivered again.",
            vec!["the last attempt fails", "an attempt fails in a way that is never tried again"],
            DELIVERY_DEAD_EXAMPLE,
        ),
    ];
    let event_types = types.into_iter().filter_map(|(name, label, description, conditions, example)| {
        Some(TypeEntry {
            label: label.to_owned(),
            category: OWN.to_owned(),
            description: description.to_owned(),
            conditions: conditions.into_iter().map(str::to_owned).collect(),
            trigger: Cause::Own,
            example: Some(example.to_owned()),
            ..TypeEntry::new(EventType::parse(name).ok()?)
        })
    });
    Catalogue {
        schema: CATALOGUE_SCHEMA,
        product: Product {
            id: OWN.to_owned(),
            name: "Postrider".to_owned(),
            note: "Known to every tenant. A webhook takes these only by naming the type or the category; a webhook that \
                   takes everything does not."
                .to_owned(),
        },
        categories: vec![Category {
            id: OWN.to_owned(),
            label: "Postrider".to_owned(),
            description: "What Postrider says about webhooks and deliveries of the tenant.".to_owned(),
        }],
        groups: Vec::new(),
        event_types: event_types.collect(),
        triggers: Vec::new(),
        profile: None,
    }
}

const WEBHOOK_FAILING_EXAMPLE: &str = r#"{"event_type":"postrider.webhook.failing","event_time":"2026-11-21T20:00:00Z","current_context":{"source":"postrider"},"data":{"webhook":{"id":"wh_01","name":"billing-prod","url":"https://example.com/hooks","profile":"postrider","state":"active"},"rule":"given_up","share_percent":50,"given_up_in_a_row":50,"disable_after_failures":100,"failed_attempts":600,"failing_since":"2026-11-20T20:00:00Z","disable_after_ms":432000000,"last":{"delivery":"4f0e6d1c2b3a49a5b7c1e0191f3c2b3a","event":"evt-1","event_type":"USER_CREATED","attempts":12,"reason":"exhausted","class":"http_5xx","status":503}}}"#;

const WEBHOOK_DISABLED_EXAMPLE: &str = r#"{"event_type":"postrider.webhook.disabled","event_time":"2026-11-21T20:00:00Z","current_context":{"source":"postrider"},"data":{"webhook":{"id":"wh_01","name":"billing-prod","url":"https://example.com/hooks","profile":"postrider","state":"disabled"},"rule":"given_up","share_percent":100,"given_up_in_a_row":100,"disable_after_failures":100,"failed_attempts":1200,"failing_since":"2026-11-20T20:00:00Z","disable_after_ms":432000000,"reason":"100 deliveries in a row were given up; last: exhausted: http_5xx 503","last":{"delivery":"4f0e6d1c2b3a49a5b7c1e0191f3c2b3a","event":"evt-1","event_type":"USER_CREATED","attempts":12,"reason":"exhausted","class":"http_5xx","status":503}}}"#;

const DELIVERY_DEAD_EXAMPLE: &str = r#"{"event_type":"postrider.delivery.dead","event_time":"2026-11-21T20:00:00Z","current_context":{"source":"postrider"},"data":{"webhook":{"id":"wh_01","name":"billing-prod","url":"https://example.com/hooks","profile":"postrider","state":"active"},"delivery":"4f0e6d1c2b3a49a5b7c1e0191f3c2b3a","event":"evt-1","event_type":"USER_CREATED","attempts":12,"reason":"exhausted","class":"http_5xx","status":503}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_three_types_and_nothing_is_wrong_with_it() {
        let own = own();
        let names: Vec<&str> = own.event_types.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, OWN_TYPES);
        assert!(own.event_types.iter().all(|entry| entry.trigger == Cause::Own && entry.example.is_some()));
    }
}
