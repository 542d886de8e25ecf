//! What a role's traffic with the broker looks like.

use std::collections::HashMap;

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Metrics of the connections of one role. Every series exists from the start.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Messages published, by result.
    pub(crate) publishes: IntCounterVec,
    /// From publish to confirm.
    pub(crate) confirm_seconds: Histogram,
    /// 1 while connected.
    pub(crate) connected: IntGauge,
    /// 1 while the broker blocks publishing.
    pub(crate) blocked: IntGauge,
    /// Sessions opened: one more for each loss of the broker.
    pub(crate) sessions: IntCounter,
    /// Messages settled.
    pub(crate) acked: IntCounter,
    /// Messages received and not settled.
    pub(crate) held: IntGauge,
    /// Consumers attached.
    pub(crate) consumers: IntGauge,
    /// When a message was last settled, seconds since the Unix epoch.
    pub(crate) last_progress: IntGauge,
    /// The revision of the configuration that this role works with.
    pub(crate) revision: IntGauge,
    /// For how long there was work and nothing of it was settled.
    pub(crate) stalled_seconds: Gauge,
}

/// Every result of a publish.
const RESULTS: [&str; 5] = ["confirmed", "nacked", "returned", "timeout", "error"];

impl Metrics {
    /// Registers the metrics with `role` as a fixed label, so that several roles can share a registry.
    ///
    /// # Errors
    /// When the same role was registered before.
    pub fn register(registry: &Registry, role: &'static str) -> Result<Self, prometheus::Error> {
        let labels = HashMap::from([("role".to_owned(), role.to_owned())]);
        let opts = |name: &str, help: &str| {
            Opts::new(name, help).namespace("postrider").const_labels(labels.clone())
        };
        let publishes =
            IntCounterVec::new(opts("publishes_total", "Messages published, by result"), &["result"])?;
        for result in RESULTS {
            publishes.with_label_values(&[result]);
        }
        let buckets =
            vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let confirm_seconds = Histogram::with_opts(
            HistogramOpts::from(opts("publish_confirm_seconds", "From publish to the broker's confirm"))
                .buckets(buckets),
        )?;
        let connected = IntGauge::with_opts(opts("broker_connected", "1 while connected to RabbitMQ"))?;
        let blocked =
            IntGauge::with_opts(opts("broker_blocked", "1 while RabbitMQ blocks this role's publishing"))?;
        let sessions = IntCounter::with_opts(opts(
            "broker_sessions_total",
            "Sessions with RabbitMQ opened; more than one means that the broker was lost",
        ))?;
        let acked = IntCounter::with_opts(opts("consumed_total", "Messages consumed and acked"))?;
        let held = IntGauge::with_opts(opts("held_messages", "Messages received and not settled yet"))?;
        let consumers =
            IntGauge::with_opts(opts("consumers", "Queues from which this role receives at the moment"))?;
        let last_progress = IntGauge::with_opts(opts(
            "last_progress_timestamp_seconds",
            "When this role last settled a message; 0 before the first",
        ))?;
        let revision = IntGauge::with_opts(opts(
            "configuration_revision",
            "The newest change of the configuration that this role knows; 0 before the first",
        ))?;
        let stalled_seconds = Gauge::with_opts(opts(
            "stalled_seconds",
            "For how long this role has had work, said that it is ready, and settled nothing",
        ))?;
        registry.register(Box::new(publishes.clone()))?;
        registry.register(Box::new(confirm_seconds.clone()))?;
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(blocked.clone()))?;
        registry.register(Box::new(sessions.clone()))?;
        registry.register(Box::new(acked.clone()))?;
        registry.register(Box::new(held.clone()))?;
        registry.register(Box::new(consumers.clone()))?;
        registry.register(Box::new(last_progress.clone()))?;
        registry.register(Box::new(revision.clone()))?;
        registry.register(Box::new(stalled_seconds.clone()))?;
        Ok(Self {
            publishes,
            confirm_seconds,
            connected,
            blocked,
            sessions,
            acked,
            held,
            consumers,
            last_progress,
            revision,
            stalled_seconds,
        })
    }
}
