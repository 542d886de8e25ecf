//! Webhooks that this worker has stopped by itself: their receivers answered 410, and control has not said yet what
//! becomes of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use postrider_core::{Webhook, WebhookId};

/// Webhooks that are remembered, at most. One that is forgotten is asked once more.
const MOST: usize = 10_000;

/// Webhooks as they were when they were stopped. A newer record of one, also the same after a restore, is another.
#[derive(Debug, Default)]
pub(crate) struct Stopped(Mutex<HashMap<WebhookId, Weak<Webhook>>>);

impl Stopped {
    /// Stops a webhook as it is now; `true` if it was not stopped before.
    pub(crate) fn stop(&self, webhook: &Arc<Webhook>) -> bool {
        let mut stopped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stopped.len() >= MOST {
            stopped.retain(|_, known| known.strong_count() > 0);
        }
        if stopped.len() >= MOST {
            stopped.clear();
        }
        let known = stopped.insert(webhook.id.clone(), Arc::downgrade(webhook));
        known.is_none_or(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(webhook)))
    }

    /// Whether the webhook as it is now was stopped.
    pub(crate) fn has(&self, webhook: &Arc<Webhook>) -> bool {
        let stopped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get(&webhook.id).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(webhook)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_core::TenantId;
    use postrider_core::wire::WebhookRecord;

    fn webhook(id: &str) -> Arc<Webhook> {
        let (id, tenant) = (WebhookId::from_trusted(id), TenantId::default_tenant());
        Arc::new(WebhookRecord::new(id, tenant, "https://example.com/").webhook(1).unwrap())
    }

    #[test]
    fn a_webhook_is_stopped_until_it_is_another() {
        let stopped = Stopped::default();
        let (gone, newer, other) = (webhook("a"), webhook("a"), webhook("b"));
        assert!(stopped.stop(&gone) && !stopped.stop(&gone));
        assert!(stopped.has(&gone) && !stopped.has(&newer) && !stopped.has(&other));
        assert!(stopped.stop(&newer));
        assert!(!stopped.has(&gone) && stopped.has(&newer));
    }

    #[test]
    fn they_are_bounded() {
        let stopped = Stopped::default();
        let kept: Vec<_> = (0..MOST + 10).map(|n| webhook(&n.to_string())).collect();
        assert!(kept.iter().all(|webhook| stopped.stop(webhook)));
        assert!(stopped.0.lock().unwrap().len() <= MOST);
        assert!(stopped.has(&kept[MOST + 9]));
    }
}
