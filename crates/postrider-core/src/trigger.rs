//! From an action to its events.
//!
//! A trigger is data of a catalogue ([`TriggerSpec`]). Triggers emit event types and never actions, so they cannot set
//! each other off. What an action becomes is a function of the action and the triggers alone: done again, it gives the
//! same events under the same ids.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::catalogue::{EmitSpec, TriggerSpec};
use crate::event::{self, Action, Event, EventType, Json};
use crate::expression::{BadExpression, Expression, MAX_STEPS, Scope, Unmet};
use crate::id::{self, EventId};
use crate::intake::{Refusal, RefusalReason};

/// The most events of one action.
pub const MAX_EVENTS: usize = 100;

/// The most subjects that are looked at for one action, whether or not they become events.
pub const MAX_SUBJECTS: usize = 1000;

/// The most kinds of events of one trigger, and the most pointers of one `for_each`.
pub const MAX_EMITS: usize = 100;

/// The longest pointer, bytes.
pub const MAX_POINTER_BYTES: usize = 256;

/// Steps that one action may take: its conditions, the conversion of their subjects, and the search for subjects.
const MAX_STEPS_OF_ACTION: u32 = 5 * MAX_STEPS;

/// Bytes of a subject that are converted in the time of one step.
const CONVERTED_PER_STEP: usize = 8;

/// Bytes of an action that are searched for a subject in a step. It is less time than a step has, so that an action of
/// the largest size may still have some two hundred pointers.
const SEARCHED_PER_STEP: usize = 256;

/// The longest key, bytes.
const MAX_KEY_BYTES: usize = 256;

/// What the ids of derived events begin with.
const ID_PREFIX: &str = "act_";

/// The id of the event of this type that an action becomes: of the first if `number` is 0, of the next if it is 1.
pub(crate) fn event_id(tenant: &str, action: &str, event_type: &str, number: usize) -> String {
    let digest = id::digest_of(&[tenant, action, event_type, &number.to_string()]);
    format!("{ID_PREFIX}{}", id::hex(&digest[..16]))
}

/// A trigger, checked.
#[derive(Clone, Debug)]
pub struct Trigger {
    action: EventType,
    when: Option<Expression>,
    emits: Vec<Emit>,
}

#[derive(Clone, Debug)]
struct Emit {
    event_type: EventType,
    when: Option<Expression>,
    subjects: Vec<Subject>,
    data: Pointer,
    key: Option<Pointer>,
}

/// A subject of a `for_each`, or each element of a list of them.
#[derive(Clone, Debug)]
struct Subject {
    at: Pointer,
    each: bool,
}

/// A JSON pointer into an action or its subject.
#[derive(Clone, Debug)]
struct Pointer {
    whole: Box<str>,
    root: Root,
    /// Below the root, with its slash; or nothing.
    rest: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Root {
    Data,
    CurrentContext,
    Subject,
    Action,
    Id,
    EventTime,
    Key,
    CorrelationId,
}

/// Why a trigger cannot be used: a closed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTrigger {
    /// No `emit`.
    #[error("it emits nothing; name at least one event type under `emit`")]
    EmitsNothing,
    /// More than [`MAX_EMITS`].
    #[error(
        "{what} has {count} entries, and {MAX_EMITS} are allowed; write another trigger for the same action"
    )]
    TooMany {
        /// `emit` or `for_each`.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// An emitted type with the name of the action.
    #[error("it emits the event type {:?}, which is its action's own name; give one of them another name", .0.as_str())]
    Itself(EventType),
    /// A condition that is none.
    #[error("{at}: {bad}")]
    When {
        /// Which.
        at: String,
        /// Why.
        bad: BadExpression,
    },
    /// A pointer that can lead nowhere.
    #[error("{at}: the pointer {pointer:?} {problem}")]
    Pointer {
        /// Which member.
        at: String,
        /// What it says.
        pointer: String,
        /// Why, and what to write.
        problem: &'static str,
    },
}

