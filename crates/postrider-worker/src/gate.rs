//! Whether a delivery may begin now: caps, rate, breaker and pause of its webhook, and the caps of its tenant.
//!
//! What may not begin is parked and not held, so that no webhook can fill this worker. The decisions are made in
//! [`postrider_core::pace`]; here are the state of each webhook, those who wait a moment in place, and what the caps are
//! measured against: the slots of this worker and the number of workers.

mod door;
mod steady;
pub(crate) mod tenants;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use postrider_broker::{DirectoryFeed, Lane};
use postrider_core::pace::{
    Answer, Asking, End, Limits, MAX_WAIT_MS, Reason, Scene, Ticket, places, rate_share, share,
};
use postrider_core::{Chance, DeliveryId, Outcome, TenantId, Timestamp, Webhook, WebhookId};
use tokio::time::Instant;

use crate::deliver::{Park, ParkReason, Taken};
use crate::metrics::{Metrics, OneMore};
use crate::slots::Slots;

use door::{Door, Turn};
use steady::Steady;
use tenants::{Counted, Tenant, TenantLimits};

/// How often the gate looks over all webhooks.
const LOOK: Duration = Duration::from_secs(1);
/// Webhooks that are kept in mind. Those at rest are forgotten long before.
const MAX_DOORS: usize = 50_000;
/// For so long a worker that joins others begins one request for each webhook, milliseconds: until they have noticed it.
const NEWCOMER_MS: u64 = 3_000;

/// Admits deliveries. Clones share the state.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    doors: RwLock<HashMap<WebhookId, Arc<Door>>>,
    tenants: RwLock<HashMap<TenantId, Arc<Tenant>>>,
    slots: Slots,
    feed: DirectoryFeed,
    metrics: Metrics,
    clock: Steady,
    workers: AtomicU32,
    newcomer_until: AtomicI64,
    /// Of the last look: webhooks of which something is parked, and slow ones.
    backlogged: AtomicU32,
    slow: AtomicU32,
    /// Whether several tenants were active lately.
    contended: AtomicBool,
}

/// What the gate says.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Begin, and say how it went.
    Begin(Begun),
    /// It could begin, but would hold up others in its message: it is to come again alone.
    Apart,
    /// Not now.
    Park(Park),
}

/// A request that the gate let begin. Dropping it without a word counts as no outcome.
#[derive(Debug)]
pub(crate) struct Begun {
    gate: Gate,
    door: Arc<Door>,
    ticket: Option<Ticket>,
    delivery: u64,
    counts: bool,
    _counted: Option<Counted>,
}

