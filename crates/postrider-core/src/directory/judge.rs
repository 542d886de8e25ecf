//! What becomes of an event: which webhooks take it, and why.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::vocabulary::KnownType;
use super::{Directory, MAX_FAN_OUT, MAX_FAN_OUT_BYTES, MAX_FILTER_STEPS, Mark, Subscriber, Target};
use crate::catalogue::{Cause, TypeEntry};
use crate::event::{Action, Event, EventType};
use crate::expression::{Expression, MAX_STEPS, Scope, Unmet};
use crate::id::{DeliveryId, TenantId, WebhookId};
use crate::intake::{Refusal, RefusalReason, Report};
use crate::schema::Misfit;
use crate::subscription::{By, Subscription, Way};
use crate::time::Timestamp;
use crate::trigger;
use crate::webhook::{Webhook, WebhookState};
use crate::wire::{SchemaMode, TenantSettings, UnknownTypes};

/// An event and what becomes of it.
#[derive(Clone, Debug)]
pub struct Routed {
    /// The event, its type under the name that receivers see.
    pub event: Event,
    /// What was noticed about it.
    pub marks: Vec<Mark>,
    /// Its deliveries.
    pub targets: Vec<Target>,
    /// How many filters could not be judged on it; their webhooks do not take it.
    pub filter_errors: u64,
    /// How many steps judging filters on it took.
    pub steps: u32,
}

/// Why an event would, or would not, go to a webhook.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Whether it would.
    #[serde(rename = "match")]
    pub matches: bool,
    /// Why, in a sentence.
    pub because: String,
    /// What is known of the event's type.
    pub event_type: TypeFound,
    /// What in the subscription takes the type.
    pub taken_by: Vec<Way>,
    /// What the filter says, if the webhook has one and the type is taken.
    pub filter: Option<FilterFound>,
    /// What the router would note about the event.
    pub marks: Vec<&'static str>,
    /// What becomes of the delivery if not a request at once.
    pub remark: Option<String>,
}

/// What is known of a type.
#[derive(Clone, Debug, Serialize)]
pub struct TypeFound {
    /// As the event says it.
    pub given: EventType,
    /// As receivers see it.
    pub name: EventType,
    /// Whether a catalogue of the tenant has it.
    pub known: bool,
    /// The product of that catalogue.
    pub product: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// Its category.
    pub category: Option<String>,
}

/// What a filter says of an event.
#[derive(Clone, Debug, Serialize)]
pub struct FilterFound {
    /// The filter.
    pub source: String,
    /// Whether it holds; missing when it cannot be judged.
    pub holds: Option<bool>,
    /// Why it cannot be judged.
    pub error: Option<String>,
}

/// What one webhook makes of an event.
enum Verdict {
    /// It takes it.
    Takes,
    /// Its subscription does not name the type.
    NotNamed,
    /// Its filter does not hold.
    Filtered,
    /// Its filter cannot be judged.
    Unmet(Unmet),
}

/// An event while filters are judged on it: its variables are made once, and each filter is judged once.
struct Judging<'e> {
    event: &'e Event,
    known: Option<&'e KnownType>,
    scope: Option<Result<Scope, Unmet>>,
    filters: HashMap<*const Expression, Result<bool, Unmet>>,
    /// How many steps that took.
    steps: u32,
}

impl<'e> Judging<'e> {
    fn of(event: &'e Event, known: Option<&'e KnownType>) -> Self {
        Self { event, known, scope: None, filters: HashMap::new(), steps: 0 }
    }