impl Trigger {
    /// Checks a trigger and makes it ready.
    ///
    /// Whether its catalogue has the types that it emits is not known here; see [`crate::catalogue::check`].
    ///
    /// # Errors
    /// [`BadTrigger`] for the first thing that is wrong.
    pub fn compile(spec: &TriggerSpec) -> Result<Self, BadTrigger> {
        let when = condition(spec.when.as_deref(), "when", false)?;
        match spec.emit.len() {
            0 => return Err(BadTrigger::EmitsNothing),
            1..=MAX_EMITS => {}
            count => return Err(BadTrigger::TooMany { what: "emit", count }),
        }
        let of_emit = |(index, emit): (usize, &EmitSpec)| {
            if emit.event_type == spec.action {
                return Err(BadTrigger::Itself(emit.event_type.clone()));
            }
            Emit::compile(emit, &format!("emit {} ({})", index + 1, emit.event_type))
        };
        let emits = spec.emit.iter().enumerate().map(of_emit).collect::<Result<_, _>>()?;
        Ok(Self { action: spec.action.clone(), when, emits })
    }

    /// The action's name.
    pub fn action(&self) -> &EventType {
        &self.action
    }
}

impl Emit {
    fn compile(spec: &EmitSpec, at: &str) -> Result<Self, BadTrigger> {
        let has_subject = !spec.for_each.is_empty();
        if spec.for_each.len() > MAX_EMITS {
            return Err(BadTrigger::TooMany { what: "for_each", count: spec.for_each.len() });
        }
        let pointer =
            |member: &str, text: &str, subject| Pointer::compile(text, subject, || format!("{at}: {member}"));
        let subject = |text: &String| {
            let (list, each) = match text.strip_suffix("/*") {
                Some(list) => (list, true),
                None => (text.as_str(), false),
            };
            Ok(Subject { at: pointer("for_each", list, false)?, each })
        };
        let subjects = spec.for_each.iter().map(subject).collect::<Result<_, _>>()?;
        let data = spec.data.as_deref().unwrap_or(if has_subject { "/subject" } else { "/data" });
        Ok(Self {
            event_type: spec.event_type.clone(),
            when: condition(spec.when.as_deref(), &format!("{at}: when"), has_subject)?,
            subjects,
            data: pointer("data", data, has_subject)?,
            key: spec.key.as_deref().map(|key| pointer("key", key, has_subject)).transpose()?,
        })
    }
}

fn condition(source: Option<&str>, at: &str, has_subject: bool) -> Result<Option<Expression>, BadTrigger> {
    let read = |source| Expression::over_actions(source, has_subject);
    source.map(read).transpose().map_err(|bad| BadTrigger::When { at: at.to_owned(), bad })
}

impl Pointer {
    fn compile(text: &str, has_subject: bool, at: impl FnOnce() -> String) -> Result<Self, BadTrigger> {
        let problem = match Self::parse(text) {
            Ok(Self { root: Root::Subject, .. }) if !has_subject => {
                "is into a subject, and there is none; write for_each, or point to /data or /current_context"
            }
            Ok(pointer) => return Ok(pointer),
            Err(problem) => problem,
        };
        let pointer = text.chars().take(64).collect();
        Err(BadTrigger::Pointer { at: at(), pointer, problem })
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_POINTER_BYTES {
            return Err("is longer than 256 bytes; use less nested data");
        }
        let (root, rest) = match text.strip_prefix('/') {
            Some(text) => text.split_at(text.find('/').unwrap_or(text.len())),
            None => return Err("must begin with a slash, as in /data/sender"),
        };
        if text.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
            return Err("has a ~ that is followed by neither 0 nor 1; write ~0 for ~ and ~1 for /");
        }
        if text.split('/').any(|token| token == "*") {
            return Err("has a * that is not the last part of a for_each; each element is meant only there");
        }
        let root = match root {
            "data" => Root::Data,
            "current_context" => Root::CurrentContext,
            "subject" => Root::Subject,
            "action" => Root::Action,
            "id" => Root::Id,
            "event_time" => Root::EventTime,
            "key" => Root::Key,
            "correlation_id" => Root::CorrelationId,
            _ => {
                return Err(
                    "must begin with /data, /current_context, /subject, /action, /id, /event_time, /key or \
                            /correlation_id",
                );
            }
        };
        if !rest.is_empty() && !matches!(root, Root::Data | Root::CurrentContext | Root::Subject) {
            return Err("goes into a text, where nothing is");
        }
        Ok(Self { whole: text.into(), root, rest: rest.into() })
    }

    /// What is there, byte for byte.
    fn find<'a>(&self, action: &'a Action, subject: Option<&'a RawValue>) -> Option<Cow<'a, RawValue>> {
        let text = |text: &str| serde_json::value::to_raw_value(text).ok().map(Cow::Owned);
        let within = |json: &'a RawValue| event::pointer(json, &self.rest).map(Cow::Borrowed);
        match self.root {
            Root::Data => within(&action.data),
            Root::CurrentContext => within(&action.current_context),
            Root::Subject => within(subject?),
            Root::Action => text(action.name.as_str()),
            Root::Id => text(action.id.as_str()),
            Root::EventTime => text(&action.time),
            Root::Key => text(action.key.as_deref()?),
            Root::CorrelationId => text(action.correlation_id.as_deref()?),
        }
    }

    /// What is there, sharing it with the action where it is a whole member.
    fn share(&self, action: &Action, subject: Option<&RawValue>) -> Option<Json> {
        match (self.root, self.rest.is_empty()) {
            (Root::Data, true) => Some(action.data.clone()),
            (Root::CurrentContext, true) => Some(action.current_context.clone()),
            _ => self.find(action, subject).map(|found| Arc::from(found.into_owned())),
        }
    }
}

