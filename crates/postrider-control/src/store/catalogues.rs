//! Catalogues: the record that goes to the data plane, and tables to look event types up.

use postrider_core::Epoch;
use postrider_core::wire::{ConfigKind, ConfigRecord};
use serde::Serialize;
use serde_json::value::RawValue;

use super::StoreError;

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
