//! The tables, and how a store of an earlier release gets them.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{SqlSafeStr as _, SqlitePool};

use super::StoreError;

/// Every step from an empty database to this release's: its number, its name, its SQL. A step that was released never changes:
/// stores know what theirs were.
const STEPS: [(i64, &str, &str); 13] = [
    (1, "books", include_str!("../../migrations/0001_books.sql")),
    (2, "catalogues", include_str!("../../migrations/0002_catalogues.sql")),
    (3, "reminders", include_str!("../../migrations/0003_reminders.sql")),
    (4, "webhook health", include_str!("../../migrations/0004_webhook_health.sql")),
    (5, "endings", include_str!("../../migrations/0005_endings.sql")),
    (6, "replays", include_str!("../../migrations/0006_replays.sql")),
    (7, "due", include_str!("../../migrations/0007_due.sql")),
    (8, "tallies", include_str!("../../migrations/0008_tallies.sql")),
    (9, "access", include_str!("../../migrations/0009_access.sql")),
    (10, "stats", include_str!("../../migrations/0010_stats.sql")),
    (11, "times", include_str!("../../migrations/0011_times.sql")),
    (12, "stats of types", include_str!("../../migrations/0012_stats_of_types.sql")),
    (13, "health in order", include_str!("../../migrations/0013_health_in_order.sql")),
];

/// The steps, as the library takes them. Its macro would do the same, and compile the whole library a second time for it.
pub(super) fn steps() -> Vec<Migration> {
    let step = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    };
    STEPS.map(step).to_vec()
}

/// The number of the last step: the tables of this release.
pub(super) fn newest() -> i64 {
    STEPS.iter().map(|(version, ..)| *version).max().unwrap_or(0)
}

/// Brings a store to this release's tables.
///
/// # Errors
/// [`StoreError::Newer`] for the store of a newer release, [`StoreError::Unreleased`] for one whose tables no release made.
pub(super) async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    match Migrator::with_migrations(steps()).run(writer).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(store)) => Err(StoreError::Newer { store, known: newest() }),
        Err(MigrateError::VersionMismatch(_)) => Err(StoreError::Unreleased),
        Err(MigrateError::ExecuteMigration(error, _)) => Err(error.into()),
        Err(other) => Err(StoreError::Damaged(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_step() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
        let mut files: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
        files.sort();
        let named =
            STEPS.map(|(version, name, _)| format!("{version:04}_{}.sql", name.replace(' ', "_"))).to_vec();
        assert_eq!(files, named);
    }
}
