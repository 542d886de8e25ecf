//! The audit log: who changed what. A row is written with the change that it is about, and never changed.

use postrider_core::{TenantId, Timestamp};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::pages::{Found, Place, Search};
use super::{Change, Store, StoreError};

/// A change, as it is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditEntry {
    /// Whose the subject is; none if it is nobody's.
    pub tenant: Option<TenantId>,
    /// `admin token`, or the id of a key.
    pub actor: String,
    /// What the key was called; empty for the admin token.
    pub actor_name: String,
    pub operation: &'static str,
    pub subject_kind: &'static str,
    pub subject: String,
    /// JSON, without secrets.
    pub changes: String,
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub at: Timestamp,
    /// Empty if the subject is nobody's.
    pub tenant: String,
    pub actor: String,
    pub actor_name: String,
    pub operation: String,
    pub subject_kind: String,
    pub subject: String,
    pub changes: String,
}

/// Which rows to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFilter {
    /// Of this tenant; of every one if there is none.
    pub tenant: Option<TenantId>,
    pub operation: Option<String>,
    /// About what has this id.
    pub subject: Option<String>,
    /// `admin token`, or the id of a key.
    pub actor: Option<String>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

fn row_of(row: &SqliteRow) -> Result<AuditRow, sqlx::Error> {
    Ok(AuditRow {
        at: Timestamp::from_millis(row.try_get("at")?),
        tenant: row.try_get("tenant")?,
        actor: row.try_get("actor")?,
        actor_name: row.try_get("actor_name")?,
        operation: row.try_get("operation")?,
        subject_kind: row.try_get("subject_kind")?,
        subject: row.try_get("subject")?,
        changes: row.try_get("changes")?,
    })
}

impl AuditFilter {
    /// How it is looked for: along the index that leaves the least to be looked at.
    pub(super) fn search(&self) -> Search {
        let tenant = self.tenant.as_ref().map(|tenant| tenant.as_str().into());
        let mut search = match (&self.subject, tenant) {
            (Some(subject), tenant) => {
                let search = Search::along("audit", "audit_of_subject", "at");
                let search = search.ask(true, "d.subject = ", Some(subject.as_str().into()));
                if tenant.is_some() { search.ask(false, "d.tenant = ", tenant) } else { search }
            }
            (None, Some(tenant)) => {
                Search::along("audit", "audit_of_tenant", "at").ask(true, "d.tenant = ", Some(tenant))
            }
            // An index is read from a place in it: this one from the beginning of time.
            (None, None) => {
                Search::along("audit", "audit_by_time", "at").ask(true, "d.at >= ", Some(i64::MIN.into()))
            }
        };
        for (condition, value) in [("d.operation = ", &self.operation), ("d.actor = ", &self.actor)] {
            if let Some(value) = value {
                search = search.ask(false, condition, Some(value.as_str().into()));
            }
        }
        search.between(self.since, self.until)
    }
}

impl Store {
    /// Rows of the audit log, newest first.
    pub(crate) async fn audit_log(
        &self,
        filter: &AuditFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Found<AuditRow>, StoreError> {
        self.look(&filter.search(), ("d.*", "audit d"), after, limit, row_of).await
    }
}

impl Change<'_> {
    /// Notes who made this change.
    pub(crate) async fn note(&mut self, entry: &AuditEntry, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO audit (at, tenant, actor, actor_name, operation, subject_kind, subject, changes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(now.as_millis())
        .bind(entry.tenant.as_ref().map_or("", TenantId::as_str))
        .bind(&entry.actor)
        .bind(&entry.actor_name)
        .bind(entry.operation)
        .bind(entry.subject_kind)
        .bind(&entry.subject)
        .bind(&entry.changes)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}
