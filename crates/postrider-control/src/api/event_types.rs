//! `/v1/event-types`: what can be subscribed to.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use postrider_core::catalogue::{self, Catalogue, Cause, OWN, TypeEntry};
use postrider_core::stats::Plot;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::Answer;
use super::body::Params;
use super::cursor::{List, limit};
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{Settings, Store, StoreError, Takes, TypeFilter, TypeRow};

/// The longest search, characters.
const MAX_SEARCH: usize = 128;
/// Over how long events are counted.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// An event type.
#[derive(Serialize, ToSchema)]
pub(super) struct EventType {
    /// What events and subscriptions say: opaque, exact.
    name: String,
    label: String,
    /// Other spellings that upstream and subscriptions may use; receivers only ever see the name.
    aliases: Vec<String>,
    product: String,
    /// The category's id.
    category: String,
    /// The group's id.
    group: Option<String>,
    /// The product's own code for it.
    code: Option<String>,
    description: String,
    /// What causes it, each in a phrase.
    conditions: Vec<String>,
    /// Whether there may be causes that are not listed.
    conditions_open: bool,
    /// What makes it happen: `action`, `scheduled` (a reminder) or `own` (a change of Postrider's configuration).
    #[schema(value_type = String)]
    cause: Cause,
    /// For a reminder: how many days before its date it goes out in this tenant.
    lead_days: Option<u32>,
    /// Its data may hold secrets.
    sensitive: bool,
    /// Where the source ran names together: the text that this name was cut from.
    split_from: Option<String>,
    has_schema: bool,
    /// How many events of this type were accepted in this hour and the 23 before it, counted within seconds, since the catalogue has
    /// the type.
    events_24h: u64,
}

impl EventType {
    fn of(row: &TypeRow, settings: &Settings, volumes: &HashMap<String, u64>) -> Self {
        let entry = row.entry.clone();
        Self {
            events_24h: volumes.get(entry.name.as_str()).copied().unwrap_or(0),
            lead_days: settings.lead_days.get(entry.name.as_str()).copied().or(entry.lead_days),
            name: entry.name.to_string(),
            label: entry.label,
            aliases: entry.aliases.iter().map(ToString::to_string).collect(),
            product: row.product.clone(),
            category: entry.category,
            group: entry.group,
            code: entry.code,
            description: entry.description,
            conditions: entry.conditions,
            conditions_open: entry.conditions_open,
            cause: entry.trigger,
            sensitive: entry.sensitive,
            split_from: entry.split_from,
            has_schema: entry.data_schema.is_some(),
        }
    }
}

/// An event type with everything that is known of it.
#[derive(Serialize, ToSchema)]
pub(super) struct EventTypeInFull {
    #[serde(flatten)]
    event_type: EventType,
    category_label: String,
    category_description: String,
    group_label: Option<String>,
    group_description: Option<String>,
    /// A JSON Schema for `data`.
    #[schema(value_type = Option<Object>)]
    data_schema: Option<serde_json::Value>,
    /// A whole event of this type, as JSON text.
    example: Option<String>,
    /// The actions from which it is derived.
    triggers: Vec<TriggeredBy>,
    /// How many webhooks ask for it: by name or alias, by group or category, or with everything.
    webhooks: u64,
}

/// An action from which an event type is derived.
#[derive(Serialize, ToSchema)]
struct TriggeredBy {
    action: String,
    description: String,
    /// CEL over the action that must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    /// What it emits of this type.
    emit: Vec<Emitted>,
}

