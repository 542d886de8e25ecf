//! The store: everything that control remembers. All SQL is here.
//!
//! SQLite with a write-ahead log and `synchronous=FULL`: what a commit says is on disk. One connection writes, a few
//! read; one process has the store at a time, held by a lock file. The SQL is plain, so that another database can take
//! its place behind the same methods.

pub(crate) mod audit;
mod audit_log;
mod books;
mod cancellations;
mod catalogues;
mod dead_letters;
mod deliveries;
mod due;
mod error;
mod events;
mod health;
mod idempotency;
mod judging;
mod keys;
mod ledger;
mod outbox;
mod own_events;
mod pages;
mod record;
mod reminders;
mod replays;
mod schema;
mod settings;
mod stats;
mod tenants;
#[cfg(test)]
mod tests;
mod upkeep;
mod webhooks;

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_core::seal::MasterKey;
use postrider_core::{Epoch, Timestamp};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Sqlite, SqlitePool, Transaction};
use tokio::sync::Notify;

pub(crate) use audit_log::{AuditEntry, AuditFilter, AuditRow};
pub(crate) use books::Books;
pub(crate) use cancellations::{CalledOff, CancelFilter, CancellationRow, NotCalledOff};
pub(crate) use catalogues::{CatalogueRow, MAX_CATALOGUES, Term, TermKind, TypeFilter, TypeRow, terms};
pub(crate) use dead_letters::{DeadLetterFilter, DeadLetterRow};
pub(crate) use deliveries::{
    AttemptRow, DeliveryDetail, DeliveryFilter, DeliveryRow, RedeliverRefused, SeriesRow, StatusFilter,
};
pub(crate) use due::Due;
pub use error::StoreError;
pub(crate) use events::{EventFilter, EventRow};
pub(crate) use health::Health;
pub(crate) use idempotency::KeptAnswer;
pub(crate) use keys::{KeyRefused, KeyRow, MAX_KEYS, NewKeyRow};
pub(crate) use ledger::letter_id;
#[cfg(test)]
pub(crate) use outbox::OutboxKind;
pub(crate) use outbox::{Audience, NewEvent, OutboxLane, OutboxRow};
pub(crate) use own_events::OwnEvent;
pub(crate) use pages::{Found, Place};
pub(crate) use record::{Entry, Letter, LetterKind, Recorded};
pub(crate) use reminders::{
    NewReminder, NotCancelled, ReminderDate, ReminderFilter, ReminderRefused, ReminderRow, ReminderState,
    Rule,
};
pub(crate) use replays::{
    EXPIRES_MS, LeftOut, MAX_ITEMS, MAX_OPEN, NewReplay, Outcomes, PlanBounds, Planned, ReplayAsked,
    ReplayRefused, ReplayRow, ReplayState, ReplayTarget, SentPlace, SentRow, TOO_MANY,
};
pub(crate) use settings::Settings;
pub(crate) use stats::{Spark, TypeFigures};
pub(crate) use tenants::{TenantRefused, TenantRow};
pub(crate) use webhooks::{Takes, WebhookFilter, WebhookRow};

/// How long to wait for a connection, and for a lock of the database.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how many pages of 4 KiB the log is copied into the database. A page that changes often is copied once each time, so
/// the longer the better; the log takes this much of the disk, 32 MiB, and as much is read at a start after a crash.
const CHECKPOINT_PAGES: &str = "8192";
/// Connections that only read.
const READERS: u32 = 4;

/// Everything that control remembers.
#[derive(Debug)]
pub(crate) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    epoch: std::sync::RwLock<Epoch>,
    wake: Wake,
    well: health::Well,
    path: PathBuf,
    _lock: File,
}

