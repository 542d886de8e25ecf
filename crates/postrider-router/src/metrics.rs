//! What the router does, in numbers.

use postrider_core::intake::REFUSAL_REASONS;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Metrics of the router. Every series exists from the start.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Events settled, by fate.
    pub(crate) events: IntCounterVec,
    /// Messages that were no event, by reason.
    pub(crate) refused: IntCounterVec,
    /// Deliveries made.
    pub(crate) deliveries: IntCounter,
    /// Events settled together.
    pub(crate) batch_events: Histogram,
    /// From receiving events to acking them.
    pub(crate) batch_seconds: Histogram,
    /// Messages set apart because they came back too often.
    pub(crate) set_apart: IntCounter,
    /// 1 while the router has been handed events in this session.
    pub(crate) active: IntGauge,
    /// 1 while routing waits because too many fresh deliveries wait.
    pub(crate) paused: IntGauge,
}

/// Every fate of an event.
pub(crate) const FATES: [&str; 4] = ["routed", "unmatched", "invalid", "duplicate"];

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("postrider");
        let events =
            IntCounterVec::new(opts("events_total", "Events settled by the router, by fate"), &["fate"])?;
        for fate in FATES {
            events.with_label_values(&[fate]);
        }
        let refused = IntCounterVec::new(
            opts("events_refused_total", "Messages that were no event, by reason"),
            &["reason"],
        )?;
        for reason in REFUSAL_REASONS {
            refused.with_label_values(&[reason.as_str()]);
        }
        let deliveries =
            IntCounter::with_opts(opts("deliveries_created_total", "Deliveries made from events"))?;
        let batch_events = Histogram::with_opts(
            HistogramOpts::from(opts("route_batch_events", "Events settled together"))
                .buckets(vec![1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0]),
        )?;
        let batch_seconds = Histogram::with_opts(
            HistogramOpts::from(opts("route_batch_seconds", "From receiving events to acking them"))
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
        )?;
        let set_apart = IntCounter::with_opts(opts(
            "events_set_apart_total",
            "Events parked because they came back too often",
        ))?;
        let active = IntGauge::with_opts(opts("router_active", "1 while this router is handed events"))?;
        let paused = IntGauge::with_opts(opts("router_paused", "1 while too many fresh deliveries wait"))?;
        registry.register(Box::new(events.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(deliveries.clone()))?;
        registry.register(Box::new(batch_events.clone()))?;
        registry.register(Box::new(batch_seconds.clone()))?;
        registry.register(Box::new(set_apart.clone()))?;
        registry.register(Box::new(active.clone()))?;
        registry.register(Box::new(paused.clone()))?;
        Ok(Self { events, refused, deliveries, batch_events, batch_seconds, set_apart, active, paused })
    }
}
