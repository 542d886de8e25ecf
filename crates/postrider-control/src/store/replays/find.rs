//! Finding what a replay makes again: one piece of its range.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use postrider_core::{DeliveryId, EventId, TenantId, Timestamp, WebhookId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::super::StoreError;
use super::super::cancellations::CANCELLING;
use super::super::events::read_body;
use super::super::own_events::is_test;
use super::plan::{PlanBounds, Roads};
use super::{LeftOut, Reasons, ReplayRow, ReplayTarget};

/// Rows in one statement.
const ROWS: usize = 400;

/// A delivery that may be there or not.
#[derive(Debug)]
pub(super) struct Target {
    pub delivery: DeliveryId,
    pub webhook: i64,
}

/// Chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub event: i64,
    pub webhook: i64,
    pub series: i64,
}

/// Some events, in the order in which they are looked at.
struct Page {
    /// Acceptance and row.
    keys: Vec<(i64, i64)>,
}

impl Page {
    /// The rows as JSON, for `json_each`.
    fn rows(&self) -> String {
        let rows: Vec<String> = self.keys.iter().map(|(_, seq)| seq.to_string()).collect();
        format!("[{}]", rows.join(","))
    }
}

/// What a page gives.
#[derive(Default)]
pub(super) struct Found {
    /// How many of its events were looked at.
    pub events: usize,
    /// Acceptance and row of the last of them.
    pub last: (i64, i64),
    pub items: Vec<Item>,
    pub left_out: Reasons,
}

impl Found {
    fn leave(&mut self, reason: LeftOut) {
        *self.left_out.entry(reason).or_default() += 1;
    }
}

/// The next events of a range: those that are left of a moment, and those after it. The index does not find both at once.
pub(super) const NEXT_EVENTS: &str = "SELECT * FROM (SELECT accepted_at, seq, owed FROM events
    WHERE tenant = $1 AND accepted_at = $2 AND seq > $3 AND seq <= $5 AND $2 < $4 ORDER BY seq LIMIT $6)
    UNION ALL SELECT * FROM (SELECT accepted_at, seq, owed FROM events
    WHERE tenant = $1 AND accepted_at > $2 AND accepted_at < $4 AND seq <= $5 ORDER BY accepted_at, seq LIMIT $6)";
/// The same of events that were named: they are few, and looked up by name. The plus keeps another index out of it.
pub(super) const NEXT_NAMED: &str = "SELECT accepted_at, seq, owed FROM events
    WHERE tenant = $1 AND (+accepted_at, +seq) > ($2, $3) AND +accepted_at < $4 AND +seq <= $5
    AND id IN (SELECT value FROM replays r, json_each(r.event_ids) WHERE r.seq = $7)
    ORDER BY +accepted_at, +seq LIMIT $6";

/// Looks at the next piece of a replay's range; nothing at its end.
pub(super) async fn next(
    connection: &mut SqliteConnection,
    row: &ReplayRow,
    roads: Option<&Arc<Roads>>,
    bounds: PlanBounds,
    now: Timestamp,
) -> Result<Option<Found>, StoreError> {
    let page = next_page(connection, row, bounds).await?;
    if page.keys.is_empty() {
        return Ok(None);
    }
    let mut found = match (&row.asked.target, roads) {
        (ReplayTarget::Original, _) => originals(connection, row, &page).await?,
        (ReplayTarget::Webhook(id), _) => to_one(connection, row, &page, id).await?,
        (ReplayTarget::Matching, Some(roads)) => matching(connection, row, &page, roads, bounds, now).await?,
        (ReplayTarget::Matching, None) => {
            return Err(StoreError::Damaged("nobody says where events go".into()));
        }
    };
    leave_to_others(connection, row, &mut found).await?;
    found.last = found.events.checked_sub(1).and_then(|last| page.keys.get(last)).copied().unwrap_or(row.at);
    Ok(Some(found))
}

