//! From an action to its events.
