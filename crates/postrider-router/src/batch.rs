//! What a handful of events and actions becomes, before anything is published: pure but for the names it makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use postrider_broker::{Names, Outgoing};
use postrider_core::directory::{Directory, MAX_FAN_OUT_BYTES, MAX_FILTER_STEPS, Mark, Routed, Target};
use postrider_core::event::OWN_ID_PREFIX;
use postrider_core::intake::{self, Envelope, Refusal, RefusalReason, Report};
use postrider_core::lifecycle::{Guard, guard};
use postrider_core::wire::{
    self, DeliveryMessage, DeliveryRecord, EventFact, EventFate, EventRecord, Fact, MAX_BATCH, Owed, SCHEMA,
    Work,
};
use postrider_core::{Epoch, EventId, TenantId, Timestamp, WebhookId};

use crate::seen::Seen;

/// Event bodies in one message of the fresh lane, bytes, beyond which no further delivery joins it.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// An event or action as it came: a message, or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Arrival<'a> {
    /// What came with the body. The routing key is the tenant, also after a detour through the parking.
    pub(crate) envelope: Envelope<'a>,
    /// Its bytes.
    pub(crate) body: &'a [u8],
    /// The webhook that control tries with it, and that it goes to alone.
    pub(crate) only_webhook: Option<&'a str>,
    /// The webhook that an event of our own is not for, although it takes it.
    pub(crate) except_webhook: Option<&'a str>,
    /// The store whose configuration its publisher knew: control says it with everything that it publishes.
    pub(crate) epoch: Option<&'a str>,
    /// How often it was handed out before, by the broker's count.
    pub(crate) delivery_count: i64,
    /// How often it was set apart.
    pub(crate) crashes: u32,
}

/// What a batch becomes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Deliveries by shard, in the order in which they were routed.
    shards: BTreeMap<u16, Vec<Work>>,
    /// Messages for other exchanges: invalid, parking, poison.
    pub(crate) aside: Vec<Outgoing>,
    /// Facts for the books.
    pub(crate) facts: Vec<Fact>,
    /// What was accepted and is to be noted as seen.
    pub(crate) accepted: Vec<(TenantId, EventId)>,
    /// How many were known already.
    pub(crate) duplicates: u64,
    /// How many became deliveries, and how many deliveries.
    pub(crate) routed: u64,
    /// How many no webhook wants.
    pub(crate) unmatched: u64,
    /// Why others were refused.
    pub(crate) refused: Vec<RefusalReason>,
    /// How many deliveries were made.
    pub(crate) deliveries: u64,
    /// What was noticed about events that were routed all the same.
    pub(crate) marks: Vec<Mark>,
    /// How often a filter could not be judged.
    pub(crate) filter_errors: u64,
    /// What became of actions.
    pub(crate) actions: Vec<ActionFate>,
    /// How many events came of actions.
    pub(crate) derived: u64,
    /// About how many bytes will be published.
    bytes: usize,
    /// Steps that judging filters took.
    steps: u32,
    /// How many were set apart.
    pub(crate) set_apart: u64,
}

/// What became of an action: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActionFate {
    /// Events came of it.
    Derived,
    /// None of its triggers applies.
    Nothing,
    /// It or one of its events was refused.
    Refused,
}

/// Every fate of an action, for metrics that are created at start.
pub(crate) const ACTION_FATES: [ActionFate; 3] =
    [ActionFate::Derived, ActionFate::Nothing, ActionFate::Refused];

impl ActionFate {
    /// One word from a closed list.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Derived => "derived",
            Self::Nothing => "nothing",
            Self::Refused => "refused",
        }
    }
}

