//! Which scope each operation needs: the whole list. What is not in it answers nobody.

use std::collections::HashMap;

use http::Method;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{self, OpenApi};

use crate::keys::KeyScope;

/// An operation of the API, and the scope that it needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// Its `operation_id` in the description of the API.
    pub(super) id: &'static str,
    /// What a key must be for; nothing where every valid token will do. `admin` includes the others.
    pub(super) needs: Option<KeyScope>,
}

const fn needs(scope: KeyScope, id: &'static str) -> Operation {
    Operation { id, needs: Some(scope) }
}

/// For every valid token, whatever its scopes: it must say nothing of anything but the token.
const fn needs_no_scope(id: &'static str) -> Operation {
    Operation { id, needs: None }
}

use KeyScope::{Admin, EventsWrite, Manage, Read, Replay};

/// Every operation.
pub(super) const OPERATIONS: &[Operation] = &[
    needs(EventsWrite, "publish_events"),
    needs(EventsWrite, "put_reminder"),
    needs(EventsWrite, "cancel_reminder"),
    needs(Read, "list_events"),
    needs(Read, "get_event"),
    needs(Read, "list_webhooks"),
    needs(Read, "get_webhook"),
    // It is asked by POST and changes nothing.
    needs(Read, "explain_webhook"),
    needs(Read, "list_deliveries"),
    needs(Read, "export_deliveries"),
    needs(Read, "get_delivery"),
    needs(Read, "list_replays"),
    needs(Read, "get_replay"),
    needs(Read, "export_replay"),
    needs(Read, "list_cancellations"),
    needs(Read, "get_stats"),
    needs(Read, "list_webhook_stats"),
    needs(Read, "list_dead_letters"),
    needs(Read, "get_dead_letter"),
    needs(Read, "list_event_types"),
    needs(Read, "get_event_type"),
    needs(Read, "list_catalogues"),
    needs(Read, "get_catalogue"),
    needs(Read, "get_settings"),
    needs(Read, "list_reminders"),
    needs(Read, "get_reminder"),
    // A tenant's key sees the rows of its tenant.
    needs(Read, "list_audit"),
    // It opens no more than the token that asks for it.
    needs(Read, "create_login_link"),
    needs(Manage, "create_webhook"),
    needs(Manage, "update_webhook"),
    needs(Manage, "delete_webhook"),
    needs(Manage, "pause_webhook"),
    needs(Manage, "resume_webhook"),
    needs(Manage, "enable_webhook"),
    needs(Manage, "disable_webhook"),
    needs(Manage, "test_webhook"),
    needs(Manage, "rotate_secret"),
    // It reveals a secret.
    needs(Manage, "get_secret"),
    needs(Manage, "cancel_delivery"),
    needs(Manage, "create_cancellation"),
    needs(Manage, "resolve_dead_letter"),
    needs(Manage, "put_catalogue"),
    needs(Manage, "delete_catalogue"),
    needs(Manage, "update_settings"),
    needs(Replay, "redeliver"),
    needs(Replay, "redeliver_dead_letter"),
    needs(Replay, "plan_replay"),
    needs(Replay, "run_replay"),
    needs(Replay, "cancel_replay"),
    needs(Admin, "create_tenant"),
    needs(Admin, "list_tenants"),
    needs(Admin, "get_tenant"),
    needs(Admin, "delete_tenant"),
    needs(Admin, "create_api_key"),
    needs(Admin, "list_api_keys"),
    needs(Admin, "get_api_key"),
    needs(Admin, "revoke_api_key"),
    // The books are those of the whole installation, and so are the queues.
    needs(Admin, "get_status"),
    needs(Admin, "list_queues"),
    needs(Admin, "get_queue"),
    needs(Admin, "get_system"),
    // Whoever has a token may know what it is for.
    needs_no_scope("get_access"),
];

fn of_id(id: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.id == id)
}

