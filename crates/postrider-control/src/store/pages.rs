//! Pages of lists that may be millions of rows long, newest first.
//!
//! Each list is read backwards along an index that knows the time, from a place in it: never counted, never sorted, never
//! skipped through. What a filter asks beyond its index is looked for in so many rows at a time; a page that found less says
//! where to go on. So no list takes long, whatever is asked of it.

use postrider_core::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Store, StoreError};

/// Rows that are looked at for one page, at most: 120 ms in a store of ten million.
const LOOKED_AT: i64 = 10_000;

/// Where a list goes on: with what is older than the row of this time and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// When the row is from, milliseconds.
    pub at: i64,
    /// Its number.
    pub seq: i64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.at, self.seq)
    }
}

impl Place {
    /// What `Display` wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (at, seq) = text.split_once('.')?;
        Some(Self { at: at.parse().ok()?, seq: seq.parse().ok()? })
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub(crate) struct Found<R> {
    pub rows: Vec<R>,
    /// Where the next page begins, if there may be one. There may be one also when this one is not full.
    pub next: Option<Place>,
}

/// A value that rows are compared with.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Number(n)
    }
}

/// A condition of rows `d`, and the value at its end if it has one.
#[derive(Debug)]
struct Term {
    condition: &'static str,
    value: Option<Value>,
}

impl Term {
    fn push(&self, query: &mut QueryBuilder<Sqlite>) {
        query.push(self.condition);
        match &self.value {
            Some(Value::Text(text)) => query.push_bind(text.clone()),
            Some(Value::Number(n)) => query.push_bind(*n),
            None => query,
        };
    }
}

/// How a list is looked for.
#[derive(Debug)]
pub(super) struct Search {
    table: &'static str,
    index: &'static str,
    time: &'static str,
    indexed: Vec<Term>,
    window: Vec<(&'static str, i64)>,
    others: Vec<Term>,
}

impl Search {
    /// Rows of a table along one of its indexes, in which the column `time` comes last.
    pub(super) fn along(table: &'static str, index: &'static str, time: &'static str) -> Self {
        Self { table, index, time, indexed: Vec::new(), window: Vec::new(), others: Vec::new() }
    }

    /// Only rows `d` of which this is true; whether the index knows, or row by row.
    pub(super) fn ask(mut self, indexed: bool, condition: &'static str, value: Option<Value>) -> Self {
        let terms = if indexed { &mut self.indexed } else { &mut self.others };
        terms.push(Term { condition, value });
        self
    }

    /// Only rows from this time on, and before the other.
    pub(super) fn between(mut self, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        for (condition, time) in [(" >= ", since), (" < ", until)] {
            self.window.extend(time.map(|time| (condition, time.as_millis())));
        }
        self
    }

    /// `SELECT` of these columns along the index, behind `after`, up to a limit that the caller adds.
    fn walk(&self, query: &mut QueryBuilder<Sqlite>, columns: &str, after: Option<Place>) {
        let Self { table, time, index, .. } = self;
        query.push(format_args!("SELECT {columns} FROM {table} AS d INDEXED BY {index} WHERE "));
        for (n, term) in self.indexed.iter().enumerate() {
            if n > 0 {
                query.push(" AND ");
            }
            term.push(query);
        }
        for (than, ms) in &self.window {
            query.push(format_args!(" AND d.{time}{than}")).push_bind(*ms);
        }
        if let Some(after) = after {
            // The first for the index, which may not see into the second.
            query.push(format_args!(" AND d.{time} <= ")).push_bind(after.at);
            query.push(format_args!(" AND (d.{time}, d.seq) < (")).push_bind(after.at);
            query.push(", ").push_bind(after.seq).push(")");
        }
        query.push(format_args!(" ORDER BY d.{time} DESC, d.seq DESC LIMIT "));
    }

    /// The rows of a page and one more: `select` is what is read of `from`, which begins with the table as `d`.
    pub(super) fn page(
        &self,
        select: &str,
        from: &str,
        after: Option<Place>,
        limit: u32,
    ) -> QueryBuilder<Sqlite> {
        let most = i64::from(limit) + 1;
        let mut query = QueryBuilder::new(format!("SELECT {select} FROM ("));
        self.walk(&mut query, "d.seq AS n", after);
        query.push_bind(if self.others.is_empty() { most } else { LOOKED_AT });
        // A cross join is never turned round: the rows come in the order of the walk, which ends when there are enough.
        query.push(format_args!(") l CROSS JOIN {from} WHERE d.seq = l.n"));
        for term in &self.others {
            query.push(" AND ");
            term.push(&mut query);
        }
        query.push(" LIMIT ").push_bind(most);
        query
    }

    /// Where the next page begins if this one is not full: behind the last row that was looked at, if there are more.
    fn rest(&self, after: Option<Place>) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("");
        self.walk(&mut query, &format!("d.{} AS at, d.seq", self.time), after);
        query.push("1 OFFSET ").push_bind(LOOKED_AT - 1);
        query
    }
}

impl Store {
    /// A page of a list: `select` and `from` as [`Search::page`] takes them.
    pub(super) async fn look<R>(
        &self,
        search: &Search,
        (select, from): (&str, &str),
        after: Option<Place>,
        limit: u32,
        read: impl Fn(&SqliteRow) -> Result<R, sqlx::Error>,
    ) -> Result<Found<R>, StoreError> {
        let mut tx = self.readers.begin().await?;
        let mut rows = search.page(select, from, after, limit).build().fetch_all(&mut *tx).await?;
        let shown = usize::try_from(limit).unwrap_or(usize::MAX);
        let next = if rows.len() > shown {
            rows.truncate(shown);
            let at = |row: &SqliteRow| {
                Ok::<_, sqlx::Error>(Place { at: row.try_get(search.time)?, seq: row.try_get("seq")? })
            };
            rows.last().map(at).transpose()?
        } else if search.others.is_empty() {
            None
        } else {
            let last = search.rest(after).build().fetch_optional(&mut *tx).await?;
            let at = |row: SqliteRow| {
                Ok::<_, sqlx::Error>(Place { at: row.try_get("at")?, seq: row.try_get("seq")? })
            };
            last.map(at).transpose()?
        };
        tx.commit().await?;
        Ok(Found { rows: rows.iter().map(read).collect::<Result<_, _>>()?, next })
    }
}
