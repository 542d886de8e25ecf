//! When a reminder is due.
//!
//! A reminder has a date: a calendar day where its tenant is. It goes out a number of days before, the lead, at the
//! tenant's hour. Only the date is kept; when that is in time follows from the settings of the moment, so that a change
//! of the lead, of the hour or of the zone costs nothing and counts at once, for a single reminder as for ten million.

use std::fmt;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan as _};
use serde::{Deserialize, Serialize};

use crate::id::{EventId, TenantId, digest_of, hex};
use crate::time::Timestamp;

/// The hour at which reminders go out when a tenant says nothing.
pub const DEFAULT_SEND_AT: &str = "09:00";

/// The zone of a tenant that says nothing.
pub const DEFAULT_TIME_ZONE: &str = "UTC";

/// The longest lead, days.
pub const MAX_LEAD_DAYS: u32 = 365;

/// The last day that can be a date. Around it there is room for leads and zones.
const LAST: Date = Date::constant(9000, 12, 31);

/// A calendar day, without a zone: as a number, days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(i32);

/// Why a text is not a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a day must be written as 2026-12-24, from 1970-01-01 to 9000-12-31")]
pub struct BadDay;

impl Day {
    /// Reads `2026-12-24`.
    ///
    /// # Errors
    /// [`BadDay`] when it is written otherwise, is no day of the calendar, or is beyond its bounds.
    pub fn parse(text: &str) -> Result<Self, BadDay> {
        let shape = text.len() == 10
            && text
                .bytes()
                .enumerate()
                .all(|(at, b)| if matches!(at, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
        let date: Date = if shape { text.parse().map_err(|_| BadDay)? } else { return Err(BadDay) };
        let day = Self::of(date);
        if day.0 < 0 || date > LAST { Err(BadDay) } else { Ok(day) }
    }

    /// The day with this number.
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// Its number: days since 1970-01-01.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The day so many days later, or earlier.
    pub const fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }

    fn of(date: Date) -> Self {
        // The whole calendar has fewer days than fit.
        let days = Date::constant(1970, 1, 1).until(date).map_or(0, |span: Span| span.get_days());
        Self(days)
    }

    /// The nearest day of the calendar.
    fn date(self) -> Date {
        let first = Date::constant(1970, 1, 1);
        first.checked_add(self.0.days()).unwrap_or(if self.0 < 0 { Date::MIN } else { Date::MAX })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.date())
    }
}

/// When a tenant's reminders go out: its zone and its hour.
#[derive(Clone, Debug)]
pub struct Schedule {
    zone: TimeZone,
    send_at: Time,
}

/// Why a schedule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// The zone.
    #[error("{0:?} is not the name of a time zone, such as Europe/Berlin or UTC (IANA time zone database)")]
    TimeZone(String),
    /// The hour.
    #[error("send_at must be a time of day, HH:MM from 00:00 to 23:59")]
    SendAt,
}

impl Schedule {
    /// Reads the name of a zone of the IANA database and a time of day, `HH:MM`.
    ///
    /// # Errors
    /// [`BadSchedule`] that names the one which cannot be read.
    pub fn new(time_zone: &str, send_at: &str) -> Result<Self, BadSchedule> {
        // A name and nothing else: not the rules of POSIX, and nothing that reads a file.
        let named = (1..=64).contains(&time_zone.len())
            && time_zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b));
        let zone = if named { jiff::tz::db().get(time_zone).ok() } else { None };
        let zone = zone.ok_or_else(|| BadSchedule::TimeZone(time_zone.chars().take(64).collect()))?;
        Ok(Self { zone, send_at: read_time(send_at).ok_or(BadSchedule::SendAt)? })
    }

    /// The day that it is there at this moment.
    pub fn day_of(&self, at: Timestamp) -> Day {
        let at = jiff::Timestamp::from_millisecond(at.as_millis());
        let at = at.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Day::of(self.zone.to_datetime(at).date())
    }

    /// When a reminder with this date is due: `lead_days` before it, at the hour of the schedule.
    ///
    /// Where clocks skip that hour it is as much later as they skip; where it is there twice, the first one counts.
    pub fn due(&self, date: Day, lead_days: u32) -> Timestamp {
        let lead = i32::try_from(lead_days).unwrap_or(i32::MAX);
        let local = date.plus(lead.saturating_neg()).date().to_datetime(self.send_at);
        match self.zone.to_ambiguous_timestamp(local).compatible() {
            Ok(at) => Timestamp::from_millis(at.as_millisecond()),
            // At the very end of the calendar.
            Err(_) if date.0 < 0 => Timestamp::from_millis(jiff::Timestamp::MIN.as_millisecond()),
            Err(_) => Timestamp::from_millis(jiff::Timestamp::MAX.as_millisecond()),
        }
    }

    /// The last date whose reminder is due at this moment: all dates up to it are due, and none after it.
    pub fn cutoff(&self, now: Timestamp, lead_days: u32) -> Day {
        let lead = i32::try_from(lead_days).unwrap_or(i32::MAX);
        let today = self.day_of(now);
        // Today's hour is past or it is not; clocks that were set by a whole day make it two days.
        let due = |day: &Day| self.due(*day, 0) <= now;
        let last = (-3..=1).rev().map(|days| today.plus(days)).find(due).unwrap_or(today.plus(-4));
        last.plus(lead)
    }
}

