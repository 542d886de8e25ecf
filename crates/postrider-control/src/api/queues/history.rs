//! How full queues were, as the API tells it.

use std::collections::BTreeMap;

use postrider_broker::topology::Topology;
use postrider_core::Timestamp;
use postrider_core::depths::{Depths, INTERVAL_MS, Point};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::answer::shown;

/// How much waited in a queue. It is kept in memory: restarting control begins anew.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueHistory {
    /// How often it is measured.
    interval_ms: u64,
    /// When it was measured first; null before that.
    since: Option<String>,
    /// One for each interval of the last hour since then, oldest first.
    points: Vec<QueuePoint>,
}

/// What waited in an interval.
#[derive(Serialize, ToSchema)]
struct QueuePoint {
    /// When the interval began.
    at: String,
    /// Messages that nobody held; null where it was not measured.
    ready: Option<u64>,
}

/// How much waited in the queues of each role. It is kept in memory: restarting control begins anew.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleHistory {
    /// How often they are measured.
    interval_ms: u64,
    /// When they were measured first; null before that.
    since: Option<String>,
    /// One for each interval of the last hour since then, oldest first.
    points: Vec<RolePoint>,
}

/// What waited in an interval.
#[derive(Serialize, ToSchema)]
struct RolePoint {
    /// When the interval began.
    at: String,
    /// Messages that nobody held, by role, without streams; null where they were not measured.
    ready: Option<BTreeMap<&'static str, u64>>,
}

impl QueueHistory {
    /// Of this queue.
    pub(super) fn of(name: &str, depths: &Depths, now: Timestamp) -> Self {
        let point = |point: Point| QueuePoint { at: shown(point.at), ready: point.ready };
        Self {
            interval_ms: INTERVAL_MS,
            since: depths.since(&[name]).map(shown),
            points: depths.points(&[name], now).into_iter().map(point).collect(),
        }
    }
}

impl RoleHistory {
    /// Of all queues of a topology.
    pub(super) fn of(topology: &Topology, depths: &Depths, now: Timestamp) -> Self {
        let mut roles: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
        for queue in &topology.queues {
            roles.entry(queue.purpose.as_str()).or_default().push(&queue.name);
        }
        let mut all: BTreeMap<Timestamp, BTreeMap<&'static str, u64>> = BTreeMap::new();
        for (role, names) in &roles {
            for point in depths.points(names, now) {
                let together = all.entry(point.at).or_default();
                together.extend(point.ready.map(|ready| (*role, ready)));
            }
        }
        let point = |(at, ready): (Timestamp, BTreeMap<_, _>)| RolePoint {
            at: shown(at),
            ready: Some(ready).filter(|ready| !ready.is_empty()),
        };
        let names: Vec<&str> = roles.into_values().flatten().collect();
        Self {
            interval_ms: INTERVAL_MS,
            since: depths.since(&names).map(shown),
            points: all.into_iter().map(point).collect(),
        }
    }
}
