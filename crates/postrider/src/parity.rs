//! Which command does which operation of the API: a list that a test holds against both. Commands that put operations of others
//! together, such as `listen`, have none of their own.

/// An operation of the API, and where people find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parity {
    /// Its `operation_id` in the description of the API.
    pub operation: &'static str,
    /// The command that does it.
    pub command: Done,
    /// The console's route on which people find it, such as `/webhooks/{id}`; nothing where the console does not have it.
    pub console: Option<&'static str>,
}

/// How an operation is done from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// By this command, its words separated by spaces.
    By(&'static str),
    /// By none, for this reason.
    Not(&'static str),
}

const fn by(operation: &'static str, command: &'static str) -> Parity {
    Parity { operation, command: Done::By(command), console: None }
}

const fn with(operation: &'static str, command: &'static str, console: &'static str) -> Parity {
    Parity { operation, command: Done::By(command), console: Some(console) }
}

/// Every operation.
pub const OPERATIONS: &[Parity] = &[
    with("publish_events", "event send", "/send"),
    with("list_events", "event list", "/events"),
    with("get_event", "event get", "/events/{id}"),
    with("create_webhook", "webhook create", "/webhooks/new"),
    with("list_webhooks", "webhook list", "/webhooks"),
    with("get_webhook", "webhook get", "/webhooks/{id}"),
    with("update_webhook", "webhook update", "/webhooks/{id}/edit"),
    with("delete_webhook", "webhook delete", "/webhooks/{id}/turn"),
    with("pause_webhook", "webhook pause", "/webhooks/{id}/turn"),
    with("resume_webhook", "webhook resume", "/webhooks/{id}/turn"),
    with("enable_webhook", "webhook enable", "/webhooks/{id}/turn"),
    with("disable_webhook", "webhook disable", "/webhooks/{id}/turn"),
    with("test_webhook", "webhook test", "/webhooks/{id}/test"),
    with("explain_webhook", "webhook explain", "/webhooks/{id}/explain"),
    with("rotate_secret", "webhook rotate-secret", "/webhooks/{id}/rotate"),
    with("get_secret", "webhook secret", "/webhooks/{id}/secret"),
    with("list_deliveries", "delivery list", "/deliveries"),
    with("export_deliveries", "delivery export", "/deliveries/export"),
    with("get_delivery", "delivery get", "/deliveries/{id}"),
    with("redeliver", "delivery redeliver", "/deliveries/{id}/redeliver"),
    with("cancel_delivery", "delivery cancel", "/deliveries/{id}/cancel"),
    with("create_cancellation", "delivery cancel", "/deliveries/cancel"),
    with("list_cancellations", "delivery cancellations", "/jobs"),
    with("plan_replay", "replay plan", "/deliveries/redeliver"),
    with("run_replay", "replay run", "/jobs/{id}/run"),
    with("list_replays", "replay list", "/jobs"),
    with("get_replay", "replay show", "/jobs/{id}"),
    with("export_replay", "replay export", "/jobs/{id}/export"),
    with("cancel_replay", "replay cancel", "/jobs/{id}/cancel"),
    with("list_dead_letters", "dead list", "/dead-letters"),
    with("get_dead_letter", "dead get", "/dead-letters/{id}"),
    with("resolve_dead_letter", "dead resolve", "/dead-letters/{id}/resolve"),
    with("redeliver_dead_letter", "dead redeliver", "/dead-letters/{id}/redeliver"),
    with("list_event_types", "event-type list", "/catalogue"),
    with("get_event_type", "event-type show", "/catalogue/{name}"),
    with("list_catalogues", "catalogue list", "/catalogue"),
    with("get_catalogue", "catalogue export", "/catalogue/products/{product}/catalogue.json"),
    with("put_catalogue", "catalogue import", "/catalogue/import"),
    by("delete_catalogue", "catalogue delete"),
    with("get_settings", "settings show", "/settings/tenant"),
    with("update_settings", "settings set", "/settings/tenant"),
    by("put_reminder", "reminder put"),
    with("list_reminders", "reminder list", "/settings/reminders"),
    by("get_reminder", "reminder get"),
    with("cancel_reminder", "reminder cancel", "/settings/reminders/{key}/cancel"),
    with("create_tenant", "tenant create", "/settings/tenants"),
    with("list_tenants", "tenant list", "/settings/tenants"),
    by("get_tenant", "tenant get"),
    with("delete_tenant", "tenant delete", "/settings/tenants/{id}/delete"),
    with("create_api_key", "api-keys create", "/settings/api-keys"),
    with("list_api_keys", "api-keys list", "/settings/api-keys"),
    by("get_api_key", "api-keys get"),
    with("revoke_api_key", "api-keys revoke", "/settings/api-keys/{id}/revoke"),
    by("get_access", "api-keys whoami"),
    with("list_audit", "audit", "/settings/audit"),
    with("get_status", "status", "/"),
    with("list_queues", "queues", "/queues"),
    with("get_queue", "queues get", "/queues/{name}"),
    with("get_system", "system", "/settings/system"),
    with("get_stats", "stats", "/"),
    with("list_webhook_stats", "stats", "/webhooks"),
    with("create_login_link", "open", "/login"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;
    use serde_json::Value;

    use super::*;
    use crate::args::Cli;

    /// The operation ids of the description of the API.
    fn described() -> BTreeSet<String> {
        let description: Value = serde_json::from_str(&postrider_control::openapi()).unwrap();
        let paths = description["paths"].as_object().unwrap();
        let operations = paths.values().flat_map(|path| path.as_object().unwrap().values());
        operations.filter_map(|operation| Some(operation.get("operationId")?.as_str()?.to_owned())).collect()
    }

    /// Whether a person can call this: a command with nothing to choose below it, or that does something by itself.
    fn is_command(path: &str) -> bool {
        let mut command = Cli::command();
        for word in path.split(' ') {
            match command.find_subcommand(word) {
                Some(below) => command = below.clone(),
                None => return false,
            }
        }
        !command.is_subcommand_required_set()
    }

    #[test]
    fn every_operation_is_in_the_list_once() {
        let listed: BTreeSet<String> = OPERATIONS.iter().map(|row| row.operation.to_owned()).collect();
        assert_eq!(listed.len(), OPERATIONS.len(), "each once");
        let described = described();
        assert!(described.len() > 50, "{described:?}");
        assert_eq!(listed, described);
    }

    #[test]
    fn every_operation_has_a_command_that_exists_or_a_reason() {
        for Parity { operation, command, .. } in OPERATIONS {
            match command {
                Done::By(path) => assert!(is_command(path), "{operation}: there is no command {path:?}"),
                Done::Not(why) => assert!(why.split(' ').count() > 2, "{operation}: say why in words"),
            }
        }
        assert!(!is_command("webhook") && !is_command("webhook make") && is_command("audit"));
    }

    /// Everything that the console's pages are made of.
    fn sources(dir: &std::path::Path, all: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, all),
                false => all.push_str(&std::fs::read_to_string(&path).unwrap()),
            }
        }
    }

    #[test]
    fn every_route_is_one_of_the_console() {
        let mut all = String::new();
        sources(
            std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../postrider-console/src")),
            &mut all,
        );
        for Parity { operation, console, .. } in OPERATIONS {
            let Some(route) = console else { continue };
            assert!(all.contains(&format!(".route(\"{route}\"")), "{operation}: there is no route {route}");
        }
        let without: Vec<&str> =
            OPERATIONS.iter().filter(|row| row.console.is_none()).map(|row| row.operation).collect();
        // A reminder and a key are shown in their lists; catalogues are removed, and reminders put, by programs.
        assert_eq!(
            without,
            ["delete_catalogue", "put_reminder", "get_reminder", "get_tenant", "get_api_key", "get_access"]
        );
    }
}