impl Batch {
    /// Whether it is so large, or took so much work, that what follows belongs into the next: nothing else goes on while a
    /// batch is decided.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MAX_FAN_OUT_BYTES || self.steps >= MAX_FILTER_STEPS
    }

    /// Decides what becomes of one event or action. `seen` learns of it; should the batch then fail, the session ends and
    /// `seen` with it.
    pub(crate) fn take(
        &mut self,
        arrival: &Arrival<'_>,
        directory: &Directory,
        seen: &mut Seen,
        names: &Names,
        now: Timestamp,
        draw: usize,
    ) {
        match guard(arrival.delivery_count, arrival.crashes) {
            Guard::Begin => {}
            Guard::SetApart { crashes } => {
                self.set_apart += 1;
                self.aside.push(set_apart(arrival, crashes, names, draw));
                return;
            }
            Guard::Poison => {
                self.aside.push(poison(arrival, names));
                return;
            }
        }
        let made = EventId::from_trusted(format!("evt_{}", uuid::Uuid::now_v7().simple()));
        match intake::read(arrival.envelope, arrival.body, now, made) {
            Ok(report) => self.take_report(report, arrival, directory, seen, names, now),
            Err(refusal) => {
                self.refuse(&refusal, arrival, seen, names, now);
            }
        }
    }

    fn take_report(
        &mut self,
        report: Report,
        arrival: &Arrival<'_>,
        directory: &Directory,
        seen: &mut Seen,
        names: &Names,
        now: Timestamp,
    ) {
        let (mut only, mut except, mut action) = (None, None, None);
        match &report {
            // Decided before the directory is asked: what was accepted once is not refused later.
            Report::Event(event) if seen.knows(&event.tenant, &event.id) => {
                self.duplicates += 1;
                return;
            }
            Report::Event(event) if event.is_own() && arrival.epoch.is_none() => {
                let detail = format!(
                    "the id begins with {OWN_ID_PREFIX}, as those of Postrider's own events do; give it another id"
                );
                let refusal = Refusal::new(RefusalReason::BadEventId, detail);
                self.refuse(&refusal, arrival, seen, names, now);
                return;
            }
            Report::Event(event) if event.is_own() => {
                only = arrival.only_webhook.map(WebhookId::from_trusted);
                except = arrival.except_webhook;
            }
            Report::Event(_) => {}
            Report::Action(given) => action = Some(given.id.clone()),
        }
        let mut routed = match directory.resolve(report, only.as_ref()) {
            Ok(routed) => routed,
            Err(refusal) => {
                if self.refuse(&refusal, arrival, seen, names, now) && action.is_some() {
                    self.actions.push(ActionFate::Refused);
                }
                return;
            }
        };
        if let Some(except) = except {
            for routed in &mut routed {
                routed.targets.retain(|target| target.webhook.as_str() != except);
            }
        }
        let epoch = directory.epoch().cloned().unwrap_or_else(|| Epoch::from_trusted(""));
        let is_test = only.is_some();
        let mut fate = None;
        for routed in routed {
            let of_action = action.as_ref().map(|action| *action != routed.event.id);
            if !self.take_event(routed, is_test, &epoch, seen, now) {
                self.duplicates += 1;
                continue;
            }
            match of_action {
                Some(true) => {
                    self.derived += 1;
                    fate = Some(ActionFate::Derived);
                }
                Some(false) => fate = Some(ActionFate::Nothing),
                None => {}
            }
        }
        self.actions.extend(fate);
    }

    /// Takes one event with its deliveries; `false` when it is known already.
    fn take_event(
        &mut self,
        routed: Routed,
        is_test: bool,
        epoch: &Epoch,
        seen: &mut Seen,
        now: Timestamp,
    ) -> bool {
        let Routed { event, marks, targets, filter_errors, steps } = routed;
        self.steps = self.steps.saturating_add(steps);
        if !seen.note(&event.tenant, &event.id, now) {
            return false;
        }
        self.bytes += event.weight().saturating_mul(targets.len().max(1));
        self.filter_errors += filter_errors;
        self.accepted.push((event.tenant.clone(), event.id.clone()));
        let (tenant, event_id) = (event.tenant.clone(), event.id.clone());
        let record = Arc::new(EventRecord::from(event));
        let fate = if targets.is_empty() {
            self.unmatched += 1;
            EventFate::Unmatched
        } else {
            self.routed += 1;
            self.deliveries += targets.len() as u64;
            let owed =
                targets.iter().map(|t| Owed { delivery: t.delivery.clone(), webhook: t.webhook.clone() });
            EventFate::Routed(owed.collect())
        };
        self.facts.push(Fact::Event(EventFact {
            tenant,
            event_id,
            at: now,
            fate,
            event: Some(record.clone()),
            marks: marks.iter().map(|mark| mark.as_str().to_owned()).collect(),
        }));
        self.marks.extend(marks);
        for target in targets {
            self.add_delivery(target, &record, epoch, is_test, now);
        }
        true
    }

    fn add_delivery(
        &mut self,
        target: Target,
        event: &Arc<EventRecord>,
        epoch: &Epoch,
        is_test: bool,
        now: Timestamp,
    ) {
        let Target { delivery, webhook, revision, shard } = target;
        let delivery = DeliveryRecord {
            id: delivery,
            webhook,
            revision,
            epoch: epoch.clone(),
            series: 1,
            attempt: 1,
            born: now,
            due: None,
            crashes: 0,
            unknown_since: None,
            parked: 0,
            asked: false,
            test: is_test,
        };
        let work = self.shards.entry(shard).or_default();
        match work.last_mut().filter(|last| Arc::ptr_eq(&last.event, event)) {
            Some(last) => last.to.push(delivery),
            None => work.push(Work { event: event.clone(), to: vec![delivery] }),
        }
    }

    /// Sets an event aside with the reason; `false` when that was done before.
    fn refuse(
        &mut self,
        refusal: &Refusal,
        arrival: &Arrival<'_>,
        seen: &mut Seen,
        names: &Names,
        now: Timestamp,
    ) -> bool {
        let event_id = intake::invalid_id(&arrival.envelope, arrival.body);
        // The routing key may be anything, so it is kept as text of a bounded length and never read as a tenant.
        let tenant = TenantId::from_trusted(bounded(arrival.envelope.routing_key, 64));
        if !seen.note(&tenant, &event_id, now) {
            self.duplicates += 1;
            return false;
        }
        self.bytes += arrival.body.len();
        if refusal.reason == RefusalReason::FanOutTooLarge {
            // It may have taken all the work that there is for one.
            self.steps = self.steps.saturating_add(MAX_FILTER_STEPS);
        }
        self.refused.push(refusal.reason);
        let reason = refusal.reason.as_str();
        tracing::warn!(
            reason,
            detail = refusal.detail,
            tenant = tenant.as_str(),
            event.id = event_id.as_str(),
            "event refused"
        );
        let body = &arrival.body[..arrival.body.len().min(2 * intake::MAX_MESSAGE_BYTES)];
        let mut message = Outgoing::json(names.invalid(), "", body.to_vec(), event_id.as_str())
            .header("reason", reason)
            .header("detail", refusal.detail.as_str())
            .header("event-id", event_id.as_str())
            .header("tenant", tenant.as_str())
            .header("received-at", now.as_millis().to_string())
            .header("original-bytes", arrival.body.len().to_string());
        if let Some(content_type) = arrival.envelope.content_type {
            message = message.header("original-content-type", bounded(content_type, 128));
        }
        message.content_type = "application/octet-stream".into();
        self.aside.push(message);
        self.accepted.push((tenant.clone(), event_id.clone()));
        let fate = EventFate::Invalid { reason: reason.into(), detail: refusal.detail.clone() };
        self.facts.push(Fact::Event(EventFact {
            tenant,
            event_id,
            at: now,
            fate,
            event: None,
            marks: Vec::new(),
        }));
        true
    }

    /// The deliveries as messages: of one shard each, at most `most` deliveries and about [`MAX_BATCH_BYTES`] in one.
    pub(crate) fn delivery_messages(&mut self, names: &Names, most: usize) -> Vec<Outgoing> {
        let most = most.clamp(1, MAX_BATCH);
        let mut messages = Vec::new();
        for (shard, work) in std::mem::take(&mut self.shards) {
            let mut open = DeliveryMessage { schema: SCHEMA, work: Vec::new() };
            let mut bytes = 0;
            for Work { event, to } in work {
                let weight = event.context.get().len() + event.data.get().len() + 256;
                for delivery in to {
                    let same = open.work.last().is_some_and(|last| Arc::ptr_eq(&last.event, &event));
                    let full = open.len() >= most || (!same && bytes + weight > MAX_BATCH_BYTES);
                    if full && !open.is_empty() {
                        let next = DeliveryMessage { schema: SCHEMA, work: Vec::new() };
                        messages.push(message(&std::mem::replace(&mut open, next), shard, names));
                        bytes = 0;
                    }
                    match open.work.last_mut().filter(|last| Arc::ptr_eq(&last.event, &event)) {
                        Some(last) => last.to.push(delivery),
                        None => {
                            bytes += weight;
                            open.work.push(Work { event: event.clone(), to: vec![delivery] });
                        }
                    }
                }
            }
            messages.push(message(&open, shard, names));
        }
        messages
    }
}

