//! What control shows of itself. Every series exists from the start.

use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::api::{PROBLEM_CODES, routes};
use crate::store::Recorded;

/// Metrics of control.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Requests by route, method and class of status.
    requests: IntCounterVec,
    /// From the first byte of a request to its answer, by route and method, seconds.
    request_seconds: HistogramVec,
    /// Problems answered, by code.
    problems: IntCounterVec,
    /// Facts and letters recorded, by kind.
    recorded: IntCounterVec,
    /// Facts that were known already.
    repeated: IntCounter,
    /// Ends of series that had ended otherwise.
    late: IntCounter,
    /// Journal messages of a newer release, parked for later.
    unknown_schema: IntCounter,
    /// Messages in a batch.
    batch_messages: Histogram,
    /// From the beginning of a batch's transaction to its commit, seconds.
    batch_seconds: Histogram,
    /// Age of the newest fact when it was recorded, seconds.
    journal_lag: Gauge,
    /// Rows of the outbox that are not sent yet.
    outbox_pending: IntGauge,
    /// 1 while the store works.
    store_up: IntGauge,
    /// The sum of all parts of the drift.
    drift: IntGauge,
    /// Deliveries, that is series, by state.
    deliveries: IntGaugeVec,
    /// Dead letters that nobody has resolved.
    dead_unresolved: IntGauge,
    /// Accepted events by fate.
    events: IntGaugeVec,
    /// Bytes of the newest snapshot of the configuration.
    snapshot_bytes: IntGauge,
    /// Reminders that will be sent.
    reminders_pending: IntGauge,
    /// Reminders that were due and sent.
    reminders_sent: IntCounter,
}

