//! What control shows of itself. Every series exists from the start.

use std::time::Duration;

use postrider_core::books::Drift;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::api::{PROBLEM_CODES, routes};
use crate::store::{Due, Recorded};

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
    /// The drift, part by part.
    drift_parts: IntGaugeVec,
    /// For how long the oldest delivery that is due has waited for its attempt, seconds.
    oldest_due: Gauge,
    /// Webhooks whose deliveries are late.
    late_webhooks: IntGauge,
    /// When a delivery was last recorded as delivered, seconds since the Unix epoch.
    last_delivered: IntGauge,
    /// Ready messages, by what their queues are for.
    queue_ready: IntGaugeVec,
    /// Consumers of those queues, of the one that has the fewest.
    queue_consumers: IntGaugeVec,
    /// Letters that nobody has resolved, by kind.
    letters: IntGaugeVec,
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
/// Parts of the drift, with what is beside it.
const DRIFT_PARTS: [&str; 7] =
    ["events", "deliveries", "missing_facts", "unowed", "missing_attempts", "at_rest", "copies"];
/// What queues are for that somebody consumes.
const CONSUMED: [&str; 8] = ["events", "fresh", "retry", "replay", "journal", "dead", "invalid", "poison"];
/// What queues are for in which messages wait for a time.
const WAITING: [&str; 2] = ["delay", "park"];
/// Kinds of letters.
const LETTERS: [&str; 3] = ["dead", "invalid", "poison"];
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
            drift_parts: IntGaugeVec::new(
                opts("books_drift_part", "The drift part by part; copies are beside it and not in it"),
                &["part"],
            )?,
            oldest_due: Gauge::with_opts(opts(
                "oldest_due_delivery_seconds",
                "For how long the oldest delivery that could be tried has been due; held ones do not count",
            ))?,
            late_webhooks: IntGauge::with_opts(opts(
                "late_webhooks",
                "Webhooks among the 2000 oldest due deliveries that have been due for more than 2 minutes",
            ))?,
            last_delivered: IntGauge::with_opts(opts(
                "last_delivered_timestamp_seconds",
                "When the newest delivery that is recorded was delivered; 0 before the first",
            ))?,
            queue_ready: IntGaugeVec::new(
                opts("queue_ready_messages", "Messages that wait, by what their queues are for"),
                &["queue"],
            )?,
            queue_consumers: IntGaugeVec::new(
                opts("queue_consumers", "Consumers of the queue that has the fewest, by what it is for"),
                &["queue"],
            )?,
            letters: IntGaugeVec::new(
                opts("dead_letters_unresolved", "Letters that nobody has resolved, by kind"),
                &["kind"],
            )?,
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
            metrics.create(&route, method.as_str());
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
        for part in DRIFT_PARTS {
            metrics.drift_parts.with_label_values(&[part]);
        }
        for queue in CONSUMED {
            metrics.queue_consumers.with_label_values(&[queue]);
        }
        for queue in CONSUMED.into_iter().chain(WAITING) {
            metrics.queue_ready.with_label_values(&[queue]);
        }
        for kind in LETTERS {
            metrics.letters.with_label_values(&[kind]);
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
        registry.register(Box::new(metrics.drift_parts.clone()))?;
        registry.register(Box::new(metrics.oldest_due.clone()))?;
        registry.register(Box::new(metrics.late_webhooks.clone()))?;
        registry.register(Box::new(metrics.last_delivered.clone()))?;
        registry.register(Box::new(metrics.queue_ready.clone()))?;
        registry.register(Box::new(metrics.queue_consumers.clone()))?;
        registry.register(Box::new(metrics.letters.clone()))?;
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

    /// What waits for its attempt, and what nobody has resolved.
    pub(crate) fn due(&self, due: &Due) {
        self.oldest_due.set(due.oldest_ms as f64 / 1000.0);
        self.late_webhooks.set(gauge(due.webhooks));
        for kind in LETTERS {
            let open = due.letters.iter().find(|(known, _)| known == kind).map_or(0, |(_, n)| *n);
            self.letters.with_label_values(&[kind]).set(gauge(open));
        }
    }

    /// A series was recorded as delivered.
    pub(crate) fn delivered(&self, at: postrider_core::Timestamp) {
        self.last_delivered.set(self.last_delivered.get().max(at.as_secs()));
    }

    /// What waits in the queues of one purpose, and how many consume the one that fewest consume.
    pub(crate) fn queue(&self, queue: &'static str, ready: u64, consumers: Option<u64>) {
        self.queue_ready.with_label_values(&[queue]).set(gauge(ready));
        if let Some(consumers) = consumers {
            self.queue_consumers.with_label_values(&[queue]).set(gauge(consumers));
        }
    }

    /// What the books say.
    pub(crate) fn books(&self, books: &crate::store::Books, drift: &Drift) {
        for (part, n) in [
            ("events", drift.events),
            ("deliveries", drift.deliveries),
            ("missing_facts", drift.missing_facts),
            ("unowed", drift.unowed),
            ("missing_attempts", drift.missing_attempts),
            ("at_rest", drift.at_rest),
            ("copies", drift.copies),
        ] {
            self.drift_parts.with_label_values(&[part]).set(gauge(n));
        }
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
        self.drift.set(gauge(drift.total()));
    }
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