/// Tells tasks that there is something new for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake {
    /// The outbox has rows.
    pub outbox: Arc<Notify>,
    /// The outbox may have events that can be sent.
    pub events: Arc<Notify>,
    /// A webhook changed its state, or a series was held.
    pub release: Arc<Notify>,
    /// Something may have changed of when reminders are due.
    pub reminders: Arc<Notify>,
    /// The outbox may have deliveries that can be sent.
    pub deliveries: Arc<Notify>,
    /// A replay was made, is to run, or has been planned.
    pub replays: Arc<Notify>,
    /// The same, for who sends them.
    pub running: Arc<Notify>,
}

impl Store {
    /// Opens the store at `sqlite:PATH`, makes it when it is not there, and brings it to this release's schema.
    ///
    /// # Errors
    /// [`StoreError`] with what to do.
    pub(crate) async fn open(address: &str, key: &MasterKey) -> Result<Self, StoreError> {
        let path = path_of(address)?;
        let lock = make_files(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .pragma("cache_size", "-32768")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .disable_statement_logging();
        let pool = |most| {
            PoolOptions::<Sqlite>::new()
                .max_connections(most)
                .acquire_timeout(PATIENCE)
                .idle_timeout(None)
                .max_lifetime(None)
                // A disk that is full or fails has SQLite end a transaction by itself. The library does not notice, and would
                // refuse every later one on this connection: another connection is opened then.
                .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        schema::migrate(&writer).await?;
        let epoch = begin(&writer, key).await?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self {
            writer,
            readers,
            epoch: epoch.into(),
            wake: Wake::default(),
            well: health::Well::default(),
            path,
            _lock: lock,
        })
    }

    /// Which store this is: random, made with it.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Makes this another store for all readers: it was restored, and what it will say next must not be taken for older
    /// than what it said before.
    pub(crate) async fn renew_epoch(&self) -> Result<(), StoreError> {
        let epoch = format!("ep_{}", uuid::Uuid::now_v7().simple());
        sqlx::query("UPDATE meta SET value = $1 WHERE name = 'epoch'")
            .bind(&epoch)
            .execute(&self.writer)
            .await?;
        *self.epoch.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Epoch::from_trusted(epoch);
        Ok(())
    }

    /// What tells tasks that there is something new.
    pub(crate) fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// The newest change of the configuration.
    pub(crate) async fn revision(&self) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar("SELECT n FROM counters WHERE name = 'revision'")
            .fetch_one(&self.readers)
            .await?;
        Ok(unsigned(n))
    }

    /// Which database it is.
    pub(crate) fn kind(&self) -> &'static str {
        "sqlite"
    }

    /// The version of the library that reads and writes it.
    pub(crate) async fn version(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&self.readers).await?)
    }

    /// The number of the last step that made its tables.
    pub(crate) fn schema(&self) -> i64 {
        schema::newest()
    }

    /// How much of the disk it takes, bytes: the database, its log, and the index of the log.
    pub(crate) async fn bytes(&self) -> std::io::Result<u64> {
        let mut bytes = tokio::fs::metadata(&self.path).await?.len();
        for suffix in ["-wal", "-shm"] {
            let mut beside = self.path.clone().into_os_string();
            beside.push(suffix);
            match tokio::fs::metadata(beside).await {
                Ok(file) => bytes += file.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// Begins a change: nothing of it is true until it is committed.
    pub(crate) async fn change(&self) -> Result<Change<'_>, StoreError> {
        let tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Change {
            tx,
            store: self,
            for_outbox: false,
            for_release: false,
            for_reminders: false,
            for_replays: false,
        })
    }

    /// Finishes what is under way and closes the files.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A change under way, in one transaction. Dropping it undoes it.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    tx: Transaction<'static, Sqlite>,
    store: &'a Store,
    for_outbox: bool,
    for_release: bool,
    for_reminders: bool,
    for_replays: bool,
}

