//! What a tenant decided about its events, reminders and webhooks.

use std::collections::BTreeMap;

use postrider_core::wire::{
    ConfigKind, ConfigRecord, SchemaMode, TenantRecord, TenantSettings, UnknownTypes,
};
use postrider_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Change, Store, StoreError, signed};

/// What a tenant decided. What is missing where it is stored has its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// What becomes of events of types that no catalogue of the tenant has.
    pub unknown_types: UnknownTypes,
    /// What becomes of events whose data does not fit their type's schema.
    pub schemas: SchemaMode,
    /// The IANA name of the zone in which the tenant's days begin.
    pub time_zone: String,
    /// The local time at which reminders go out, `HH:MM`.
    pub send_at: String,
    /// By event type: how many days before its date a reminder goes out, where it is not the catalogue's number.
    pub lead_days: BTreeMap<String, u32>,
    /// The most active webhooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_active_webhooks: Option<u32>,
    /// The most requests in flight to all webhooks of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The most requests a second to all webhooks of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            unknown_types: UnknownTypes::default(),
            schemas: SchemaMode::default(),
            time_zone: "UTC".to_owned(),
            send_at: "09:00".to_owned(),
            lead_days: BTreeMap::new(),
            max_active_webhooks: None,
            max_in_flight: None,
            rate_per_second: None,
        }
    }
}

impl Settings {
    /// Reads what is stored.
    pub(super) fn read(text: &str) -> Result<Self, StoreError> {
        serde_json::from_str(text).map_err(|e| StoreError::Damaged(format!("the settings of a tenant: {e}")))
    }

    /// The part that the data plane needs.
    pub(super) fn told(&self) -> TenantSettings {
        TenantSettings {
            unknown_types: self.unknown_types,
            schemas: self.schemas,
            max_in_flight: self.max_in_flight,
            rate_per_second: self.rate_per_second,
        }
    }
}

const ONE: &str = "SELECT settings FROM tenants WHERE id = $1 AND deleted_at IS NULL";

fn of(text: Option<String>) -> Result<Settings, StoreError> {
    text.map_or_else(|| Ok(Settings::default()), |text| Settings::read(&text))
}

impl Store {
    /// What a tenant decided; the defaults for one that does not exist.
    pub(crate) async fn settings(&self, tenant: &str) -> Result<Settings, StoreError> {
        of(sqlx::query_scalar(ONE).bind(tenant).fetch_optional(&self.readers).await?)
    }
}

impl Change<'_> {
    /// What a tenant decided, as this change sees it; the defaults for one that does not exist.
    pub(crate) async fn settings(&mut self, tenant: &str) -> Result<Settings, StoreError> {
        of(sqlx::query_scalar(ONE).bind(tenant).fetch_optional(&mut *self.tx).await?)
    }

    /// Replaces what a tenant that exists decided, and tells the data plane. Gives the tenant's new revision.
    pub(crate) async fn put_settings(
        &mut self,
        tenant: &TenantId,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let revision = self.next_revision().await?;
        let text = serde_json::to_string(settings).map_err(|e| StoreError::Damaged(e.to_string()))?;
        sqlx::query("UPDATE tenants SET revision = $2, settings = $3 WHERE id = $1 AND deleted_at IS NULL")
            .bind(tenant.as_str())
            .bind(signed(revision))
            .bind(text)
            .execute(&mut *self.tx)
            .await?;
        let body = TenantRecord { id: tenant.clone(), settings: settings.told() };
        let record =
            ConfigRecord::of(&self.store.epoch(), revision, ConfigKind::Tenant, tenant.as_str(), &body);
        self.tell(&record, now).await?;
        self.for_reminders = true;
        Ok(revision)
    }
}
