//! Configuration as control would publish it, for tests of the data plane without control.

use std::collections::BTreeSet;

use postrider_broker::{Metrics, Session, Settings, config_stream, topology};
use postrider_core::seal::MasterKey;
use postrider_core::webhook::{Auth, ClientTls, SecretKind, purpose};
use postrider_core::wire::{
    ConfigKind, ConfigRecord, RetryRecord, SecretRecord, TenantRecord, TenantSettings, WebhookRecord,
};
use postrider_core::{Epoch, EventType, TenantId, WebhookId, signature};

use crate::must;

/// Publishes the topology, a snapshot, and then changes.
#[derive(Debug)]
pub struct Configuration {
    session: Session,
    epoch: Epoch,
    revision: u64,
}

/// A webhook to publish.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// Its id.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// Where to.
    pub url: String,
    /// Which types; none means all.
    pub event_types: Vec<String>,
    /// Its retry policy.
    pub retry: RetryRecord,
    /// Its total deadline, milliseconds.
    pub timeout_ms: u64,
    /// `active`, `paused` or `disabled`.
    pub state: String,
    /// Its signing secret, not sealed.
    pub secret: String,
    /// How it authenticates, not sealed.
    pub auth: Option<Auth>,
    /// What its connections are made with, not sealed.
    pub tls: Option<ClientTls>,
    /// Sets whatever else there is in a record.
    pub change: fn(&mut WebhookRecord),
}

impl NewWebhook {
    /// An active webhook of the default tenant that takes everything and retries quickly.
    pub fn new(id: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            tenant: "default".into(),
            url: url.into(),
            event_types: Vec::new(),
            retry: RetryRecord {
                initial_ms: Some(100),
                factor: Some(2.0),
                jitter: Some(0.0),
                ..RetryRecord::default()
            },
            timeout_ms: 2_000,
            state: "active".into(),
            secret: Configuration::secret(),
            auth: None,
            tls: None,
            change: |_| (),
        }
    }

    /// Takes these types only.
    pub fn takes(mut self, event_types: &[&str]) -> Self {
        self.event_types = event_types.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Makes at most this many attempts.
    pub fn attempts(mut self, most: u32) -> Self {
        self.retry.max_attempts = Some(most);
        self
    }
}

impl Configuration {
    /// The key that seals the secrets of these configurations.
    pub fn master_key() -> MasterKey {
        must("the test's master key", MasterKey::parse("cG9zdHJpZGVyIHRlc3Qga2V5IG9mIDMyIGJ5dGVzISE="))
    }

    /// The secret of every webhook of these configurations.
    pub fn secret() -> String {
        signature::secret_text(b"postrider test secret, 32 bytes!").to_string()
    }

    /// Applies the topology with one shard and publishes a snapshot with the default tenant.
    pub async fn publish(settings: &Settings) -> Self {
        let configuration = Self::without_snapshot(settings).await;
        configuration.snapshot(&[]).await;
        configuration
    }

    /// Applies the topology and publishes nothing yet.
    pub async fn without_snapshot(settings: &Settings) -> Self {
        let registry = prometheus::Registry::new();
        let metrics = must("metrics", Metrics::register(&registry, "testkit"));
        let session = must("connecting", Session::open(settings, &metrics).await);
        must("applying the topology", topology::apply(&session, Some(1)).await);
        let epoch = Epoch::from_trusted(format!("epoch-{}", rand::random::<u32>()));
        Self { session, epoch, revision: 1 }
    }

    /// The session over which it publishes.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The store that it pretends to be.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Publishes a whole snapshot with the default tenant and these webhooks.
    pub async fn snapshot(&self, webhooks: &[NewWebhook]) {
        let mark = |kind| ConfigRecord::bare(&self.epoch, self.revision, kind, "");
        self.write(&mark(ConfigKind::SnapshotBegin)).await;
        self.write(&self.tenant_record("default")).await;
        for webhook in webhooks {
            self.write(&self.webhook_record(webhook)).await;
        }
        self.write(&mark(ConfigKind::SnapshotEnd)).await;
    }

    /// Publishes another tenant.
    pub async fn tenant(&mut self, id: &str) {
        self.revision += 1;
        self.write(&self.tenant_record(id)).await;
    }

    /// Publishes what a tenant decides, the tenant too if it is new.
    pub async fn tenant_settings(&mut self, id: &str, settings: TenantSettings) {
        self.revision += 1;
        let tenant = TenantRecord { id: TenantId::from_trusted(id), settings };
        self.write(&ConfigRecord::of(&self.epoch, self.revision, ConfigKind::Tenant, id, &tenant)).await;
    }

    /// Publishes a webhook, new or changed.
    pub async fn webhook(&mut self, webhook: &NewWebhook) {
        self.revision += 1;
        self.write(&self.webhook_record(webhook)).await;
    }

    /// Deletes a webhook.
    pub async fn delete(&mut self, id: &str) {
        self.revision += 1;
        self.write(&ConfigRecord::bare(&self.epoch, self.revision, ConfigKind::Webhook, id)).await;
    }

    /// Publishes any record.
    pub async fn write(&self, record: &ConfigRecord) {
        let written = config_stream::write(&self.session.publisher(), self.session.names(), record).await;
        must("writing a configuration record", written);
    }

    fn tenant_record(&self, id: &str) -> ConfigRecord {
        let tenant = TenantRecord { id: TenantId::from_trusted(id), settings: TenantSettings::default() };
        ConfigRecord::of(&self.epoch, self.revision, ConfigKind::Tenant, id, &tenant)
    }

    fn webhook_record(&self, webhook: &NewWebhook) -> ConfigRecord {
        let (id, tenant) =
            (WebhookId::from_trusted(webhook.id.as_str()), TenantId::from_trusted(webhook.tenant.as_str()));
        let seal = |kind, secret: &[u8]| {
            let purpose = purpose(&tenant, &id, kind);
            must("sealing", Self::master_key().seal(&purpose, secret, rand::random()))
        };
        let seal_json = |kind, value: serde_json::Result<Vec<u8>>| seal(kind, &must("JSON", value));
        let event_types: BTreeSet<EventType> =
            webhook.event_types.iter().map(|name| must("an event type", EventType::parse(name))).collect();
        let mut record = WebhookRecord {
            all: event_types.is_empty(),
            event_types,
            secrets: vec![SecretRecord::current(seal(SecretKind::Signing, webhook.secret.as_bytes()))],
            auth: webhook.auth.as_ref().map(|auth| seal_json(SecretKind::Auth, serde_json::to_vec(auth))),
            tls: webhook.tls.as_ref().map(|tls| seal_json(SecretKind::Tls, serde_json::to_vec(tls))),
            retry: webhook.retry.clone(),
            timeout_ms: Some(webhook.timeout_ms),
            state: webhook.state.clone(),
            ..WebhookRecord::new(id.clone(), tenant.clone(), webhook.url.as_str())
        };
        (webhook.change)(&mut record);
        ConfigRecord::of(&self.epoch, self.revision, ConfigKind::Webhook, &webhook.id, &record)
    }
}