/// The operations at a path, with their methods.
pub(super) fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &openapi::path::Operation)> {
    [
        (Method::GET, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// Writes into the description which scope each operation needs.
pub(super) fn describe(description: &mut OpenApi) {
    for item in description.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete] {
            let Some(operation) = operation else { continue };
            let known = operation.operation_id.as_deref().and_then(of_id);
            let scopes = known.and_then(|known| known.needs).map(KeyScope::as_str);
            operation.security = Some(vec![SecurityRequirement::new("token", scopes)]);
        }
    }
}

/// The operations by route and method.
#[derive(Debug)]
pub(super) struct Rights(HashMap<String, Vec<(Method, &'static Operation)>>);

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// This.
    Operation(&'static Operation),
    /// Nothing: the route takes these methods, as the `Allow` header names them.
    OtherMethods(String),
}

impl Rights {
    /// Those of the operations that are described. One that is not in the list is left out.
    pub(super) fn of(description: &OpenApi) -> Self {
        let mut routes: HashMap<String, Vec<(Method, &'static Operation)>> = HashMap::new();
        for (path, item) in &description.paths.paths {
            let known = operations(item)
                .filter_map(|(method, described)| Some((method, of_id(described.operation_id.as_deref()?)?)));
            routes.insert(path.clone(), known.collect());
        }
        Self(routes)
    }

    /// What a method of a route is; nothing if nobody may ask for anything there.
    pub(super) fn asked(&self, route: &str, method: &Method) -> Option<Asked> {
        let known = self.0.get(route).filter(|known| !known.is_empty())?;
        // Whoever may GET may ask for the headers alone.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        if let Some((_, operation)) = known.iter().find(|(known, _)| known == method) {
            return Some(Asked::Operation(operation));
        }
        let mut methods = Vec::new();
        for (method, _) in known {
            methods.push(method.as_str());
            methods.extend((method == Method::GET).then_some("HEAD"));
        }
        Some(Asked::OtherMethods(methods.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_and_the_description_have_the_same_operations() {
        let description = super::super::described().into_openapi();
        let described: Vec<&str> = description
            .paths
            .paths
            .values()
            .flat_map(operations)
            .map(|(_, operation)| operation.operation_id.as_deref().unwrap())
            .collect();
        let listed: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.id).collect();
        assert_eq!(listed.len(), OPERATIONS.len(), "each once");
        assert_eq!(described.len(), listed.len());
        assert_eq!(described.into_iter().collect::<BTreeSet<_>>(), listed);
    }

    /// The console offers what the audit log can have: everything that changes something, and showing a secret.
    #[test]
    fn the_console_offers_every_operation_that_is_audited() {
        let description = super::super::described().into_openapi();
        let changing = description
            .paths
            .paths
            .values()
            .flat_map(operations)
            .filter(|(method, _)| *method != Method::GET);
        let mut audited: BTreeSet<&str> =
            changing.map(|(_, operation)| operation.operation_id.as_deref().unwrap()).collect();
        audited.insert("get_secret");
        // Events have books of their own, and an explanation changes nothing.
        for other in ["publish_events", "explain_webhook"] {
            assert!(audited.remove(other), "{other}");
        }
        assert_eq!(postrider_console::AUDITED.into_iter().collect::<BTreeSet<_>>(), audited);
        assert_eq!(postrider_console::AUDITED.len(), audited.len(), "each once");
    }

    #[test]
    fn the_list_is_as_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access.md");
        let page = std::fs::read_to_string(page).unwrap();
        for scope in KeyScope::ALL.map(Some).into_iter().chain([None]) {
            let name = scope.map_or("none".to_owned(), |scope| format!("`{}`", scope.as_str()));
            let row = page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
            let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let documented: BTreeSet<&str> = cell.split(' ').map(|word| word.trim_matches('`')).collect();
            let listed = OPERATIONS.iter().filter(|operation| operation.needs == scope);
            assert_eq!(documented, listed.map(|operation| operation.id).collect(), "{name}");
        }
    }

    #[test]
    fn what_is_not_listed_answers_nobody() {
        let mut description = super::super::described().into_openapi();
        let item = description.paths.paths.get_mut("/v1/tenants").unwrap();
        item.get.as_mut().unwrap().operation_id = Some("list_everything".into());
        let item = description.paths.paths.get_mut("/v1/status").unwrap();
        item.get.as_mut().unwrap().operation_id = None;
        let rights = Rights::of(&description);
        let asked = |method: Method, route: &str| rights.asked(route, &method);
        assert_eq!(asked(Method::GET, "/v1/tenants"), Some(Asked::OtherMethods("POST".into())));
        assert_eq!(asked(Method::HEAD, "/v1/tenants"), Some(Asked::OtherMethods("POST".into())));
        assert_eq!(asked(Method::GET, "/v1/status"), None);
        assert_eq!(asked(Method::GET, "/v1/anything"), None);
        assert!(
            matches!(asked(Method::HEAD, "/v1/webhooks"), Some(Asked::Operation(it)) if it.id == "list_webhooks")
        );
        assert_eq!(asked(Method::PUT, "/v1/webhooks"), Some(Asked::OtherMethods("GET,HEAD,POST".into())));
    }
}