    fn entry(&self) -> Option<&'e TypeEntry> {
        self.known.map(|known| &*known.entry)
    }

    /// Whether a webhook takes the event: the one judgement, of the router and of those who ask why.
    fn verdict(&mut self, subscriber: &Subscriber) -> Verdict {
        let subscription = &subscriber.webhook.subscription;
        let mut ways = subscription.ways(&self.event.event_type, self.entry(), self.event.is_own());
        if ways.next().is_none() {
            return Verdict::NotNamed;
        }
        match subscriber.filter.as_ref().map(|filter| self.holds(filter)) {
            None | Some(Ok(true)) => Verdict::Takes,
            Some(Ok(false)) => Verdict::Filtered,
            Some(Err(unmet)) => Verdict::Unmet(unmet),
        }
    }

    fn holds(&mut self, filter: &Arc<Expression>) -> Result<bool, Unmet> {
        // One reference is the webhook's and one the table's: then nobody else will ask.
        let shared = Arc::strong_count(filter) > 2;
        if let Some(known) = self.filters.get(&Arc::as_ptr(filter)).filter(|_| shared) {
            return known.clone();
        }
        let event = self.event;
        let scope = self.scope.get_or_insert_with(|| Scope::of_event(event));
        let mut left = MAX_STEPS;
        let holds =
            scope.as_ref().map_err(Unmet::clone).and_then(|scope| filter.holds_within(scope, &mut left));
        self.steps = self.steps.saturating_add(MAX_STEPS - left);
        if shared {
            self.filters.insert(Arc::as_ptr(filter), holds.clone());
        }
        holds
    }
}

/// What the events of one report may still become.
struct Room {
    deliveries: usize,
    bytes: usize,
    steps: u32,
}

impl Room {
    fn new() -> Self {
        Self { deliveries: MAX_FAN_OUT, bytes: MAX_FAN_OUT_BYTES, steps: MAX_FILTER_STEPS }
    }

    fn take(&mut self, deliveries: usize, weight: usize) -> Result<(), Refusal> {
        let bytes = weight.saturating_mul(deliveries.max(1));
        let left = self.deliveries.checked_sub(deliveries).zip(self.bytes.checked_sub(bytes));
        let Some(left) = left else {
            let detail = format!("{deliveries} webhooks take this event of {weight} bytes");
            return Err(Refusal::new(RefusalReason::FanOutTooLarge, detail));
        };
        (self.deliveries, self.bytes) = left;
        Ok(())
    }

    fn judge(&self, judging: &Judging<'_>, candidates: usize) -> Result<(), Refusal> {
        if judging.steps <= self.steps {
            return Ok(());
        }
        let detail = format!(
            "{candidates} webhooks ask for the type, and judging their filters on this event takes too long; make the \
             filters simpler or equal"
        );
        Err(Refusal::new(RefusalReason::FanOutTooLarge, detail))
    }
}

impl Directory {
    /// What becomes of a report: an event with its deliveries, or all events of an action with theirs. An action of which
    /// no trigger makes an event comes back as one event that nobody takes: under its own id, its type the action's name.
    ///
    /// Types are checked and renamed, data is checked as the tenant wants it. With `only`, which is for trying a webhook,
    /// nothing of that is asked and the event goes to that webhook of the same tenant and nowhere else.
    ///
    /// # Errors
    /// [`Refusal`]: then nothing of the report is routed, also if it is one event of many that is refused.
    pub fn resolve(&self, report: Report, only: Option<&WebhookId>) -> Result<Vec<Routed>, Refusal> {
        let settings = self.settings(report.tenant())?;
        let mut room = Room::new();
        match report {
            Report::Event(event) => Ok(vec![self.resolve_event(event, settings, only, &mut room)?]),
            Report::Action(action) => {
                let triggers = self.vocabulary(&action.tenant).triggers(&action.name);
                if triggers.is_empty() {
                    let detail = format!("no trigger is defined for the action {:?}", action.name.as_str());
                    return Err(Refusal::new(RefusalReason::UnknownAction, detail));
                }
                let events = trigger::derive(triggers, &action)?;
                if events.is_empty() {
                    return Ok(vec![nothing_of(action)]);
                }
                let resolve = |event| self.resolve_event(event, settings, None, &mut room);
                events.into_iter().map(resolve).collect()
            }
        }
    }

