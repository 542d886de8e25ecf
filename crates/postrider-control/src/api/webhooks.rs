//! `/v1/webhooks`: receivers' registrations.

mod check;
mod explain;
mod handlers;
mod secrets;
mod shape;
mod trial;

pub(super) use explain::*;
pub(super) use handlers::*;
pub(super) use secrets::*;
pub(super) use trial::*;

use std::collections::HashMap;
use std::sync::Arc;

use postrider_core::TenantId;
use postrider_core::profile::Profile;
use postrider_core::webhook::{self, SecretKind};
use postrider_core::wire::WebhookRecord;

use super::Api;
use super::problem::{Code, Problem};
use super::scope::Scope;
use crate::store::{Change, Store, StoreError, WebhookRow};

/// What is shown in place of a secret value.
const MASK: &str = "********";

impl Api {
    fn seal(&self, record: &WebhookRecord, what: SecretKind, secret: &str) -> Result<String, Problem> {
        let purpose = webhook::purpose(&record.tenant, &record.id, what);
        self.key.seal(&purpose, secret.as_bytes(), rand::random()).map_err(|error| unreadable_secret(&error))
    }

    fn open(&self, record: &WebhookRecord, what: SecretKind, sealed: &str) -> Result<String, Problem> {
        let purpose = webhook::purpose(&record.tenant, &record.id, what);
        let opened = self.key.open(&purpose, sealed).map_err(|error| unreadable_secret(&error))?;
        Ok(String::from_utf8_lossy(&opened).into_owned())
    }
}

fn unreadable_secret(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a secret of a webhook cannot be sealed or opened");
    Problem::new(Code::Internal, "a secret of the webhook cannot be read", "The log of control says why.")
}

/// A webhook of the scope's tenant, where nothing is to be changed.
async fn look_up(api: &Api, scope: &Scope, id: &str) -> Result<WebhookRow, Problem> {
    let row = api.store.webhook(scope.tenant().as_str(), id).await?;
    row.ok_or_else(|| Problem::not_found("webhook"))
}

async fn find(change: &mut Change<'_>, scope: &Scope, id: &str) -> Result<WebhookRow, Problem> {
    let row = change.webhook(scope.tenant().as_str(), id).await?;
    row.ok_or_else(|| Problem::not_found("webhook"))
}

/// The profiles that the webhooks of one answer speak, each looked up once.
struct Profiles<'a> {
    store: &'a Store,
    tenant: TenantId,
    known: HashMap<String, Option<Arc<Profile>>>,
}

impl<'a> Profiles<'a> {
    fn of(store: &'a Store, tenant: TenantId) -> Self {
        Self { store, tenant, known: HashMap::new() }
    }

    async fn get(&mut self, name: &str) -> Result<Option<Arc<Profile>>, StoreError> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let profile = match Profile::built_in(name) {
            Some(profile) => Some(profile),
            None => {
                self.store.profile(self.tenant.as_str(), name).await?.and_then(|spec| Profile::new(spec).ok())
            }
        };
        let profile = profile.map(Arc::new);
        self.known.insert(name.to_owned(), profile.clone());
        Ok(profile)
    }
}

/// A profile by name, as a change sees it.
async fn profile_of(
    change: &mut Change<'_>,
    tenant: &str,
    name: &str,
) -> Result<Option<Profile>, StoreError> {
    match Profile::built_in(name) {
        Some(profile) => Ok(Some(profile)),
        None => Ok(change.profile(tenant, name).await?.and_then(|spec| Profile::new(spec).ok())),
    }
}