fn message(deliveries: &DeliveryMessage, shard: u16, names: &Names) -> Outgoing {
    let first = deliveries.work.first().and_then(|work| work.to.first());
    let id = first.map_or_else(String::new, |delivery| format!("{}/1/1", delivery.id));
    let key = Names::destination(postrider_broker::Lane::Fresh, shard);
    Outgoing::json(names.deliveries(), key, wire::encode(deliveries), id)
        .header("deliveries", deliveries.len().to_string())
}

/// The same, alone, through a short parking, back to the events. A part of a message becomes one of its own.
fn set_apart(arrival: &Arrival<'_>, crashes: u32, names: &Names, draw: usize) -> Outgoing {
    const SHORT_SECS: [u32; 2] = [1, 5];
    let key = Names::park_key(SHORT_SECS[draw % SHORT_SECS.len()], "events");
    let mut message = Outgoing::json(
        names.park(),
        key,
        arrival.body.to_vec(),
        arrival.envelope.given_id().unwrap_or_default(),
    )
    .header("tenant", arrival.envelope.routing_key)
    .header("crashes", crashes.to_string());
    message.content_type = arrival.envelope.content_type.unwrap_or_default().to_owned();
    if let Some(traceparent) = arrival.envelope.traceparent {
        message = message.header("traceparent", traceparent);
    }
    if let Some(webhook) = arrival.only_webhook {
        message = message.header("only-webhook", webhook);
    }
    if let Some(webhook) = arrival.except_webhook {
        message = message.header("except-webhook", webhook);
    }
    if let Some(epoch) = arrival.epoch {
        message = message.header("postrider-epoch", bounded(epoch, 64));
    }
    message
}