impl Gate {
    /// A gate before these slots, for the webhooks and tenants of this directory.
    pub(crate) fn new(slots: Slots, feed: DirectoryFeed, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            doors: RwLock::default(),
            tenants: RwLock::default(),
            slots,
            feed,
            metrics,
            clock: Steady::start(),
            workers: AtomicU32::new(1),
            newcomer_until: AtomicI64::new(i64::MIN),
            backlogged: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            contended: AtomicBool::new(false),
        }))
    }

    /// Admits a delivery, perhaps after a short wait. `left_ms` is for how long its series may still begin attempts.
    pub(crate) async fn enter(&self, taken: &Taken, webhook: &Webhook, left_ms: u64) -> Entry {
        let door = self.door(webhook);
        let limits = self.limits(webhook);
        let mut asking = Asking {
            lane: taken.lane as usize,
            retried: taken.delivery.attempt > 1,
            test: taken.delivery.test,
            batched: !taken.alone,
            may_wait: true,
            left_ms,
        };
        let most = self.tenant_most(taken.lane);
        match door.tenant.hold(self.0.clock.now(), taken.lane, most) {
            Some(hold) => taken.slot.held_by(hold),
            None if asking.test => {}
            None => return Entry::Park(self.park_for_tenant(&door, 0)),
        }
        let ticket = loop {
            let scene = self.scene(&limits, taken.lane);
            match door.ask(&scene, limits, asking) {
                Turn::Now(Answer::Start(ticket)) => break ticket,
                Turn::Now(Answer::Apart) => return Entry::Apart,
                Turn::Now(Answer::Refuse(refusal)) => return Entry::Park(refusal.into()),
                // Never said with `Now`; asking again is the same as waiting.
                Turn::Now(Answer::Wait) => asking.may_wait = false,
                Turn::Later(waiting) => {
                    let _waits = OneMore::of(&self.0.metrics.waiting);
                    match waiting.called(&self.0.clock, Duration::from_millis(MAX_WAIT_MS)).await {
                        Some(ticket) => break ticket,
                        None => asking.may_wait = false,
                    }
                }
            }
        };
        let mut begun = Begun {
            gate: self.clone(),
            door: door.clone(),
            ticket: Some(ticket),
            delivery: number_of(&taken.delivery.id),
            counts: !(taken.delivery.test || taken.delivery.asked),
            _counted: None,
        };
        let no_room = ticket.slow && !asking.test && self.0.slots.slow() > 0 && !taken.slot.slow_down();
        if no_room {
            drop(begun);
            let scene = self.scene(&limits, taken.lane);
            return Entry::Park(door.refuse(&scene, limits, asking, Reason::Slow).into());
        }
        if !asking.test {
            match self.tenant_begins(&door.tenant).await {
                Ok(counted) => begun._counted = counted,
                Err(wait_ms) => {
                    drop(begun);
                    return Entry::Park(self.park_for_tenant(&door, wait_ms));
                }
            }
        }
        Entry::Begin(begun)
    }

    /// So many workers are in the fleet.
    pub(crate) fn workers(&self, workers: u32) {
        self.0.workers.store(workers.max(1), Ordering::Relaxed);
        self.0.metrics.workers.set(i64::from(workers.max(1)));
    }

    /// This worker joins `others`: they notice it within [`NEWCOMER_MS`].
    pub(crate) fn joins(&self, others: u32) {
        self.workers(others.saturating_add(1));
        if others > 0 {
            let until = self.0.clock.now().plus_ms(NEWCOMER_MS);
            self.0.newcomer_until.store(until.as_millis(), Ordering::Relaxed);
        }
    }

    /// Looks over all webhooks and tenants once a second, without end.
    pub(crate) async fn look_on(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look();
        }
    }

    fn look(&self) {
        let inner = &*self.0;
        let now = inner.clock.now();
        let (mut slow, mut open, mut backlogged) = (0, 0, 0);
        let mut idle = Vec::new();
        for (id, door) in &*inner.doors.read().unwrap_or_else(PoisonError::into_inner) {
            let state = door.state(now);
            slow += u32::from(state.slow);
            open += i64::from(state.breaker);
            backlogged += u32::from(state.backlogged);
            if state.idle {
                idle.push(id.clone());
            }
        }
        inner.slow.store(slow, Ordering::Relaxed);
        inner.backlogged.store(backlogged, Ordering::Relaxed);
        inner.metrics.slow_webhooks.set(i64::from(slow));
        inner.metrics.open_breakers.set(open);
        let slow_taken = inner.slots.slow().saturating_sub(inner.slots.slow_free());
        inner.metrics.slow_slots.set(i64::from(slow_taken));
        if !idle.is_empty() {
            let mut doors = inner.doors.write().unwrap_or_else(PoisonError::into_inner);
            for id in idle {
                // Somebody may have come through the door meanwhile.
                if doors.get(&id).is_some_and(|door| Arc::strong_count(door) == 1) {
                    doors.remove(&id);
                }
            }
        }
        let mut tenants = inner.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, tenant| tenant.is_active(now) || Arc::strong_count(tenant) > 1);
        let active = tenants.values().filter(|tenant| tenant.is_active(now)).count();
        inner.contended.store(active > 1, Ordering::Relaxed);
        let directory = inner.feed.read();
        for (id, tenant) in &*tenants {
            tenant.look(directory.tenant_settings(id).map_or_else(TenantLimits::default, TenantLimits::from));
        }
    }

    fn door(&self, webhook: &Webhook) -> Arc<Door> {
        if let Some(door) = self.0.doors.read().unwrap_or_else(PoisonError::into_inner).get(&webhook.id) {
            return door.clone();
        }
        let tenant = self.tenant(&webhook.tenant);
        let mut doors = self.0.doors.write().unwrap_or_else(PoisonError::into_inner);
        if doors.len() >= MAX_DOORS {
            doors.retain(|_, door| Arc::strong_count(door) > 1);
        }
        doors.entry(webhook.id.clone()).or_insert_with(|| Arc::new(Door::new(tenant))).clone()
    }

    fn tenant(&self, id: &TenantId) -> Arc<Tenant> {
        if let Some(tenant) = self.0.tenants.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return tenant.clone();
        }
        let limits = {
            let directory = self.0.feed.read();
            directory.tenant_settings(id).map_or_else(TenantLimits::default, TenantLimits::from)
        };
        let mut tenants = self.0.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let tenant = Arc::new(Tenant::default());
            tenant.look(limits);
            tenant
        };
        tenants.entry(id.clone()).or_insert_with(new).clone()
    }

    fn limits(&self, webhook: &Webhook) -> Limits {
        let workers = self.0.workers.load(Ordering::Relaxed);
        let newcomer = self.0.clock.now().as_millis() < self.0.newcomer_until.load(Ordering::Relaxed);
        Limits {
            most: if newcomer { 1 } else { share(webhook.max_in_flight, workers) },
            per_second: webhook.rate_per_second.map(|rate| rate_share(rate, workers)),
            first_retry_ms: self.0.feed.read().first_retry_ms(webhook),
        }
    }

    fn scene(&self, limits: &Limits, lane: Lane) -> Scene {
        let inner = &*self.0;
        let slots = &inner.slots;
        // Those who wait keep quick slots, so together they may have half of them.
        let room = inner.metrics.waiting.get() < i64::from(slots.all_quick() / 2);
        let (slow_slots, slow_free) = (slots.slow(), slots.slow_free());
        let scarce = slow_free < slow_slots / 2;
        let slow = inner.slow.load(Ordering::Relaxed).max(1);
        Scene {
            now: inner.clock.now(),
            chance: Chance::new(rand::random()),
            workers: inner.workers.load(Ordering::Relaxed),
            backlogged: inner.backlogged.load(Ordering::Relaxed),
            places: if room { places(limits.most, slots.quick(lane), slots.free(lane)) } else { 0 },
            slow_most: if scarce { slow_slots / (2 * slow) } else { u32::MAX },
            slow_share: if slow_slots == 0 { u32::MAX } else { slow_slots / slow },
            slow_room: slow_slots == 0 || slow_free > slow_slots / 4,
            scarce,
        }
    }

    /// Quick slots of a lane that one tenant may hold: three quarters while there are others.
    fn tenant_most(&self, lane: Lane) -> u32 {
        match self.0.contended.load(Ordering::Relaxed) {
            true => self.0.slots.quick(lane) / 4 * 3,
            false => u32::MAX,
        }
    }

    /// Waits a moment for the tenant's caps.
    async fn tenant_begins(&self, tenant: &Arc<Tenant>) -> Result<Option<Counted>, u64> {
        let end = Instant::now() + Duration::from_millis(MAX_WAIT_MS);
        loop {
            let freed = tenant.freed.notified();
            let wait_ms = match tenant.begin(self.0.clock.now(), self.0.workers.load(Ordering::Relaxed)) {
                Ok(counted) => return Ok(counted),
                Err(wait_ms) => wait_ms,
            };
            let again = Instant::now() + Duration::from_millis(wait_ms);
            if again > end {
                return Err(wait_ms);
            }
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }

    fn park_for_tenant(&self, door: &Door, least_ms: u64) -> Park {
        let workers = self.0.workers.load(Ordering::Relaxed);
        let chance = Chance::new(rand::random());
        let rung_secs = door.tenant.rung_secs(self.0.clock.now(), workers, least_ms, chance);
        Park { why: ParkReason::Pace(Reason::Tenant), rung_secs }
    }
}

impl Begun {
    /// Says what became of the request.
    pub(crate) fn ended(mut self, outcome: &Outcome, took: Duration) {
        if let Some(ticket) = self.ticket.take() {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            self.door.ended(self.now(), ticket, End::of(outcome, self.delivery, self.counts, took_ms));
            self.door.tenant.count_ended();
        }
    }

    fn now(&self) -> Timestamp {
        self.gate.0.clock.now()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.door.undo(self.now(), ticket);
        }
    }
}

impl From<postrider_core::pace::Refusal> for Park {
    fn from(refusal: postrider_core::pace::Refusal) -> Self {
        Self { why: ParkReason::Pace(refusal.why), rung_secs: refusal.rung_secs }
    }
}

/// A number that tells deliveries apart.
fn number_of(delivery: &DeliveryId) -> u64 {
    let mut hasher = DefaultHasher::new();
    delivery.hash(&mut hasher);
    hasher.finish()
}
