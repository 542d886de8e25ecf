//! Reminders: events that are due some days before a date.
//!
//! A row keeps the date and never when it is due: lead, hour and zone are looked up when somebody asks, so that changing
//! them touches no reminder. A group is what a tenant has of one event type; all of a group that is due is what has a
//! date up to one day, found by an index. A key and date that was sent is kept, and never sent again.

use std::collections::HashMap;

use postrider_core::event::null;
use postrider_core::reminder::{Day, Schedule, event_id};
use postrider_core::wire::UnknownTypes;
use postrider_core::{EventType, Json, TenantId, Timestamp};
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, Transaction};

use super::{Audience, Change, NewEvent, Settings, Store, StoreError, small, time, unsigned};

/// The most pending reminders of one event type of a tenant.
const MAX_PENDING: u64 = 50_000_000;

/// What became of a reminder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReminderState {
    /// It will be sent.
    Pending,
    /// An event was published for its key and date.
    Sent,
    /// Somebody took it back.
    Cancelled,
}

impl ReminderState {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Pending, Self::Sent, Self::Cancelled];

    /// One word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A reminder as somebody wants it.
#[derive(Clone, Debug)]
pub(crate) struct NewReminder {
    pub tenant: TenantId,
    pub key: String,
    /// As it was spelled.
    pub event_type: EventType,
    pub date: ReminderDate,
    pub data: Option<Json>,
    pub current_context: Option<Json>,
}

/// A date as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReminderDate {
    /// A day.
    Day(Day),
    /// The day that it is where the tenant is at this moment.
    Moment(Timestamp),
}

/// A reminder as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct ReminderRow {
    pub seq: i64,
    pub tenant: TenantId,
    pub key: String,
    pub event_type: String,
    pub date: Day,
    pub state: ReminderState,
    pub data: Option<Json>,
    pub current_context: Option<Json>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub sent_at: Option<Timestamp>,
    grp: i64,
}

/// What putting a reminder did.
#[derive(Clone, Debug)]
pub(crate) struct PutReminder {
    pub row: ReminderRow,
    /// There was none of this key.
    pub is_new: bool,
    /// It is not as it was.
    pub is_changed: bool,
    /// When reminders of its kind go out.
    pub rule: Rule,
}

/// Why a reminder is refused.
#[derive(Clone, Debug)]
pub(crate) enum ReminderRefused {
    UnknownTenant,
    /// The tenant refuses events of types that no catalogue has.
    UnknownType,
    /// Nobody says how many days before its date it goes out.
    NoLead,
    /// The day is past: this is today there.
    Past {
        date: Day,
        today: Day,
    },
    /// Not a day that can be.
    BadDate,
    /// There are this many of its type.
    TooMany(u64),
}

/// Why a reminder cannot be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotCancelled {
    /// There is none of this key.
    Unknown,
    /// Its event was published then.
    Sent(Timestamp),
}

/// When the reminders of a group go out.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Nothing when the settings cannot be read by this release.
    schedule: Option<Schedule>,
    lead_days: Option<u32>,
}

impl Rule {
    /// When a reminder of this date is due; nothing while nobody says how many days before.
    pub(crate) fn due(&self, date: Day) -> Option<Timestamp> {
        Some(self.schedule.as_ref()?.due(date, self.lead_days?))
    }

    /// The last date that is due.
    fn cutoff(&self, now: Timestamp) -> Option<Day> {
        Some(self.schedule.as_ref()?.cutoff(now, self.lead_days?))
    }
}

/// What a tenant has of one event type.
#[derive(Clone, Debug)]
pub(crate) struct ReminderGroup {
    pub id: i64,
    pub event_type: String,
    pub pending: u64,
    pub rule: Rule,
    /// The earliest date of those that are pending.
    first: Option<Day>,
}

impl ReminderGroup {
    /// When the next of them is due; nothing when none is pending, or nobody says how many days before.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.rule.due(self.first?)
    }
}