#[derive(Serialize, ToSchema)]
struct Emitted {
    /// CEL that must hold as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    /// One event for each of these subjects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    for_each: Vec<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// Of this product's catalogue.
    product: Option<String>,
    /// Of this category, by its id.
    category: Option<String>,
    /// Of this group, by its id.
    group: Option<String>,
    /// Whose name, aliases, label or description hold all of these words; upper and lower case are the same.
    search: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Lists the event types of a tenant's catalogues, by product and in the order of the catalogue.
#[utoipa::path(get, path = "/v1/event-types", tag = "event types", operation_id = "list_event_types", params(Asked),
    responses((status = 200, body = inline(EventTypePage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let search = asked.search.unwrap_or_default();
    if search.chars().count() > MAX_SEARCH {
        let detail = format!("a search has at most {MAX_SEARCH} characters");
        return Err(Problem::parameter("search", detail));
    }
    let filter = TypeFilter {
        tenant: scope.tenant().to_string(),
        product: asked.product,
        category: asked.category,
        group: asked.group,
        search: search.to_lowercase().split_whitespace().map(str::to_owned).collect(),
    };
    let list = List::new(api.store.epoch(), "event types", &filter);
    let place = asked.cursor.as_deref().map(|cursor| list.place(cursor)).transpose()?;
    let after = place.as_deref().and_then(|place| {
        let (product, position) = place.rsplit_once(' ')?;
        Some((product, position.parse::<i64>().ok()?))
    });
    let settings = api.store.settings(&filter.tenant).await?;
    let mut rows = api.store.event_types(&filter, after, limit + 1).await?;
    rows.extend(own_types().into_iter().filter(|row| {
        let behind = after.is_none_or(|after| (row.product.as_str(), i64::from(row.position)) > after);
        behind && filter.wants(row)
    }));
    rows.sort_by(|a, b| (&a.product, a.position).cmp(&(&b.product, b.position)));
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
    let place = |row: &TypeRow| format!("{} {}", row.product, row.position);
    let volumes = volumes(&api.store, &filter.tenant, &rows).await?;
    Answer::ok(&list.page(rows, limit, place, |row| Ok(EventType::of(&row, &settings, &volumes)))?)
}

/// How many events of these types the last day had.
async fn volumes(store: &Store, tenant: &str, rows: &[TypeRow]) -> Result<HashMap<String, u64>, StoreError> {
    let now = postrider_broker::now();
    let day = Plot::spark(now.minus_ms(DAY_MS), now);
    store.volumes(tenant, rows.iter().map(|row| row.entry.name.as_str()), &day).await
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<EventType>`")]
pub(super) struct EventTypePage {
    items: Vec<EventType>,
    next: Option<String>,
}

/// One event type, by its name or an alias: what it means, what triggers it, an example, and who takes it.
#[utoipa::path(get, path = "/v1/event-types/{name}", tag = "event types", operation_id = "get_event_type",
    params(("name" = String, Path, description = "The name or an alias, percent-encoded"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = EventTypeInFull), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(name): Path<String>,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let Some(row) = find(&api.store, tenant.as_str(), &name).await? else {
        return Err(Problem::new(
            Code::NotFound,
            "no catalogue of this tenant has this event type",
            "GET /v1/event-types?search= finds them; names are compared exactly.",
        ));
    };
    let catalogue = if row.product == OWN {
        catalogue::own()
    } else {
        match api.store.catalogue(tenant.as_str(), &row.product).await? {
            Some(found) => found.catalogue,
            None => return Err(Problem::not_found("event type")),
        }
    };
    let settings = api.store.settings(tenant.as_str()).await?;
    let webhooks = api.store.count_takers(tenant.as_str(), &takes(&row)).await?;
    let volumes = volumes(&api.store, tenant.as_str(), std::slice::from_ref(&row)).await?;
    let event_type = EventType::of(&row, &settings, &volumes);
    let category = catalogue.categories.iter().find(|category| category.id == row.entry.category);
    let group = catalogue.groups.iter().find(|group| Some(&group.id) == row.entry.group.as_ref());
    Answer::ok(&EventTypeInFull {
        event_type,
        category_label: category.map(|it| it.label.clone()).unwrap_or_default(),
        category_description: category.map(|it| it.description.clone()).unwrap_or_default(),
        group_label: group.map(|it| it.label.clone()),
        group_description: group.map(|it| it.description.clone()),
        triggers: triggers_of(&catalogue, &row.entry),
        data_schema: row.entry.data_schema,
        example: row.entry.example,
        webhooks,
    })
}

fn triggers_of(catalogue: &Catalogue, entry: &TypeEntry) -> Vec<TriggeredBy> {
    let mut triggers = Vec::new();
    for trigger in &catalogue.triggers {
        let emit: Vec<Emitted> = trigger
            .emit
            .iter()
            .filter(|emit| emit.event_type == entry.name)
            .map(|emit| Emitted { when: emit.when.clone(), for_each: emit.for_each.clone() })
            .collect();
        if !emit.is_empty() {
            triggers.push(TriggeredBy {
                action: trigger.action.to_string(),
                description: trigger.description.clone(),
                when: trigger.when.clone(),
                emit,
            });
        }
    }
    triggers
}

/// The types of Postrider's own events, which no tenant stores.
pub(super) fn own_types() -> Vec<TypeRow> {
    let entries = catalogue::own().event_types.into_iter().zip(0..);
    entries.map(|(entry, position)| TypeRow { product: OWN.to_owned(), position, entry }).collect()
}

/// An event type by its name or an alias, Postrider's own among them.
pub(super) async fn find(store: &Store, tenant: &str, spelling: &str) -> Result<Option<TypeRow>, StoreError> {
    let own = own_types().into_iter().find(|row| row.spellings().iter().any(|known| known == spelling));
    match own {
        Some(row) => Ok(Some(row)),
        None => store.event_type(tenant, spelling).await,
    }
}

/// How a webhook can ask for an event type.
pub(super) fn takes(row: &TypeRow) -> Takes {
    Takes {
        spellings: row.spellings(),
        group: row.entry.group.clone(),
        category: Some(row.entry.category.clone()),
        // Postrider's own events are for those who ask for them.
        all: row.entry.trigger != Cause::Own,
    }
}
