//! `/v1/stats`: what happened over time, for plots and sparklines.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::extract::State;
use http::Uri;
use postrider_core::Timestamp;
use postrider_core::histogram::Histogram;
use postrider_core::stats::{Figures, MAX_RANGE_MS, MAX_SPARK_RANGE_MS, Plot, SPARK_BUCKETS, Step};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::body::Params;
use super::deliveries::time;
use super::problem::{Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{Spark, TypeFigures};

/// The range when nothing else is asked: 24 hours.
const DEFAULT_RANGE_MS: u64 = 24 * 3600 * 1000;
/// Webhooks in one list of sparklines, at most.
const MAX_WEBHOOKS: usize = 200;

/// What happened over time: in buckets of one length, empty ones among them.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// When the first bucket begins: what was asked for, or up to a bucket earlier.
    since: String,
    /// When the last one ends. It may be under way.
    until: String,
    bucket_ms: u64,
    points: Vec<StatsPoint>,
    totals: StatsTotals,
    /// Of a webhook: the 20 event types with the most attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_event_type: Option<Vec<TypeStats>>,
}

/// One bucket.
#[derive(Serialize, ToSchema)]
struct StatsPoint {
    /// When it begins.
    at: String,
    #[serde(flatten)]
    counted: Counted,
}

/// The whole range.
#[derive(Serialize, ToSchema)]
struct StatsTotals {
    #[serde(flatten)]
    counted: Counted,
    by_status: ByStatus,
}

/// What is counted, each at the time when it happened.
#[derive(Serialize, ToSchema)]
struct Counted {
    /// Events that were accepted; null with `webhook`, since events belong to the tenant.
    accepted: Option<u64>,
    /// Attempts that delivered.
    delivered: u64,
    /// Attempts that did not.
    failed: u64,
    /// Deliveries that were given up.
    dead: u64,
    /// Attempts that were the first of their delivery.
    first_tried: u64,
    /// Those of them that delivered.
    first_delivered: u64,
    /// From when an event was accepted to the first attempt of its delivery; null if there was none.
    first_attempt_ms: Option<Percentiles>,
    /// From when an event was accepted to the answer that says it is delivered, without what was made again.
    delivered_ms: Option<Percentiles>,
    /// How long attempts took.
    attempt_ms: Option<Percentiles>,
}

/// Milliseconds that so many percent did not exceed, about: within the bounds between which they are counted.
#[derive(Serialize, ToSchema)]
struct Percentiles {
    p50: u64,
    p95: u64,
    p99: u64,
}

/// Attempts by how they were answered; together they are all attempts.
#[derive(Serialize, ToSchema)]
struct ByStatus {
    #[serde(rename = "2xx")]
    status_2xx: u64,
    #[serde(rename = "3xx")]
    status_3xx: u64,
    /// Without 429.
    #[serde(rename = "4xx")]
    status_4xx: u64,
    #[serde(rename = "429")]
    status_429: u64,
    /// And above.
    #[serde(rename = "5xx")]
    status_5xx: u64,
    /// There was no answer.
    none: u64,
}

/// How attempts of events of one type ended.
#[derive(Serialize, ToSchema)]
struct TypeStats {
    event_type: String,
    delivered: u64,
    failed: u64,
}

/// Sparklines of webhooks, all with the same buckets.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookStatsList {
    /// When the first bucket begins.
    since: String,
    /// When the last one ends: it is under way.
    until: String,
    bucket_ms: u64,
    /// One for each webhook that was asked for, in that order.
    items: Vec<WebhookStats>,
}

/// The sparkline of a webhook.
#[derive(Serialize, ToSchema)]
struct WebhookStats {
    webhook: String,
    /// Attempts that delivered.
    delivered: u64,
    /// Attempts that did not.
    failed: u64,
    /// How long 95 percent of the attempts took at most, about; null if there was none.
    p95_ms: Option<u64>,
    /// When the newest attempt began; null if there was none.
    last_at: Option<String>,
    /// 24 buckets, the oldest first.
    points: Vec<SparkPoint>,
}

