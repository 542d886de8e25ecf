//! Catalogues: the record that goes to the data plane, and tables to look event types up.

use postrider_core::catalogue::{Catalogue, TypeEntry};
use postrider_core::profile::ProfileSpec;
use postrider_core::wire::{ConfigKind, ConfigRecord, TenantRecord};
use postrider_core::{Epoch, TenantId, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::{Change, Settings, Store, StoreError, WebhookRow, signed, unsigned};

/// The most catalogues of one tenant.
pub(crate) const MAX_CATALOGUES: usize = 16;

/// A catalogue as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct CatalogueRow {
    pub catalogue: Catalogue,
    pub revision: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An event type as a catalogue of a tenant has it.
#[derive(Clone, Debug)]
pub(crate) struct TypeRow {
    pub product: String,
    /// Its place in the catalogue.
    pub position: u32,
    pub entry: TypeEntry,
}

impl TypeRow {
    /// Its name and its aliases.
    pub(crate) fn spellings(&self) -> Vec<String> {
        spellings(&self.entry).map(str::to_owned).collect()
    }
}

/// Which event types to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct TypeFilter {
    pub tenant: String,
    pub product: Option<String>,
    pub category: Option<String>,
    pub group: Option<String>,
    /// Words that its texts must have, all of them, in lower case.
    pub search: Vec<String>,
}

impl TypeFilter {
    /// The list along the index in which event types are kept in order. A tenant's catalogues have a bounded number of them.
    pub(super) fn list(&self, query: &mut QueryBuilder<Sqlite>, after: Option<(&str, i64)>, limit: u32) {
        query.push("SELECT * FROM event_types INDEXED BY event_types_in_order WHERE tenant = ");
        query.push_bind(self.tenant.clone());
        for (column, value) in
            [("product", &self.product), ("category", &self.category), ("grp", &self.group)]
        {
            if let Some(value) = value {
                query.push(format_args!(" AND {column} = ")).push_bind(value.clone());
            }
        }
        for word in &self.search {
            query.push(" AND instr(words, ").push_bind(word.clone()).push(") > 0");
        }
        if let Some((product, position)) = after {
            query.push(" AND (product, position) > (").push_bind(product.to_owned()).push(", ");
            query.push_bind(position).push(")");
        }
        query.push(" ORDER BY product, position LIMIT ").push_bind(i64::from(limit));
    }

    /// Whether the type of a catalogue that is not stored is among them.
    pub(crate) fn wants(&self, row: &TypeRow) -> bool {
        let words = words(&row.entry);
        self.product.as_ref().is_none_or(|product| *product == row.product)
            && self.category.as_ref().is_none_or(|category| *category == row.entry.category)
            && self.group.as_ref().is_none_or(|group| Some(group) == row.entry.group.as_ref())
            && self.search.iter().all(|word| words.contains(word))
    }
}

/// What a catalogue defines and webhooks name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TermKind {
    /// An event type, by name or alias.
    Type,
    Group,
    Category,
    Profile,
}

impl TermKind {
    /// One word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Group => "group",
            Self::Category => "category",
            Self::Profile => "profile",
        }
    }
}

/// One of the words that a catalogue defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub kind: TermKind,
    pub name: String,
    /// For an event type, its name; for a group, its category.
    pub means: String,
    /// The product whose catalogue defines it.
    pub product: String,
}

/// Every word that a catalogue defines.
pub(crate) fn terms(catalogue: &Catalogue) -> Vec<Term> {
    let term = |kind, name: &str, means: &str| Term {
        kind,
        name: name.to_owned(),
        means: means.to_owned(),
        product: catalogue.product.id.clone(),
    };
    let mut terms = Vec::new();
    for entry in &catalogue.event_types {
        terms.extend(spellings(entry).map(|spelling| term(TermKind::Type, spelling, entry.name.as_str())));
    }
    terms.extend(catalogue.groups.iter().map(|group| term(TermKind::Group, &group.id, &group.category)));
    terms.extend(catalogue.categories.iter().map(|it| term(TermKind::Category, &it.id, &it.id)));
    terms.extend(catalogue.profile.iter().map(|it| term(TermKind::Profile, &it.name, &it.name)));
    terms
}

