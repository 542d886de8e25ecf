//! Which command does which operation of the API: a list that a test holds against both.

/// An operation of the API, and where people find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parity {
    /// Its `operation_id` in the description of the API.
    pub operation: &'static str,
    /// The command that does it.
    pub command: Done,
    /// The console's route on which people find it, such as `/webhooks/{id}`; nothing where the console does not have it.
    /// The console fills this in.
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

/// Every operation.
pub const OPERATIONS: &[Parity] = &[
    by("publish_events", "event send"),
    by("list_events", "event list"),
    by("get_event", "event get"),
    by("create_webhook", "webhook create"),
    by("list_webhooks", "webhook list"),
    by("get_webhook", "webhook get"),
    by("update_webhook", "webhook update"),
    by("delete_webhook", "webhook delete"),
    by("pause_webhook", "webhook pause"),
    by("resume_webhook", "webhook resume"),
    by("enable_webhook", "webhook enable"),
    by("disable_webhook", "webhook disable"),
    by("test_webhook", "webhook test"),
    by("explain_webhook", "webhook explain"),
    by("rotate_secret", "webhook rotate-secret"),
    by("get_secret", "webhook secret"),
    by("list_deliveries", "delivery list"),
    by("get_delivery", "delivery get"),
    by("redeliver", "delivery redeliver"),
    by("cancel_delivery", "delivery cancel"),
    by("create_cancellation", "delivery cancel"),
    by("list_cancellations", "delivery cancellations"),
    by("plan_replay", "replay plan"),
    by("run_replay", "replay run"),
    by("list_replays", "replay list"),
    by("get_replay", "replay show"),
    by("cancel_replay", "replay cancel"),
    by("list_dead_letters", "dead list"),
    by("get_dead_letter", "dead get"),
    by("resolve_dead_letter", "dead resolve"),
    by("redeliver_dead_letter", "dead redeliver"),
    by("list_event_types", "event-type list"),
    by("get_event_type", "event-type show"),
    by("list_catalogues", "catalogue list"),
    by("get_catalogue", "catalogue export"),
    by("put_catalogue", "catalogue import"),
    by("delete_catalogue", "catalogue delete"),
    by("get_settings", "settings show"),
    by("update_settings", "settings set"),
    by("put_reminder", "reminder put"),
    by("list_reminders", "reminder list"),
    by("get_reminder", "reminder get"),
    by("cancel_reminder", "reminder cancel"),
    by("create_tenant", "tenant create"),
    by("list_tenants", "tenant list"),
    by("get_tenant", "tenant get"),
    by("delete_tenant", "tenant delete"),
    by("create_api_key", "api-keys create"),
    by("list_api_keys", "api-keys list"),
    by("get_api_key", "api-keys get"),
    by("revoke_api_key", "api-keys revoke"),
    by("get_access", "api-keys whoami"),
    by("list_audit", "audit"),
    by("get_status", "status"),
    by("list_queues", "queues"),
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

    #[test]
    fn a_route_of_the_console_is_a_path() {
        for Parity { operation, console, .. } in OPERATIONS {
            assert!(console.is_none_or(|route| route.starts_with('/')), "{operation}: {console:?}");
        }
    }
}
