//! Credentials of webhooks, opened once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use postrider_core::profile::{KeyForm, Profile};
use postrider_core::seal::{BadSeal, MasterKey};
use postrider_core::webhook::{Credentials, SealedCredentials};
use postrider_core::{Webhook, WebhookId};

/// Opened credentials, kept until what is sealed changes, or how the profile reads it. Revisions would not do: those of a
/// restored store start again.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<HashMap<WebhookId, Open>>);

#[derive(Debug)]
struct Open {
    sealed: SealedCredentials,
    form: KeyForm,
    credentials: Arc<Credentials>,
}

/// Credentials that are kept, at most.
const MAX_OPENED: usize = 50_000;

impl Opened {
    /// The webhook's credentials as the profile reads them.
    ///
    /// # Errors
    /// [`BadSeal`] when they were sealed with another key.
    pub(crate) fn credentials(
        &self,
        webhook: &Webhook,
        profile: &Profile,
        key: &MasterKey,
    ) -> Result<Arc<Credentials>, BadSeal> {
        let (sealed, form) = (&webhook.sealed, profile.key_form());
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = opened.get(&webhook.id)
            && open.form == form
            && open.sealed == *sealed
        {
            return Ok(open.credentials.clone());
        }
        let credentials = Arc::new(webhook.open(key, form)?);
        if opened.len() >= MAX_OPENED {
            opened.clear();
        }
        let open = Open { sealed: sealed.clone(), form, credentials: credentials.clone() };
        opened.insert(webhook.id.clone(), open);
        Ok(credentials)
    }
}