fn spellings(entry: &TypeEntry) -> impl Iterator<Item = &str> {
    std::iter::once(&entry.name).chain(&entry.aliases).map(|name| name.as_str())
}

/// What a search looks into.
fn words(entry: &TypeEntry) -> String {
    let mut words = format!("{}\n{}", entry.label, entry.description);
    for spelling in spellings(entry) {
        words.push('\n');
        words.push_str(spelling);
    }
    words.to_lowercase()
}

/// A catalogue, or that it is gone, as the data plane is told of it.
pub(super) fn catalogue_record(
    epoch: &Epoch,
    revision: u64,
    tenant: &str,
    product: &str,
    catalogue: Option<String>,
) -> Result<ConfigRecord, StoreError> {
    #[derive(Serialize)]
    struct Body<'a> {
        tenant: &'a str,
        catalogue: Box<RawValue>,
    }
    let id = format!("{tenant}/{product}");
    let Some(text) = catalogue else {
        return Ok(ConfigRecord::bare(epoch, revision, ConfigKind::Catalogue, &id));
    };
    let catalogue = RawValue::from_string(text)
        .map_err(|e| StoreError::Damaged(format!("the record of catalogue {id}: {e}")))?;
    Ok(ConfigRecord::of(epoch, revision, ConfigKind::Catalogue, &id, &Body { tenant, catalogue }))
}

fn catalogue_of(row: &SqliteRow) -> Result<CatalogueRow, StoreError> {
    let text: String = row.try_get("record")?;
    let catalogue = serde_json::from_str(&text)
        .map_err(|e| StoreError::Damaged(format!("the record of a catalogue: {e}")))?;
    Ok(CatalogueRow {
        catalogue,
        revision: unsigned(row.try_get("revision")?),
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        updated_at: Timestamp::from_millis(row.try_get("updated_at")?),
    })
}

fn type_of(row: &SqliteRow) -> Result<TypeRow, StoreError> {
    let text: String = row.try_get("entry")?;
    let entry = serde_json::from_str(&text)
        .map_err(|e| StoreError::Damaged(format!("an event type of a catalogue: {e}")))?;
    let position: i64 = row.try_get("position")?;
    Ok(TypeRow { product: row.try_get("product")?, position: super::small(position), entry })
}

fn term_of(row: &SqliteRow) -> Result<Term, sqlx::Error> {
    let kind: String = row.try_get("kind")?;
    let kind = [TermKind::Type, TermKind::Group, TermKind::Category, TermKind::Profile]
        .into_iter()
        .find(|known| known.as_str() == kind);
    Ok(Term {
        kind: kind.ok_or_else(|| sqlx::Error::ColumnNotFound("kind".to_owned()))?,
        name: row.try_get("name")?,
        means: row.try_get("means")?,
        product: row.try_get("product")?,
    })
}

const ALL: &str = "SELECT * FROM catalogues WHERE tenant = $1 AND deleted_at IS NULL ORDER BY product";
const ONE: &str = "SELECT * FROM catalogues WHERE tenant = $1 AND product = $2 AND deleted_at IS NULL";
const TYPE: &str = "SELECT event_types.* FROM terms
    JOIN event_types ON event_types.tenant = terms.tenant AND event_types.name = terms.means
    WHERE terms.tenant = $1 AND terms.kind = 'type' AND terms.name = $2";
const PROFILE: &str = "SELECT json_extract(catalogues.record, '$.profile') FROM terms
    JOIN catalogues ON catalogues.tenant = terms.tenant AND catalogues.product = terms.product
    WHERE terms.tenant = $1 AND terms.kind = 'profile' AND terms.name = $2 AND catalogues.deleted_at IS NULL";
const TERM: &str = "SELECT * FROM terms WHERE tenant = $1 AND kind = $2 AND name = $3";

fn profile_of(text: Option<Option<String>>) -> Result<Option<ProfileSpec>, StoreError> {
    let read = |text: String| {
        serde_json::from_str(&text)
            .map_err(|e| StoreError::Damaged(format!("the profile of a catalogue: {e}")))
    };
    text.flatten().map(read).transpose()
}

