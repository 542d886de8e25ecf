//! Events that wait to be published, in as few messages as may be.

use std::collections::{HashMap, VecDeque};

use postrider_broker::{BrokerError, Names, Outgoing};
use postrider_core::intake::{MAX_MESSAGE_BYTES, MAX_PER_MESSAGE};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::event::Encoded;

/// Messages of one tenant and trace that are under way at a time. What comes beyond waits for one of them, and shares its message.
const PER_KEY: usize = 8;

/// What is said beside the body, and is the same for all in one message: the tenant, and the trace.
pub(crate) type Key = (String, Option<String>);

/// An event whose caller waits until it is confirmed.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) event: Encoded,
    /// How long the caller waits.
    pub(crate) until: Instant,
    /// Tells the caller.
    pub(crate) confirm: oneshot::Sender<Result<(), BrokerError>>,
    /// Its place in line, which another gets after it.
    pub(crate) _place: OwnedSemaphorePermit,
}

impl Waiting {
    fn tell(self, result: Result<(), BrokerError>) {
        // A caller that does not wait any more is not told.
        drop(self.confirm.send(result));
    }

    fn key(&self) -> Key {
        (self.event.tenant.clone(), self.event.traceparent.clone())
    }
}

/// Events that are published in one message: at least one, until all are given up.
#[derive(Debug)]
pub(crate) struct Message {
    events: Vec<Waiting>,
    /// Bytes of the message.
    bytes: usize,
}

impl Message {
    fn of(event: Waiting) -> Self {
        let bytes = "[]".len() + event.event.body.len();
        Self { events: vec![event], bytes }
    }

    fn has_room_for(&self, event: &Waiting) -> bool {
        let bytes = self.bytes + ",".len() + event.event.body.len();
        self.events.len() < MAX_PER_MESSAGE && bytes <= MAX_MESSAGE_BYTES
    }

    fn add(&mut self, event: Waiting) {
        self.bytes += ",".len() + event.event.body.len();
        self.events.push(event);
    }

    /// As it is published: one event as it is, several as an array. Nothing where all are given up.
    pub(crate) fn outgoing(&self, names: &Names) -> Option<Outgoing> {
        let first = &self.events.first()?.event;
        let body = match self.events.as_slice() {
            [alone] => alone.event.body.clone(),
            events => {
                let bodies: Vec<&[u8]> = events.iter().map(|waiting| waiting.event.body.as_slice()).collect();
                [b"[".as_slice(), &bodies.join(b",".as_slice()), b"]"].concat()
            }
        };
        let message = Outgoing::json(names.events(), first.tenant.as_str(), body, first.id.as_str());
        Some(match &first.traceparent {
            Some(traceparent) => message.header("traceparent", traceparent.as_str()),
            None => message,
        })
    }

    /// The broker has it.
    pub(crate) fn confirmed(self) {
        self.events.into_iter().for_each(|waiting| waiting.tell(Ok(())));
    }

    /// Tells those why it failed who wait too short for another try, and forgets who does not wait any more. The others stay.
    pub(crate) fn give_up(&mut self, cause: &BrokerError, too_short: impl Fn(Instant) -> bool) {
        for waiting in
            self.events.extract_if(.., |waiting| waiting.confirm.is_closed() || too_short(waiting.until))
        {
            waiting.tell(Err(cause.clone()));
        }
    }

    /// Whether nobody stayed.
    pub(crate) fn is_given_up(&self) -> bool {
        self.events.is_empty()
    }
}

/// Events that wait for their turn. What can share a message waits together, and all that may send a message take turns.
#[derive(Debug, Default)]
pub(crate) struct Line {
    lanes: HashMap<Key, Lane>,
    /// Whose turn it is: each key once that has a message and may send it.
    turns: VecDeque<Key>,
}

/// The events of one tenant and trace.
#[derive(Debug, Default)]
struct Lane {
    messages: VecDeque<Message>,
    under_way: usize,
    has_turn: bool,
}

impl Lane {
    /// Whether it is to be given a turn.
    fn wants_turn(&self) -> bool {
        !self.has_turn && !self.messages.is_empty() && self.under_way < PER_KEY
    }
}

