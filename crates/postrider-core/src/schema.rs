//! JSON Schema for the data of events.
