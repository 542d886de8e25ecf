//! Settings: keys, tenants, what a tenant decided, and who changed what.

mod api_keys;
mod ask;
mod audit;
mod system;
mod tenant;
mod tenants;

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

pub(super) use self::ask::{Ask, asks};
pub use self::audit::AUDITED;
use crate::Console;
use crate::page::{Answer, Part, Shell, Visit, page};

/// The pages of settings.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/settings", get(show))
        .merge(api_keys::routes())
        .merge(audit::routes())
        .merge(system::routes())
        .merge(tenant::routes())
        .merge(tenants::routes())
}

/// Where something is decided.
struct Card {
    name: &'static str,
    link: &'static str,
    text: &'static str,
}

const CARDS: [Card; 11] = [
    Card {
        name: "Webhook settings",
        link: "/webhooks",
        text: "Who is told of which events, where, and how.",
    },
    Card {
        name: "API keys",
        link: "/settings/api-keys",
        text: "Who may use the API and this console, and for what.",
    },
    Card {
        name: "Tenants",
        link: "/settings/tenants",
        text: "Owners of webhooks and events, apart from one another.",
    },
    Card {
        name: "Limits and defaults",
        link: "/settings/tenant",
        text: "Unknown event types, schemas, the time zone, and how much at the same time.",
    },
    Card {
        name: "Reminders",
        link: "/settings/reminders",
        text: "Events that are due some days before a date, and how many days.",
    },
    Card { name: "Audit log", link: "/settings/audit", text: "Who changed what, for 90 days." },
    Card {
        name: "System",
        link: "/settings/system",
        text: "What it was started with, what it stands on, and whether that is well.",
    },
    Card { name: "Jobs", link: "/jobs", text: "Replays and cancellations: many deliveries at once." },
    Card {
        name: "Dead letters",
        link: "/dead-letters",
        text: "What was given up, and messages that cannot be processed.",
    },
    Card { name: "API reference", link: "/docs", text: "Every operation, with a form to try it." },
    Card {
        name: "For publishers",
        link: "/docs/asyncapi",
        text: "How upstream services publish over RabbitMQ, also as AsyncAPI.",
    },
];

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    shell: Shell,
    cards: &'static [Card],
}

async fn show(visit: Visit) -> Response {
    let made = shown(&visit);
    visit.or_refused(Part::Settings, made)
}

fn shown(visit: &Visit) -> Answer {
    let mut shell = visit.shell(Part::Settings, "Settings");
    shell.live = false;
    page(&SettingsPage { shell, cards: &CARDS })
}

/// What is wrong with a form that was sent: what to say above it, and at which field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Problem {
    /// The field, as the API calls it; empty if it is none.
    field: String,
    /// In a sentence.
    text: String,
}

impl Problem {
    fn of(refused: &crate::api::Refused) -> Self {
        let text = format!("{}. {}", refused.detail.trim_end_matches('.'), refused.hint);
        Self { field: refused.field.clone().unwrap_or_default(), text }
    }

    /// Whether it is about this field, or a part of it.
    fn is_of(&self, field: &str) -> bool {
        let rest = self.field.strip_prefix(field);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

/// Whether a form with this problem is shown again, with the problem at its field.
fn is_of_form(refused: &crate::api::Refused) -> bool {
    !refused.is_logged_out() && refused.status < 500 && refused.code != "forbidden"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_said_at_its_field() {
        let problem = Problem { field: "lead_days.PointsWillExpire".into(), text: String::new() };
        assert!(problem.is_of("lead_days") && problem.is_of("lead_days.PointsWillExpire"));
        assert!(!problem.is_of("lead") && !problem.is_of("send_at"));
        let problem = Problem { field: "scopes[0]".into(), text: String::new() };
        assert!(problem.is_of("scopes") && !problem.is_of("scope"));
        assert!(!Problem::default().is_of("name"));
    }
}
