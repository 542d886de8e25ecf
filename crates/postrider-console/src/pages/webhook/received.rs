//! The newest deliveries of a webhook.

use askama::Template;
use postrider_core::Timestamp;

use super::{Tab, Webhook, shell, tabs};
use crate::api::Listed;
use crate::page::{Answer, Shell, Visit, page};
use crate::pages::deliveries::Delivery;
use crate::words::{Html, when, when_if};

/// A row of the list.
pub(super) struct Row {
    pub(super) delivery: Delivery,
    pub(super) accepted: Html,
    pub(super) next: Html,
}

impl Row {
    /// A delivery as the list shows it.
    pub(super) fn new(delivery: Delivery, now: Timestamp) -> Self {
        let next = delivery.next_at.as_deref();
        let next = if next.is_some() { when_if(next, now) } else { Html::default() };
        Self { accepted: when(&delivery.created_at, now), next, delivery }
    }
}

#[derive(Template)]
#[template(path = "webhook_deliveries.html")]
struct DeliveriesTab {
    shell: Shell,
    webhook: Webhook,
    tabs: Vec<Tab>,
    rows: Vec<Row>,
    more: bool,
}

/// The newest 50; the rest is where all deliveries are.
pub(super) async fn show(visit: &Visit, webhook: Webhook) -> Answer {
    let query = [("webhook", webhook.id.as_str()), ("limit", "50")];
    let found: Listed<Delivery> = visit.api.get("/v1/deliveries", &query).await?;
    let mut shell = shell(visit, &webhook, true);
    shell.command = format!("postrider delivery list --webhook {}", webhook.id);
    page(&DeliveriesTab {
        shell,
        tabs: tabs(&webhook, "deliveries"),
        more: found.next.is_some(),
        rows: found.items.into_iter().map(|delivery| Row::new(delivery, visit.now)).collect(),
        webhook,
    })
}
