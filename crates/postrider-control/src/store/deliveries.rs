//! Deliveries, their series and attempts; redelivering, and releasing what is held.

use std::sync::{Arc, LazyLock};

use postrider_core::wire::{DeliveryRecord, RequestTimes, WebhookRecord};
use postrider_core::{DeliveryId, Timestamp, WebhookId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::cancellations::{CANCELLING, Outcome};
use super::events::read_body;
use super::pages::{Found, Place, Search, Value};
use super::{Change, Store, StoreError, small, time, unsigned};

/// Series and attempts that are shown with one delivery, the newest.
const MOST_SERIES: i64 = 100;
const MOST_ATTEMPTS: i64 = 1000;

/// A delivery with a summary of its latest series.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRow {
    pub id: String,
    pub webhook: String,
    pub tenant: String,
    pub event_id: String,
    pub event_type: String,
    pub series: u32,
    pub state: String,
    pub held: bool,
    /// It was called off, and no worker has met it since.
    pub cancelling: bool,
    pub reason: String,
    pub attempts: u32,
    pub next_at: Option<Timestamp>,
    pub last_class: String,
    pub last_status: Option<i64>,
    pub last_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One run of attempts.
#[derive(Clone, Debug)]
pub(crate) struct SeriesRow {
    pub series: u32,
    pub state: String,
    pub held: bool,
    pub reason: String,
    pub next_at: Option<Timestamp>,
    pub born_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub repeats: u32,
    pub attempts: Vec<AttemptRow>,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct AttemptRow {
    pub n: u32,
    pub at: Timestamp,
    pub duration_ms: u64,
    pub url: String,
    pub class: String,
    pub status: Option<i64>,
    pub error: Option<String>,
    pub response_body: Option<String>,
    pub response_headers: Vec<(String, String)>,
    pub next_at: Option<Timestamp>,
    pub worker: String,
    pub repeats: u32,
    pub times: RequestTimes,
    pub remote: Option<String>,
}

/// A delivery with everything.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryDetail {
    pub row: DeliveryRow,
    pub series: Vec<SeriesRow>,
}

/// Which deliveries to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeliveryFilter {
    pub tenant: String,
    /// A state; `held` means those pending ones that are held.
    pub state: Option<String>,
    pub webhook: Option<String>,
    pub event: Option<String>,
    pub event_type: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The class of its newest attempt.
    pub class: Option<String>,
    /// How its newest attempt was answered.
    pub status: Option<StatusFilter>,
    /// With so many attempts of the latest series at least.
    pub attempts_from: Option<u32>,
}

/// How an attempt was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusFilter {
    /// With this status.
    Is(u16),
    /// With a status of this hundred: 5 for 500 to 599.
    Hundred(u16),
    /// Not at all.
    NoAnswer,
}

/// A delivery that is made again.
#[derive(Clone, Debug)]
pub(crate) struct Redelivered {
    pub id: String,
    pub series: u32,
    /// Its webhook.
    pub webhook: WebhookRecord,
}

/// Why a delivery cannot be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedeliverRefused {
    /// There is no such delivery.
    Unknown,
    /// It is still under way.
    NotFinal {
        /// When its next attempt is due, if that is known.
        next_at: Option<Timestamp>,
        /// It waits for its webhook to be resumed.
        held: bool,
        /// It was called off, and ends when a worker meets it.
        cancelling: bool,
    },
    /// Its webhook was deleted.
    WebhookDeleted,
    /// The body of its event was removed.
    BodyGone,
}

/// A delivery `d` as it is read.
static COLUMNS: LazyLock<String> = LazyLock::new(|| format!("d.*, {CANCELLING} AS cancelling"));

/// It, and its latest series `s`.
const FROM: &str = "deliveries d LEFT JOIN series s ON s.delivery = d.seq AND s.series = d.series";

/// Both of it.
pub(super) static ROW: LazyLock<String> = LazyLock::new(|| format!("SELECT {} FROM {FROM}", *COLUMNS));

/// What a filter asks of deliveries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Tenant,
    Event,
    Webhook,
    State,
    Held,
    Type,
}