    fn resolve_event(
        &self,
        mut event: Event,
        settings: &TenantSettings,
        only: Option<&WebhookId>,
        room: &mut Room,
    ) -> Result<Routed, Refusal> {
        let known = self.vocabulary(&event.tenant).known(&event.event_type);
        if let Some(known) = known {
            event.event_type = known.entry.name.clone();
        }
        if let Some(id) = only {
            let targets = self.only_target(&event, id).into_iter().collect();
            return Ok(Routed { event, marks: Vec::new(), targets, filter_errors: 0, steps: 0 });
        }
        let marks = self.check(&event, known.map(|known| &**known), settings)?;
        let mut judging = Judging::of(&event, known.map(|known| &**known));
        let (targets, filter_errors) = self.targets(&mut judging, room)?;
        let steps = judging.steps;
        Ok(Routed { event, marks, targets, filter_errors, steps })
    }

    /// Which deliveries an event becomes: one for each webhook of its tenant that takes it, whatever the webhook's
    /// state. Nothing but `subscription` decides, so that a paused webhook's deliveries can be held.
    ///
    /// # Errors
    /// [`Refusal`]: the tenant is unknown, or the fan-out is too large.
    pub fn route(&self, event: &Event) -> Result<Vec<Target>, Refusal> {
        self.settings(&event.tenant)?;
        let (event, known) = self.renamed(event);
        let (targets, _) = self.targets(&mut Judging::of(&event, known), &mut Room::new())?;
        Ok(targets)
    }

    /// Why an event would, or would not, go to a webhook: what [`Directory::resolve`] does, for one webhook and in words.
    /// The webhook's state and its active window are those at the time at which the event was accepted.
    pub fn explain(&self, webhook: &WebhookId, event: &Event) -> Explanation {
        let given = event.event_type.clone();
        let (event, known) = self.renamed(event);
        let entry = known.map(|known| &*known.entry);
        let mut explanation = Explanation {
            matches: false,
            because: String::new(),
            event_type: TypeFound {
                given,
                name: event.event_type.clone(),
                known: known.is_some(),
                product: known.map(|known| known.product.to_string()),
                group: entry.and_then(|entry| entry.group.clone()),
                category: entry.map(|entry| entry.category.clone()),
            },
            taken_by: Vec::new(),
            filter: None,
            marks: Vec::new(),
            remark: None,
        };
        let subscriber = self.webhooks.get(webhook).and_then(|webhook| webhook.value.as_ref());
        let Some(subscriber) = subscriber else {
            explanation.because = format!("there is no webhook {:?}", webhook.as_str());
            return explanation;
        };
        if subscriber.webhook.tenant != event.tenant {
            explanation.because = "the webhook belongs to another tenant".to_owned();
            return explanation;
        }
        let checked = self.settings(&event.tenant).and_then(|settings| self.check(&event, known, settings));
        explanation.marks = checked.iter().flatten().map(|mark| mark.as_str()).collect();
        let subscription = &subscriber.webhook.subscription;
        let ways = subscription.ways(&event.event_type, entry, event.is_own());
        explanation.taken_by = ways.map(|(by, name)| Way { by, name: name.to_owned() }).collect();
        let verdict = Judging::of(&event, known).verdict(subscriber);
        let (holds, error) = match &verdict {
            Verdict::Takes => (Some(true), None),
            Verdict::Filtered => (Some(false), None),
            Verdict::Unmet(unmet) => (None, Some(unmet.to_string())),
            Verdict::NotNamed => (None, None),
        };
        if let (Some(filter), false) = (&subscriber.filter, matches!(verdict, Verdict::NotNamed)) {
            explanation.filter = Some(FilterFound { source: filter.source().to_owned(), holds, error });
        }
        explanation.matches = checked.is_ok() && matches!(verdict, Verdict::Takes);
        explanation.because = match (checked, verdict) {
            (Err(refusal), _) => format!("the event would be refused: {refusal}"),
            (Ok(_), Verdict::Takes) => taken(&explanation.taken_by, subscriber.filter.is_some()),
            (Ok(_), Verdict::NotNamed) => not_named(&event, entry, subscription),
            (Ok(_), Verdict::Filtered) => {
                "the type is taken, but the filter does not hold of this event".to_owned()
            }
            (Ok(_), Verdict::Unmet(unmet)) => {
                format!("the type is taken, but the filter cannot be judged on this event: {unmet}")
            }
        };
        if explanation.matches {
            explanation.remark = remark(&subscriber.webhook, event.accepted_at);
        }
        explanation
    }

