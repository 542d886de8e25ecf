//! Reading everything that the checker judges, in one read transaction and beside whoever writes.

use std::collections::HashMap;
use std::path::Path;

use futures_util::TryStreamExt as _;
use postrider_core::catalogue::Catalogue;
use postrider_core::profile::Profile;
use postrider_core::verify::{
    AttemptRow, Counters, DeliveryRow, EventRow, LetterRow, Run, SeriesRow, WebhookRow,
};
use postrider_core::wire::WebhookRecord;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::{PATIENCE, StoreError, path_of, schema, small, unsigned};

/// Feeds a run with what the store at this address says.
///
/// # Errors
/// [`StoreError`] with what to do.
pub(crate) async fn read(address: &str, run: &mut Run) -> Result<(), StoreError> {
    let path = path_of(address)?;
    // Opening would make a file that is missing look like an unreadable one.
    std::fs::metadata(&path).map_err(|cause| StoreError::File { path: path.clone(), cause })?;
    let mut connection = open(&path).await?;
    let mut tx = connection.begin().await?;
    check_schema(&mut tx).await?;
    webhooks(&mut tx, run).await?;
    events(&mut tx, run).await?;
    deliveries(&mut tx, run).await?;
    series(&mut tx, run).await?;
    attempts(&mut tx, run).await?;
    letters(&mut tx, run).await?;
    counters(&mut tx, run).await?;
    tx.rollback().await?;
    connection.close().await?;
    Ok(())
}

async fn open(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(PATIENCE)
        .disable_statement_logging();
    // A log that nobody has open needs an index, which a reader without write access cannot make. Where there is no log
    // nobody writes, and the file alone is the store.
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let has_log = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    Ok(options.immutable(!has_log && !is_open(path)).connect().await?)
}

/// Whether a control has the store: its lock is taken.
fn is_open(path: &Path) -> bool {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let Ok(lock) = std::fs::File::open(&lock) else { return false };
    matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
}

async fn check_schema(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let store: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await?;
    let known = schema::newest();
    match store {
        _ if store > known => Err(StoreError::Newer { store, known }),
        _ if store < known => Err(StoreError::Older { store, known }),
        _ => Ok(()),
    }
}

async fn webhooks(connection: &mut SqliteConnection, run: &mut Run) -> Result<(), StoreError> {
    let profiles = profiles(connection).await?;
    let mut rows = sqlx::query("SELECT id, record, created_at, updated_at FROM webhooks").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let (created, updated): (i64, i64) = (row.try_get("created_at")?, row.try_get("updated_at")?);
        let record: Option<&str> = row.try_get("record")?;
        let record = record.and_then(|record| serde_json::from_str::<WebhookRecord>(record).ok());
        // A policy that was changed may have allowed more before.
        let max_attempts = record.filter(|_| created == updated).and_then(|record| {
            let of_catalogue = || profiles.get(&(record.tenant.to_string(), record.profile.clone())).cloned();
            let profile = Profile::built_in(&record.profile).or_else(of_catalogue)?;
            Some(profile.retry(&record.retry).max_attempts())
        });
        run.webhook(&WebhookRow { id: row.try_get("id")?, max_attempts });
    }
    Ok(())
}

/// The profiles of catalogues, by tenant and name.
async fn profiles(
    connection: &mut SqliteConnection,
) -> Result<HashMap<(String, String), Profile>, StoreError> {
    let mut profiles = HashMap::new();
    let mut rows =
        sqlx::query("SELECT tenant, record FROM catalogues WHERE record IS NOT NULL").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let Ok(catalogue) = serde_json::from_str::<Catalogue>(row.try_get("record")?) else { continue };
        let Some(spec) = catalogue.profile else { continue };
        let name = spec.name.clone();
        if let Ok(profile) = Profile::new(spec) {
            profiles.insert((row.try_get("tenant")?, name), profile);
        }
    }
    Ok(profiles)
}