impl DeliveryFilter {
    /// How it is looked for, `event` being the number of the event that it names: along the index that leaves the least to
    /// be looked at.
    pub(super) fn search(&self, event: Option<i64>) -> Search {
        use Asked::{Event, Held, State, Tenant, Type, Webhook};
        let held = self.state.as_deref() == Some("held");
        let state = if held { Some("pending") } else { self.state.as_deref() };
        // Most of what there is was delivered: no index knows it by that.
        let is_rare = state.is_some_and(|state| state != "delivered");
        let (index, knows): (_, &[Asked]) = match (&self.webhook, &self.event_type) {
            _ if event.is_some() => ("deliveries_of_event", &[Event]),
            (Some(_), _) if is_rare => ("deliveries_of_webhook_in_state", &[Webhook, State]),
            (Some(_), _) => ("deliveries_of_webhook", &[Webhook]),
            (None, _) if held => ("deliveries_held_of_tenant", &[Tenant, Held]),
            (None, _) if is_rare => ("deliveries_in_state", &[Tenant, State]),
            (None, Some(_)) => ("deliveries_of_type", &[Tenant, Type]),
            (None, None) => ("deliveries_of_tenant", &[Tenant]),
        };
        let mut search = Search::along("deliveries", index, "created_at");
        let asked = [
            (Tenant, Some("d.tenant = "), Some(self.tenant.as_str())),
            (Webhook, self.webhook.as_ref().map(|_| "d.webhook = "), self.webhook.as_deref()),
            (State, state.map(|_| "d.state = "), state),
            (Held, held.then_some("d.held = 1"), None),
            (Type, self.event_type.as_ref().map(|_| "d.event_type = "), self.event_type.as_deref()),
        ];
        for (column, condition, value) in asked {
            if let Some(condition) = condition {
                search = search.ask(knows.contains(&column), condition, value.map(Value::from));
            }
        }
        if knows.contains(&State) {
            search = search.ask(true, "d.state <> 'delivered'", None);
        }
        if let Some(event) = event {
            search = search.ask(true, "d.event = ", Some(event.into()));
        }
        for (condition, value) in self.of_attempts() {
            search = search.ask(false, condition, value);
        }
        search.between(self.since, self.until)
    }

    /// What it asks of attempts. No index knows of them.
    fn of_attempts(&self) -> Vec<(&'static str, Option<Value>)> {
        let number = |n: u16| Some(i64::from(n).into());
        let mut asked: Vec<(&'static str, Option<Value>)> = match self.status {
            None => Vec::new(),
            Some(StatusFilter::Is(status)) => vec![("d.last_status = ", number(status))],
            Some(StatusFilter::Hundred(hundred)) => {
                vec![
                    ("d.last_status >= ", number(hundred * 100)),
                    ("d.last_status < ", number(hundred * 100 + 100)),
                ]
            }
            Some(StatusFilter::NoAnswer) => {
                vec![("d.last_status IS NULL", None), ("d.last_class <> ''", None)]
            }
        };
        if let Some(class) = &self.class {
            asked.push(("d.last_class = ", Some(class.as_str().into())));
        }
        if let Some(attempts) = self.attempts_from {
            asked.push(("d.attempts >= ", Some(i64::from(attempts).into())));
        }
        asked
    }
}

pub(super) fn delivery_of(row: &SqliteRow) -> Result<DeliveryRow, sqlx::Error> {
    Ok(DeliveryRow {
        id: row.try_get("id")?,
        webhook: row.try_get("webhook")?,
        tenant: row.try_get("tenant")?,
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        series: small(row.try_get("series")?),
        state: row.try_get("state")?,
        held: row.try_get("held")?,
        cancelling: row.try_get("cancelling")?,
        reason: row.try_get("reason")?,
        attempts: small(row.try_get("attempts")?),
        next_at: time(row.try_get("next_at")?),
        last_class: row.try_get("last_class")?,
        last_status: row.try_get("last_status")?,
        last_at: time(row.try_get("last_at")?),
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        updated_at: Timestamp::from_millis(row.try_get("updated_at")?),
    })
}

impl Store {
    /// Deliveries, newest first.
    pub(crate) async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Found<DeliveryRow>, StoreError> {
        let event = match &filter.event {
            Some(event) => match self.event_number(&filter.tenant, event).await? {
                Some(event) => Some(event),
                None => return Ok(Found { rows: Vec::new(), next: None }),
            },
            None => None,
        };
        let search = filter.search(event);
        self.look(&search, (&COLUMNS, FROM), after, limit, delivery_of).await
    }