impl Store {
    /// A profile that a catalogue of the tenant brings.
    pub(crate) async fn profile(&self, tenant: &str, name: &str) -> Result<Option<ProfileSpec>, StoreError> {
        profile_of(sqlx::query_scalar(PROFILE).bind(tenant).bind(name).fetch_optional(&self.readers).await?)
    }

    /// What the config stream would say of a tenant and one of its webhooks: a snapshot of them alone.
    pub(crate) async fn excerpt(
        &self,
        tenant: &TenantId,
        webhook: &WebhookRow,
    ) -> Result<Vec<ConfigRecord>, StoreError> {
        let epoch = self.epoch();
        let mut tx = self.readers.begin().await?;
        let mark = |kind| ConfigRecord::bare(&epoch, 0, kind, "");
        let mut records = vec![mark(ConfigKind::SnapshotBegin)];
        records.extend(self.vocabulary_of(&mut tx, tenant).await?);
        let (id, kind) = (webhook.record.id.as_str(), ConfigKind::Webhook);
        records.push(ConfigRecord::of(&epoch, webhook.revision, kind, id, &webhook.record));
        records.push(mark(ConfigKind::SnapshotEnd));
        Ok(records)
    }

    /// What the config stream would say of a tenant and its catalogues.
    pub(super) async fn vocabulary_of(
        &self,
        connection: &mut SqliteConnection,
        tenant: &TenantId,
    ) -> Result<Vec<ConfigRecord>, StoreError> {
        let epoch = self.epoch();
        let mut records = Vec::new();
        let row: Option<(i64, String)> =
            sqlx::query_as("SELECT revision, settings FROM tenants WHERE id = $1 AND deleted_at IS NULL")
                .bind(tenant.as_str())
                .fetch_optional(&mut *connection)
                .await?;
        if let Some((revision, settings)) = row {
            let body = TenantRecord { id: tenant.clone(), settings: Settings::read(&settings)?.told() };
            let kind = ConfigKind::Tenant;
            records.push(ConfigRecord::of(&epoch, unsigned(revision), kind, tenant.as_str(), &body));
        }
        let rows: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT revision, product, record FROM catalogues WHERE tenant = $1 AND deleted_at IS NULL ORDER BY product",
        )
        .bind(tenant.as_str())
        .fetch_all(&mut *connection)
        .await?;
        for (revision, product, text) in rows {
            records.push(catalogue_record(
                &epoch,
                unsigned(revision),
                tenant.as_str(),
                &product,
                Some(text),
            )?);
        }
        Ok(records)
    }

    /// The catalogues of a tenant by product.
    pub(crate) async fn catalogues(&self, tenant: &str) -> Result<Vec<CatalogueRow>, StoreError> {
        let rows = sqlx::query(ALL).bind(tenant).fetch_all(&self.readers).await?;
        rows.iter().map(catalogue_of).collect()
    }

    /// A catalogue of a tenant.
    pub(crate) async fn catalogue(
        &self,
        tenant: &str,
        product: &str,
    ) -> Result<Option<CatalogueRow>, StoreError> {
        let row = sqlx::query(ONE).bind(tenant).bind(product).fetch_optional(&self.readers).await?;
        row.as_ref().map(catalogue_of).transpose()
    }

    /// Event types by catalogue and place, after `after`.
    pub(crate) async fn event_types(
        &self,
        filter: &TypeFilter,
        after: Option<(&str, i64)>,
        limit: u32,
    ) -> Result<Vec<TypeRow>, StoreError> {
        let mut query = QueryBuilder::new("");
        filter.list(&mut query, after, limit);
        let rows = query.build().persistent(false).fetch_all(&self.readers).await?;
        rows.iter().map(type_of).collect()
    }

    /// An event type by its name or an alias.
    pub(crate) async fn event_type(
        &self,
        tenant: &str,
        spelling: &str,
    ) -> Result<Option<TypeRow>, StoreError> {
        let row = sqlx::query(TYPE).bind(tenant).bind(spelling).fetch_optional(&self.readers).await?;
        row.as_ref().map(type_of).transpose()
    }
}