/// Which reminders to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReminderFilter {
    pub tenant: String,
    /// By name.
    pub event_type: Option<String>,
    pub state: Option<&'static str>,
    /// Due before this moment.
    pub due_before: Option<Timestamp>,
}

/// What a transaction of sending did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// How many went out.
    pub count: u64,
    /// When the next one of the group is due.
    pub next: Option<Timestamp>,
}

pub(super) const ROW: &str =
    "SELECT r.*, g.event_type FROM reminders r JOIN reminder_groups g ON g.id = r.grp";

/// Groups with what their rule is made of. A tenant that is gone has none.
const GROUPS: &str = "SELECT g.id, g.tenant, g.event_type, g.pending, t.settings, m.means,
    json_extract(e.entry, '$.lead_days') AS lead_days,
    (SELECT MIN(r.date) FROM reminders r WHERE r.grp = g.id AND r.state = 'pending') AS first
    FROM reminder_groups g
    JOIN tenants t ON t.id = g.tenant AND t.deleted_at IS NULL
    LEFT JOIN terms m ON m.tenant = g.tenant AND m.kind = 'type' AND m.name = g.event_type
    LEFT JOIN event_types e ON e.tenant = g.tenant AND e.name = m.means";

fn day(number: i64) -> Day {
    Day::from_number(i32::try_from(number).unwrap_or(i32::MAX))
}

fn reminder_of(row: &SqliteRow) -> Result<ReminderRow, StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("a reminder's {what}"));
    let json = |name: &str| -> Result<Option<Json>, StoreError> {
        let text: Option<String> = row.try_get(name)?;
        text.map(|text| RawValue::from_string(text).map(Json::from).map_err(|_| damaged(name))).transpose()
    };
    let state: String = row.try_get("state")?;
    let state = ReminderState::ALL.into_iter().find(|known| known.as_str() == state);
    Ok(ReminderRow {
        seq: row.try_get("seq")?,
        tenant: TenantId::from_trusted(row.try_get::<String, _>("tenant")?),
        key: row.try_get("key")?,
        event_type: row.try_get("event_type")?,
        date: day(row.try_get("date")?),
        state: state.ok_or_else(|| damaged("state"))?,
        data: json("data")?,
        current_context: json("current_context")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        updated_at: Timestamp::from_millis(row.try_get("updated_at")?),
        sent_at: time(row.try_get("sent_at")?),
        grp: row.try_get("grp")?,
    })
}

/// The tenant's own lead for a type, else its catalogue's.
fn lead_days(settings: &Settings, names: [&str; 2], of_catalogue: Option<u32>) -> Option<u32> {
    names.iter().find_map(|name| settings.lead_days.get(*name).copied()).or(of_catalogue)
}

fn schedule_of(tenant: &str, settings: &Settings) -> Option<Schedule> {
    Schedule::new(&settings.time_zone, &settings.send_at)
        .inspect_err(|error| tracing::error!(tenant, %error, "reminders wait: settings that were taken once are refused"))
        .ok()
}

fn groups_of(rows: &[SqliteRow]) -> Result<Vec<ReminderGroup>, StoreError> {
    let mut known: HashMap<String, (Settings, Option<Schedule>)> = HashMap::new();
    let mut groups = Vec::with_capacity(rows.len());
    for row in rows {
        let tenant: String = row.try_get("tenant")?;
        if !known.contains_key(&tenant) {
            let settings = Settings::read(&row.try_get::<String, _>("settings")?)?;
            let schedule = schedule_of(&tenant, &settings);
            known.insert(tenant.clone(), (settings, schedule));
        }
        let Some((settings, schedule)) = known.get(&tenant) else { continue };
        let event_type: String = row.try_get("event_type")?;
        let means = row.try_get::<Option<String>, _>("means")?.unwrap_or_default();
        let of_catalogue = row.try_get::<Option<i64>, _>("lead_days")?.map(small);
        groups.push(ReminderGroup {
            id: row.try_get("id")?,
            rule: Rule {
                schedule: schedule.clone(),
                lead_days: lead_days(settings, [&event_type, &means], of_catalogue),
            },
            event_type,
            pending: unsigned(row.try_get("pending")?),
            first: row.try_get::<Option<i64>, _>("first")?.map(day),
        });
    }
    Ok(groups)
}

