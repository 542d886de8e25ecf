//! Conditions over events and actions: CEL, bounded by construction.
