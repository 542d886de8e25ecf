//! `postrider audit`: who changed what.

use super::{Context, list};
use crate::args::Audit;
use crate::exit::{Exit, Failure};
use crate::output::Column;

const COLUMNS: &[Column] = &[
    ("AT", "/at"),
    ("TENANT", "/tenant"),
    ("ACTOR", "/actor/id"),
    ("NAME", "/actor/name"),
    ("OPERATION", "/operation"),
    ("SUBJECT", "/subject/id"),
    ("CHANGES", "/changes"),
];

/// Lists changes.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, asked: Audit) -> Result<Exit, Failure> {
    let Audit { operation, subject, actor, since, until, page } = asked;
    let filter = [
        ("operation", operation.as_ref()),
        ("subject", subject.as_ref()),
        ("actor", actor.as_ref()),
        ("since", since.as_ref()),
        ("until", until.as_ref()),
    ];
    list(context, &["audit"], &filter, &page, COLUMNS).await
}