impl Line {
    /// Puts an event at the end of what waits of its key.
    pub(crate) fn push(&mut self, event: Waiting) {
        let key = event.key();
        let lane = self.lanes.entry(key.clone()).or_default();
        match lane.messages.back_mut().filter(|message| message.has_room_for(&event)) {
            Some(message) => message.add(event),
            None => lane.messages.push_back(Message::of(event)),
        }
        self.give_turn(key);
    }

    /// Takes the next message that may be sent, without what nobody waits for any more. It is under way until [`Self::done`].
    pub(crate) fn take(&mut self) -> Option<(Key, Message)> {
        while let Some(key) = self.turns.pop_front() {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            lane.has_turn = false;
            while let Some(mut message) = lane.messages.pop_front() {
                message.events.retain(|waiting| !waiting.confirm.is_closed());
                if !message.events.is_empty() {
                    lane.under_way += 1;
                    self.give_turn(key.clone());
                    return Some((key, message));
                }
            }
            self.give_turn(key);
        }
        None
    }

    /// A message of this key is not under way any more.
    pub(crate) fn done(&mut self, key: Key) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.under_way = lane.under_way.saturating_sub(1);
        }
        self.give_turn(key);
    }

    /// Gives a key its turn, if it may have one. What has nothing any more is forgotten.
    fn give_turn(&mut self, key: Key) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        if lane.wants_turn() {
            lane.has_turn = true;
            self.turns.push_back(key);
        } else if lane.messages.is_empty() && lane.under_way == 0 {
            self.lanes.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use postrider_core::intake::{Envelope, Parts, read};
    use postrider_core::{EventId, Timestamp};
    use tokio::sync::Semaphore;
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::NewEvent;

    const NOW: Timestamp = Timestamp::from_millis(1_763_755_200_000);

    fn waiting(event: &NewEvent, until: Instant) -> (Waiting, Receiver<Result<(), BrokerError>>) {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (confirm, told) = oneshot::channel();
        (Waiting { event: event.encode(NOW).unwrap(), until, confirm, _place: place }, told)
    }

    /// The ids in a message, read as the router reads them.
    fn ids(message: &Message) -> Vec<String> {
        let message = message.outgoing(&Names::new("p", 1000)).unwrap();
        assert!(message.body.len() <= MAX_MESSAGE_BYTES);
        let made = EventId::from_trusted("made");
        let envelope = Envelope { routing_key: &message.routing_key, ..Envelope::default() };
        let parts = Parts::of(&envelope, &message.body);
        let reports =
            parts.each(envelope, &message.body).map(|(e, body)| read(e, body, NOW, made.clone()).unwrap());
        reports.map(|report| report.id().to_string()).collect()
    }

    /// The ids in each message.
    fn packed(events: Vec<NewEvent>) -> Vec<Vec<String>> {
        let mut line = Line::default();
        let mut told = Vec::new();
        for event in events {
            let (event, confirm) = waiting(&event, Instant::now());
            line.push(event);
            told.push(confirm);
        }
        let mut packed = Vec::new();
        while let Some((key, message)) = line.take() {
            packed.push(ids(&message));
            line.done(key);
        }
        assert!(line.lanes.is_empty() && line.turns.is_empty(), "nothing is remembered: {line:?}");
        packed
    }

    #[test]
    fn a_message_holds_what_fits_and_no_more() {
        let small = |n: usize| NewEvent::new("A", &n).id(format!("e{n}"));
        let lengths: Vec<usize> = packed((0..201).map(small).collect()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_PER_MESSAGE, MAX_PER_MESSAGE, 1]);
        let large = |n: usize| NewEvent::new("A", &"x".repeat(100 * 1024)).id(format!("e{n}"));
        assert_eq!(packed((0..3).map(large).collect()), [vec!["e0", "e1"], vec!["e2"]]);
    }

    #[test]
    fn a_message_is_full_at_the_limit_to_the_byte() {
        let empty = NewEvent::new("A", "").id("a").encode(NOW).unwrap().body.len();
        let most = MAX_MESSAGE_BYTES - "[,]".len() - 2 * empty;
        let event = |id: &str, bytes: usize| NewEvent::new("A", &"x".repeat(bytes)).id(id);
        let pair = |bytes: usize| packed(vec![event("a", most / 2), event("b", bytes)]).len();
        assert_eq!((pair(most - most / 2), pair(most - most / 2 + 1)), (1, 2));
    }

    #[test]
    fn tenants_and_traces_do_not_share_a_message() {
        const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let event = |id: &str, tenant: &str| NewEvent::new("A", &()).id(id).tenant(tenant);
        let events = vec![
            event("a1", "a"),
            event("b1", "b"),
            event("a2", "a"),
            event("a3", "a").traceparent(TRACE),
            event("b2", "b"),
        ];
        assert_eq!(packed(events), [vec!["a1", "a2"], vec!["b1", "b2"], vec!["a3"]]);
    }

    #[test]
    fn keys_take_turns_and_each_has_so_many_under_way() {
        let mut line = Line::default();
        let mut told = Vec::new();
        let mut push = |line: &mut Line, id: &str, tenant: &str| {
            let (event, confirm) = waiting(&NewEvent::new("A", &()).id(id).tenant(tenant), Instant::now());
            line.push(event);
            told.push(confirm);
        };
        let mut under_way = Vec::new();
        for n in 0..PER_KEY {
            push(&mut line, &format!("a{n}"), "a");
            let (key, message) = line.take().unwrap();
            assert_eq!(ids(&message), [format!("a{n}")], "alone, at once");
            under_way.push(key);
        }
        for n in 0..MAX_PER_MESSAGE + 1 {
            push(&mut line, &format!("more{n}"), "a");
        }
        assert!(line.take().is_none(), "as many as may be are under way");
        push(&mut line, "b", "b");
        let (b, message) = line.take().unwrap();
        assert_eq!(ids(&message), ["b"], "another tenant does not wait");
        line.done(b);
        line.done(under_way.pop().unwrap());
        line.done(under_way.pop().unwrap());
        push(&mut line, "c", "c");
        let lengths: Vec<usize> = std::iter::from_fn(|| line.take())
            .map(|(key, message)| {
                under_way.push(key);
                ids(&message).len()
            })
            .collect();
        assert_eq!(lengths, [MAX_PER_MESSAGE, 1, 1], "c has its turn between those of a");
        assert_eq!(under_way[PER_KEY - 1].0, "c");
        under_way.into_iter().for_each(|key| line.done(key));
        assert!(line.lanes.is_empty() && line.turns.is_empty());
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent() {
        let mut line = Line::default();
        let event = |id: &str| waiting(&NewEvent::new("A", &()).id(id), Instant::now());
        let ((left, gone), (stays, _told)) = (event("left"), event("stays"));
        line.push(left);
        line.push(stays);
        drop(gone);
        let (key, message) = line.take().unwrap();
        assert_eq!(ids(&message), ["stays"]);
        line.done(key);
        line.push(event("left").0);
        assert!(line.take().is_none() && line.lanes.is_empty());
    }

    #[test]
    fn those_who_wait_longer_stay_when_others_give_up() {
        let soon = Instant::now();
        let (mut line, later) = (Line::default(), soon + Duration::from_millis(1));
        let mut told = Vec::new();
        for (id, until) in [("soon", soon), ("later", later)] {
            let (event, confirm) = waiting(&NewEvent::new("A", &()).id(id), until);
            line.push(event);
            told.push(confirm);
        }
        let (_, mut message) = line.take().unwrap();
        message.give_up(&BrokerError::Lost, |until| until <= soon);
        assert_eq!(ids(&message), ["later"]);
        assert!(matches!(told[0].try_recv(), Ok(Err(BrokerError::Lost))));
        assert!(told[1].try_recv().is_err(), "it is not told yet");
        message.give_up(&BrokerError::Lost, |until| until <= later);
        assert!(message.is_given_up() && message.outgoing(&Names::new("p", 1000)).is_none());
        assert!(matches!(told[1].try_recv(), Ok(Err(BrokerError::Lost))));
    }
}
