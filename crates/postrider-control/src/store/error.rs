//! What can go wrong with the store.

use std::path::PathBuf;

/// Trouble with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An address that is no store.
    #[error("POSTRIDER_STORE_URL must look like sqlite:/var/lib/postrider/postrider.db, not {0:?}")]
    Address(String),
    /// PostgreSQL.
    #[error(
        "this release stores in SQLite; set POSTRIDER_STORE_URL to sqlite:PATH (PostgreSQL comes in a later release)"
    )]
    Postgres,
    /// The file or its directory.
    #[error("the store {} cannot be opened: {cause}; check the path and the rights of this user", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// Another control has it.
    #[error("another control already uses the store {}; only one may run: stop it, or give this one its own store", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// A newer release wrote it.
    #[error(
        "the store was written by a newer release (its schema is {store}, this release knows {known}); run that release, or restore a backup"
    )]
    Newer {
        /// The store's schema.
        store: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// An older release wrote it, and only control may bring it to this one's schema.
    #[error(
        "the store was written by an older release (its schema is {store}, this release reads {known}); start control of this release once, or use the older release"
    )]
    Older {
        /// The store's schema.
        store: i64,
        /// The schema that this release reads.
        known: i64,
    },
    /// A state of Postrider that was never released wrote it: its schema has a number of ours, and is another.
    #[error(
        "the store was made by an unreleased state of Postrider, whose schema nobody can bring to this one; nothing was changed: set POSTRIDER_STORE_URL to a new file"
    )]
    Unreleased,
    /// The secrets in it were sealed with another key.
    #[error(
        "the store was made with master key {store}, but POSTRIDER_MASTER_KEY is key {given}; give the key that the store was made with"
    )]
    OtherKey {
        /// Fingerprint of the store's key.
        store: String,
        /// Fingerprint of the key that was given.
        given: String,
    },
    /// What is in it makes no sense.
    #[error("the store is damaged: {0}; restore a backup")]
    Damaged(String),
    /// The database.
    #[error("the store failed: {0}")]
    Sql(#[from] sqlx::Error),
}
