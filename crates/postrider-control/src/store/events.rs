//! Events as the books know them.

use std::collections::HashSet;

use postrider_core::wire::EventRecord;
use postrider_core::{EventId, TenantId, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::deliveries::{ROW, delivery_of};
use super::pages::{Found, Place, Search};
use super::{DeliveryRow, Store, StoreError, small};

/// Deliveries of one event that are shown with it.
const MOST_DELIVERIES: i64 = 1000;

/// An event as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct EventRow {
    pub seq: i64,
    pub tenant: String,
    pub id: String,
    pub event_type: String,
    pub event_time: String,
    pub fate: String,
    pub owed: u32,
    pub reason: String,
    pub detail: String,
    /// What the router noticed about it.
    pub marks: Vec<String>,
    pub accepted_at: Timestamp,
}

/// An event with its body and its deliveries.
#[derive(Clone, Debug)]
pub(crate) struct EventDetail {
    pub row: EventRow,
    /// Nothing when it was no event, or when its body was removed.
    pub body: Option<EventRecord>,
    pub deliveries: Vec<DeliveryRow>,
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventFilter {
    pub tenant: String,
    pub event_type: Option<String>,
    pub fate: Option<String>,
    pub since: Option<Timestamp>,
}

impl EventFilter {
    /// How it is looked for: along the index that leaves the least to be looked at.
    pub(super) fn search(&self) -> Search {
        // Most events are routed: no index knows them by that.
        let is_rare = self.fate.as_deref().is_some_and(|fate| fate != "routed");
        let (index, by_fate, by_type) = match &self.event_type {
            _ if is_rare => ("events_in_fate", true, false),
            Some(_) => ("events_of_type", false, true),
            None => ("events_by_acceptance", false, false),
        };
        let mut search = Search::along("events", index, "accepted_at");
        search = search.ask(true, "d.tenant = ", Some(self.tenant.as_str().into()));
        if let Some(fate) = &self.fate {
            search = search.ask(by_fate, "d.fate = ", Some(fate.as_str().into()));
        }
        if by_fate {
            search = search.ask(true, "d.fate <> 'routed'", None);
        }
        if let Some(event_type) = &self.event_type {
            search = search.ask(by_type, "d.event_type = ", Some(event_type.as_str().into()));
        }
        search.between(self.since, None)
    }
}

fn event_of(row: &SqliteRow) -> Result<EventRow, sqlx::Error> {
    Ok(EventRow {
        seq: row.try_get("seq")?,
        tenant: row.try_get("tenant")?,
        id: row.try_get("id")?,
        event_type: row.try_get("event_type")?,
        event_time: row.try_get("event_time")?,
        fate: row.try_get("fate")?,
        owed: small(row.try_get("owed")?),
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        marks: row.try_get::<String, _>("marks")?.split_whitespace().map(str::to_owned).collect(),
        accepted_at: Timestamp::from_millis(row.try_get("accepted_at")?),
    })
}

/// Reads a stored body.
pub(super) fn read_body(bytes: &[u8]) -> Result<EventRecord, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| StoreError::Damaged(format!("the body of an event: {e}")))
}

impl Store {
    /// Which of these events are known.
    pub(crate) async fn known_events(
        &self,
        tenant: &TenantId,
        ids: &[EventId],
    ) -> Result<HashSet<String>, StoreError> {
        let mut known = HashSet::new();
        for chunk in ids.chunks(500) {
            let mut query = QueryBuilder::<Sqlite>::new("SELECT id FROM events WHERE tenant = ");
            query.push_bind(tenant.as_str()).push(" AND id IN (");
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(id.as_str().to_owned());
            }
            query.push(")");
            let found: Vec<String> =
                query.build_query_scalar().persistent(false).fetch_all(&self.readers).await?;
            known.extend(found);
        }
        Ok(known)
    }

    /// Events, newest first.
    pub(crate) async fn events(
        &self,
        filter: &EventFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Found<EventRow>, StoreError> {
        self.look(&filter.search(), ("d.*", "events d"), after, limit, event_of).await
    }

    /// The number of an event.
    pub(super) async fn event_number(&self, tenant: &str, id: &str) -> Result<Option<i64>, StoreError> {
        Ok(sqlx::query_scalar("SELECT seq FROM events WHERE tenant = $1 AND id = $2")
            .bind(tenant)
            .bind(id)
            .fetch_optional(&self.readers)
            .await?)
    }

    /// One event with everything.
    pub(crate) async fn event(&self, tenant: &str, id: &str) -> Result<Option<EventDetail>, StoreError> {
        let mut tx = self.readers.begin().await?;
        let row = sqlx::query("SELECT * FROM events WHERE tenant = $1 AND id = $2")
            .bind(tenant)
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let row = event_of(&row)?;
        let body: Option<Vec<u8>> = sqlx::query_scalar("SELECT record FROM bodies WHERE event = $1")
            .bind(row.seq)
            .fetch_optional(&mut *tx)
            .await?;
        let deliveries =
            sqlx::query(sqlx::AssertSqlSafe(format!("{} WHERE d.event = $1 ORDER BY d.seq LIMIT $2", *ROW)))
                .bind(row.seq)
                .bind(MOST_DELIVERIES)
                .fetch_all(&mut *tx)
                .await?;
        Ok(Some(EventDetail {
            row,
            body: body.as_deref().map(read_body).transpose()?,
            deliveries: deliveries.iter().map(delivery_of).collect::<Result<_, _>>()?,
        }))
    }
}