/// The events that an action becomes, in the order of the triggers: all or, with a refusal, none. None at all where no
/// condition holds.
///
/// Triggers of other actions are passed over.
///
/// # Errors
/// [`Refusal`]: `subject_absent` when a `for_each` finds nothing or null; `trigger_failed` when a condition cannot be
/// judged, a pointer leads nowhere, or the events are too many.
pub fn derive(triggers: &[impl Borrow<Trigger>], action: &Action) -> Result<Vec<Event>, Refusal> {
    let scope = Scope::of_action(action).map_err(|unmet| failed(format!("{unmet}")))?;
    let mut deriving = Deriving {
        action,
        scope,
        steps: MAX_STEPS_OF_ACTION,
        subjects: 0,
        numbers: HashMap::new(),
        events: Vec::new(),
    };
    for trigger in triggers.iter().map(Borrow::borrow).filter(|trigger| trigger.action == action.name) {
        if deriving.holds(trigger.when.as_ref(), None)? {
            for emit in &trigger.emits {
                deriving.emit(emit)?;
            }
        }
    }
    Ok(deriving.events)
}

fn failed(detail: impl AsRef<str>) -> Refusal {
    Refusal::new(RefusalReason::TriggerFailed, detail)
}

struct Deriving<'a> {
    action: &'a Action,
    scope: Scope,
    steps: u32,
    subjects: usize,
    /// How many events there are of each type.
    numbers: HashMap<&'a EventType, usize>,
    events: Vec<Event>,
}

impl<'a> Deriving<'a> {
    fn holds(&mut self, when: Option<&Expression>, subject: Option<&RawValue>) -> Result<bool, Refusal> {
        let Some(when) = when else { return Ok(true) };
        let unmet = |unmet: Unmet| failed(format!("the condition {:.120?}: {unmet}", when.source()));
        match subject {
            None => when.holds_within(&self.scope, &mut self.steps).map_err(unmet),
            Some(subject) => {
                self.pay(subject.get().len() / CONVERTED_PER_STEP).map_err(unmet)?;
                let scope = self.scope.with_subject(subject).map_err(unmet)?;
                when.holds_within(&scope, &mut self.steps).map_err(unmet)
            }
        }
    }

