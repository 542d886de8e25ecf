//! What happened over time: reading what is added up for plots, and removing what is old.

mod roll_up;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use postrider_core::Timestamp;
use postrider_core::histogram::Histogram;
use postrider_core::stats::{Figures, Plot, Step};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, signed, time, unsigned};

/// Event types that are told of a webhook, at most: those with the most attempts.
const MOST_TYPES: i64 = 20;
/// Rows by event type that are added up for an answer, at most, the newest: some 50 ms.
const MOST_TYPE_ROWS: i64 = 100_000;
/// Rows removed in one transaction, about.
const CHUNK: i64 = 2000;

/// The counts and histograms of a row `s`.
const FIGURES: &str = "s.accepted, s.first_tried, s.first_delivered, s.delivered, s.failed, s.dead, s.status_2xx, s.status_3xx,
    s.status_4xx, s.status_429, s.status_5xx, s.status_none, s.last_at, s.first_attempt, s.delivery, s.attempt";

/// When the steps from $1 down to $3 begin, each $2 long.
const STEPS: &str =
    "WITH RECURSIVE steps (at) AS (SELECT $1 UNION ALL SELECT at - $2 FROM steps WHERE at - $2 >= $3)";

/// How attempts of events of one type ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeFigures {
    /// The event type; empty for deliveries whose event never became known.
    pub event_type: String,
    pub delivered: u64,
    pub failed: u64,
}

/// The sparkline of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spark {
    /// Attempts of each bucket that delivered, and those that did not.
    pub points: Vec<(u64, u64)>,
    /// How long all of them took.
    pub attempt: Histogram,
    /// When the newest of them began.
    pub last_at: Option<Timestamp>,
}

/// How old rows of a table are found and removed: those of step $1 from before $2.
struct Old {
    /// The first after $3 others.
    boundary: &'static str,
    /// Removes it and those.
    up_to: &'static str,
    /// Removes all of them.
    all: &'static str,
}

/// Of each table.
const OLD: [Old; 3] = [
    Old {
        boundary: "SELECT at, tenant, webhook FROM stats WHERE step_ms = $1 AND at < $2
            ORDER BY at, tenant, webhook LIMIT 1 OFFSET $3",
        up_to: "DELETE FROM stats WHERE step_ms = $1 AND (at, tenant, webhook) <= ($2, $3, $4)",
        all: "DELETE FROM stats WHERE step_ms = $1 AND at < $2",
    },
    Old {
        boundary: "SELECT at, tenant, webhook FROM stats_by_type WHERE step_ms = $1 AND at < $2
            ORDER BY at, tenant, webhook LIMIT 1 OFFSET $3",
        up_to: "DELETE FROM stats_by_type WHERE step_ms = $1 AND (at, tenant, webhook) <= ($2, $3, $4)",
        all: "DELETE FROM stats_by_type WHERE step_ms = $1 AND at < $2",
    },
    Old {
        boundary: "SELECT at, tenant, event_type FROM stats_of_types WHERE step_ms = $1 AND at < $2
            ORDER BY at, tenant, event_type LIMIT 1 OFFSET $3",
        up_to: "DELETE FROM stats_of_types WHERE step_ms = $1 AND (at, tenant, event_type) <= ($2, $3, $4)",
        all: "DELETE FROM stats_of_types WHERE step_ms = $1 AND at < $2",
    },
];

/// The figures of a row.
fn figures_of(row: &SqliteRow) -> Result<Figures, StoreError> {
    let count = |name: &str| row.try_get(name).map(unsigned);
    Ok(Figures {
        accepted: count("accepted")?,
        first_tried: count("first_tried")?,
        first_delivered: count("first_delivered")?,
        delivered: count("delivered")?,
        failed: count("failed")?,
        dead: count("dead")?,
        by_status: [
            count("status_2xx")?,
            count("status_3xx")?,
            count("status_4xx")?,
            count("status_429")?,
            count("status_5xx")?,
            count("status_none")?,
        ],
        last_at: time(row.try_get("last_at")?),
        first_attempt: histogram(row, "first_attempt")?,
        delivery: histogram(row, "delivery")?,
        attempt: histogram(row, "attempt")?,
    })
}

fn histogram(row: &SqliteRow, name: &str) -> Result<Histogram, StoreError> {
    Histogram::from_bytes(row.try_get(name)?)
        .ok_or_else(|| StoreError::Damaged(format!("a histogram in stats.{name} cannot be read")))
}

/// The first and the last step of a plot, and how long they are, as [`STEPS`] takes them.
fn steps_of(plot: &Plot) -> [i64; 3] {
    let last = plot.until.minus_ms(plot.step.ms());
    [last.as_millis(), signed(plot.step.ms()), plot.since.as_millis()]
}

/// What is counted in each bucket.
fn points_sql() -> String {
    format!(
        "{STEPS} SELECT s.at, {FIGURES} FROM steps t CROSS JOIN stats s
             ON s.step_ms = $2 AND s.at = t.at AND s.tenant = $4 AND s.webhook = $5"
    )
}

/// The same by event type.
fn types_sql() -> String {
    format!(
        "{STEPS} SELECT event_type, SUM(delivered), SUM(failed) FROM
             (SELECT s.event_type, s.delivered, s.failed FROM steps t CROSS JOIN stats_by_type s
              ON s.step_ms = $2 AND s.at = t.at AND s.tenant = $4 AND s.webhook = $5 LIMIT $6)
             GROUP BY event_type ORDER BY SUM(delivered) + SUM(failed) DESC, event_type LIMIT $7"
    )
}

