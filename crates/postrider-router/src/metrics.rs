//! What the router does, in numbers.

use postrider_core::directory::MARKS;
use postrider_core::intake::REFUSAL_REASONS;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::batch::ACTION_FATES;

/// Metrics of the router. Every series exists from the start.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Events settled, by fate.
    pub(crate) events: IntCounterVec,
    /// Events, or messages that hold none, that were refused, by reason.
    pub(crate) refused: IntCounterVec,
    /// Events that were routed although something was noticed about them, by what.
    pub(crate) marked: IntCounterVec,
    /// Actions settled, by fate.
    pub(crate) actions: IntCounterVec,
    /// Events that came of actions.
    pub(crate) derived: IntCounter,
    /// Filters that could not be judged on an event.
    pub(crate) filter_errors: IntCounter,
    /// Deliveries made.
    pub(crate) deliveries: IntCounter,
    /// Events settled together.
    pub(crate) batch_events: Histogram,
    /// From receiving events to acking them.
    pub(crate) batch_seconds: Histogram,
    /// Events set apart because they came back too often.
    pub(crate) set_apart: IntCounter,
    /// 1 while the router has been handed events in this session.
    pub(crate) active: IntGauge,
    /// 1 while routing waits, for whatever reason; readiness says for which.
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
            opts("events_refused_total", "Events, or messages that hold none, that were refused, by reason"),
            &["reason"],
        )?;
        for reason in REFUSAL_REASONS {
            refused.with_label_values(&[reason.as_str()]);
        }
        let marked = IntCounterVec::new(
            opts("events_marked_total", "Events routed although something was noticed about them, by what"),
            &["mark"],
        )?;
        for mark in MARKS {
            marked.with_label_values(&[mark.as_str()]);
        }
        let actions =
            IntCounterVec::new(opts("actions_total", "Actions settled by the router, by fate"), &["fate"])?;
        for fate in ACTION_FATES {
            actions.with_label_values(&[fate.as_str()]);
        }
        let derived = IntCounter::with_opts(opts("events_derived_total", "Events that came of actions"))?;
        let filter_errors = IntCounter::with_opts(opts(
            "filter_errors_total",
            "Filters of webhooks that could not be judged on an event, which their webhooks then do not take",
        ))?;
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
        let paused = IntGauge::with_opts(opts(
            "router_paused",
            "1 while routing waits: too many fresh deliveries, a broker that takes none, or a configuration that cannot be read",
        ))?;
        registry.register(Box::new(events.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(marked.clone()))?;
        registry.register(Box::new(actions.clone()))?;
        registry.register(Box::new(derived.clone()))?;
        registry.register(Box::new(filter_errors.clone()))?;
        registry.register(Box::new(deliveries.clone()))?;
        registry.register(Box::new(batch_events.clone()))?;
        registry.register(Box::new(batch_seconds.clone()))?;
        registry.register(Box::new(set_apart.clone()))?;
        registry.register(Box::new(active.clone()))?;
        registry.register(Box::new(paused.clone()))?;
        Ok(Self {
            events,
            refused,
            marked,
            actions,
            derived,
            filter_errors,
            deliveries,
            batch_events,
            batch_seconds,
            set_apart,
            active,
            paused,
        })
    }
}