impl Store {
    /// A reminder of this tenant.
    pub(crate) async fn reminder(&self, tenant: &str, key: &str) -> Result<Option<ReminderRow>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(ROW);
        query.push(" WHERE r.tenant = ").push_bind(tenant).push(" AND r.key = ").push_bind(key);
        let row = query.build().fetch_optional(&self.readers).await?;
        row.as_ref().map(reminder_of).transpose()
    }

    /// Every group with something pending.
    pub(crate) async fn reminder_groups(&self) -> Result<Vec<ReminderGroup>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(GROUPS);
        query.push(" WHERE g.pending > 0 ORDER BY g.tenant, g.id");
        groups_of(&query.build().fetch_all(&self.readers).await?)
    }

    /// The groups of a tenant.
    pub(crate) async fn reminder_groups_of(&self, tenant: &str) -> Result<Vec<ReminderGroup>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(GROUPS);
        query.push(" WHERE g.tenant = ").push_bind(tenant).push(" ORDER BY g.id");
        groups_of(&query.build().fetch_all(&self.readers).await?)
    }

    /// Reminders by date, after `after`: a date and a row. `groups` are those of the tenant.
    pub(crate) async fn reminders(
        &self,
        filter: &ReminderFilter,
        groups: &[ReminderGroup],
        after: Option<(Day, i64)>,
        limit: u32,
    ) -> Result<Vec<ReminderRow>, StoreError> {
        let mut tx = self.readers.begin().await?;
        if filter.event_type.is_none() && filter.state.is_none() && filter.due_before.is_none() {
            let mut query = QueryBuilder::<Sqlite>::new(ROW);
            query.push(" WHERE r.tenant = ").push_bind(&filter.tenant);
            return page(query, after, limit).fetch(&mut tx).await;
        }
        let mut rows: Vec<ReminderRow> = Vec::new();
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        for group in groups {
            if filter.event_type.as_ref().is_some_and(|name| *name != group.event_type) {
                continue;
            }
            // Up to which date it is wanted: all of it if nobody asks when it is due.
            let last = match filter.due_before {
                None => i64::MAX,
                Some(before) => {
                    let before = Timestamp::from_millis(before.as_millis().saturating_sub(1));
                    let Some(last) = group.rule.cutoff(before) else { continue };
                    i64::from(last.number())
                }
            };
            for state in ReminderState::ALL {
                if filter.state.is_some_and(|asked| asked != state.as_str()) {
                    continue;
                }
                // What is later than a full page has is not needed.
                let full = rows.get(most.saturating_sub(1)).map(|row| i64::from(row.date.number()));
                let mut query = QueryBuilder::<Sqlite>::new(ROW);
                query.push(of_state(state)).push(" AND r.grp = ").push_bind(group.id);
                query.push(" AND r.date <= ").push_bind(full.map_or(last, |full| full.min(last)));
                rows.extend(page(query, after, limit).fetch(&mut tx).await?);
                rows.sort_by_key(|row| (row.date.number(), row.seq));
                rows.truncate(most);
            }
        }
        Ok(rows)
    }
}

/// A condition that the index of this state has as well.
pub(super) fn of_state(state: ReminderState) -> &'static str {
    match state {
        ReminderState::Pending => " WHERE r.state = 'pending'",
        ReminderState::Sent => " WHERE r.state <> 'pending' AND r.state = 'sent'",
        ReminderState::Cancelled => " WHERE r.state <> 'pending' AND r.state = 'cancelled'",
    }
}