impl Change<'_> {
    /// Makes it true, all of it at once.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await?;
        if self.for_outbox {
            self.store.wake.outbox.notify_one();
            self.store.wake.events.notify_one();
            self.store.wake.deliveries.notify_one();
        }
        if self.for_release {
            self.store.wake.release.notify_one();
        }
        if self.for_reminders {
            self.store.wake.reminders.notify_one();
        }
        if self.for_replays {
            self.store.wake.replays.notify_one();
            self.store.wake.running.notify_one();
        }
        Ok(())
    }

    /// The revision of this change: one more than the newest.
    async fn next_revision(&mut self) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar("UPDATE counters SET n = n + 1 WHERE name = 'revision' RETURNING n")
            .fetch_one(&mut *self.tx)
            .await?;
        Ok(unsigned(n))
    }
}

/// The path in `sqlite:PATH`.
fn path_of(address: &str) -> Result<PathBuf, StoreError> {
    let bad = || {
        StoreError::Address(address.split('@').next_back().unwrap_or_default().chars().take(128).collect())
    };
    if address.starts_with("postgres:") || address.starts_with("postgresql:") {
        return Err(StoreError::Postgres);
    }
    let path = address.strip_prefix("sqlite:").ok_or_else(bad)?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.starts_with(':') || path.contains('?') {
        return Err(bad());
    }
    Ok(PathBuf::from(path))
}

/// Makes directory and file where they are missing, readable for this user alone, and takes the lock.
fn make_files(path: &Path) -> Result<File, StoreError> {
    let failed = |cause| StoreError::File { path: path.to_owned(), cause };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let open = |path: &Path| File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    let lock = open(Path::new(&lock_path)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    // The log and its index get the mode of the file that they belong to.
    open(path).map_err(failed)?;
    Ok(lock)
}

/// Gives a new store its epoch and its first tenant, and checks that the master key is the one it was made with.
async fn begin(writer: &SqlitePool, key: &MasterKey) -> Result<Epoch, StoreError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    let meta = |name: &'static str| {
        sqlx::query_scalar::<_, String>("SELECT value FROM meta WHERE name = $1").bind(name)
    };
    let given = key.fingerprint();
    if let Some(epoch) = meta("epoch").fetch_optional(&mut *tx).await? {
        let store = meta("master_key").fetch_optional(&mut *tx).await?.unwrap_or_default();
        if store != given {
            return Err(StoreError::OtherKey { store, given });
        }
        return Ok(Epoch::from_trusted(epoch));
    }
    let epoch = format!("ep_{}", uuid::Uuid::now_v7().simple());
    for (name, value) in [("epoch", &epoch), ("master_key", &given)] {
        sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2)")
            .bind(name)
            .bind(value)
            .execute(&mut *tx)
            .await?;
    }
    for (name, n) in [
        ("revision", 1),
        ("event_seq", 0),
        ("delivery_seq", 0),
        ("letter_seq", 0),
        ("repeated_facts", 0),
        ("late_finals", 0),
    ] {
        sqlx::query("INSERT INTO counters (name, n) VALUES ($1, $2)")
            .bind(name)
            .bind(n)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query("INSERT INTO tenants (id, revision, created_at) VALUES ('default', 1, $1)")
        .bind(postrider_broker::now().as_millis())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Epoch::from_trusted(epoch))
}