/// The next events to look at: as many as have about so many deliveries.
async fn next_page(
    connection: &mut SqliteConnection,
    row: &ReplayRow,
    bounds: PlanBounds,
) -> Result<Page, StoreError> {
    let named = row.asked.events > 0;
    let limit = if row.asked.target == ReplayTarget::Matching { bounds.bodies } else { bounds.events };
    let mut query = sqlx::query_as(if named { NEXT_NAMED } else { NEXT_EVENTS })
        .bind(&row.tenant)
        .bind(row.at.0)
        .bind(row.at.1)
        .bind(row.until.as_millis())
        .bind(row.last_event)
        .bind(i64::from(limit));
    if named {
        query = query.bind(row.seq);
    }
    let mut events: Vec<(i64, i64, i64)> = query.fetch_all(connection).await?;
    events.sort_unstable();
    events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let (mut keys, mut deliveries) = (Vec::with_capacity(events.len()), 0);
    for (accepted_at, seq, owed) in events {
        if deliveries >= bounds.deliveries {
            break;
        }
        deliveries += usize::try_from(owed).unwrap_or(0);
        keys.push((accepted_at, seq));
    }
    Ok(Page { keys })
}

/// Adds a condition with a list of values.
fn one_of<'a>(query: &mut QueryBuilder<Sqlite>, what: &'static str, values: impl Iterator<Item = &'a str>) {
    query.push(what).push(" IN (");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value.to_owned());
    }
    query.push(")");
}

/// Deliveries of these events, as asked for, with what has not ended. From the events to their deliveries: the pluses, and
/// the crosses, keep the database from beginning with all deliveries of a webhook.
pub(super) fn deliveries_of(start: &'static str, row: &ReplayRow, events: &str) -> QueryBuilder<Sqlite> {
    let asked = &row.asked;
    let mut query = QueryBuilder::<Sqlite>::new(start);
    query
        .push(
            "SELECT e.seq AS event, e.id AS event_id, d.series, d.state, w.seq AS webhook, w.deleted_at,
             b.event IS NOT NULL AS has_body, ",
        )
        .push(CANCELLING)
        .push(" AS cancelling FROM json_each(")
        .push_bind(events.to_owned())
        .push(
            ") p CROSS JOIN events e CROSS JOIN deliveries d
             LEFT JOIN series s ON s.delivery = d.id AND s.series = d.series
             LEFT JOIN webhooks w ON w.id = d.webhook LEFT JOIN bodies b ON b.event = e.seq
             WHERE e.seq = p.value AND d.event = e.seq AND +d.seq <= ",
        )
        .push_bind(row.last_delivery);
    if !asked.event_types.is_empty() {
        one_of(&mut query, " AND +e.event_type", asked.event_types.iter().map(String::as_str));
    }
    if let Some(webhook) = &asked.webhook {
        query.push(" AND +d.webhook = ").push_bind(webhook.clone());
    }
    if !asked.states.is_empty() {
        let states = asked.states.iter().map(String::as_str).chain(["pending"]);
        one_of(&mut query, " AND +d.state", states);
    }
    query
}

/// Deliveries of the page that are as asked for.
async fn originals(
    connection: &mut SqliteConnection,
    row: &ReplayRow,
    page: &Page,
) -> Result<Found, StoreError> {
    let mut found = Found { events: page.keys.len(), ..Found::default() };
    let rows = deliveries_of("", row, &page.rows()).build().persistent(false).fetch_all(connection).await?;
    for delivery in rows {
        let webhook: Option<i64> = delivery.try_get("webhook")?;
        let deleted = delivery.try_get::<Option<i64>, _>("deleted_at")?.is_some();
        if is_test(delivery.try_get("event_id")?) {
            found.leave(LeftOut::Test);
        } else if delivery.try_get::<String, _>("state")? == "pending" {
            found.leave(on_its_way(delivery.try_get("cancelling")?));
        } else if let Some(webhook) = webhook.filter(|_| !deleted) {
            if delivery.try_get("has_body")? {
                let (event, series) = (delivery.try_get("event")?, delivery.try_get("series")?);
                found.items.push(Item { event, webhook, series });
            } else {
                found.leave(LeftOut::BodyGone);
            }
        } else {
            found.leave(LeftOut::WebhookDeleted);
        }
    }
    Ok(found)
}

/// An event of the page that is as asked for.
struct Source {
    event: i64,
    id: String,
    has_body: bool,
    /// Only where it is needed.
    body: Option<Vec<u8>>,
}

