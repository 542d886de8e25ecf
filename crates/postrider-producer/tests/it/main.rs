//! Tests of the producer against a real broker.