/// A page of reminders by date.
struct Page(QueryBuilder<Sqlite>);

fn page(mut query: QueryBuilder<Sqlite>, after: Option<(Day, i64)>, limit: u32) -> Page {
    if let Some((date, seq)) = after {
        query.push(" AND (r.date, r.seq) > (").push_bind(i64::from(date.number()));
        query.push(", ").push_bind(seq).push(")");
    }
    query.push(" ORDER BY r.date, r.seq LIMIT ").push_bind(i64::from(limit));
    Page(query)
}

impl Page {
    async fn fetch(mut self, tx: &mut Transaction<'_, Sqlite>) -> Result<Vec<ReminderRow>, StoreError> {
        let rows = self.0.build().persistent(false).fetch_all(&mut **tx).await?;
        rows.iter().map(reminder_of).collect()
    }
}

impl Change<'_> {
    /// Makes a reminder, or moves and changes the one of its key. The same again changes nothing.
    pub(crate) async fn put_reminder(
        &mut self,
        new: &NewReminder,
        now: Timestamp,
    ) -> Result<Result<PutReminder, ReminderRefused>, StoreError> {
        let tenant = new.tenant.as_str();
        if !self.has_tenant(tenant).await? {
            return Ok(Err(ReminderRefused::UnknownTenant));
        }
        let settings = self.settings(tenant).await?;
        let known = self.event_type(tenant, new.event_type.as_str()).await?;
        let (event_type, of_catalogue) = match &known {
            Some(row) => (row.entry.name.as_str(), row.entry.lead_days),
            None => (new.event_type.as_str(), None),
        };
        let schedule = schedule_of(tenant, &settings);
        let date = match (new.date, &schedule) {
            (ReminderDate::Day(day), _) => day,
            (ReminderDate::Moment(at), Some(schedule)) => {
                // Within the bounds of days that can be written.
                match Day::parse(&schedule.day_of(at).to_string()) {
                    Ok(day) => day,
                    Err(_) => return Ok(Err(ReminderRefused::BadDate)),
                }
            }
            (ReminderDate::Moment(_), None) => return Ok(Err(ReminderRefused::BadDate)),
        };
        let rule = Rule { schedule, lead_days: lead_days(&settings, [event_type, event_type], of_catalogue) };
        let before = self.reminder(tenant, &new.key).await?;
        if let Some(row) = &before
            && row.state != ReminderState::Cancelled
            && row.is(event_type, date, new)
        {
            return Ok(Ok(PutReminder { row: row.clone(), is_new: false, is_changed: false, rule }));
        }
        if known.is_none()
            && settings.unknown_types == UnknownTypes::Refuse
            && self.count_catalogues(tenant).await? > 0
        {
            return Ok(Err(ReminderRefused::UnknownType));
        }
        if rule.lead_days.is_none() {
            return Ok(Err(ReminderRefused::NoLead));
        }
        if let Some(today) = rule.schedule.as_ref().map(|schedule| schedule.day_of(now))
            && date < today
        {
            return Ok(Err(ReminderRefused::Past { date, today }));
        }
        let state = if self.was_sent(tenant, &new.key, date).await? {
            ReminderState::Sent
        } else {
            ReminderState::Pending
        };
        let (grp, pending) = self.reminder_group(tenant, event_type).await?;
        if state == ReminderState::Pending && pending >= MAX_PENDING {
            return Ok(Err(ReminderRefused::TooMany(MAX_PENDING)));
        }
        sqlx::query(
            "INSERT INTO reminders (tenant, key, grp, date, state, data, current_context, created_at, updated_at, sent_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8,
             (SELECT sent_at FROM reminders_sent WHERE tenant = $1 AND key = $2 AND date = $4))
             ON CONFLICT (tenant, key) DO UPDATE SET grp = excluded.grp, date = excluded.date, state = excluded.state,
             data = excluded.data, current_context = excluded.current_context, updated_at = excluded.updated_at,
             sent_at = excluded.sent_at",
        )
        .bind(tenant)
        .bind(&new.key)
        .bind(grp)
        .bind(i64::from(date.number()))
        .bind(state.as_str())
        .bind(new.data.as_ref().map(|json| json.get()))
        .bind(new.current_context.as_ref().map(|json| json.get()))
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        if let Some(row) = before.as_ref().filter(|row| row.state == ReminderState::Pending) {
            self.count_pending(row.grp, -1).await?;
        }
        if state == ReminderState::Pending {
            self.count_pending(grp, 1).await?;
        }
        self.for_reminders = true;
        let row = self.reminder(tenant, &new.key).await?;
        let row = row.ok_or_else(|| StoreError::Damaged("a reminder that was just written".into()))?;
        Ok(Ok(PutReminder { row, is_new: before.is_none(), is_changed: true, rule }))
    }

    /// Takes a reminder back, unless its event was published. Gives whether it was pending.
    pub(crate) async fn cancel_reminder(
        &mut self,
        tenant: &str,
        key: &str,
        now: Timestamp,
    ) -> Result<Result<bool, NotCancelled>, StoreError> {
        let Some(row) = self.reminder(tenant, key).await? else { return Ok(Err(NotCancelled::Unknown)) };
        match row.state {
            ReminderState::Sent => return Ok(Err(NotCancelled::Sent(row.sent_at.unwrap_or(row.updated_at)))),
            ReminderState::Cancelled => {}
            ReminderState::Pending => {
                sqlx::query("UPDATE reminders SET state = 'cancelled', updated_at = $2 WHERE seq = $1")
                    .bind(row.seq)
                    .bind(now.as_millis())
                    .execute(&mut *self.tx)
                    .await?;
                self.count_pending(row.grp, -1).await?;
            }
        }
        Ok(Ok(row.state == ReminderState::Pending))
    }

    /// Publishes what is due of a group, the earliest dates first, up to `most`.
    ///
    /// What is due is decided in here, by the settings that this change sees.
    pub(crate) async fn send_reminders(
        &mut self,
        group: &ReminderGroup,
        most: u32,
        now: Timestamp,
    ) -> Result<Sent, StoreError> {
        let mut count = 0;
        if let Some(group) = self.reminder_group_now(group.id).await?
            && let Some(cutoff) = group.rule.cutoff(now)
        {
            let mut query = QueryBuilder::<Sqlite>::new(ROW);
            query.push(" WHERE r.state = 'pending' AND r.grp = ").push_bind(group.id);
            query.push(" AND r.date <= ").push_bind(i64::from(cutoff.number()));
            query.push(" ORDER BY r.date, r.seq LIMIT ").push_bind(i64::from(most));
            let rows = query.build().fetch_all(&mut *self.tx).await?;
            let rows: Vec<ReminderRow> = rows.iter().map(reminder_of).collect::<Result<_, _>>()?;
            for row in &rows {
                if self.note_sent(row, now).await? {
                    self.publish_event(&row.tenant, &row.event(now)?, Audience::All, now).await?;
                    count += 1;
                }
            }
            if !rows.is_empty() {
                self.mark_reminders_sent(&rows, now).await?;
                self.count_pending(group.id, -i64::try_from(rows.len()).unwrap_or(0)).await?;
            }
        }
        let next = self.reminder_group_now(group.id).await?.and_then(|group| group.next_due());
        Ok(Sent { count, next })
    }

    /// A reminder of this tenant, as this change sees it.
    async fn reminder(&mut self, tenant: &str, key: &str) -> Result<Option<ReminderRow>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(ROW);
        query.push(" WHERE r.tenant = ").push_bind(tenant).push(" AND r.key = ").push_bind(key);
        let row = query.build().fetch_optional(&mut *self.tx).await?;
        row.as_ref().map(reminder_of).transpose()
    }

    async fn reminder_group_now(&mut self, id: i64) -> Result<Option<ReminderGroup>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(GROUPS);
        query.push(" WHERE g.id = ").push_bind(id);
        Ok(groups_of(&query.build().fetch_all(&mut *self.tx).await?)?.pop())
    }

    /// The group of a type, made where there is none, and how many of it are pending.
    async fn reminder_group(&mut self, tenant: &str, event_type: &str) -> Result<(i64, u64), StoreError> {
        let (id, pending): (i64, i64) = sqlx::query_as(
            "INSERT INTO reminder_groups (tenant, event_type, pending) VALUES ($1, $2, 0)
             ON CONFLICT (tenant, event_type) DO UPDATE SET pending = pending RETURNING id, pending",
        )
        .bind(tenant)
        .bind(event_type)
        .fetch_one(&mut *self.tx)
        .await?;
        Ok((id, unsigned(pending)))
    }

    async fn count_pending(&mut self, grp: i64, more: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE reminder_groups SET pending = pending + $2 WHERE id = $1")
            .bind(grp)
            .bind(more)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// How many reminders of a tenant are pending, of this type or of all.
    pub(crate) async fn count_pending_reminders(
        &mut self,
        tenant: &str,
        event_type: Option<&str>,
    ) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar(
            "SELECT COALESCE(SUM(pending), 0) FROM reminder_groups
             WHERE tenant = $1 AND ($2 IS NULL OR event_type = $2)",
        )
        .bind(tenant)
        .bind(event_type)
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(unsigned(n))
    }

    async fn was_sent(&mut self, tenant: &str, key: &str, date: Day) -> Result<bool, StoreError> {
        let n: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM reminders_sent WHERE tenant = $1 AND key = $2 AND date = $3",
        )
        .bind(tenant)
        .bind(key)
        .bind(i64::from(date.number()))
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(n > 0)
    }

    /// `false` when its key and date was sent before.
    async fn note_sent(&mut self, row: &ReminderRow, now: Timestamp) -> Result<bool, StoreError> {
        let noted = sqlx::query(
            "INSERT INTO reminders_sent (tenant, key, date, sent_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(row.tenant.as_str())
        .bind(&row.key)
        .bind(i64::from(row.date.number()))
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        Ok(noted.rows_affected() > 0)
    }

    async fn mark_reminders_sent(&mut self, rows: &[ReminderRow], now: Timestamp) -> Result<(), StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("UPDATE reminders SET state = 'sent', sent_at = ");
        query.push_bind(now.as_millis()).push(" WHERE seq IN (");
        let mut list = query.separated(", ");
        for row in rows {
            list.push_bind(row.seq);
        }
        query.push(")");
        query.build().persistent(false).execute(&mut *self.tx).await?;
        Ok(())
    }
}

impl ReminderRow {
    /// Whether it is already what is asked for.
    fn is(&self, event_type: &str, date: Day, new: &NewReminder) -> bool {
        let text = |json: &Option<Json>| json.as_ref().map(|json| json.get().to_owned());
        self.event_type == event_type
            && self.date == date
            && text(&self.data) == text(&new.data)
            && text(&self.current_context) == text(&new.current_context)
    }

    /// The event that it becomes.
    fn event(&self, now: Timestamp) -> Result<NewEvent, StoreError> {
        let event_type = EventType::parse(&self.event_type);
        Ok(NewEvent {
            event_type: event_type
                .map_err(|e| StoreError::Damaged(format!("a reminder's event type: {e}")))?,
            event_time: now.to_rfc3339(),
            current_context: self.current_context.clone().unwrap_or_else(null),
            data: self.data.clone().unwrap_or_else(null),
            id: event_id(&self.tenant, &self.key, self.date),
            key: Some(self.key.clone()),
            correlation_id: None,
        })
    }
}
