//! Crash points: every place between two durable steps has a name, and a test can end the process there.
//!
//! In debug builds `POSTRIDER_CRASH_AT=NAME:N` aborts the process the N-th time that it passes NAME. A release has no
//! crash points. `docs/crash-points.md` says of each where it is and what must hold after it.

#[cfg(debug_assertions)]
pub use armed::{POINTS, Point, Repeats};

/// Passes a crash point.
#[cfg(debug_assertions)]
pub fn point(name: &'static str) {
    armed::pass(name);
    crate::fault::at_point(name);
}

/// Passes a crash point: nothing, in a release.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Waits for an answer, and passes a crash point while it waits: what was asked for is out, and nothing is known of it.
pub async fn while_waiting<T>(name: &'static str, answer: impl Future<Output = T>) -> T {
    #[cfg(debug_assertions)]
    if armed::is_chosen(name) {
        let mut answer = std::pin::pin!(answer);
        return match tokio::time::timeout(armed::IN_BETWEEN, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => {
                point(name);
                answer.await
            }
        };
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
    answer.await
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// How long after the request a process is ended that is to end between request and answer.
    pub(super) const IN_BETWEEN: Duration = Duration::from_millis(25);

    /// What a crash at a point may cost the receivers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Repeats {
        /// Nothing: what was done is known, or nothing was done.
        None,
        /// Requests of deliveries that were begun and not settled.
        Begun,
    }

    /// A crash point.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Point {
        /// Its name: the role or the task, and what was just done.
        pub name: &'static str,
        /// What has just been done, and what has not.
        pub place: &'static str,
        /// What must hold after the next start.
        pub after: &'static str,
        /// What it may cost the receivers.
        pub repeats: Repeats,
    }

    const fn free(name: &'static str, place: &'static str, after: &'static str) -> Point {
        Point { name, place, after, repeats: Repeats::None }
    }

    const fn begun(name: &'static str, place: &'static str, after: &'static str) -> Point {
        Point { name, place, after, repeats: Repeats::Begun }
    }

    /// All of them.
    pub const POINTS: &[Point] = &[
        free(
            "router.marker",
            "a router took over and wrote its marker into the seen stream; it has not read it",
            "the next router writes another marker and reads up to that",
        ),
        free("router.read", "events are taken, nothing is decided", "the next router routes them, once"),
        free(
            "router.decided",
            "it is decided what they become, nothing is published",
            "the next router decides again, the same",
        ),
        begun(
            "router.one_confirmed",
            "one message of deliveries is confirmed, others perhaps not",
            "the same delivery ids again: the receiver may see those twice that were sent already; the books count them once",
        ),
        begun(
            "router.facts_confirmed",
            "the facts are confirmed, deliveries perhaps not",
            "the same facts again change nothing; every delivery that is owed is made",
        ),
        begun(
            "router.published",
            "deliveries and facts are confirmed, the ids are not noted as seen",
            "as above, with all of them",
        ),
        free(
            "router.seen",
            "the ids are noted as seen, the events are not acked",
            "the next router drops them as duplicates",
        ),
        free("router.acked", "the events are acked", "nothing is left to do"),
        begun(
            "worker.read",
            "a message is taken and has its slots, nothing is begun",
            "the message comes again; it made no request",
        ),
        begun(
            "worker.begun",
            "a delivery may begin, its request is not made",
            "the same attempt, for the first time",
        ),
        begun(
            "worker.sent",
            "the request is out, there is no answer",
            "the same attempt again: at most one more request, which the log counts as a repeat",
        ),
        begun(
            "worker.answered",
            "the answer is read, nothing is published",
            "the same attempt again: one more request, which the log counts as a repeat",
        ),
        begun(
            "worker.successor_confirmed",
            "the next attempt, the dead letter or the parked delivery is confirmed, the facts perhaps not",
            "a copy of the delivery goes its way beside it, under the same ids; one end in the books, one dead letter",
        ),
        begun(
            "worker.facts_confirmed",
            "the attempt's facts are confirmed, the successor perhaps not",
            "the attempt is made again; a delivered one is sent twice at most, since a worker without a store cannot know; the books count it once",
        ),
        begun(
            "worker.settled",
            "everything of one delivery is confirmed, others of its message perhaps not",
            "each delivery of the message at most once more",
        ),
        begun(
            "worker.all_settled",
            "everything of a message is confirmed, it is not acked",
            "each delivery of it at most once more",
        ),
        begun("worker.acked", "the message is acked", "nothing more for this message"),
        begun(
            "worker.set_apart",
            "a delivery that came back too often is published alone, its message is not acked",
            "it may travel twice, under the same ids",
        ),
        begun(
            "worker.poisoned",
            "a message that is none is confirmed in the poison queue, it is not acked",
            "one dead letter",
        ),
        begun(
            "worker.gave_back",
            "while draining, a message that was not begun is published again, it is not acked",
            "it may travel twice, under the same ids",
        ),
        free("recorder.read", "a batch is gathered, nothing is written", "it comes again and is written"),
        free(
            "recorder.written",
            "a batch is in the transaction, which is not committed",
            "nothing of it is in the books until it comes again",
        ),
        free(
            "recorder.committed",
            "the transaction is committed, nothing is acked",
            "the batch comes again and changes nothing",
        ),
        free(
            "recorder.one_acked",
            "what a batch has of one queue is acked, of others not",
            "the others come again and change nothing",
        ),
        free(
            "snapshot.begun",
            "the beginning of a snapshot is on the config stream, its end is not",
            "readers keep what they have; the next control writes a whole one",
        ),
        free(
            "outbox.config_published",
            "changes of the configuration are confirmed, not marked as sent",
            "they are sent again: the same revisions change nothing",
        ),
        free(
            "outbox.event_published",
            "events of control are confirmed, not removed",
            "they are sent again under the same ids; the router drops them",
        ),
        begun(
            "outbox.delivery_published",
            "redeliveries or released deliveries are confirmed, not removed",
            "they may travel twice, under the same ids and series",
        ),
        free("outbox.marked", "rows of the outbox are marked or removed", "nothing is sent again"),
        free(
            "release.written",
            "series are released in the transaction, which is not committed",
            "they are still held, and released at the next look",
        ),
        free(
            "release.committed",
            "series are released and in the outbox, nothing is published",
            "they are sent",
        ),
        free(
            "replays.chosen",
            "a piece of a plan is in the transaction, which is not committed",
            "the piece is looked at again",
        ),
        free(
            "replays.chosen_committed",
            "a piece of a plan is committed",
            "planning goes on behind it: each delivery is chosen once",
        ),
        free(
            "replays.written",
            "deliveries of a replay are made again in the transaction, which is not committed",
            "they are still chosen, and made once",
        ),
        free(
            "replays.committed",
            "deliveries of a replay are made again and in the outbox, nothing is published",
            "they are sent, and not made again",
        ),
        free(
            "reminders.written",
            "reminders are marked and their events in the outbox, not committed",
            "they are due and are sent once",
        ),
        free(
            "reminders.committed",
            "reminders are marked and their events in the outbox, committed",
            "the events are sent once",
        ),
        free(
            "api.events_confirmed",
            "the events of a request are confirmed, the client has no answer",
            "sent again under the same ids they are accepted once",
        ),
        free(
            "api.committed",
            "a change is committed, the client has no answer",
            "the same Idempotency-Key gives the same answer; there is one such object",
        ),
    ];

    struct Chosen {
        name: String,
        n: u64,
    }

    fn chosen() -> Option<&'static Chosen> {
        static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
        let read = || {
            let text = std::env::var("POSTRIDER_CRASH_AT").ok()?;
            let read = text.split_once(':').and_then(|(name, n)| {
                let known = POINTS.iter().any(|point| point.name == name);
                known.then_some(Chosen { name: name.to_owned(), n: n.parse().ok()? })
            });
            assert!(
                read.is_some(),
                "POSTRIDER_CRASH_AT={text}: it must be the name of a crash point, a colon and a number"
            );
            read
        };
        CHOSEN.get_or_init(read).as_ref()
    }

    pub(super) fn is_chosen(name: &str) -> bool {
        chosen().is_some_and(|chosen| chosen.name == name)
    }

    pub(super) fn pass(name: &'static str) {
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let Some(chosen) = chosen().filter(|chosen| chosen.name == name) else { return };
        if PASSED.fetch_add(1, Ordering::Relaxed) + 1 == chosen.n {
            tracing::warn!(name, n = chosen.n, "crash on purpose");
            std::process::abort();
        }
    }
}