    /// The types of the tenant's catalogues that a subscription takes today, and those that it names and no catalogue
    /// has: by name, in order.
    pub fn types_taken(&self, subscription: &Subscription, tenant: &TenantId) -> Vec<EventType> {
        let vocabulary = self.vocabulary(tenant);
        let takes = |entry: &TypeEntry| {
            let own = entry.trigger == Cause::Own;
            subscription.ways(&entry.name, Some(entry), own).next().is_some()
        };
        let known = vocabulary.types().map(|known| &*known.entry).filter(|entry| takes(entry));
        let mut taken: BTreeSet<EventType> = known.map(|entry| entry.name.clone()).collect();
        let named = subscription.event_types.iter().filter(|name| vocabulary.known(name).is_none());
        taken.extend(named.cloned());
        taken.into_iter().collect()
    }

    /// The event under the name of its type that receivers see, and what is known of the type.
    fn renamed<'a>(&'a self, event: &'a Event) -> (Cow<'a, Event>, Option<&'a KnownType>) {
        let known = self.vocabulary(&event.tenant).known(&event.event_type).map(|known| &**known);
        match known {
            Some(known) if known.entry.name != event.event_type => {
                (Cow::Owned(Event { event_type: known.entry.name.clone(), ..event.clone() }), Some(known))
            }
            known => (Cow::Borrowed(event), known),
        }
    }

    /// What is noticed about an event, or why it is refused. Of Postrider's own events nothing is asked.
    fn check(
        &self,
        event: &Event,
        known: Option<&KnownType>,
        settings: &TenantSettings,
    ) -> Result<Vec<Mark>, Refusal> {
        if event.is_own() {
            return Ok(Vec::new());
        }
        let Some(known) = known else {
            if !self.has_catalogue(&event.tenant) {
                return Ok(Vec::new());
            }
            return match settings.unknown_types {
                UnknownTypes::Accept => Ok(vec![Mark::UnknownType]),
                UnknownTypes::Refuse => {
                    let name = event.event_type.as_str();
                    let detail = format!(
                        "no catalogue of the tenant has the event type {name:?}; names are compared exactly"
                    );
                    Err(Refusal::new(RefusalReason::UnknownEventType, detail))
                }
            };
        };
        let Some(schema) = known.schema.as_ref().filter(|_| settings.schemas != SchemaMode::Off) else {
            return Ok(Vec::new());
        };
        match (schema.check(&event.data), settings.schemas) {
            (Ok(()), _) => Ok(Vec::new()),
            (Err(misfits), SchemaMode::Refuse) => {
                let misfits: Vec<String> = misfits.iter().map(told).collect();
                let detail = format!("data of {:?}: {}", event.event_type.as_str(), misfits.join("; "));
                Err(Refusal::new(RefusalReason::SchemaViolation, detail))
            }
            (Err(_), SchemaMode::Off | SchemaMode::Warn) => Ok(vec![Mark::Schema]),
        }
    }

    /// The delivery of an event to one webhook of its tenant, whatever that subscribes to.
    fn only_target(&self, event: &Event, id: &WebhookId) -> Option<Target> {
        let known = self.webhooks.get(id)?;
        let subscriber = known.value.as_ref().filter(|known| known.webhook.tenant == event.tenant)?;
        Some(self.target(event, subscriber, known.revision))
    }

    fn target(&self, event: &Event, subscriber: &Subscriber, revision: u64) -> Target {
        let id = &subscriber.webhook.id;
        let shards = self.topology.value.map_or(1, |topology| topology.shards);
        Target {
            delivery: DeliveryId::of(&event.tenant, &event.id, id),
            webhook: id.clone(),
            revision,
            shard: id.shard(shards),
        }
    }

    /// The deliveries of an event, and how many filters could not be judged.
    fn targets(&self, judging: &mut Judging<'_>, room: &mut Room) -> Result<(Vec<Target>, u64), Refusal> {
        let event = judging.event;
        let (mut targets, mut filter_errors) = (Vec::new(), 0);
        let candidates = match self.takers.get(&event.tenant) {
            Some(takers) => takers.of(&event.event_type, judging.entry(), event.is_own()),
            None => Vec::new(),
        };
        for id in &candidates {
            let Some(known) = self.webhooks.get(*id) else { continue };
            let Some(subscriber) = &known.value else { continue };
            match judging.verdict(subscriber) {
                Verdict::Takes => targets.push(self.target(event, subscriber, known.revision)),
                Verdict::NotNamed | Verdict::Filtered => {}
                Verdict::Unmet(_) => filter_errors += 1,
            }
            room.judge(judging, candidates.len())?;
        }
        room.steps -= judging.steps;
        room.take(targets.len(), event.weight())?;
        Ok((targets, filter_errors))
    }
}