/// These events, as asked for, in order.
pub(super) fn events_of(start: &'static str, row: &ReplayRow, events: &str) -> QueryBuilder<Sqlite> {
    let asked = &row.asked;
    let mut query = QueryBuilder::<Sqlite>::new(start);
    query
        .push("SELECT e.seq AS event, e.id, b.event IS NOT NULL AS has_body, ")
        .push(if asked.target == ReplayTarget::Matching { "b.record" } else { "NULL" })
        .push(" AS body FROM json_each(")
        .push_bind(events.to_owned())
        .push(
            ") p CROSS JOIN events e LEFT JOIN bodies b ON b.event = e.seq
             WHERE e.seq = p.value AND +e.fate <> 'invalid'",
        );
    if !asked.event_types.is_empty() {
        one_of(&mut query, " AND +e.event_type", asked.event_types.iter().map(String::as_str));
    }
    if asked.webhook.is_some() || !asked.states.is_empty() {
        query.push(" AND EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.seq AND +d.seq <= ");
        query.push_bind(row.last_delivery);
        if let Some(webhook) = &asked.webhook {
            query.push(" AND +d.webhook = ").push_bind(webhook.clone());
        }
        if !asked.states.is_empty() {
            one_of(&mut query, " AND +d.state", asked.states.iter().map(String::as_str));
        }
        query.push(")");
    }
    // In the order of the page.
    query.push(" ORDER BY p.key");
    query
}

async fn sources(
    connection: &mut SqliteConnection,
    row: &ReplayRow,
    page: &Page,
) -> Result<Vec<Source>, StoreError> {
    let rows = events_of("", row, &page.rows()).build().persistent(false).fetch_all(connection).await?;
    let source = |row: &SqliteRow| {
        Ok(Source {
            event: row.try_get("event")?,
            id: row.try_get("id")?,
            has_body: row.try_get("has_body")?,
            body: row.try_get("body")?,
        })
    };
    rows.iter().map(source).collect()
}

/// Events of the page for one webhook.
async fn to_one(
    connection: &mut SqliteConnection,
    row: &ReplayRow,
    page: &Page,
    webhook: &str,
) -> Result<Found, StoreError> {
    let mut found = Found { events: page.keys.len(), ..Found::default() };
    let target: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM webhooks WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL")
            .bind(webhook)
            .bind(&row.tenant)
            .fetch_optional(&mut *connection)
            .await?;
    let (tenant, id) = (TenantId::from_trusted(row.tenant.as_str()), WebhookId::from_trusted(webhook));
    let mut targets = BTreeMap::new();
    for source in sources(connection, row, page).await? {
        match target {
            Some(_) | None if is_test(&source.id) => found.leave(LeftOut::Test),
            None => found.leave(LeftOut::WebhookDeleted),
            Some(_) if !source.has_body => found.leave(LeftOut::BodyGone),
            Some(target) => {
                let delivery = DeliveryId::of(&tenant, &EventId::from_trusted(source.id), &id);
                targets.insert(source.event, vec![Target { delivery, webhook: target }]);
            }
        }
    }
    judge(connection, row, targets, &mut found).await?;
    Ok(found)
}

/// Events of the page for the webhooks that take them today.
async fn matching(
    connection: &mut SqliteConnection,
    row: &ReplayRow,
    page: &Page,
    roads: &Arc<Roads>,
    bounds: PlanBounds,
    now: Timestamp,
) -> Result<Found, StoreError> {
    let sources = sources(connection, row, page).await?;
    let roads = roads.clone();
    let routing = tokio::task::spawn_blocking(move || {
        let (mut targets, mut left_out, mut count, mut last) = (BTreeMap::new(), Reasons::new(), 0, None);
        for source in sources {
            // An event may go to many webhooks: the others are looked at in the next step.
            if count >= bounds.deliveries {
                return (targets, left_out, last);
            }
            last = Some(source.event);
            let to = match source.body.as_deref().map(read_body) {
                _ if is_test(&source.id) => Err(LeftOut::Test),
                None => Err(LeftOut::BodyGone),
                Some(Err(_)) => Err(LeftOut::Refused),
                Some(Ok(record)) => roads.of(&record.into(), now, &mut left_out),
            };
            match to {
                Ok(to) => {
                    count += to.len();
                    targets.insert(source.event, to);
                }
                Err(reason) => *left_out.entry(reason).or_default() += 1,
            }
        }
        (targets, left_out, None)
    });
    let routed = routing.await.map_err(|e| StoreError::Damaged(format!("routing for a replay: {e}")))?;
    let (targets, left_out, stopped_at) = routed;
    let place = stopped_at.and_then(|last| page.keys.iter().position(|(_, seq)| *seq == last));
    let events = place.map_or(page.keys.len(), |place| place + 1);
    let mut found = Found { events, left_out, ..Found::default() };
    judge(connection, row, targets, &mut found).await?;
    Ok(found)
}