/// What the database keeps as a signed number and is never negative.
fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// The same for small numbers.
fn small(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn time(ms: Option<i64>) -> Option<Timestamp> {
    ms.map(Timestamp::from_millis)
}

#[cfg(test)]
pub(crate) mod test_store {
    use super::*;

    pub(crate) fn key(byte: u8) -> MasterKey {
        use base64::Engine as _;
        let mut bytes = [7; 32];
        bytes[0] = byte;
        MasterKey::parse(&base64::engine::general_purpose::STANDARD.encode(bytes)).unwrap()
    }

    pub(crate) struct TestStore {
        pub(crate) store: Store,
        pub(crate) dir: tempfile::TempDir,
    }

    impl Store {
        /// The store as whoever writes sees it.
        pub(crate) fn writer(&self) -> &SqlitePool {
            &self.writer
        }
    }

    impl TestStore {
        pub(crate) async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&address(&dir), &key(1)).await.unwrap();
            Self { store, dir }
        }

        pub(crate) async fn reopen(self) -> Self {
            self.store.close().await;
            drop(self.store);
            let store = Store::open(&address(&self.dir), &key(1)).await.unwrap();
            Self { store, dir: self.dir }
        }

        /// Changes the store behind its back.
        pub(crate) async fn execute(&self, sql: &'static str) {
            sqlx::query(sql).execute(&self.store.writer).await.unwrap();
        }

        /// Adds pending reminders like those of the first group, with keys from `first` up to and without `past`.
        pub(crate) async fn fill_reminders(&self, first: i64, past: i64) {
            sqlx::query(
                "WITH RECURSIVE n (n) AS (SELECT $1 WHERE $1 < $2 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < $2)
                 INSERT INTO reminders (tenant, key, grp, date, state, data, created_at, updated_at)
                 SELECT r.tenant, printf('member-%09d', n.n), r.grp, r.date + n.n % 365, 'pending',
                 printf('{\"points\":%d,\"member\":%d}', n.n, n.n), r.created_at, r.updated_at
                 FROM n JOIN reminders r ON r.seq = 1",
            )
            .bind(first)
            .bind(past)
            .execute(&self.store.writer)
            .await
            .unwrap();
            self.execute(
                "UPDATE reminder_groups SET pending = (SELECT COUNT(*) FROM reminders WHERE grp = id)",
            )
            .await;
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
        }

        /// The one number that a query gives.
        pub(crate) async fn rows(&self, sql: &'static str) -> i64 {
            sqlx::query_scalar(sql).fetch_one(&self.store.writer).await.unwrap()
        }
    }

    fn address(dir: &tempfile::TempDir) -> String {
        format!("sqlite:{}/state/postrider.db", dir.path().display())
    }

    #[tokio::test]
    async fn a_new_store_is_private_and_has_the_default_tenant() {
        use std::os::unix::fs::PermissionsExt as _;
        let t = TestStore::new().await;
        assert_eq!(t.store.revision().await.unwrap(), 1);
        assert!(t.store.tenant("default").await.unwrap().is_some());
        let epoch = t.store.epoch();
        for name in ["", "-wal", "-shm", ".lock"] {
            let path = t.dir.path().join(format!("state/postrider.db{name}"));
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        assert_eq!(t.reopen().await.store.epoch(), epoch);
    }

    #[tokio::test]
    async fn a_second_control_is_refused() {
        let t = TestStore::new().await;
        let refused = Store::open(&address(&t.dir), &key(1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    }

    #[tokio::test]
    async fn another_master_key_is_refused_naming_both() {
        let TestStore { store, dir } = TestStore::new().await;
        store.close().await;
        drop(store);
        let refused = Store::open(&address(&dir), &key(2)).await.unwrap_err().to_string();
        assert!(
            refused.contains(&key(1).fingerprint()) && refused.contains(&key(2).fingerprint()),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_store_of_a_newer_release_is_refused() {
        let t = TestStore::new().await;
        t.execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9000, 'later', 1, x'00', 0)",
        )
        .await;
        let TestStore { store, dir } = t;
        store.close().await;
        drop(store);
        let newest = schema::newest();
        let refused = Store::open(&address(&dir), &key(1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Newer { store: 9000, known } if known == newest), "{refused}");
    }

    #[test]
    fn only_sqlite_addresses_are_stores() {
        assert!(matches!(path_of("postgres://u:p@h/d"), Err(StoreError::Postgres)));
        for bad in ["", "sqlite:", "sqlite::memory:", "/data/x", "mysql:x", "sqlite:x?mode=ro"] {
            assert!(matches!(path_of(bad), Err(StoreError::Address(_))), "{bad}");
        }
        assert_eq!(path_of("sqlite:///a/b.db").unwrap(), PathBuf::from("/a/b.db"));
        assert_eq!(path_of("sqlite:b.db").unwrap(), PathBuf::from("b.db"));
    }
}