/// Kinds of what is recorded.
const KINDS: [&str; 7] = ["event", "attempt", "done", "held", "dead", "invalid", "poison"];
/// Classes of status.
const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// Methods of requests that no route takes, and all others.
const METHODS: [&str; 6] = ["GET", "POST", "PATCH", "PUT", "DELETE", "other"];
/// The route of what no route takes.
const UNMATCHED: &str = "unmatched";

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("postrider");
        let seconds = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            HistogramOpts::from(opts(name, help)).buckets(buckets)
        };
        let metrics = Self {
            requests: IntCounterVec::new(
                opts("http_requests_total", "Requests to the API"),
                &["route", "method", "status"],
            )?,
            request_seconds: HistogramVec::new(
                histogram("http_request_seconds", "From a request to its answer", seconds.clone()),
                &["route", "method"],
            )?,
            problems: IntCounterVec::new(
                opts("http_problems_total", "Problems answered, by code"),
                &["code"],
            )?,
            recorded: IntCounterVec::new(opts("recorded_total", "Facts and letters recorded"), &["kind"])?,
            repeated: IntCounter::with_opts(opts(
                "recorder_repeated_total",
                "Facts that were known already",
            ))?,
            late: IntCounter::with_opts(opts(
                "recorder_late_total",
                "Ends of series that had ended otherwise",
            ))?,
            unknown_schema: IntCounter::with_opts(opts(
                "recorder_unknown_schema_total",
                "Messages of a newer release; upgrade control",
            ))?,
            batch_messages: Histogram::with_opts(histogram(
                "recorder_batch_messages",
                "Messages recorded in one transaction",
                vec![1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0],
            ))?,
            batch_seconds: Histogram::with_opts(histogram(
                "recorder_batch_seconds",
                "From the beginning of a transaction to its commit",
                seconds,
            ))?,
            journal_lag: Gauge::with_opts(opts(
                "journal_lag_seconds",
                "Age of the newest fact when it was recorded",
            ))?,
            outbox_pending: IntGauge::with_opts(opts(
                "outbox_pending",
                "Rows of the outbox that are not sent yet",
            ))?,
            store_up: IntGauge::with_opts(opts("store_up", "1 while the store works"))?,
            drift: IntGauge::with_opts(opts(
                "books_drift",
                "How far the books are from balancing; 0 is right",
            ))?,
            deliveries: IntGaugeVec::new(opts("books_deliveries", "Series by state"), &["state"])?,
            dead_unresolved: IntGauge::with_opts(opts(
                "books_dead_unresolved",
                "Dead letters that no later series has delivered and nobody has resolved",
            ))?,
            events: IntGaugeVec::new(opts("books_events", "Accepted events by fate"), &["fate"])?,
            snapshot_bytes: IntGauge::with_opts(opts(
                "config_snapshot_bytes",
                "Size of the newest snapshot",
            ))?,
            reminders_pending: IntGauge::with_opts(opts("reminders_pending", "Reminders that will be sent"))?,
            reminders_sent: IntCounter::with_opts(opts(
                "reminders_sent_total",
                "Reminders that were due and are sent",
            ))?,
        };
        for (route, method) in routes() {
            metrics.create(&route, method);
        }
        for method in METHODS {
            metrics.create(UNMATCHED, method);
        }
        for code in PROBLEM_CODES {
            metrics.problems.with_label_values(&[code.as_str()]);
        }
        for kind in KINDS {
            metrics.recorded.with_label_values(&[kind]);
        }
        for state in ["delivered", "dead", "cancelled", "skipped", "pending", "held"] {
            metrics.deliveries.with_label_values(&[state]);
        }
        for fate in ["routed", "unmatched", "invalid"] {
            metrics.events.with_label_values(&[fate]);
        }
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.request_seconds.clone()))?;
        registry.register(Box::new(metrics.problems.clone()))?;
        registry.register(Box::new(metrics.recorded.clone()))?;
        registry.register(Box::new(metrics.repeated.clone()))?;
        registry.register(Box::new(metrics.late.clone()))?;
        registry.register(Box::new(metrics.unknown_schema.clone()))?;
        registry.register(Box::new(metrics.batch_messages.clone()))?;
        registry.register(Box::new(metrics.batch_seconds.clone()))?;
        registry.register(Box::new(metrics.journal_lag.clone()))?;
        registry.register(Box::new(metrics.outbox_pending.clone()))?;
        registry.register(Box::new(metrics.store_up.clone()))?;
        registry.register(Box::new(metrics.drift.clone()))?;
        registry.register(Box::new(metrics.deliveries.clone()))?;
        registry.register(Box::new(metrics.dead_unresolved.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.snapshot_bytes.clone()))?;
        registry.register(Box::new(metrics.reminders_pending.clone()))?;
        registry.register(Box::new(metrics.reminders_sent.clone()))?;
        Ok(metrics)
    }

    fn create(&self, route: &str, method: &str) {
        for status in STATUSES {
            self.requests.with_label_values(&[route, method, status]);
        }
        self.request_seconds.with_label_values(&[route, method]);
    }

    /// One request was answered. `route` is the pattern that took it, if one did.
    pub(crate) fn answered(&self, route: Option<&str>, method: &str, status: u16, took: Duration) {
        let route = route.unwrap_or(UNMATCHED);
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let status = match status {
            ..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.requests.with_label_values(&[route, method, status]).inc();
        self.request_seconds.with_label_values(&[route, method]).observe(took.as_secs_f64());
    }

    /// One problem was answered.
    pub(crate) fn problem(&self, code: &'static str) {
        self.problems.with_label_values(&[code]).inc();
    }

    /// One fact or letter was recorded.
    pub(crate) fn recorded(&self, kind: &'static str, count: u64) {
        self.recorded.with_label_values(&[kind]).inc_by(count);
    }

    /// A message of a newer release came.
    pub(crate) fn unknown_schema(&self) {
        self.unknown_schema.inc();
    }

    /// One batch was recorded.
    pub(crate) fn batch(
        &self,
        messages: usize,
        took: Duration,
        recorded: &Recorded,
        now: postrider_core::Timestamp,
    ) {
        self.batch_messages.observe(messages as f64);
        self.batch_seconds.observe(took.as_secs_f64());
        self.repeated.inc_by(recorded.repeated);
        self.late.inc_by(recorded.late);
        if let Some(newest) = recorded.newest {
            self.journal_lag.set(now.since_ms(newest) as f64 / 1000.0);
        }
    }

    /// Whether the store works.
    pub(crate) fn store_up(&self, up: bool) {
        self.store_up.set(i64::from(up));
    }

    /// How many rows of the outbox are not sent yet.
    pub(crate) fn outbox(&self, pending: u64) {
        self.outbox_pending.set(gauge(pending));
    }

    /// How large the newest snapshot is.
    pub(crate) fn snapshot(&self, bytes: u64) {
        self.snapshot_bytes.set(gauge(bytes));
    }

    /// How many reminders will be sent.
    pub(crate) fn reminders_pending(&self, pending: u64) {
        self.reminders_pending.set(gauge(pending));
    }

    /// Reminders were sent.
    pub(crate) fn reminders_sent(&self, count: u64) {
        self.reminders_sent.inc_by(count);
    }

    /// What the books say.
    pub(crate) fn books(&self, books: &crate::store::Books, drift: u64) {
        let counts = &books.counts;
        for (state, n) in [
            ("delivered", counts.delivered),
            ("dead", counts.dead),
            ("cancelled", counts.cancelled),
            ("skipped", counts.skipped),
            ("pending", counts.pending),
            ("held", counts.held),
        ] {
            self.deliveries.with_label_values(&[state]).set(gauge(n));
        }
        for (fate, n) in
            [("routed", counts.routed), ("unmatched", counts.unmatched), ("invalid", counts.invalid)]
        {
            self.events.with_label_values(&[fate]).set(gauge(n));
        }
        self.dead_unresolved.set(gauge(books.dead_unresolved));
        self.drift.set(gauge(drift));
    }
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
