//! Events that wait to be published, in as few messages as may be.

use std::collections::{HashMap, VecDeque};

use postrider_broker::{BrokerError, Names, Outgoing};
use postrider_core::intake::{MAX_MESSAGE_BYTES, MAX_PER_MESSAGE};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::event::Encoded;

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

    /// What is said beside the body. It is the same for all in one message.
    fn beside(&self) -> (String, Option<String>) {
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

/// Events that wait for their turn: nothing is sent by itself that can share a message.
#[derive(Debug, Default)]
pub(crate) struct Line {
    messages: VecDeque<Message>,
    /// How many messages were taken before the first of these.
    taken: usize,
    /// The number of the message that others of this tenant and trace may join.
    open: HashMap<(String, Option<String>), usize>,
}

impl Line {
    /// Puts an event at the end, or into a message that has room for it.
    pub(crate) fn push(&mut self, event: Waiting) {
        let beside = event.beside();
        let open = self.open.get(&beside).and_then(|number| self.messages.get_mut(number - self.taken));
        match open.filter(|message| message.has_room_for(&event)) {
            Some(message) => message.add(event),
            None => {
                self.open.insert(beside, self.taken + self.messages.len());
                self.messages.push_back(Message::of(event));
            }
        }
    }

    /// Takes the first message, without what nobody waits for any more.
    pub(crate) fn take(&mut self) -> Option<Message> {
        while let Some(mut message) = self.messages.pop_front() {
            let number = self.taken;
            self.taken += 1;
            if let Some(beside) = message.events.first().map(Waiting::beside)
                && self.open.get(&beside) == Some(&number)
            {
                self.open.remove(&beside);
            }
            message.events.retain(|waiting| !waiting.confirm.is_closed());
            if !message.events.is_empty() {
                return Some(message);
            }
        }
        None
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
        let packed = std::iter::from_fn(|| line.take()).map(|message| ids(&message)).collect();
        assert!(line.open.is_empty(), "nothing is remembered: {:?}", line.open);
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
    fn what_was_taken_is_not_joined() {
        let mut line = Line::default();
        let mut told = Vec::new();
        let mut push = |line: &mut Line, id: &str, tenant: &str| {
            let (event, confirm) = waiting(&NewEvent::new("A", &()).id(id).tenant(tenant), Instant::now());
            line.push(event);
            told.push(confirm);
        };
        push(&mut line, "a1", "a");
        push(&mut line, "b1", "b");
        assert_eq!(ids(&line.take().unwrap()), ["a1"]);
        push(&mut line, "b2", "b");
        push(&mut line, "a2", "a");
        assert_eq!(ids(&line.take().unwrap()), ["b1", "b2"]);
        push(&mut line, "a3", "a");
        assert_eq!(ids(&line.take().unwrap()), ["a2", "a3"]);
        assert!(line.take().is_none());
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent() {
        let mut line = Line::default();
        let event = |id: &str| waiting(&NewEvent::new("A", &()).id(id), Instant::now());
        let ((left, gone), (stays, _told)) = (event("left"), event("stays"));
        line.push(left);
        line.push(stays);
        drop(gone);
        assert_eq!(ids(&line.take().unwrap()), ["stays"]);
        line.push(event("left").0);
        assert!(line.take().is_none());
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
        let mut message = line.take().unwrap();
        message.give_up(&BrokerError::Lost, |until| until <= soon);
        assert_eq!(ids(&message), ["later"]);
        assert!(matches!(told[0].try_recv(), Ok(Err(BrokerError::Lost))));
        assert!(told[1].try_recv().is_err(), "it is not told yet");
        message.give_up(&BrokerError::Lost, |until| until <= later);
        assert!(message.is_given_up() && message.outgoing(&Names::new("p", 1000)).is_none());
        assert!(matches!(told[1].try_recv(), Ok(Err(BrokerError::Lost))));
    }
}
