//! Several events in one message.

use std::collections::HashMap;

use postrider_broker::{Names, Outgoing};
use postrider_core::EventId;
use postrider_core::intake::{MAX_MESSAGE_BYTES, MAX_PER_MESSAGE};

use crate::event::Encoded;

/// Events that are published in one message, each with its place in the list that the caller gave. There is at least one.
#[derive(Debug)]
pub(crate) struct Message {
    events: Vec<(usize, Encoded)>,
    /// Bytes of the message.
    bytes: usize,
}

impl Message {
    /// One event, which others may join.
    pub(crate) fn of(place: usize, event: Encoded) -> Self {
        let bytes = "[]".len() + event.body.len();
        Self { events: vec![(place, event)], bytes }
    }

    fn has_room_for(&self, event: &Encoded) -> bool {
        self.events.len() < MAX_PER_MESSAGE && self.bytes + ",".len() + event.body.len() <= MAX_MESSAGE_BYTES
    }

    fn add(&mut self, place: usize, event: Encoded) {
        self.bytes += ",".len() + event.body.len();
        self.events.push((place, event));
    }

    /// As it is published: one event as it is, several as an array.
    pub(crate) fn outgoing(&self, names: &Names) -> Outgoing {
        let body = match self.events.as_slice() {
            [(_, event)] => event.body.clone(),
            events => {
                let bodies: Vec<&[u8]> = events.iter().map(|(_, event)| event.body.as_slice()).collect();
                [b"[".as_slice(), &bodies.join(b",".as_slice()), b"]"].concat()
            }
        };
        let first = &self.events[0].1;
        let message = Outgoing::json(names.events(), first.tenant.as_str(), body, first.id.as_str());
        match &first.traceparent {
            Some(traceparent) => message.header("traceparent", traceparent.as_str()),
            None => message,
        }
    }

    /// The ids of its events, by their places.
    pub(crate) fn ids(self) -> impl Iterator<Item = (usize, EventId)> {
        self.events.into_iter().map(|(place, event)| (place, event.id))
    }
}

/// Puts events into as few messages as may be. What is said beside the body is the same for all in one.
pub(crate) fn pack(events: impl IntoIterator<Item = (usize, Encoded)>) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    let mut open: HashMap<(String, Option<String>), usize> = HashMap::new();
    for (place, event) in events {
        let beside = (event.tenant.clone(), event.traceparent.clone());
        match open.get(&beside).and_then(|&at| messages.get_mut(at)).filter(|last| last.has_room_for(&event))
        {
            Some(last) => last.add(place, event),
            None => {
                open.insert(beside, messages.len());
                messages.push(Message::of(place, event));
            }
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use postrider_core::Timestamp;
    use postrider_core::intake::{Envelope, Parts, read};

    use super::*;
    use crate::NewEvent;

    const NOW: Timestamp = Timestamp::from_millis(1_763_755_200_000);

    /// The ids in each message, read as the router reads them.
    fn packed(events: Vec<NewEvent>) -> Vec<Vec<String>> {
        let encoded = events.into_iter().map(|event| event.encode(NOW).unwrap()).enumerate();
        let read_back = |packed: Message| {
            let message = packed.outgoing(&Names::new("p", 1000));
            assert!(message.body.len() <= MAX_MESSAGE_BYTES);
            let made = EventId::from_trusted("made");
            let envelope = Envelope { routing_key: &message.routing_key, ..Envelope::default() };
            let parts = Parts::of(&envelope, &message.body);
            let reports = parts
                .each(envelope, &message.body)
                .map(|(e, body)| read(e, body, NOW, made.clone()).unwrap());
            let ids: Vec<String> = reports.map(|report| report.id().to_string()).collect();
            let told: Vec<String> = packed.ids().map(|(_, id)| id.to_string()).collect();
            assert_eq!(ids, told);
            ids
        };
        pack(encoded).into_iter().map(read_back).collect()
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
}