/// Where data does not fit, and how.
fn told(misfit: &Misfit) -> String {
    match misfit.pointer.as_str() {
        "" => misfit.message.clone(),
        pointer => format!("{pointer}: {}", misfit.message),
    }
}

/// What takes the type, in a sentence.
fn taken(ways: &[Way], filtered: bool) -> String {
    let way = match ways.first() {
        Some(Way { by: By::Type, name }) => format!("the subscription names the type {name:?}"),
        Some(Way { by: By::Alias, name }) => format!("the subscription names {name:?}, an alias of the type"),
        Some(Way { by: By::Group, name }) => format!("the subscription names the type's group {name:?}"),
        Some(Way { by: By::Category, name }) => {
            format!("the subscription names the type's category {name:?}")
        }
        Some(Way { by: By::All, .. }) | None => "the subscription takes all events".to_owned(),
    };
    if filtered { format!("{way}, and the filter holds") } else { way }
}

/// Why a subscription does not take the type, in a sentence.
fn not_named(event: &Event, entry: Option<&TypeEntry>, subscription: &Subscription) -> String {
    let name = event.event_type.as_str();
    if subscription.is_empty() {
        return "the subscription names nothing".to_owned();
    }
    if subscription.all {
        return format!(
            "{name:?} is one of Postrider's own events, which are taken only by naming type, group or category"
        );
    }
    match entry {
        None => {
            format!("the subscription does not name the type {name:?}, and no catalogue of the tenant has it")
        }
        Some(TypeEntry { group: Some(group), category, .. }) => format!(
            "the subscription names neither the type {name:?} nor its group {group:?} nor its category {category:?}"
        ),
        Some(TypeEntry { category, .. }) => {
            format!("the subscription names neither the type {name:?} nor its category {category:?}")
        }
    }
}

/// What becomes of a delivery to this webhook if not a request at once.
fn remark(webhook: &Webhook, at: Timestamp) -> Option<String> {
    if webhook.active_from.is_some_and(|from| at < from) {
        let from = webhook.active_from.unwrap_or_default().to_rfc3339();
        return Some(format!("the webhook is active from {from} on: the delivery is skipped"));
    }
    if webhook.expires_at.is_some_and(|end| at >= end) {
        let end = webhook.expires_at.unwrap_or_default().to_rfc3339();
        return Some(format!("the webhook expired at {end}: the delivery is skipped"));
    }
    match webhook.state {
        WebhookState::Active => None,
        WebhookState::Paused => {
            Some("the webhook is paused: the delivery is held until it is resumed".to_owned())
        }
        WebhookState::Disabled => Some("the webhook is disabled: the delivery is skipped".to_owned()),
    }
}

/// An action of which nothing came.
fn nothing_of(action: Action) -> Routed {
    let Action {
        tenant,
        id,
        name,
        time,
        current_context,
        data,
        key,
        correlation_id,
        traceparent,
        accepted_at,
    } = action;
    let event = Event {
        tenant,
        id,
        event_type: name,
        event_time: time,
        current_context,
        data,
        key,
        correlation_id,
        traceparent,
        accepted_at,
    };
    Routed { event, marks: Vec::new(), targets: Vec::new(), filter_errors: 0, steps: 0 }
}