fn poison(arrival: &Arrival<'_>, names: &Names) -> Outgoing {
    tracing::error!(
        tenant = bounded(arrival.envelope.routing_key, 64),
        "an event killed its routers and is set aside as poison"
    );
    let mut message = Outgoing::json(
        names.poison(),
        "",
        arrival.body.to_vec(),
        arrival.envelope.given_id().unwrap_or_default(),
    )
    .header("reason", "crashes")
    .header("queue", names.events())
    .header("tenant", arrival.envelope.routing_key);
    message.content_type = arrival.envelope.content_type.unwrap_or_default().to_owned();
    message
}

fn bounded(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_core::directory::Applied;
    use postrider_core::wire::{
        ConfigKind, ConfigRecord, SchemaMode, TenantRecord, TenantSettings, TopologyRecord, WebhookRecord,
    };
    use serde_json::value::RawValue;

    fn directory(webhooks: usize, shards: u16) -> Directory {
        let epoch = Epoch::from_trusted("ep");
        let mut directory = Directory::new();
        let topology = TopologyRecord { shards, most_shards: shards };
        directory.apply(&ConfigRecord::of(&epoch, 1, ConfigKind::Topology, "topology", &topology));
        directory.apply(&ConfigRecord::bare(&epoch, 1, ConfigKind::SnapshotBegin, ""));
        let tenant = TenantRecord { id: TenantId::default_tenant(), settings: TenantSettings::default() };
        directory.apply(&ConfigRecord::of(&epoch, 1, ConfigKind::Tenant, "default", &tenant));
        for n in 0..webhooks {
            let id = format!("wh_{n}");
            let webhook = WebhookRecord {
                all: true,
                ..WebhookRecord::new(
                    WebhookId::from_trusted(id.as_str()),
                    TenantId::default_tenant(),
                    "https://example.com/",
                )
            };
            directory.apply(&ConfigRecord::of(&epoch, 1, ConfigKind::Webhook, &id, &webhook));
        }
        directory.apply(&ConfigRecord::bare(&epoch, 1, ConfigKind::SnapshotEnd, ""));
        directory
    }

    fn arrival(body: &str) -> Arrival<'_> {
        let envelope = Envelope { routing_key: "default", ..Envelope::default() };
        let body = body.as_bytes();
        Arrival {
            envelope,
            body,
            only_webhook: None,
            except_webhook: None,
            epoch: None,
            delivery_count: 0,
            crashes: 0,
        }
    }

    fn batch(directory: &Directory, bodies: &[String]) -> Batch {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        for body in bodies {
            batch.take(&arrival(body), directory, &mut seen, &names, Timestamp::from_millis(1), 0);
        }
        batch
    }

    fn decoded(batch: &mut Batch, most: usize) -> Vec<DeliveryMessage> {
        let messages = batch.delivery_messages(&Names::new("p", 1000), most);
        messages.iter().map(|message| wire::decode(&message.body).unwrap()).collect()
    }

    #[test]
    fn deliveries_are_batched_by_shard_and_split_at_the_limit() {
        let bodies: Vec<String> = (0..10).map(|n| format!(r#"{{"event_type":"T","id":"e{n}"}}"#)).collect();
        let mut batch = batch(&directory(7, 2), &bodies);
        assert_eq!((batch.routed, batch.deliveries), (10, 70));
        let messages = decoded(&mut batch, 16);
        assert_eq!(messages.iter().map(DeliveryMessage::len).sum::<usize>(), 70);
        assert!(messages.iter().all(|message| message.len() <= 16 && !message.is_empty()));
        for message in &messages {
            let of = |delivery: &DeliveryRecord| delivery.webhook.shard(2);
            let shard = of(&message.work[0].to[0]);
            assert!(message.work.iter().flat_map(|work| &work.to).all(|delivery| of(delivery) == shard));
        }
    }

    #[test]
    fn large_events_do_not_share_a_message() {
        let large = "x".repeat(100_000);
        let bodies: Vec<String> =
            (0..3).map(|n| format!(r#"{{"event_type":"T","id":"e{n}","data":"{large}"}}"#)).collect();
        let mut batch = batch(&directory(2, 1), &bodies);
        let messages = decoded(&mut batch, 16);
        assert_eq!(messages.len(), 3, "each event's body once, with both deliveries");
        assert!(messages.iter().all(|message| message.len() == 2));
    }

    #[test]
    fn a_repeated_event_is_counted_and_makes_nothing() {
        let body = r#"{"event_type":"T","id":"e"}"#.to_owned();
        let mut batch = batch(&directory(1, 1), &[body.clone(), body]);
        assert_eq!((batch.routed, batch.duplicates, batch.facts.len(), batch.accepted.len()), (1, 1, 1, 1));
        assert_eq!(decoded(&mut batch, 16).len(), 1);
    }

    #[test]
    fn a_refused_message_is_kept_with_its_reason() {
        let batch = batch(&directory(1, 1), &["{".to_owned(), "{".to_owned()]);
        assert_eq!(batch.refused, [RefusalReason::NotJson]);
        assert_eq!(batch.duplicates, 1);
        assert_eq!(batch.aside[0].exchange, "p.invalid");
        assert_eq!(batch.aside[0].body, b"{");
        assert!(matches!(&batch.facts[0], Fact::Event(EventFact { fate: EventFate::Invalid { .. }, .. })));
    }

    #[test]
    fn what_comes_back_too_often_is_set_apart_then_poison() {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        let directory = directory(1, 1);
        for crashes in [0, 4] {
            let arrival = Arrival { delivery_count: 3, crashes, ..arrival(r#"{"event_type":"T","id":"e"}"#) };
            batch.take(&arrival, &directory, &mut seen, &names, Timestamp::from_millis(1), 1);
        }
        assert_eq!(batch.aside[0].routing_key, "5.events");
        assert_eq!(batch.aside[1].exchange, "p.poison");
        assert!(batch.facts.is_empty());
    }

    #[test]
    fn what_is_set_apart_of_an_array_are_its_parts() {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        let body = r#"[{"event_type":"T","id":"e"},{"type":"T"}]"#;
        let longest = "m".repeat(255);
        let message = Envelope {
            routing_key: "acme",
            content_type: Some(intake::CLOUD_EVENT_BATCH),
            message_id: Some(&longest),
            ..Envelope::default()
        };
        let parts = intake::Parts::of(&message, body.as_bytes());
        let arrivals: Vec<Arrival<'_>> = parts
            .each(message, body.as_bytes())
            .map(|(envelope, body)| Arrival { envelope, body, delivery_count: 3, ..arrival("") })
            .collect();
        for arrival in &arrivals {
            batch.take(arrival, &directory(1, 1), &mut seen, &names, Timestamp::from_millis(1), 0);
        }
        assert_eq!((batch.aside.len(), batch.set_apart), (2, 2));
        for (message, arrival) in batch.aside.iter().zip(&arrivals) {
            assert_eq!(
                (&message.body[..], message.content_type.as_str()),
                (arrival.body, intake::CLOUD_EVENT)
            );
            // It comes back alone, and is the same event, and the same refusal.
            let back = Envelope { message_id: Some(&message.message_id), place: None, ..arrival.envelope };
            assert_eq!(back.given_id(), arrival.envelope.given_id());
            assert_eq!(
                intake::invalid_id(&back, arrival.body),
                intake::invalid_id(&arrival.envelope, arrival.body)
            );
        }
    }

    /// A tenant of which an action makes two events, one of them with a schema.
    fn triggered(settings: TenantSettings) -> Directory {
        let mut directory = directory(2, 1);
        let epoch = Epoch::from_trusted("ep");
        let tenant = TenantRecord { id: TenantId::default_tenant(), settings };
        directory.apply(&ConfigRecord::of(&epoch, 2, ConfigKind::Tenant, "default", &tenant));
        let body = RawValue::from_string(
            r#"{"tenant":"default","catalogue":{"schema":1,"product":{"id":"p","name":"P"},
                "event_type":[{"name":"A","label":"A","aliases":["a"],"category":"c"},
                    {"name":"B","label":"B","category":"c","data_schema":{"required":["n"]}}],
                "trigger":[{"action":"both","emit":[{"event_type":"A"},{"event_type":"B"}]},
                    {"action":"perhaps","when":"data.n == 1","emit":[{"event_type":"A"}]}]}}"#
                .to_owned(),
        );
        let record = ConfigRecord {
            body: Some(body.unwrap()),
            ..ConfigRecord::bare(&epoch, 2, ConfigKind::Catalogue, "default/p")
        };
        assert_eq!(directory.apply(&record), Applied::Changed);
        directory
    }

    #[test]
    fn an_action_is_its_events_and_each_is_known_by_its_own_id() {
        let directory = triggered(TenantSettings::default());
        let body = r#"{"action":"both","id":"a1","data":{"n":1}}"#.to_owned();
        let mut batch = batch(&directory, &[body.clone(), body]);
        assert_eq!((batch.routed, batch.deliveries, batch.duplicates), (2, 4, 2));
        assert_eq!((&batch.actions[..], batch.derived), (&[ActionFate::Derived][..], 2));
        assert_eq!((batch.facts.len(), batch.accepted.len()), (2, 2));
        let messages = decoded(&mut batch, 16);
        let events: Vec<&EventRecord> =
            messages.iter().flat_map(|m| &m.work).map(|work| &*work.event).collect();
        assert_eq!(events.iter().map(|e| e.event_type.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        assert!(events.iter().all(|event| event.correlation_id.as_deref() == Some("a1")));
    }

    #[test]
    fn an_action_is_refused_whole() {
        let settings = TenantSettings { schemas: SchemaMode::Refuse, ..TenantSettings::default() };
        let bodies = [r#"{"action":"both","id":"a1","data":{}}"#, r#"{"action":"none","id":"a2"}"#];
        let batch = batch(&triggered(settings), &bodies.map(str::to_owned));
        assert_eq!(batch.refused, [RefusalReason::SchemaViolation, RefusalReason::UnknownAction]);
        assert_eq!(batch.actions, [ActionFate::Refused; 2]);
        assert_eq!((batch.routed, batch.deliveries, batch.facts.len()), (0, 0, 2));
        assert_eq!(batch.aside[0].body, bodies[0].as_bytes(), "the action itself is kept");
    }

    #[test]
    fn an_action_of_which_nothing_comes_is_one_fact() {
        let body = r#"{"action":"perhaps","id":"a1","data":{"n":2}}"#.to_owned();
        let batch = batch(&triggered(TenantSettings::default()), &[body]);
        assert_eq!((batch.unmatched, &batch.actions[..], batch.derived), (1, &[ActionFate::Nothing][..], 0));
        let [Fact::Event(fact)] = &batch.facts[..] else { panic!("{:?}", batch.facts) };
        let event = fact.event.as_ref().unwrap();
        assert_eq!((fact.event_id.as_str(), event.event_type.as_str()), ("a1", "perhaps"));
    }

    #[test]
    fn what_is_noticed_goes_into_the_fact() {
        let settings = TenantSettings { schemas: SchemaMode::Warn, ..TenantSettings::default() };
        let bodies = [r#"{"event_type":"X","id":"x"}"#, r#"{"event_type":"B","id":"b","data":{}}"#];
        let batch = batch(&triggered(settings), &bodies.map(str::to_owned));
        assert_eq!(batch.marks, [Mark::UnknownType, Mark::Schema]);
        let marks: Vec<&[String]> = batch
            .facts
            .iter()
            .map(|fact| match fact {
                Fact::Event(event) => &event.marks[..],
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(marks, [["unknown_type"], ["schema"]]);
    }

    #[test]
    fn only_postriders_own_events_try_a_webhook() {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        let directory = directory(3, 1);
        for body in [r#"{"event_type":"T","id":"own_test_1"}"#, r#"{"event_type":"T","id":"e1"}"#] {
            let arrival = Arrival { only_webhook: Some("wh_1"), epoch: Some("ep"), ..arrival(body) };
            batch.take(&arrival, &directory, &mut seen, &names, Timestamp::from_millis(1), 0);
        }
        let messages = decoded(&mut batch, 16);
        let found: Vec<(&str, &str, bool)> = messages
            .iter()
            .flat_map(|message| &message.work)
            .flat_map(|work| work.to.iter().map(|to| (work.event.id.as_str(), to.webhook.as_str(), to.test)))
            .collect();
        let all = ["wh_0", "wh_1", "wh_2"].map(|webhook| ("e1", webhook, false));
        assert_eq!(found[0], ("own_test_1", "wh_1", true));
        assert_eq!(found[1..], all);
    }

    #[test]
    fn an_own_event_passes_by_the_webhook_that_it_is_about() {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        let mut directory = directory(0, 1);
        for (revision, id) in [(10, "wh_failing"), (11, "wh_owner")] {
            let webhook = WebhookRecord {
                event_types: [postrider_core::EventType::parse("T").unwrap()].into(),
                ..WebhookRecord::new(
                    WebhookId::from_trusted(id),
                    TenantId::default_tenant(),
                    "https://example.com/",
                )
            };
            directory.apply(&ConfigRecord::of(
                &Epoch::from_trusted("ep"),
                revision,
                ConfigKind::Webhook,
                id,
                &webhook,
            ));
        }
        // From anybody but control the header means nothing.
        for body in [r#"{"event_type":"T","id":"own_1"}"#, r#"{"event_type":"T","id":"e1"}"#] {
            let arrival = Arrival { except_webhook: Some("wh_failing"), epoch: Some("ep"), ..arrival(body) };
            batch.take(&arrival, &directory, &mut seen, &names, Timestamp::from_millis(1), 0);
        }
        let mut found: Vec<String> = decoded(&mut batch, 16)
            .iter()
            .flat_map(|message| &message.work)
            .flat_map(|work| work.to.iter().map(|to| format!("{} {}", work.event.id, to.webhook)))
            .collect();
        found.sort();
        assert_eq!(found, ["e1 wh_failing", "e1 wh_owner", "own_1 wh_owner"]);
        let body = r#"{"event_type":"T","id":"own_2"}"#;
        let again = Arrival {
            except_webhook: Some("wh_failing"),
            epoch: Some("ep"),
            delivery_count: 3,
            ..arrival(body)
        };
        batch.take(&again, &directory, &mut seen, &names, Timestamp::from_millis(2), 0);
        assert!(batch.aside[0].headers.contains(&("except-webhook", "wh_failing".to_owned())));
    }

    #[test]
    fn a_test_that_is_set_apart_is_still_one() {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        let body = r#"{"event_type":"T","id":"own_test_1"}"#;
        let (only_webhook, epoch) = (Some("wh_1"), Some("ep"));
        let arrival = Arrival { only_webhook, epoch, delivery_count: 3, ..arrival(body) };
        batch.take(&arrival, &directory(1, 1), &mut seen, &names, Timestamp::from_millis(1), 0);
        assert!(batch.aside[0].headers.contains(&("only-webhook", "wh_1".to_owned())));
        assert!(batch.aside[0].headers.contains(&("postrider-epoch", "ep".to_owned())));
    }

    #[test]
    fn an_id_of_postriders_own_is_refused_from_anybody_else() {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        let body = r#"{"event_type":"T","id":"own_1"}"#;
        let forged = Arrival { only_webhook: Some("wh_0"), ..arrival(body) };
        for arrival in [&forged, &forged, &Arrival { epoch: Some("ep"), ..arrival(body) }] {
            batch.take(arrival, &directory(1, 1), &mut seen, &names, Timestamp::from_millis(1), 0);
        }
        assert_eq!((&batch.refused[..], batch.duplicates), (&[RefusalReason::BadEventId][..], 1));
        assert_eq!(batch.aside[0].body, body.as_bytes());
        assert_eq!(batch.unmatched, 1, "the id is not taken by what was refused");
        assert_eq!((batch.routed, batch.deliveries), (0, 0));
    }

    #[test]
    fn a_batch_is_full_when_judging_took_the_work_of_one_event() {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        let mut directory = directory(0, 1);
        for n in 0..300 {
            let id = format!("wh_{n}");
            let webhook = WebhookRecord {
                all: true,
                filter: Some(format!("data.all(a, data.all(b, b >= a || b < a)) && {n} == {n}")),
                ..WebhookRecord::new(
                    WebhookId::from_trusted(id.as_str()),
                    TenantId::default_tenant(),
                    "https://example.com/",
                )
            };
            let epoch = Epoch::from_trusted("ep");
            directory.apply(&ConfigRecord::of(&epoch, 2, ConfigKind::Webhook, &id, &webhook));
        }
        let numbers: Vec<String> = (0..88).map(|n| n.to_string()).collect();
        let mut take = |id: &str, data: &[String]| {
            let body = format!(r#"{{"event_type":"T","id":"{id}","data":[{}]}}"#, data.join(","));
            batch.take(&arrival(&body), &directory, &mut seen, &names, Timestamp::from_millis(1), 0);
            (batch.routed, batch.refused.len(), batch.is_full())
        };
        assert_eq!(take("cheap", &numbers[..2]), (1, 0, false));
        assert_eq!(take("dear", &numbers[..60]), (2, 0, false));
        let more = (0..8).map(|n| take(&format!("dear {n}"), &numbers[..60])).find(|(.., is_full)| *is_full);
        assert!(more.is_some_and(|(_, refused, _)| refused == 0), "{more:?}");
    }

    #[test]
    fn what_would_be_too_large_to_publish_at_once_is_left_for_the_next_batch() {
        let (mut batch, mut seen, names) = (Batch::default(), Seen::default(), Names::new("p", 1000));
        let directory = directory(100, 1);
        let data = "x".repeat(200_000);
        let mut taken = 0;
        while !batch.is_full() {
            let body = format!(r#"{{"event_type":"T","id":"e{taken}","data":"{data}"}}"#);
            batch.take(&arrival(&body), &directory, &mut seen, &names, Timestamp::from_millis(1), 0);
            taken += 1;
        }
        assert_eq!(taken, 4, "20 MB each");
    }
}
