//! What the worker does, in numbers.

use postrider_core::books::End;
use postrider_core::{Outcome, ladder, outcome};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::deliver::ParkReason;

/// Metrics of the worker. Every series exists from the start; no label names a tenant, a webhook or an event type.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Requests, by what they came to.
    pub(crate) attempts: IntCounterVec,
    /// How long requests took, by status class.
    pub(crate) attempt_seconds: HistogramVec,
    /// From acceptance of the event to the start of the first attempt.
    pub(crate) first_attempt_seconds: Histogram,
    /// From acceptance of the event to its delivery.
    pub(crate) latency_seconds: HistogramVec,
    /// How late retries start, against the due time that is shown.
    pub(crate) retry_lag_seconds: Histogram,
    /// Retries put on the ladder, by the level at which they enter.
    pub(crate) retries: IntCounterVec,
    /// Series that ended.
    pub(crate) finished: IntCounterVec,
    /// Deliveries held because their webhook is paused.
    pub(crate) held: IntCounter,
    /// Messages parked, by reason.
    pub(crate) parked: IntCounterVec,
    /// Messages that this worker could not use.
    pub(crate) unusable: IntCounterVec,
    /// Deliveries begun and not settled.
    pub(crate) in_flight: IntGauge,
    /// How many may be, in quick slots.
    pub(crate) capacity: IntGauge,
    /// Slow slots.
    pub(crate) slow_capacity: IntGauge,
    /// Slow slots that are taken.
    pub(crate) slow_slots: IntGauge,
    /// Deliveries moved out of their batch, to come again alone.
    pub(crate) moved_out: IntCounter,
    /// Deliveries that wait in place for their webhook.
    pub(crate) waiting: IntGauge,
    /// Webhooks whose breaker is not closed.
    pub(crate) open_breakers: IntGauge,
    /// Webhooks whose requests take long.
    pub(crate) slow_webhooks: IntGauge,
    /// Workers of the fleet, as this one sees it.
    pub(crate) workers: IntGauge,
}

/// A gauge that is one higher for as long as this lives: also when whoever raised it panics, or is dropped while it waits.
#[derive(Debug)]
pub(crate) struct OneMore<'a>(&'a IntGauge);