/// One bucket.
#[derive(Clone, Serialize, ToSchema)]
struct SparkPoint {
    delivered: u64,
    failed: u64,
}

impl Counted {
    fn new(figures: &Figures, of_webhook: bool) -> Self {
        Self {
            accepted: (!of_webhook).then_some(figures.accepted),
            delivered: figures.delivered,
            failed: figures.failed,
            dead: figures.dead,
            first_tried: figures.first_tried,
            first_delivered: figures.first_delivered,
            first_attempt_ms: Percentiles::of(&figures.first_attempt),
            delivered_ms: Percentiles::of(&figures.delivery),
            attempt_ms: Percentiles::of(&figures.attempt),
        }
    }
}

impl Percentiles {
    fn of(histogram: &Histogram) -> Option<Self> {
        let told = |percent| histogram.percentile(percent);
        Some(Self { p50: told(50)?, p95: told(95)?, p99: told(99)? })
    }
}

impl From<[u64; 6]> for ByStatus {
    fn from(counts: [u64; 6]) -> Self {
        let [status_2xx, status_3xx, status_4xx, status_429, status_5xx, none] = counts;
        Self { status_2xx, status_3xx, status_4xx, status_429, status_5xx, none }
    }
}

impl From<TypeFigures> for TypeStats {
    fn from(figures: TypeFigures) -> Self {
        let TypeFigures { event_type, delivered, failed } = figures;
        Self { event_type, delivered, failed }
    }
}