    /// One delivery with its series and attempts.
    pub(crate) async fn delivery(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<DeliveryDetail>, StoreError> {
        let mut tx = self.readers.begin().await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{} WHERE d.tenant = $1 AND d.id = $2", *ROW)))
            .bind(tenant)
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let seq: i64 = row.try_get("seq")?;
        let series = sqlx::query("SELECT * FROM series WHERE delivery = $1 ORDER BY series DESC LIMIT $2")
            .bind(seq)
            .bind(MOST_SERIES)
            .fetch_all(&mut *tx)
            .await?;
        let attempts = sqlx::query(
            "SELECT * FROM attempts WHERE delivery = $1 ORDER BY series DESC, at DESC, n DESC LIMIT $2",
        )
        .bind(seq)
        .bind(MOST_ATTEMPTS)
        .fetch_all(&mut *tx)
        .await?;
        let mut detail = DeliveryDetail { row: delivery_of(&row)?, series: Vec::with_capacity(series.len()) };
        for row in series.iter().rev() {
            detail.series.push(SeriesRow {
                series: small(row.try_get("series")?),
                state: row.try_get("state")?,
                held: row.try_get("held")?,
                reason: row.try_get("reason")?,
                next_at: time(row.try_get("next_at")?),
                born_at: Timestamp::from_millis(row.try_get("born_at")?),
                ended_at: time(row.try_get("ended_at")?),
                repeats: small(row.try_get("repeats")?),
                attempts: Vec::new(),
            });
        }
        for row in attempts.iter().rev() {
            let series = small(row.try_get("series")?);
            let Some(series) = detail.series.iter_mut().find(|known| known.series == series) else {
                continue;
            };
            series.attempts.push(attempt_of(row)?);
        }
        Ok(Some(detail))
    }

    /// Webhooks that have held deliveries and are not paused any more, and whether they were deleted.
    pub(crate) async fn webhooks_to_release(&self) -> Result<Vec<(String, bool)>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT w.id, w.deleted_at IS NOT NULL FROM webhooks w WHERE w.state <> 'paused'
             AND EXISTS (SELECT 1 FROM deliveries d WHERE d.webhook = w.id AND d.held = 1 AND d.event IS NOT NULL) LIMIT 1000",
        )
        .fetch_all(&self.readers)
        .await?)
    }
}

fn attempt_of(row: &SqliteRow) -> Result<AttemptRow, StoreError> {
    let headers: String = row.try_get("response_headers")?;
    let times: Option<String> = row.try_get("times")?;
    Ok(AttemptRow {
        n: small(row.try_get("n")?),
        at: Timestamp::from_millis(row.try_get("at")?),
        duration_ms: unsigned(row.try_get("duration_ms")?),
        url: row.try_get("url")?,
        class: row.try_get("class")?,
        status: row.try_get("status")?,
        error: row.try_get("error")?,
        response_body: row.try_get("response_body")?,
        response_headers: serde_json::from_str(&headers).unwrap_or_default(),
        next_at: time(row.try_get("next_at")?),
        worker: row.try_get("worker")?,
        repeats: small(row.try_get("repeats")?),
        times: times.and_then(|times| serde_json::from_str(&times).ok()).unwrap_or_default(),
        remote: row.try_get("remote")?,
    })
}

