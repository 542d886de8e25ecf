//! Caps of tenants: what all webhooks of one owner may have together.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postrider_broker::Lane;
use postrider_core::pace::{Backlog, Budget, LANES, Quota, rate_share, rung, share};
use postrider_core::wire::TenantSettings;
use postrider_core::{Chance, Timestamp};
use tokio::sync::Notify;

/// A tenant counts as active for so long after its last delivery, milliseconds.
pub(crate) const ACTIVE_MS: u64 = 10_000;

/// One tenant, in this worker.
#[derive(Debug, Default)]
pub(crate) struct Tenant {
    /// Quick slots that its deliveries hold, by lane.
    quick: [AtomicU32; LANES],
    active_at: AtomicI64,
    limited: AtomicBool,
    /// Requests that ended since the last look, and a second.
    ended: AtomicU32,
    drains_per_second: AtomicU32,
    pub(crate) freed: Notify,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    limits: TenantLimits,
    quota: Quota,
    backlog: Backlog,
}

/// What a tenant allows itself, over the whole fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TenantLimits {
    max_in_flight: Option<u32>,
    rate_per_second: Option<u32>,
}

impl From<&TenantSettings> for TenantLimits {
    fn from(settings: &TenantSettings) -> Self {
        Self { max_in_flight: settings.max_in_flight, rate_per_second: settings.rate_per_second }
    }
}

/// A quick slot that is held for a tenant.
#[derive(Debug)]
pub(crate) struct Hold {
    tenant: Arc<Tenant>,
    lane: Lane,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.tenant.quick[self.lane as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request of a tenant with caps.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Tenant>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.kept().quota.ended();
        self.0.freed.notify_one();
    }
}

impl Tenant {
    /// A delivery of the tenant wants a quick slot of this lane: `None` when it has `most` already.
    pub(crate) fn hold(self: &Arc<Self>, now: Timestamp, lane: Lane, most: u32) -> Option<Hold> {
        self.active_at.store(now.as_millis(), Ordering::Relaxed);
        let held = self.quick[lane as usize].fetch_add(1, Ordering::Relaxed);
        let hold = Hold { tenant: self.clone(), lane };
        (held < most).then_some(hold)
    }

    /// A request ended.
    pub(crate) fn count_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a request may begin now under the tenant's caps: `Ok(None)` where there are none.
    ///
    /// # Errors
    /// In how many milliseconds it is worth asking again.
    pub(crate) fn begin(self: &Arc<Self>, now: Timestamp, workers: u32) -> Result<Option<Counted>, u64> {
        if !self.limited.load(Ordering::Relaxed) {
            return Ok(None);
        }
        /// What a request is thought to take, milliseconds.
        const EXPECTED_MS: u64 = 20;
        let mut kept = self.kept();
        let most = kept.limits.max_in_flight.map(|cap| share(cap, workers));
        let per_second = kept.limits.rate_per_second.map(|rate| rate_share(rate, workers));
        kept.quota.begin(now, most, per_second, EXPECTED_MS)?;
        Ok(Some(Counted(self.clone())))
    }

    /// For how long to park a delivery of the tenant, and counts it as parked; seconds.
    pub(crate) fn rung_secs(&self, now: Timestamp, workers: u32, least_ms: u64, chance: Chance) -> u32 {
        let mut kept = self.kept();
        let drains = f64::from(self.drains_per_second.load(Ordering::Relaxed));
        let drain_per_second = match kept.limits.rate_per_second {
            Some(rate) => rate_share(rate, workers),
            None => drains,
        };
        let budget = Budget { drain_per_second, workers, backlogged: 1 };
        let wait_ms = budget.wait_ms(kept.backlog.count(now) + 1.0).max(least_ms);
        let rung_secs = rung(wait_ms, chance);
        kept.backlog.add(now, rung_secs);
        rung_secs
    }

    /// Looks once a second: what the tenant allows itself now.
    pub(crate) fn look(&self, limits: TenantLimits) {
        self.drains_per_second.store(self.ended.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.limited.store(limits != TenantLimits::default(), Ordering::Relaxed);
        self.kept().limits = limits;
    }

    /// Whether a delivery of it came lately.
    pub(crate) fn is_active(&self, now: Timestamp) -> bool {
        now.since_ms(Timestamp::from_millis(self.active_at.load(Ordering::Relaxed))) < ACTIVE_MS
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tenant_holds_is_counted_and_what_it_allows_itself_is_kept() {
        let tenant = Arc::new(Tenant::default());
        let now = Timestamp::from_millis(1_000_000);
        let held: Vec<_> = (0..3).map(|_| tenant.hold(now, Lane::Fresh, 2)).collect();
        assert_eq!(held.iter().flatten().count(), 2);
        assert!(tenant.hold(now, Lane::Retry, 2).is_some(), "another lane");
        drop(held);
        assert!(tenant.hold(now, Lane::Fresh, 1).is_some());
        assert!(tenant.is_active(now.plus_ms(9_999)) && !tenant.is_active(now.plus_ms(10_000)));

        assert!(tenant.begin(now, 2).unwrap().is_none(), "no caps");
        tenant.look(TenantLimits { max_in_flight: Some(4), rate_per_second: None });
        let counted = [tenant.begin(now, 2).unwrap(), tenant.begin(now, 2).unwrap()];
        assert!(tenant.begin(now, 2).is_err(), "half of four for one of two workers");
        drop(counted);
        assert!(tenant.begin(now, 2).unwrap().is_some());
    }
}