async fn events(connection: &mut SqliteConnection, run: &mut Run) -> Result<(), StoreError> {
    let mut rows = sqlx::query("SELECT tenant, id, event_type, fate, owed FROM events").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        run.event(&EventRow {
            tenant: row.try_get("tenant")?,
            id: row.try_get("id")?,
            event_type: row.try_get("event_type")?,
            fate: row.try_get("fate")?,
            owed: unsigned(row.try_get("owed")?),
        });
    }
    Ok(())
}

async fn deliveries(connection: &mut SqliteConnection, run: &mut Run) -> Result<(), StoreError> {
    let mut rows = sqlx::query("SELECT id, tenant, event_id, webhook FROM deliveries").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        run.delivery(&DeliveryRow {
            id: row.try_get("id")?,
            tenant: row.try_get("tenant")?,
            event_id: row.try_get("event_id")?,
            webhook: row.try_get("webhook")?,
        });
    }
    Ok(())
}

async fn series(connection: &mut SqliteConnection, run: &mut Run) -> Result<(), StoreError> {
    let mut rows = sqlx::query(
        "SELECT COALESCE(d.id, '') AS delivery, s.series, s.owed, s.state, s.held, s.reason, s.attempts, s.logged,
         s.repeats, s.born_at, s.ended_at FROM series s LEFT JOIN deliveries d ON d.seq = s.delivery",
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        run.series(&SeriesRow {
            delivery: row.try_get("delivery")?,
            series: number(&row, "series")?,
            owed: row.try_get("owed")?,
            state: row.try_get("state")?,
            held: row.try_get("held")?,
            reason: row.try_get("reason")?,
            attempts: number(&row, "attempts")?,
            logged: number(&row, "logged")?,
            repeats: number(&row, "repeats")?,
            born_at: row.try_get("born_at")?,
            ended_at: row.try_get("ended_at")?,
        });
    }
    Ok(())
}

async fn attempts(connection: &mut SqliteConnection, run: &mut Run) -> Result<(), StoreError> {
    let mut rows = sqlx::query(
        "SELECT COALESCE(d.id, '') AS delivery, a.series, a.n, a.at, a.duration_ms, a.class, a.status, a.next_at
         FROM attempts a LEFT JOIN deliveries d ON d.seq = a.delivery",
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let status: Option<i64> = row.try_get("status")?;
        run.attempt(&AttemptRow {
            delivery: row.try_get("delivery")?,
            series: number(&row, "series")?,
            n: number(&row, "n")?,
            at: row.try_get("at")?,
            duration_ms: unsigned(row.try_get("duration_ms")?),
            class: row.try_get("class")?,
            status: status.and_then(|status| u16::try_from(status).ok()),
            next_at: row.try_get("next_at")?,
        });
    }
    Ok(())
}

async fn letters(connection: &mut SqliteConnection, run: &mut Run) -> Result<(), StoreError> {
    let mut rows = sqlx::query("SELECT kind, delivery, series FROM dead_letters").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        run.letter(&LetterRow {
            kind: row.try_get("kind")?,
            delivery: row.try_get("delivery")?,
            series: number(&row, "series")?,
        });
    }
    Ok(())
}

async fn counters(connection: &mut SqliteConnection, run: &mut Run) -> Result<(), StoreError> {
    let missing_facts: i64 =
        sqlx::query_scalar(super::books::MISSING_FACTS).fetch_one(&mut *connection).await?;
    let late: i64 = sqlx::query_scalar("SELECT COALESCE(SUM(n), 0) FROM counters WHERE name = 'late_finals'")
        .fetch_one(&mut *connection)
        .await?;
    let wrong_tallies: i64 = sqlx::query_scalar(super::books::WRONG_TALLIES).fetch_one(connection).await?;
    run.counters(Counters {
        missing_facts: unsigned(missing_facts),
        late_ends: unsigned(late),
        wrong_tallies: unsigned(wrong_tallies),
    });
    Ok(())
}

fn number(row: &SqliteRow, name: &str) -> Result<u32, StoreError> {
    Ok(small(row.try_get(name)?))
}