impl Change<'_> {
    /// Makes a delivery again: a new series, owed and pending, with the body from the store.
    pub(crate) async fn redeliver(
        &mut self,
        tenant: &str,
        id: &str,
        now: Timestamp,
    ) -> Result<Result<Redelivered, RedeliverRefused>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT d.webhook, d.event, d.series, d.state, d.held, d.next_at, {CANCELLING} AS cancelling,
             w.revision, w.record AS webhook_record, b.record
             FROM deliveries d LEFT JOIN series s ON s.delivery = d.seq AND s.series = d.series
             LEFT JOIN webhooks w ON w.id = d.webhook AND w.deleted_at IS NULL
             LEFT JOIN bodies b ON b.event = d.event WHERE d.tenant = $1 AND d.id = $2"
        )))
        .bind(tenant)
        .bind(id)
        .fetch_optional(&mut *self.tx)
        .await?;
        let Some(row) = row else { return Ok(Err(RedeliverRefused::Unknown)) };
        if row.try_get::<String, _>("state")? == "pending" {
            let next_at = time(row.try_get("next_at")?);
            let (held, cancelling) = (row.try_get("held")?, row.try_get("cancelling")?);
            return Ok(Err(RedeliverRefused::NotFinal { next_at, held, cancelling }));
        }
        let Some(revision) = row.try_get::<Option<i64>, _>("revision")? else {
            return Ok(Err(RedeliverRefused::WebhookDeleted));
        };
        let webhook: WebhookRecord = serde_json::from_str(row.try_get("webhook_record")?)
            .map_err(|e| StoreError::Damaged(format!("the record of a webhook: {e}")))?;
        let Some(body) = row.try_get::<Option<Vec<u8>>, _>("record")? else {
            return Ok(Err(RedeliverRefused::BodyGone));
        };
        let series = small(row.try_get("series")?) + 1;
        sqlx::query(
            "INSERT INTO series (delivery, series, owed, state, held, held_attempt, held_at, reason, attempts, logged,
             born_at, seen_at, asked) VALUES ((SELECT seq FROM deliveries WHERE id = $1), $2, 1, 'pending', 0, 0, 0, '', 0, 0, $3, $3, 1)",
        )
        .bind(id)
        .bind(i64::from(series))
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        sqlx::query(
            "UPDATE deliveries SET series = $2, state = 'pending', held = 0, reason = '', attempts = 0, next_at = NULL,
             updated_at = $3 WHERE id = $1",
        )
        .bind(id)
        .bind(i64::from(series))
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        // The other side of the books: one more series is owed.
        sqlx::query("UPDATE events SET owed = owed + 1 WHERE seq = $1")
            .bind(row.try_get::<Option<i64>, _>("event")?)
            .execute(&mut *self.tx)
            .await?;
        let delivery = DeliveryRecord {
            id: DeliveryId::from_trusted(id),
            webhook: WebhookId::from_trusted(row.try_get::<String, _>("webhook")?),
            revision: unsigned(revision),
            epoch: self.store.epoch(),
            series,
            attempt: 1,
            born: now,
            due: None,
            crashes: 0,
            unknown_since: None,
            parked: 0,
            asked: true,
            test: false,
        };
        self.deliver(Arc::new(read_body(&body)?), delivery, now).await?;
        Ok(Ok(Redelivered { id: id.to_owned(), series, webhook }))
    }

    /// Sends on what is held for a webhook that is not paused any more: the same series with its next attempt, oldest
    /// first, at most `limit`. Returns how many were held.
    pub(crate) async fn release(
        &mut self,
        webhook: &str,
        limit: u32,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let rows = sqlx::query(
            "SELECT d.id, d.series, s.held_attempt, s.asked, w.revision, b.record
             FROM deliveries d
             JOIN webhooks w ON w.id = d.webhook AND w.state NOT IN ('paused', 'deleted')
             JOIN series s ON s.delivery = d.seq AND s.series = d.series
             LEFT JOIN bodies b ON b.event = d.event
             WHERE d.webhook = $1 AND d.held = 1 AND d.event IS NOT NULL ORDER BY d.created_at, d.seq LIMIT $2",
        )
        .bind(webhook)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await?;
        let mut released = 0;
        for row in rows {
            let id: String = row.try_get("id")?;
            let series: i64 = row.try_get("series")?;
            released += 1;
            let Some(body) = row.try_get::<Option<Vec<u8>>, _>("record")? else {
                // Nothing can be sent without a body.
                self.end_held(&id, series, Outcome::Dead("body_gone"), now).await?;
                continue;
            };
            // It is due now, and not since it was held.
            for sql in [
                "UPDATE series SET held = 0, released_at = $3, next_at = $3
                 WHERE delivery = (SELECT seq FROM deliveries WHERE id = $1) AND series = $2",
                "UPDATE deliveries SET held = 0, next_at = $3 WHERE id = $1 AND series = $2",
            ] {
                sqlx::query(sql).bind(&id).bind(series).bind(now.as_millis()).execute(&mut *self.tx).await?;
            }
            let delivery = DeliveryRecord {
                id: DeliveryId::from_trusted(id),
                webhook: WebhookId::from_trusted(webhook),
                revision: unsigned(row.try_get("revision")?),
                epoch: self.store.epoch(),
                series: small(series),
                attempt: small(row.try_get("held_attempt")?).max(1),
                // Its age counts from now: what its webhook was paused for does not make it too old.
                born: now,
                due: None,
                crashes: 0,
                unknown_since: None,
                parked: 0,
                asked: row.try_get("asked")?,
                test: false,
            };
            self.deliver(Arc::new(read_body(&body)?), delivery, now).await?;
        }
        Ok(released)
    }
}