/// `HH:MM`.
fn read_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        if digits { part.parse::<i8>().ok() } else { None }
    };
    Time::new(two(hour)?, two(minute)?, 0, 0).ok()
}

/// The id of the event of a reminder: one for each key and date, whoever makes it and however often.
pub fn event_id(tenant: &TenantId, key: &str, date: Day) -> EventId {
    let digest = digest_of(&[tenant.as_str(), key, &date.to_string()]);
    EventId::from_trusted(format!("rem_{}", hex(&digest[..16])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn schedule(zone: &str, send_at: &str) -> Schedule {
        Schedule::new(zone, send_at).unwrap()
    }

    #[test]
    fn days_are_numbers_and_texts() {
        assert_eq!(day("1970-01-01").number(), 0);
        assert_eq!(day("2026-12-24").number(), 20_811);
        assert_eq!(day("2024-02-29").plus(1).to_string(), "2024-03-01");
        assert_eq!(Day::parse(&day("9000-12-31").to_string()), Ok(day("9000-12-31")));
        for bad in [
            "",
            "2026-1-1",
            "2026-02-30",
            "2025-02-29",
            "20261224",
            "2026-12-24T00:00:00Z",
            "1969-12-31",
            "9001-01-01",
            "+026-12-24",
            "2026/12/24",
            " 2026-12-24",
            "２026-12-24",
        ] {
            assert_eq!(Day::parse(bad), Err(BadDay), "{bad:?}");
        }
    }

    #[test]
    fn a_reminder_is_due_so_many_days_before_at_the_hour_of_the_tenant() {
        let utc = schedule("UTC", "09:00");
        assert_eq!(utc.due(day("2026-12-24"), 7), at("2026-12-17T09:00:00Z"));
        assert_eq!(utc.due(day("2026-12-24"), 0), at("2026-12-24T09:00:00Z"));
        let tokyo = schedule("Asia/Tokyo", "00:30");
        assert_eq!(tokyo.due(day("2026-12-24"), 14), at("2026-12-09T15:30:00Z"), "a day earlier in UTC");
        assert_eq!(tokyo.day_of(at("2026-12-09T15:30:00Z")), day("2026-12-10"));
        assert_eq!(tokyo.cutoff(at("2026-12-09T15:29:59.999Z"), 14), day("2026-12-23"));
        assert_eq!(tokyo.cutoff(at("2026-12-09T15:30:00Z"), 14), day("2026-12-24"));
    }

    #[test]
    fn days_before_are_days_of_the_calendar_also_when_clocks_change() {
        let berlin = schedule("Europe/Berlin", "09:00");
        // Summer time begins on 2026-03-29: the week has 167 hours.
        assert_eq!(berlin.due(day("2026-04-02"), 0), at("2026-04-02T07:00:00Z"));
        assert_eq!(berlin.due(day("2026-04-02"), 7), at("2026-03-26T08:00:00Z"));
    }

    #[test]
    fn an_hour_that_clocks_skip_is_later_and_one_that_is_there_twice_is_the_first() {
        let berlin = schedule("Europe/Berlin", "02:30");
        assert_eq!(berlin.due(day("2026-03-29"), 0), at("2026-03-29T01:30:00Z"), "03:30 of summer time");
        assert_eq!(
            berlin.due(day("2026-10-25"), 0),
            at("2026-10-25T00:30:00Z"),
            "02:30, still of summer time"
        );
        assert_eq!(berlin.cutoff(at("2026-03-29T01:29:59Z"), 0), day("2026-03-28"));
        assert_eq!(berlin.cutoff(at("2026-03-29T01:30:00Z"), 0), day("2026-03-29"));
        assert_eq!(berlin.cutoff(at("2026-10-25T01:30:00Z"), 0), day("2026-10-25"));
    }

    #[test]
    fn a_day_that_a_place_never_had_is_due_with_the_next() {
        // Samoa went from 29 to 31 December 2011.
        let apia = schedule("Pacific/Apia", "09:00");
        let next = apia.due(day("2011-12-31"), 0);
        assert_eq!(apia.due(day("2011-12-30"), 0), next);
        assert_eq!(apia.cutoff(Timestamp::from_millis(next.as_millis() - 1), 0), day("2011-12-29"));
        assert_eq!(apia.cutoff(next, 0), day("2011-12-31"));
    }

    #[test]
    fn bad_schedules_are_refused_and_say_what() {
        for zone in [
            "",
            "Berlin",
            "Europe/Atlantis",
            "../../etc/passwd",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "ü",
            &"x".repeat(65),
        ] {
            let refused = Schedule::new(zone, "09:00").unwrap_err();
            assert!(matches!(&refused, BadSchedule::TimeZone(_)), "{zone:?}: {refused}");
        }
        for time in ["", "9:00", "24:00", "12:60", "09:00:00", "09.00", "+9:00", "0９:00"] {
            assert_eq!(Schedule::new("UTC", time).unwrap_err(), BadSchedule::SendAt, "{time:?}");
        }
        assert!(Schedule::new(DEFAULT_TIME_ZONE, DEFAULT_SEND_AT).is_ok());
    }

    #[test]
    fn ids_depend_on_tenant_key_and_date() {
        let (a, b) = (TenantId::from_trusted("a"), TenantId::from_trusted("b"));
        let id = event_id(&a, "coupon-1", day("2026-12-24"));
        assert_eq!(id, event_id(&a, "coupon-1", day("2026-12-24")));
        assert!(id.as_str().starts_with("rem_") && EventId::parse(id.as_str()).is_ok());
        for other in [
            event_id(&b, "coupon-1", day("2026-12-24")),
            event_id(&a, "coupon-2", day("2026-12-24")),
            event_id(&a, "coupon-1", day("2026-12-25")),
        ] {
            assert_ne!(id, other);
        }
    }

    fn zones() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "America/Sao_Paulo",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Pacific/Apia",
            "Pacific/Kiritimati",
            "Pacific/Kwajalein",
            "Asia/Tehran",
            "Africa/Casablanca",
            "Antarctica/Troll",
            "America/Caracas",
            "Asia/Manila",
        ])
    }

    proptest! {
        /// What is due and when it is due are the same question, in every zone and at every hour.
        #[test]
        fn the_cutoff_is_the_last_date_that_is_due(
            zone in zones(),
            hour in 0u8..24,
            minute in 0u8..60,
            now in -60_000_000_000i64..8_000_000_000_000,
            lead in 0u32..400,
        ) {
            let schedule = schedule(zone, &format!("{hour:02}:{minute:02}"));
            let now = Timestamp::from_millis(now);
            let cutoff = schedule.cutoff(now, lead);
            for back in 0..5 {
                prop_assert!(schedule.due(cutoff.plus(-back), lead) <= now, "{cutoff}");
            }
            for on in 1..5 {
                prop_assert!(schedule.due(cutoff.plus(on), lead) > now, "{cutoff}");
            }
        }

        #[test]
        fn a_longer_lead_is_never_later(zone in zones(), date in 0i32..60_000, lead in 0u32..400, more in 0u32..400) {
            let schedule = schedule(zone, "08:15");
            let date = Day::from_number(date);
            prop_assert!(schedule.due(date, lead + more) <= schedule.due(date, lead));
        }

        #[test]
        fn texts_never_panic(text: String, other: String) {
            let _ = (Day::parse(&text).is_ok(), Schedule::new(&text, &other).is_ok());
        }
    }
}
