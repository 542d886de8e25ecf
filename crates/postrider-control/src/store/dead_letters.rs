//! Dead letters.

use postrider_core::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::pages::{Found, Place, Search};
use super::{Change, Store, StoreError, letter_id, small, time};

/// A dead letter as it is stored; its body only where one was asked for.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetterRow {
    pub id: String,
    pub kind: String,
    pub tenant: String,
    pub reason: String,
    pub detail: String,
    pub class: String,
    /// Empty when it is no delivery.
    pub delivery: String,
    pub series: u32,
    pub webhook: String,
    pub event_id: String,
    pub event_type: String,
    pub content_type: String,
    pub body: Option<Vec<u8>>,
    pub at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    pub resolution: String,
}

/// Which dead letters to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeadLetterFilter {
    pub tenant: String,
    pub kind: Option<String>,
    pub reason: Option<String>,
    pub resolved: Option<bool>,
}

fn letter_of(row: &SqliteRow) -> Result<DeadLetterRow, sqlx::Error> {
    Ok(DeadLetterRow {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        tenant: row.try_get("tenant")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        class: row.try_get("class")?,
        delivery: row.try_get("delivery")?,
        series: small(row.try_get("series")?),
        webhook: row.try_get("webhook")?,
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        content_type: row.try_get("content_type")?,
        body: row.try_get("body")?,
        at: Timestamp::from_millis(row.try_get("at")?),
        resolved_at: time(row.try_get("resolved_at")?),
        resolution: row.try_get("resolution")?,
    })
}

const ONE: &str = "SELECT * FROM dead_letters WHERE tenant = $1 AND id = $2";

impl Store {
    /// One dead letter, with its body.
    pub(crate) async fn dead_letter(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<DeadLetterRow>, StoreError> {
        let row = sqlx::query(ONE).bind(tenant).bind(id).fetch_optional(&self.readers).await?;
        Ok(row.as_ref().map(letter_of).transpose()?)
    }

    /// Dead letters, newest first; without bodies.
    pub(crate) async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Found<DeadLetterRow>, StoreError> {
        self.look(&filter.search(), (COLUMNS, "dead_letters d"), after, limit, letter_of).await
    }
}

/// All but the body.
const COLUMNS: &str =
    "d.seq, d.id, d.kind, d.tenant, d.reason, d.detail, d.class, d.delivery, d.series, d.webhook,
     d.event_id, d.event_type, d.content_type, NULL AS body, d.at, d.resolved_at, d.resolution";

impl DeadLetterFilter {
    /// How it is looked for: along the index that leaves the least to be looked at.
    pub(super) fn search(&self) -> Search {
        let open = self.resolved == Some(false);
        let (index, by_kind) = match &self.kind {
            _ if open => ("dead_letters_unresolved", false),
            Some(_) => ("dead_letters_of_kind", true),
            None => ("dead_letters_of_tenant", false),
        };
        let mut search = Search::along("dead_letters", index, "at");
        search = search.ask(true, "d.tenant = ", Some(self.tenant.as_str().into()));
        if let Some(kind) = &self.kind {
            search = search.ask(by_kind, "d.kind = ", Some(kind.as_str().into()));
        }
        if let Some(reason) = &self.reason {
            search = search.ask(false, "d.reason = ", Some(reason.as_str().into()));
        }
        match self.resolved {
            Some(true) => search.ask(false, "d.resolved_at IS NOT NULL", None),
            Some(false) => search.ask(true, "d.resolved_at IS NULL", None),
            None => search,
        }
    }
}

impl Change<'_> {
    /// Keeps the dead letter of a series that ends here and not at a worker, which would have published one.
    pub(super) async fn keep_letter(
        &mut self,
        delivery: &str,
        series: i64,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let seq = self.counter("letter_seq").await? + 1;
        sqlx::query(
            "INSERT INTO dead_letters (seq, id, kind, tenant, reason, detail, class, delivery, series, webhook, event_id,
             event_type, content_type, at, resolution)
             SELECT $1, $2, 'dead', tenant, $3, '', last_class, id, $4, webhook, event_id, event_type, '', $5, ''
             FROM deliveries WHERE id = $6",
        )
        .bind(seq)
        .bind(letter_id("dead", &[delivery, &series.to_string()]))
        .bind(reason)
        .bind(series)
        .bind(now.as_millis())
        .bind(delivery)
        .execute(&mut *self.tx)
        .await?;
        self.set_counter("letter_seq", seq).await
    }

    /// One dead letter, as this change sees it.
    pub(crate) async fn dead_letter(
        &mut self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<DeadLetterRow>, StoreError> {
        let row = sqlx::query(ONE).bind(tenant).bind(id).fetch_optional(&mut *self.tx).await?;
        Ok(row.as_ref().map(letter_of).transpose()?)
    }

    /// Says that nobody needs to care any more. One that is resolved already stays as it is.
    pub(crate) async fn resolve_dead_letter(
        &mut self,
        tenant: &str,
        id: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<DeadLetterRow>, StoreError> {
        sqlx::query(
            "UPDATE dead_letters SET resolved_at = $3, resolution = $4
             WHERE tenant = $1 AND id = $2 AND resolved_at IS NULL",
        )
        .bind(tenant)
        .bind(id)
        .bind(now.as_millis())
        .bind(reason)
        .execute(&mut *self.tx)
        .await?;
        self.dead_letter(tenant, id).await
    }
}