impl Change<'_> {
    /// A profile that a catalogue of the tenant brings, as this change sees it.
    pub(crate) async fn profile(
        &mut self,
        tenant: &str,
        name: &str,
    ) -> Result<Option<ProfileSpec>, StoreError> {
        profile_of(sqlx::query_scalar(PROFILE).bind(tenant).bind(name).fetch_optional(&mut *self.tx).await?)
    }

    /// The catalogues of a tenant by product, as this change sees them.
    pub(crate) async fn catalogues(&mut self, tenant: &str) -> Result<Vec<CatalogueRow>, StoreError> {
        let rows = sqlx::query(ALL).bind(tenant).fetch_all(&mut *self.tx).await?;
        rows.iter().map(catalogue_of).collect()
    }

    /// A catalogue of a tenant, as this change sees it.
    pub(crate) async fn catalogue(
        &mut self,
        tenant: &str,
        product: &str,
    ) -> Result<Option<CatalogueRow>, StoreError> {
        let row = sqlx::query(ONE).bind(tenant).bind(product).fetch_optional(&mut *self.tx).await?;
        row.as_ref().map(catalogue_of).transpose()
    }

    /// How many catalogues a tenant has.
    pub(crate) async fn count_catalogues(&mut self, tenant: &str) -> Result<u64, StoreError> {
        let n: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM catalogues WHERE tenant = $1 AND deleted_at IS NULL")
                .bind(tenant)
                .fetch_one(&mut *self.tx)
                .await?;
        Ok(unsigned(n))
    }

    /// An event type by its name or an alias, as this change sees it.
    pub(crate) async fn event_type(
        &mut self,
        tenant: &str,
        spelling: &str,
    ) -> Result<Option<TypeRow>, StoreError> {
        let row = sqlx::query(TYPE).bind(tenant).bind(spelling).fetch_optional(&mut *self.tx).await?;
        row.as_ref().map(type_of).transpose()
    }

    /// What a word means in the catalogues of a tenant, as this change sees it.
    pub(crate) async fn term(
        &mut self,
        tenant: &str,
        kind: TermKind,
        name: &str,
    ) -> Result<Option<Term>, StoreError> {
        let row = sqlx::query(TERM).bind(tenant).bind(kind.as_str()).bind(name);
        Ok(row.fetch_optional(&mut *self.tx).await?.as_ref().map(term_of).transpose()?)
    }

    /// All words of a kind in the catalogues of a tenant, the first `limit`.
    pub(crate) async fn terms(
        &mut self,
        tenant: &str,
        kind: TermKind,
        limit: u32,
    ) -> Result<Vec<Term>, StoreError> {
        let rows = sqlx::query("SELECT * FROM terms WHERE tenant = $1 AND kind = $2 ORDER BY name LIMIT $3")
            .bind(tenant)
            .bind(kind.as_str())
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await?;
        Ok(rows.iter().map(term_of).collect::<Result<_, _>>()?)
    }

    /// Those of these words that other catalogues of the tenant define, as they define them.
    pub(crate) async fn clashes(
        &mut self,
        tenant: &str,
        product: &str,
        terms: &[Term],
    ) -> Result<Vec<Term>, StoreError> {
        let mut clashes = Vec::new();
        for chunk in terms.chunks(200) {
            let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM terms WHERE tenant = ");
            query.push_bind(tenant).push(" AND product <> ").push_bind(product);
            query.push(" AND (kind, name) IN (VALUES ");
            let mut list = query.separated(", ");
            for term in chunk {
                list.push("(").push_bind_unseparated(term.kind.as_str());
                list.push_unseparated(", ").push_bind_unseparated(&term.name).push_unseparated(")");
            }
            query.push(")");
            let rows = query.build().persistent(false).fetch_all(&mut *self.tx).await?;
            clashes.extend(rows.iter().map(term_of).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(clashes)
    }

    /// Which of these words webhooks of the tenant name: event types, groups and categories.
    pub(crate) async fn subscribed(
        &mut self,
        tenant: &str,
        terms: &[Term],
    ) -> Result<Vec<(Term, u64)>, StoreError> {
        let mut named = Vec::new();
        for term in terms.iter().filter(|term| term.kind != TermKind::Profile) {
            let n: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM subscriptions WHERE tenant = $1 AND kind = $2 AND name = $3",
            )
            .bind(tenant)
            .bind(term.kind.as_str())
            .bind(&term.name)
            .fetch_one(&mut *self.tx)
            .await?;
            if n > 0 {
                named.push((term.clone(), unsigned(n)));
            }
        }
        Ok(named)
    }

    /// Makes a catalogue, or replaces the one of its product, and tells the data plane. Its words must not clash with
    /// those of other catalogues.
    pub(crate) async fn put_catalogue(
        &mut self,
        tenant: &TenantId,
        catalogue: &Catalogue,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let revision = self.next_revision().await?;
        let text = serde_json::to_string(catalogue).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let product = catalogue.product.id.as_str();
        sqlx::query(
            "INSERT INTO catalogues (tenant, product, revision, record, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $5)
             ON CONFLICT (tenant, product) DO UPDATE SET revision = excluded.revision, record = excluded.record,
             created_at = CASE WHEN deleted_at IS NULL THEN created_at ELSE excluded.created_at END,
             updated_at = excluded.updated_at, deleted_at = NULL",
        )
        .bind(tenant.as_str())
        .bind(product)
        .bind(signed(revision))
        .bind(&text)
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        self.forget_words(tenant.as_str(), product).await?;
        let mut rows = Vec::with_capacity(catalogue.event_types.len());
        for entry in &catalogue.event_types {
            rows.push((entry, serde_json::to_string(entry).map_err(|e| StoreError::Damaged(e.to_string()))?));
        }
        let mut position = 0i64;
        for chunk in rows.chunks(100) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT INTO event_types (tenant, name, product, category, grp, position, words, entry) ",
            );
            query.push_values(chunk, |mut row, (entry, text)| {
                row.push_bind(tenant.as_str())
                    .push_bind(entry.name.as_str())
                    .push_bind(product)
                    .push_bind(entry.category.as_str())
                    .push_bind(entry.group.as_deref().unwrap_or_default())
                    .push_bind(position)
                    .push_bind(words(entry))
                    .push_bind(text.as_str());
                position += 1;
            });
            query.build().persistent(false).execute(&mut *self.tx).await?;
        }
        for chunk in terms(catalogue).chunks(200) {
            let mut query =
                QueryBuilder::<Sqlite>::new("INSERT INTO terms (tenant, kind, name, means, product) ");
            query.push_values(chunk, |mut row, term| {
                row.push_bind(tenant.as_str())
                    .push_bind(term.kind.as_str())
                    .push_bind(term.name.clone())
                    .push_bind(term.means.clone())
                    .push_bind(term.product.clone());
            });
            query.build().persistent(false).execute(&mut *self.tx).await?;
        }
        let told = catalogue_record(&self.store.epoch(), revision, tenant.as_str(), product, Some(text))?;
        self.tell(&told, now).await?;
        self.for_reminders = true;
        Ok(revision)
    }

    /// Removes a catalogue of a tenant.
    pub(crate) async fn delete_catalogue(
        &mut self,
        tenant: &str,
        product: &str,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let revision = self.next_revision().await?;
        sqlx::query(
            "UPDATE catalogues SET revision = $3, record = NULL, updated_at = $4, deleted_at = $4
             WHERE tenant = $1 AND product = $2",
        )
        .bind(tenant)
        .bind(product)
        .bind(signed(revision))
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        self.forget_words(tenant, product).await?;
        let told = catalogue_record(&self.store.epoch(), revision, tenant, product, None)?;
        self.tell(&told, now).await?;
        self.for_reminders = true;
        Ok(revision)
    }

    async fn forget_words(&mut self, tenant: &str, product: &str) -> Result<(), StoreError> {
        for delete in [
            "DELETE FROM event_types WHERE tenant = $1 AND product = $2",
            "DELETE FROM terms WHERE tenant = $1 AND product = $2",
        ] {
            sqlx::query(delete).bind(tenant).bind(product).execute(&mut *self.tx).await?;
        }
        Ok(())
    }
}
