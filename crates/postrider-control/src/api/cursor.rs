//! Cursors: where a list goes on. Opaque, and good only for the list that gave them out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postrider_core::Epoch;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::answer::Page;
use super::problem::{Code, Problem};
use crate::store::{Found, Place};

/// Items of a list when nothing else is asked, and at most.
pub(crate) const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// A list with its filters: cursors of other lists do not fit.
pub(crate) struct List {
    epoch: Epoch,
    name: String,
}

impl List {
    /// The list of this kind with these filters.
    pub(crate) fn new(epoch: Epoch, kind: &str, filters: &impl std::fmt::Debug) -> Self {
        Self { epoch, name: format!("{kind} {filters:?}") }
    }

    /// One page of the list, from `limit` + 1 rows: the one too many says that there is a next page, and is not shown.
    pub(crate) fn page<R, T>(
        &self,
        mut rows: Vec<R>,
        limit: u32,
        place: impl Fn(&R) -> String,
        show: impl FnMut(R) -> Result<T, Problem>,
    ) -> Result<Page<T>, Problem> {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > most;
        rows.truncate(most);
        let next = rows.last().filter(|_| more).map(|row| self.cursor(&place(row)));
        Ok(Page { items: rows.into_iter().map(show).collect::<Result<_, _>>()?, next })
    }

    /// One page of a list that says itself where it goes on.
    pub(crate) fn found<R, T>(&self, found: Found<R>, show: impl FnMut(R) -> T) -> Page<T> {
        let next = found.next.map(|place| self.cursor(&place.to_string()));
        Page { items: found.rows.into_iter().map(show).collect(), next }
    }

    /// The place in a cursor of [`Self::found`].
    pub(crate) fn after(&self, cursor: Option<&str>) -> Result<Option<Place>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        Place::parse(&self.place(cursor)?).map(Some).ok_or_else(not_of_this_list)
    }

    /// A cursor behind the item at `place`.
    pub(crate) fn cursor(&self, place: &str) -> String {
        let mut bytes = self.checksum(place).to_vec();
        bytes.extend_from_slice(place.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place in a cursor.
    pub(crate) fn place(&self, cursor: &str) -> Result<String, Problem> {
        let read = || {
            let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
            let (checksum, place) = bytes.split_first_chunk::<8>()?;
            let place = std::str::from_utf8(place).ok()?;
            bool::from(self.checksum(place).ct_eq(checksum)).then(|| place.to_owned())
        };
        read().ok_or_else(not_of_this_list)
    }

    /// The place in a cursor that is a row's number.
    pub(crate) fn row(&self, cursor: Option<&str>) -> Result<Option<i64>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        Ok(self.place(cursor)?.parse().ok())
    }

    fn checksum(&self, place: &str) -> [u8; 8] {
        let mut hash = Sha256::new();
        for part in [self.epoch.as_str(), &self.name, place] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        digest.first_chunk().copied().unwrap_or_default()
    }
}

/// The cursor is none of the list.
pub(crate) fn not_of_this_list() -> Problem {
    Problem::new(
        Code::BadCursor,
        "the cursor was not given out for this list with these filters",
        "Leave the cursor out to begin anew, and keep the filters the same while paging.",
    )
    .field("cursor")
}

/// How many items were asked for.
pub(crate) fn limit(asked: Option<i64>) -> Result<u32, Problem> {
    match asked {
        None => Ok(DEFAULT_LIMIT),
        Some(n) => match u32::try_from(n) {
            Ok(n) if (1..=MAX_LIMIT).contains(&n) => Ok(n),
            _ => Err(Problem::parameter("limit", format!("limit must be from 1 to {MAX_LIMIT}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_fits_only_its_list() {
        let epoch = Epoch::from_trusted("ep_1");
        let list = List::new(epoch.clone(), "deliveries", &("default", Some("dead")));
        let cursor = list.cursor("17");
        assert_eq!(list.row(Some(&cursor)).unwrap(), Some(17));
        assert_eq!(list.row(None).unwrap(), None);
        let other = List::new(epoch.clone(), "deliveries", &("default", Some("pending")));
        assert!(other.row(Some(&cursor)).is_err());
        for forged in ["", "x", "AAAAAAAAAAAAAAAA", &cursor[1..], &format!("{cursor}AA")] {
            assert!(list.row(Some(forged)).is_err(), "{forged}");
        }
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(limit(None).unwrap(), 50);
        assert_eq!(limit(Some(200)).unwrap(), 200);
        for bad in [0, -1, 201, 1_000_000_000] {
            assert!(limit(Some(bad)).is_err(), "{bad}");
        }
    }
}