/// How many events of each of these types were accepted.
fn volumes_sql() -> String {
    format!(
        "{STEPS} SELECT s.event_type, SUM(s.accepted) FROM json_each($5) k CROSS JOIN steps t CROSS JOIN stats_of_types s
             ON s.step_ms = $2 AND s.at = t.at AND s.tenant = $4 AND s.event_type = k.value GROUP BY s.event_type"
    )
}

/// The sparklines.
fn sparks_sql() -> String {
    format!(
        "{STEPS} SELECT s.webhook, s.at, s.delivered, s.failed, s.last_at, s.attempt
             FROM json_each($5) w CROSS JOIN steps t CROSS JOIN stats s
             ON s.step_ms = $2 AND s.at = t.at AND s.tenant = $4 AND s.webhook = w.value"
    )
}

impl Store {
    /// What is counted of a tenant, or of one of its webhooks, in each bucket of a plot.
    pub(crate) async fn stats(
        &self,
        tenant: &str,
        webhook: Option<&str>,
        plot: &Plot,
    ) -> Result<Vec<Figures>, StoreError> {
        let [last, step, first] = steps_of(plot);
        let sql = points_sql();
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(last)
            .bind(step)
            .bind(first)
            .bind(tenant)
            .bind(webhook.unwrap_or_default())
            .fetch_all(&self.readers)
            .await?;
        let mut points = vec![Figures::default(); plot.count()];
        for row in rows {
            let bucket = plot.bucket_of(Timestamp::from_millis(row.try_get("at")?));
            if let Some(point) = bucket.and_then(|bucket| points.get_mut(bucket)) {
                point.merge(&figures_of(&row)?);
            }
        }
        Ok(points)
    }

    /// How attempts of a webhook ended over a plot, by event type: those with the most attempts first.
    pub(crate) async fn stats_by_type(
        &self,
        tenant: &str,
        webhook: &str,
        plot: &Plot,
    ) -> Result<Vec<TypeFigures>, StoreError> {
        let [last, step, first] = steps_of(plot);
        let sql = types_sql();
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(last)
            .bind(step)
            .bind(first)
            .bind(tenant)
            .bind(webhook)
            .bind(MOST_TYPE_ROWS)
            .bind(MOST_TYPES)
            .fetch_all(&self.readers)
            .await?;
        let told = |(event_type, delivered, failed)| {
            let (delivered, failed) = (unsigned(delivered), unsigned(failed));
            TypeFigures { event_type, delivered, failed }
        };
        Ok(rows.into_iter().map(told).collect())
    }

    /// How many events of these types a tenant accepted over a plot; those of which there was none are not among them.
    pub(crate) async fn volumes<'a>(
        &self,
        tenant: &str,
        event_types: impl Iterator<Item = &'a str>,
        plot: &Plot,
    ) -> Result<HashMap<String, u64>, StoreError> {
        let [last, step, first] = steps_of(plot);
        let rows: Vec<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(volumes_sql()))
            .bind(last)
            .bind(step)
            .bind(first)
            .bind(tenant)
            .bind(super::record::list(event_types))
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.into_iter().map(|(event_type, accepted)| (event_type, unsigned(accepted))).collect())
    }

    /// The sparklines of some of a tenant's webhooks; those of which nothing is counted are not among them.
    pub(crate) async fn sparks(
        &self,
        tenant: &str,
        webhooks: &[String],
        plot: &Plot,
    ) -> Result<HashMap<String, Spark>, StoreError> {
        let [last, step, first] = steps_of(plot);
        let sql = sparks_sql();
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(last)
            .bind(step)
            .bind(first)
            .bind(tenant)
            .bind(super::record::list(webhooks))
            .fetch_all(&self.readers)
            .await?;
        let mut sparks: HashMap<String, Spark> = HashMap::new();
        for row in rows {
            let spark = sparks.entry(row.try_get("webhook")?).or_insert_with(|| Spark {
                points: vec![(0, 0); plot.count()],
                attempt: Histogram::default(),
                last_at: None,
            });
            let bucket = plot.bucket_of(Timestamp::from_millis(row.try_get("at")?));
            if let Some((delivered, failed)) = bucket.and_then(|bucket| spark.points.get_mut(bucket)) {
                *delivered += unsigned(row.try_get("delivered")?);
                *failed += unsigned(row.try_get("failed")?);
            }
            spark.attempt.merge(&histogram(&row, "attempt")?);
            spark.last_at = spark.last_at.max(time(row.try_get("last_at")?));
        }
        Ok(sparks)
    }

    /// Removes some of what is kept no longer; `true` when there may be more.
    pub(super) async fn prune_stats(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut more = false;
        for step in Step::ALL {
            for old in &OLD {
                more |= self.prune_step(step, old, now).await?;
            }
        }
        Ok(more)
    }

    async fn prune_step(&self, step: Step, old: &Old, now: Timestamp) -> Result<bool, StoreError> {
        let (step_ms, before) = (signed(step.ms()), step.kept_from(now).as_millis());
        let boundary: Option<(i64, String, String)> = sqlx::query_as(old.boundary)
            .bind(step_ms)
            .bind(before)
            .bind(CHUNK)
            .fetch_optional(&self.readers)
            .await?;
        let Some((at, tenant, webhook)) = boundary else {
            sqlx::query(old.all).bind(step_ms).bind(before).execute(&self.writer).await?;
            return Ok(false);
        };
        let up_to = sqlx::query(old.up_to).bind(step_ms).bind(at).bind(tenant).bind(webhook);
        up_to.execute(&self.writer).await?;
        Ok(true)
    }
}
