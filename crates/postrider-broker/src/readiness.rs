//! Whether a role is ready, and if not, what it waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Whether a role is ready, part by part. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
}

impl Readiness {
    /// Nothing is known yet, so nothing is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how one part does: ready, or what it waits for, in a sentence.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = &state
            && parts.get(part) != Some(&state)
        {
            tracing::warn!(part, why, "not ready");
        } else if state.is_ok() && parts.get(part) != Some(&Ok(())) {
            tracing::info!(part, "ready");
        }
        parts.insert(part, state);
    }

    /// Whether there are parts and all of them are ready.
    pub fn is_ready(&self) -> bool {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        !parts.is_empty() && parts.values().all(Result::is_ok)
    }

    /// Every part and how it does.
    pub fn parts(&self) -> Vec<(&'static str, Result<(), String>)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(part, state)| (*part, state.clone())).collect()
    }
}