    fn pay(&mut self, steps: usize) -> Result<(), Unmet> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.steps.checked_sub(steps));
        self.steps = left.ok_or(Unmet::TooManySteps)?;
        Ok(())
    }

    fn emit<'t: 'a>(&mut self, emit: &'t Emit) -> Result<(), Refusal> {
        let when = emit.when.as_ref();
        let over_subject = when.is_some_and(|when| when.variables().any(|variable| variable == "subject"));
        // A condition over the action alone decides before anything is asked of subjects, so that it can say that
        // there are some.
        if !over_subject && !self.holds(when, None)? {
            return Ok(());
        }
        if emit.subjects.is_empty() {
            return self.push(emit, None);
        }
        for subject in &emit.subjects {
            for found in self.subjects_at(subject)? {
                if !over_subject || self.holds(when, Some(&found))? {
                    self.push(emit, Some(&found))?;
                }
            }
        }
        Ok(())
    }

    fn subjects_at(&mut self, subject: &Subject) -> Result<Vec<Cow<'a, RawValue>>, Refusal> {
        let action = self.action;
        let absent = |what: &str| {
            let detail = format!(
                "the subject {:?} of the action {:?} {what}; send it, or change the trigger",
                &*subject.at.whole,
                action.name.as_str()
            );
            Refusal::new(RefusalReason::SubjectAbsent, detail)
        };
        let weight = action.data.get().len() + action.current_context.get().len();
        self.pay(weight / SEARCHED_PER_STEP).map_err(|_| {
            failed("looking for the action's subjects takes too long; send less data, or use fewer for_each")
        })?;
        let found = subject.at.find(action, None).ok_or_else(|| absent("is not there"))?;
        let found: Vec<Cow<'a, RawValue>> = if subject.each {
            let Cow::Borrowed(list) = found else { return Err(absent("is not a list")) };
            let list: Vec<&'a RawValue> =
                serde_json::from_str(list.get()).map_err(|_| absent("is not a list"))?;
            list.into_iter().map(Cow::Borrowed).collect()
        } else {
            vec![found]
        };
        if found.iter().any(|subject| subject.get() == "null") {
            return Err(absent(if subject.each { "has an element that is null" } else { "is null" }));
        }
        self.subjects += found.len().max(1);
        if self.subjects > MAX_SUBJECTS {
            return Err(failed(format!(
                "the action has more than {MAX_SUBJECTS} subjects; send several actions"
            )));
        }
        Ok(found)
    }

    fn push<'t: 'a>(&mut self, emit: &'t Emit, subject: Option<&RawValue>) -> Result<(), Refusal> {
        if self.events.len() == MAX_EVENTS {
            return Err(failed(format!(
                "the action becomes more than {MAX_EVENTS} events; send several actions"
            )));
        }
        let action = self.action;
        let data = emit.data.share(action, subject).ok_or_else(|| {
            failed(format!("nothing is at {:?}, where the data of {} is", &*emit.data.whole, emit.event_type))
        })?;
        let key = match &emit.key {
            None => action.key.clone(),
            Some(at) => {
                let key = at.find(action, subject).and_then(|found| key_of(&found));
                let detail = || {
                    format!(
                        "no text or number of up to {MAX_KEY_BYTES} bytes is at {:?}, where the key of {} is",
                        &*at.whole, emit.event_type
                    )
                };
                Some(key.ok_or_else(|| failed(detail()))?)
            }
        };
        let number = self.numbers.entry(&emit.event_type).or_default();
        let id = event_id(action.tenant.as_str(), action.id.as_str(), emit.event_type.as_str(), *number);
        *number += 1;
        self.events.push(Event {
            tenant: action.tenant.clone(),
            id: EventId::from_trusted(id),
            event_type: emit.event_type.clone(),
            event_time: action.time.clone(),
            current_context: action.current_context.clone(),
            data,
            key,
            correlation_id: Some(action.correlation_id.clone().unwrap_or_else(|| action.id.as_str().into())),
            traceparent: action.traceparent.clone(),
            accepted_at: action.accepted_at,
        });
        Ok(())
    }
}