impl<'a> OneMore<'a> {
    /// One more of these.
    pub(crate) fn of(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OneMore<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Every class of status.
const STATUS_CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "none"];
/// Reasons for parking beside [`ParkReason`].
const PARKED: [&str; 2] = ["crashes", "unknown_schema"];
/// Every reason for not using a message.
const UNUSABLE: [&str; 3] = ["malformed", "unknown_schema", "crashes"];

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("postrider");
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec())
        };
        let attempts = IntCounterVec::new(
            opts("delivery_attempts_total", "Requests, by what they came to"),
            &["class"],
        )?;
        for class in outcome::CLASSES {
            attempts.with_label_values(&[class]);
        }
        let attempt_seconds = HistogramVec::new(
            histogram(
                "delivery_attempt_duration_seconds",
                "How long requests took",
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0],
            ),
            &["status_class"],
        )?;
        for class in STATUS_CLASSES {
            attempt_seconds.with_label_values(&[class]);
        }
        let pipeline =
            [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
        let first_attempt_seconds = Histogram::with_opts(histogram(
            "first_attempt_delay_seconds",
            "From acceptance of the event to the start of its first attempt",
            &pipeline,
        ))?;
        let latency_seconds = HistogramVec::new(
            histogram(
                "delivery_latency_seconds",
                "From acceptance of the event to its delivery",
                &[
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 1800.0, 3600.0, 21600.0,
                    86400.0,
                ],
            ),
            &["first_try"],
        )?;
        for first_try in ["true", "false"] {
            latency_seconds.with_label_values(&[first_try]);
        }
        let retry_lag_seconds = Histogram::with_opts(histogram(
            "retry_lag_seconds",
            "How late retries start, against their due time",
            &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0],
        ))?;
        let retries = IntCounterVec::new(
            opts("retries_scheduled_total", "Retries put on the ladder, by entry level"),
            &["level"],
        )?;
        for level in 0..ladder::LEVELS {
            retries.with_label_values(&[&level.to_string()]);
        }
        let finished =
            IntCounterVec::new(opts("deliveries_finished_total", "Series that ended, by end"), &["end"])?;
        for end in [End::Delivered, End::Dead, End::Cancelled, End::Skipped] {
            finished.with_label_values(&[end.as_str()]);
        }
        let held =
            IntCounter::with_opts(opts("deliveries_held_total", "Deliveries held for a paused webhook"))?;
        let parked = IntCounterVec::new(opts("parked_total", "Messages parked, by reason"), &["reason"])?;
        for reason in PARKED.iter().chain(&ParkReason::WORDS) {
            parked.with_label_values(&[reason]);
        }
        let unusable = IntCounterVec::new(
            opts("deliveries_unusable_total", "Messages that could not be used, by reason"),
            &["reason"],
        )?;
        for reason in UNUSABLE {
            unusable.with_label_values(&[reason]);
        }
        let in_flight = IntGauge::with_opts(opts("worker_in_flight", "Deliveries begun and not settled"))?;
        let capacity = IntGauge::with_opts(opts(
            "worker_capacity",
            "Quick slots: deliveries that may be begun and not settled, beside those in slow slots",
        ))?;
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::with_opts(opts(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let slow_capacity = gauge(
            "worker_slow_capacity",
            "Slow slots: deliveries beside the quick ones that may take longer than 250 ms",
        )?;
        let slow_slots = gauge("worker_slow_slots", "Slow slots that are taken")?;
        let moved_out = IntCounter::with_opts(opts(
            "moved_out_total",
            "Deliveries moved out of their message, to come again alone",
        ))?;
        registry.register(Box::new(moved_out.clone()))?;
        let waiting = gauge("worker_waiting", "Deliveries that wait in place for their webhook")?;
        let open_breakers = gauge(
            "open_breakers",
            "Webhooks whose breaker is not closed: they are sent probes alone, or few at a time",
        )?;
        let slow_webhooks = gauge("slow_webhooks", "Webhooks whose requests take longer than a second")?;
        let workers = gauge("workers", "Workers of the fleet, as this one sees it")?;
        registry.register(Box::new(attempts.clone()))?;
        registry.register(Box::new(attempt_seconds.clone()))?;
        registry.register(Box::new(first_attempt_seconds.clone()))?;
        registry.register(Box::new(latency_seconds.clone()))?;
        registry.register(Box::new(retry_lag_seconds.clone()))?;
        registry.register(Box::new(retries.clone()))?;
        registry.register(Box::new(finished.clone()))?;
        registry.register(Box::new(held.clone()))?;
        registry.register(Box::new(parked.clone()))?;
        registry.register(Box::new(unusable.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(capacity.clone()))?;
        Ok(Self {
            attempts,
            attempt_seconds,
            first_attempt_seconds,
            latency_seconds,
            retry_lag_seconds,
            retries,
            finished,
            held,
            parked,
            unusable,
            in_flight,
            capacity,
            slow_capacity,
            slow_slots,
            moved_out,
            waiting,
            open_breakers,
            slow_webhooks,
            workers,
        })
    }

    /// Counts one request.
    pub(crate) fn attempted(&self, outcome: &Outcome, duration_ms: u64) {
        self.attempts.with_label_values(&[outcome.class()]).inc();
        let status_class = match outcome.status() {
            Some(200..300) => "2xx",
            Some(300..400) => "3xx",
            Some(400..500) => "4xx",
            Some(_) => "5xx",
            None => "none",
        };
        self.attempt_seconds.with_label_values(&[status_class]).observe(seconds(duration_ms));
    }
}

/// Milliseconds as seconds.
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