impl WebhookStats {
    fn new(webhook: String, spark: Option<Spark>) -> Self {
        let Some(spark) = spark else {
            let points = vec![SparkPoint { delivered: 0, failed: 0 }; SPARK_BUCKETS];
            return Self { webhook, delivered: 0, failed: 0, p95_ms: None, last_at: None, points };
        };
        let points = spark
            .points
            .iter()
            .map(|(delivered, failed)| SparkPoint { delivered: *delivered, failed: *failed });
        Self {
            webhook,
            delivered: spark.points.iter().map(|(delivered, _)| delivered).sum(),
            failed: spark.points.iter().map(|(_, failed)| failed).sum(),
            p95_ms: spark.attempt.percentile(95),
            last_at: spark.last_at.map(shown),
            points: points.collect(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AskedStats {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// Of this webhook; without it of the whole tenant.
    webhook: Option<String>,
    /// From this time on, RFC 3339; 24 hours ago by default.
    since: Option<String>,
    /// Up to this time, RFC 3339; now by default. At most 100 days after `since`.
    until: Option<String>,
}

/// The range that is asked for.
fn range(asked: &AskedStats, now: Timestamp) -> Result<(Timestamp, Timestamp), Problem> {
    let (since, until) = (time("since", asked.since.as_deref())?, time("until", asked.until.as_deref())?);
    let until = until.unwrap_or(now);
    let since = since.unwrap_or(now.minus_ms(DEFAULT_RANGE_MS));
    if since >= until {
        return Err(Problem::parameter("until", "until must be later than since"));
    }
    if until.since_ms(since) > MAX_RANGE_MS {
        return Err(Problem::parameter("since", "since must be at most 100 days before until"));
    }
    Ok((since, until))
}

/// What happened over time: events, attempts and how they ended, and how long they took.
///
/// The buckets are a minute long for a range of up to three hours (ten minutes with `webhook`), half an hour up to three days,
/// two hours up to eight days, and a day beyond; longer where what is short is not kept any more: minutes are kept for 48 hours,
/// ten minutes for 7 days, hours for 90 days. They are in UTC. What happens is counted within seconds.
#[utoipa::path(get, path = "/v1/stats", tag = "stats", operation_id = "get_stats", params(AskedStats),
    responses((status = 200, body = Stats), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<AskedStats>,
) -> Result<Answer, Problem> {
    let now = postrider_broker::now();
    let (since, until) = range(&asked, now)?;
    let webhook = asked.webhook.as_deref().filter(|webhook| !webhook.is_empty());
    let steps = if webhook.is_some() { &Step::OF_WEBHOOKS[..] } else { &Step::ALL[..] };
    let (tenant, plot) = (scope.tenant(), Plot::of(since, until, steps, now));
    let found = api.store.stats(tenant.as_str(), webhook, &plot).await?;
    let mut totals = Figures::default();
    found.iter().for_each(|figures| totals.merge(figures));
    let by_event_type = match webhook {
        Some(webhook) => Some(api.store.stats_by_type(tenant.as_str(), webhook, &plot).await?),
        None => None,
    };
    let counted = |figures: &Figures| Counted::new(figures, webhook.is_some());
    let point = |(at, figures)| StatsPoint { at: shown(at), counted: counted(figures) };
    Answer::ok(&Stats {
        since: shown(plot.since),
        until: shown(plot.until),
        bucket_ms: plot.bucket_ms,
        points: plot.buckets().zip(&found).map(point).collect(),
        totals: StatsTotals { counted: counted(&totals), by_status: totals.by_status.into() },
        by_event_type: by_event_type.map(|types| types.into_iter().map(TypeStats::from).collect()),
    })
}

/// Which sparklines are asked for.
#[derive(Debug, PartialEq, Eq)]
struct AskedSparks {
    webhooks: Vec<String>,
    since: Option<Timestamp>,
}

impl AskedSparks {
    /// Reads the query. `webhook` may be there often, which [`Params`] cannot read.
    fn read(uri: &Uri) -> Result<Self, Problem> {
        let (mut webhooks, mut given, mut since) = (Vec::new(), HashSet::new(), None);
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "tenant" => {}
                "since" => since = time("since", Some(&value))?,
                "webhook" => {
                    let named =
                        value.split(',').filter(|id| !id.is_empty() && given.insert((*id).to_owned()));
                    webhooks.extend(named.map(str::to_owned));
                }
                other => {
                    return Err(Problem::parameter(
                        other,
                        "there is no parameter of this name; known are tenant, webhook, since",
                    ));
                }
            }
        }
        if !(1..=MAX_WEBHOOKS).contains(&webhooks.len()) {
            let detail = format!("webhook must name from 1 to {MAX_WEBHOOKS} webhooks");
            return Err(Problem::parameter("webhook", detail));
        }
        Ok(Self { webhooks, since })
    }
}

/// The sparklines of webhooks: 24 buckets each, the last of which is under way.
///
/// A bucket is a whole number of ten minutes or of hours long, so they are about as long together as the time since `since`, and four hours
/// at least. A webhook of which nothing is known has zeros.
#[utoipa::path(get, path = "/v1/stats/webhooks", tag = "stats", operation_id = "list_webhook_stats",
    params(("tenant" = Option<String>, Query, description = "Whose; `default` by default"),
        ("webhook" = Vec<String>, Query, description = "Of these webhooks, up to 200: repeated, or with commas between them"),
        ("since" = Option<String>, Query, description = "From about this time on, RFC 3339; 24 hours ago by default, 8 days ago at most")),
    responses((status = 200, body = WebhookStatsList), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn webhooks(State(api): State<Arc<Api>>, scope: Scope, uri: Uri) -> Result<Answer, Problem> {
    let (asked, now) = (AskedSparks::read(&uri)?, postrider_broker::now());
    let since = asked.since.unwrap_or(now.minus_ms(DEFAULT_RANGE_MS));
    if since >= now || now.since_ms(since) > MAX_SPARK_RANGE_MS {
        return Err(Problem::parameter("since", "since must be a time of the last 8 days"));
    }
    let plot = Plot::spark(since, now);
    let mut found: HashMap<String, Spark> =
        api.store.sparks(scope.tenant().as_str(), &asked.webhooks, &plot).await?;
    let item = |webhook: String| {
        let spark = found.remove(&webhook);
        WebhookStats::new(webhook, spark)
    };
    Answer::ok(&WebhookStatsList {
        since: shown(plot.since),
        until: shown(plot.until),
        bucket_ms: plot.bucket_ms,
        items: asked.webhooks.into_iter().map(item).collect(),
    })
}