/// A key from a JSON string or number.
fn key_of(json: &RawValue) -> Option<Arc<str>> {
    let text = json.get();
    let key = match text.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(text).ok()?,
        b'-' | b'0'..=b'9' => text.to_owned(),
        _ => return None,
    };
    (!key.is_empty() && key.len() <= MAX_KEY_BYTES).then(|| key.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::id::TenantId;
    use crate::time::Timestamp;

    fn trigger(spec: Value) -> Trigger {
        Trigger::compile(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn bad(spec: Value) -> String {
        Trigger::compile(&serde_json::from_value(spec).unwrap()).unwrap_err().to_string()
    }

    fn action(name: &str, data: &str) -> Action {
        Action {
            tenant: TenantId::default_tenant(),
            id: EventId::from_trusted("a-1"),
            name: EventType::parse(name).unwrap(),
            time: "2026-11-21T20:00:00Z".into(),
            current_context: Arc::from(RawValue::from_string(r#"{"store": "s1"}"#.to_owned()).unwrap()),
            data: Arc::from(RawValue::from_string(data.to_owned()).unwrap()),
            key: Some("action-key".into()),
            correlation_id: None,
            traceparent: Some("00-1-2-01".into()),
            accepted_at: Timestamp::from_millis(7),
        }
    }

    /// Type, key and data of each event.
    fn derived(triggers: &[Trigger], action: &Action) -> Vec<(String, String, String)> {
        let events = derive(triggers, action).unwrap();
        let shown = |event: &Event| {
            let key = event.key.as_deref().unwrap_or("-").to_owned();
            (event.event_type.to_string(), key, event.data.get().to_owned())
        };
        events.iter().map(shown).collect()
    }

    fn refused(trigger: Trigger, action: &Action) -> (RefusalReason, String) {
        let refusal = derive(&[trigger], action).unwrap_err();
        (refusal.reason, refusal.detail)
    }

    fn row(event_type: &str, key: &str, data: &str) -> (String, String, String) {
        (event_type.to_owned(), key.to_owned(), data.to_owned())
    }

    const TRANSFER: &str = r#"{
        "points": 1.50,
        "sender": {"id": "m-1", "balance":  90.0, "id":"m-1"},
        "receiver": {"id": 2, "balance": 1e2}
    }"#;

    fn transfer() -> Trigger {
        let both = ["/data/sender", "/data/receiver"];
        trigger(json!({
            "action": "transfer.points",
            "emit": [
                {"event_type": "AvailablePointsAmountChanged", "for_each": both, "key": "/subject/id"},
                {"event_type": "WalletBalanceUpdated", "for_each": both, "key": "/subject/id"},
            ],
        }))
    }

    #[test]
    fn a_transfer_of_points_tells_sender_and_receiver() {
        let (sender, receiver) =
            (r#"{"id": "m-1", "balance":  90.0, "id":"m-1"}"#, r#"{"id": 2, "balance": 1e2}"#);
        assert_eq!(
            derived(&[transfer()], &action("transfer.points", TRANSFER)),
            [
                row("AvailablePointsAmountChanged", "m-1", sender),
                row("AvailablePointsAmountChanged", "2", receiver),
                row("WalletBalanceUpdated", "m-1", sender),
                row("WalletBalanceUpdated", "2", receiver),
            ]
        );
    }

    #[test]
    fn a_new_member_is_two_events_of_the_same_data() {
        let new = trigger(json!({
            "action": "member.register",
            "emit": [{"event_type": "CustomerRegistered"}, {"event_type": "CustomerLevelChanged", "data": "/data/level"}],
        }));
        let action = action("member.register", r#"{ "name": "Ada" , "level": [ 0 ]}"#);
        assert_eq!(
            derived(std::slice::from_ref(&new), &action),
            [
                row("CustomerRegistered", "action-key", r#"{ "name": "Ada" , "level": [ 0 ]}"#),
                row("CustomerLevelChanged", "action-key", "[ 0 ]"),
            ]
        );
        let events = derive(&[Arc::new(new)], &action).unwrap();
        assert!(Arc::ptr_eq(&events[0].data, &action.data), "one copy");
        for event in &events {
            assert_eq!(
                event.correlation_id.as_deref(),
                Some("a-1"),
                "the action's id, since it carries none"
            );
            assert_eq!(event.event_time, action.time);
            assert_eq!(event.current_context.get(), action.current_context.get());
            assert_eq!(event.traceparent, action.traceparent);
            assert_eq!((event.accepted_at, &event.tenant), (action.accepted_at, &action.tenant));
        }
    }

    #[test]
    fn ids_are_stable_and_distinct() {
        let ids = |action: &Action| -> Vec<String> {
            derive(&[transfer()], action).unwrap().iter().map(|event| event.id.to_string()).collect()
        };
        let first = action("transfer.points", TRANSFER);
        let known = ids(&first);
        assert_eq!(known, ids(&first.clone()));
        assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), 4);
        assert!(
            known.iter().all(|id| id.len() == 36 && id.starts_with("act_") && EventId::parse(id).is_ok())
        );
        assert_eq!(known[0], "act_2684ffa217daa3ce08093d5be9a58db7");
        let other_id = Action { id: EventId::from_trusted("a-2"), ..first.clone() };
        let other_tenant = Action { tenant: TenantId::from_trusted("other"), ..first.clone() };
        for other in [other_id, other_tenant] {
            assert!(ids(&other).iter().all(|id| !known.contains(id)));
        }
        let correlated = Action { correlation_id: Some("c".into()), ..first };
        assert_eq!(ids(&correlated), known);
        assert_eq!(derive(&[transfer()], &correlated).unwrap()[3].correlation_id.as_deref(), Some("c"));
    }

    #[test]
    fn a_subject_that_is_absent_or_null_refuses_the_action() {
        for (data, what) in [
            (r#"{"sender":{"id":1}}"#, "is not there"),
            (r#"{"sender":{"id":1},"receiver":null}"#, "is null"),
        ] {
            assert_eq!(
                refused(transfer(), &action("transfer.points", data)),
                (
                    RefusalReason::SubjectAbsent,
                    format!(
                        "the subject \"/data/receiver\" of the action \"transfer.points\" {what}; send it, or change \
                         the trigger"
                    )
                )
            );
        }
        let each =
            || trigger(json!({"action": "a", "emit": [{"event_type": "T", "for_each": ["/data/list/*"]}]}));
        for data in [r#"{}"#, r#"{"list":{}}"#, r#"{"list":7}"#, r#"{"list":null}"#, r#"{"list":[1,null]}"#] {
            assert_eq!(refused(each(), &action("a", data)).0, RefusalReason::SubjectAbsent, "{data}");
        }
    }

    #[test]
    fn each_element_of_a_list_is_a_subject() {
        let each = trigger(json!({"action": "a", "emit": [{
            "event_type": "T", "for_each": ["/data/first", "/data/list/*", "/data/empty/*"],
            "when": "subject.n > 1 && action == 'a'", "key": "/subject/n", "data": "/subject/inner",
        }]}));
        let data = r#"{"first":{"n":9,"inner":"a"},"list":[{"n":1},{"n":2, "inner":{ "b":2 }},{"n":3,"inner":null}],"empty":[]}"#;
        assert_eq!(
            derived(&[each], &action("a", data)),
            [row("T", "9", "\"a\""), row("T", "2", r#"{ "b":2 }"#), row("T", "3", "null")]
        );
        let whole = trigger(json!({"action": "a", "emit": [
            {"event_type": "T", "for_each": ["/data/*"], "data": "/data"}, {"event_type": "U", "data": "/id", "key": "/event_time"},
        ]}));
        assert_eq!(
            derived(&[whole], &action("a", "[1,2]")),
            [
                row("T", "action-key", "[1,2]"),
                row("T", "action-key", "[1,2]"),
                row("U", "2026-11-21T20:00:00Z", "\"a-1\""),
            ]
        );
    }

    #[test]
    fn conditions_choose_and_their_failure_refuses() {
        let chosen = |when: &str, emit_when: &str| {
            trigger(json!({"action": "a", "when": when, "emit": [
                {"event_type": "T"}, {"event_type": "U", "when": emit_when, "for_each": ["/data/who"]},
            ]}))
        };
        let types = |trigger: Trigger, data: &str| -> Vec<String> {
            derived(&[trigger], &action("a", data)).into_iter().map(|(event_type, ..)| event_type).collect()
        };
        let with_who = "has(data.who)";
        assert_eq!(types(chosen("data.n > 1", with_who), r#"{"n":2,"who":1}"#), ["T", "U"]);
        assert_eq!(types(chosen("data.n > 1", with_who), r#"{"n":2}"#), ["T"], "asked before the subject is");
        assert_eq!(types(chosen("data.n > 1", with_who), r#"{"n":1}"#), [""; 0]);
        assert_eq!(types(chosen("true", "subject == 3"), r#"{"who":1}"#), ["T"]);
        assert_eq!(types(chosen("true", "true"), r#"{"who":1}"#), ["T", "U"]);
        let (reason, detail) = refused(chosen("data.n > 1", "true"), &action("a", "{}"));
        assert_eq!(reason, RefusalReason::TriggerFailed);
        assert_eq!(detail, "the condition \"data.n > 1\": there is no `n`; ask with has() first");
        let (reason, _) = refused(chosen("true", "subject.x == 1"), &action("a", r#"{"who":{}}"#));
        assert_eq!(reason, RefusalReason::TriggerFailed, "none of its events, not even those before");
        assert_eq!(types(chosen("true", "true"), r#"{"who":1}"#), ["T", "U"]);
        let other = trigger(json!({"action": "b", "emit": [{"event_type": "T"}]}));
        assert!(derive(&[other], &action("a", "{}")).unwrap().is_empty());
    }

    #[test]
    fn all_triggers_that_apply_emit() {
        let one = trigger(json!({"action": "a", "emit": [{"event_type": "T"}]}));
        let two = trigger(
            json!({"action": "a", "when": "data == 1", "emit": [{"event_type": "U"}, {"event_type": "T"}]}),
        );
        let events = derive(&[one, two], &action("a", "1")).unwrap();
        let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
        assert_eq!(types, ["T", "U", "T"]);
        assert_ne!(events[0].id, events[2].id);
    }

    #[test]
    fn pointers_that_lead_nowhere_refuse() {
        let of = |emit: Value| trigger(json!({"action": "a", "emit": [emit]}));
        let (reason, detail) = refused(of(json!({"event_type": "T", "data": "/data/x"})), &action("a", "{}"));
        assert_eq!(reason, RefusalReason::TriggerFailed);
        assert_eq!(detail, "nothing is at \"/data/x\", where the data of T is");
        for data in
            [r#"{}"#, r#"{"x":null}"#, r#"{"x":true}"#, r#"{"x":{}}"#, r#"{"x":""}"#, r#"{"x":"\ud800"}"#]
        {
            let (reason, detail) =
                refused(of(json!({"event_type": "T", "key": "/data/x"})), &action("a", data));
            assert_eq!(reason, RefusalReason::TriggerFailed, "{data}");
            assert_eq!(
                detail,
                "no text or number of up to 256 bytes is at \"/data/x\", where the key of T is"
            );
        }
    }

    #[test]
    fn an_action_is_at_most_a_hundred_events() {
        let of = |when: &str| {
            trigger(
                json!({"action": "a", "emit": [{"event_type": "T", "for_each": ["/data/*"], "when": when}]}),
            )
        };
        let list = |length: usize| action("a", &format!("{:?}", vec![1; length]));
        assert_eq!(derive(&[of("true")], &list(MAX_EVENTS)).unwrap().len(), MAX_EVENTS);
        let (reason, detail) = refused(of("true"), &list(MAX_EVENTS + 1));
        assert_eq!(reason, RefusalReason::TriggerFailed);
        assert_eq!(detail, "the action becomes more than 100 events; send several actions");
        assert!(derive(&[of("subject == 2")], &list(MAX_SUBJECTS)).unwrap().is_empty());
        let (reason, detail) = refused(of("subject == 2"), &list(MAX_SUBJECTS + 1));
        assert_eq!(reason, RefusalReason::TriggerFailed);
        assert_eq!(detail, "the action has more than 1000 subjects; send several actions");
        let (reason, detail) = refused(of("!(2 in data) && subject == 2"), &list(MAX_SUBJECTS));
        assert_eq!(reason, RefusalReason::TriggerFailed);
        assert!(detail.contains("takes too long"), "{detail}");
    }

    #[test]
    fn much_work_for_one_action_is_refused() {
        let text = "x".repeat(200_000);
        let large = action("a", &format!(r#"{{"empty":[],"text":"{text}"}}"#));
        let emits = |for_each: &str, when: &str| {
            let emit = json!({"event_type": "T", "for_each": vec![for_each; 90], "when": when});
            trigger(json!({"action": "a", "emit": [emit, emit, emit, emit]}))
        };
        let (reason, detail) = refused(emits("/data/empty/*", "true"), &large);
        assert_eq!(reason, RefusalReason::TriggerFailed);
        assert!(detail.starts_with("looking for the action's subjects takes too long"), "{detail}");
        let (reason, detail) = refused(emits("/data", "size(subject) == 1"), &large);
        assert_eq!(reason, RefusalReason::TriggerFailed);
        assert!(detail.contains("judging it takes too long"), "{detail}");
        let small = action("a", r#"{"empty":[]}"#);
        assert!(derive(&[emits("/data/empty/*", "true")], &small).unwrap().is_empty());
    }

    #[test]
    fn bad_triggers_are_refused_with_a_reason() {
        let emit = |emit: Value| bad(json!({"action": "a", "emit": [emit]}));
        assert_eq!(
            bad(json!({"action": "a", "emit": []})),
            "it emits nothing; name at least one event type under `emit`"
        );
        assert_eq!(
            emit(json!({"event_type": "a"})),
            "it emits the event type \"a\", which is its action's own name; give one of them another name"
        );
        assert!(
            bad(json!({"action": "a", "when": "x >", "emit": [{"event_type": "T"}]}))
                .starts_with("when: the expression is")
        );
        assert!(bad(json!({"action": "a", "when": "subject == 1", "emit": [{"event_type": "T", "for_each": ["/data"]}]}))
            .starts_with("when: there is no variable `subject`"));
        assert!(
            emit(json!({"event_type": "T", "when": "subject == 1"}))
                .starts_with("emit 1 (T): when: there is no variable")
        );
        assert!(
            emit(json!({"event_type": "T", "when": "event_type == 'T'"}))
                .contains("no variable `event_type`")
        );
        for (member, text, problem) in [
            ("data", "data/x", "must begin with a slash, as in /data/sender"),
            ("data", "", "must begin with a slash, as in /data/sender"),
            (
                "data",
                "/x",
                "must begin with /data, /current_context, /subject, /action, /id, /event_time, /key or /correlation_id",
            ),
            (
                "key",
                "/subject/id",
                "is into a subject, and there is none; write for_each, or point to /data or /current_context",
            ),
            ("key", "/id/x", "goes into a text, where nothing is"),
            ("key", "/data/a~b", "has a ~ that is followed by neither 0 nor 1; write ~0 for ~ and ~1 for /"),
            (
                "data",
                "/data/*",
                "has a * that is not the last part of a for_each; each element is meant only there",
            ),
        ] {
            assert_eq!(
                emit(json!({"event_type": "T", member: text})),
                format!("emit 1 (T): {member}: the pointer {text:?} {problem}")
            );
        }
        assert!(emit(json!({"event_type": "T", "for_each": ["/data/*/x"]})).contains("has a *"));
        assert!(emit(json!({"event_type": "T", "for_each": ["/subject"]})).contains("there is none"));
        assert!(
            emit(json!({"event_type": "T", "for_each": [format!("/data/{}", "x".repeat(256))]}))
                .contains("256 bytes")
        );
        assert!(
            emit(json!({"event_type": "T", "for_each": vec!["/data"; 101]}))
                .contains("for_each has 101 entries")
        );
        assert!(
            bad(json!({"action": "a", "emit": vec![json!({"event_type": "T"}); 101]}))
                .contains("emit has 101 entries")
        );
    }

    proptest! {
        #[test]
        fn no_action_panics_and_data_stays_as_it_is(
            data in "(\\{\"a\": ?(\\[(1|null|\\{\"b\":[0-9]\\}|\"x\"),?2?\\]|\\{\"b\": 1.0 \\}|null|7)\\}|\\[\\]|3)",
            at in "/(data|subject|current_context)(/a|/b|/0|/\\*|/~0){0,2}",
            when in "(true|subject == 1|has\\(data.a\\)|data.a.b > 0)",
        ) {
            let spec = json!({"action": "a", "emit": [
                {"event_type": "T", "for_each": [at], "when": when}, {"event_type": "U", "data": at},
            ]});
            let spec: TriggerSpec = serde_json::from_value(spec).unwrap();
            if let (Ok(trigger), Ok(_)) = (Trigger::compile(&spec), serde_json::from_str::<&RawValue>(&data)) {
                let action = action("a", &data);
                for event in derive(&[trigger], &action).unwrap_or_default() {
                    let whole = [action.data.get(), action.current_context.get()];
                    prop_assert!(whole.iter().any(|whole| whole.contains(event.data.get())));
                }
            }
        }
    }
}
