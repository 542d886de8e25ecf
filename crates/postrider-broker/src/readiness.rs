//! Whether a role is ready, and if not, what it waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::watchdog::Pulse;

/// The part by which the watchdog worries aloud.
const PROGRESS: &str = "progress";

/// Whether a role is ready, part by part. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
    pulse: Pulse,
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

    /// The signs by which the watchdog judges the role.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The watchdog worries that nothing gets done, and says why, or no longer.
    pub fn worry(&self, why: Option<String>) {
        let known = {
            let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.contains_key(PROGRESS)
        };
        match why {
            Some(why) => self.set(PROGRESS, Err(why)),
            None if known => self.set(PROGRESS, Ok(())),
            None => {}
        }
    }

    /// Whether the role says of itself that it is ready: then it has no excuse when nothing gets done.
    pub(crate) fn is_excuseless(&self) -> bool {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        !parts.is_empty() && parts.iter().all(|(part, state)| *part == PROGRESS || state.is_ok())
    }

    /// Whether this part is known and ready.
    pub(crate) fn is_part_ready(&self, part: &str) -> bool {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(part).is_some_and(Result::is_ok)
    }

    /// Every part and how it does.
    pub fn parts(&self) -> Vec<(&'static str, Result<(), String>)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(part, state)| (*part, state.clone())).collect()
    }
}