/// Why what has not ended is left out.
fn on_its_way(cancelling: bool) -> LeftOut {
    if cancelling { LeftOut::Cancelling } else { LeftOut::UnderWay }
}

/// Chooses among deliveries that may be there or not, by event.
async fn judge(
    connection: &mut SqliteConnection,
    row: &ReplayRow,
    targets: BTreeMap<i64, Vec<Target>>,
    found: &mut Found,
) -> Result<(), StoreError> {
    let all: Vec<(i64, Target)> = targets
        .into_iter()
        .flat_map(|(event, to)| to.into_iter().map(move |target| (event, target)))
        .collect();
    for chunk in all.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT d.id, d.series, d.state, d.event, ");
        query.push(CANCELLING).push(
            " AS cancelling FROM deliveries d LEFT JOIN series s ON s.delivery = d.id AND s.series = d.series WHERE ",
        );
        one_of(&mut query, "d.id", chunk.iter().map(|(_, target)| target.delivery.as_str()));
        let mut known = HashMap::new();
        for delivery in query.build().persistent(false).fetch_all(&mut *connection).await? {
            let state: String = delivery.try_get("state")?;
            // Somebody reported it before its event was recorded: it is on its way.
            let whole = delivery.try_get::<Option<i64>, _>("event")?.is_some();
            let ended = whole && state != "pending";
            let id: String = delivery.try_get("id")?;
            let ended = if ended { Ok(state == "delivered") } else { Err(delivery.try_get("cancelling")?) };
            known.insert(id, (delivery.try_get::<i64, _>("series")?, ended));
        }
        for (event, target) in chunk {
            let item = |series| Item { event: *event, webhook: target.webhook, series };
            match known.get(target.delivery.as_str()) {
                None => found.items.push(item(0)),
                Some((_, Err(cancelling))) => found.leave(on_its_way(*cancelling)),
                Some((_, Ok(true))) if !row.asked.again => found.leave(LeftOut::Delivered),
                Some((series, Ok(_))) => found.items.push(item(*series)),
            }
        }
    }
    Ok(())
}

/// Leaves out what another replay, which runs or is going to, has chosen.
async fn leave_to_others(
    connection: &mut SqliteConnection,
    row: &ReplayRow,
    found: &mut Found,
) -> Result<(), StoreError> {
    if found.items.is_empty() {
        return Ok(());
    }
    let others: Vec<i64> = sqlx::query_scalar(
        "SELECT seq FROM replays WHERE state IN ('planning', 'planned', 'running') AND tenant = $1 AND run = 1
         AND seq <> $2",
    )
    .bind(&row.tenant)
    .bind(row.seq)
    .fetch_all(&mut *connection)
    .await?;
    if others.is_empty() {
        return Ok(());
    }
    let mut events: Vec<i64> = found.items.iter().map(|item| item.event).collect();
    events.dedup();
    let keys = events.into_iter().map(|event| (0, event)).collect();
    let events = Page { keys }.rows();
    let mut theirs: HashSet<(i64, i64)> = HashSet::new();
    for other in others {
        let items: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT i.event, i.webhook FROM json_each($2) p JOIN replay_items i ON i.replay = $1 AND i.event = p.value",
        )
        .bind(other)
        .bind(&events)
        .fetch_all(&mut *connection)
        .await?;
        theirs.extend(items);
    }
    let before = found.items.len();
    found.items.retain(|item| !theirs.contains(&(item.event, item.webhook)));
    let left = (before - found.items.len()) as u64;
    if left > 0 {
        *found.left_out.entry(LeftOut::AlreadyChosen).or_default() += left;
    }
    Ok(())
}
