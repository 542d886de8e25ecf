use super::*;
use crate::outcome::Unreachable;
use crate::pace::{RUNGS_SECS, SLOW_MS};
use proptest::prelude::*;

const LIMITS: Limits = Limits { most: 4, per_second: None, first_retry_ms: 6_000 };
const ASKING: Asking =
    Asking { lane: 0, retried: false, test: false, batched: false, may_wait: true, left_ms: u64::MAX };

fn scene(ms: i64) -> Scene {
    let (now, chance) = (Timestamp::from_millis(ms), Chance::MIDDLE);
    Scene {
        now,
        chance,
        workers: 1,
        backlogged: 1,
        places: 8,
        slow_most: 100,
        slow_share: 100,
        slow_room: true,
        scarce: false,
    }
}

fn well(took_ms: u64) -> End {
    End::of(&Outcome::Delivered { status: 200 }, 1, true, took_ms)
}

fn timeout(delivery: u64) -> End {
    End::of(&Outcome::Unreachable(Unreachable::Timeout), delivery, true, 15_000)
}

fn start(pacer: &mut Pacer, scene: &Scene, limits: Limits, asking: Asking) -> Ticket {
    match pacer.ask(scene, limits, asking) {
        Answer::Start(ticket) => ticket,
        other => panic!("it does not start: {other:?}"),
    }
}

fn refused(answer: Answer) -> Refusal {
    match answer {
        Answer::Refuse(refusal) => refusal,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[test]
fn what_does_not_fit_waits_while_its_turn_is_near_and_is_parked_when_it_is_not() {
    let mut pacer = Pacer::default();
    let tickets: Vec<_> = (0..4).map(|_| start(&mut pacer, &scene(0), LIMITS, ASKING)).collect();
    for _ in 0..8 {
        assert_eq!(pacer.ask(&scene(0), LIMITS, ASKING), Answer::Wait);
    }
    assert_eq!(refused(pacer.ask(&scene(0), LIMITS, ASKING)).why, Reason::Full, "the room is full");
    // A request takes 200 ms: four of them begin each 200 ms, so the sixth in line would wait too long.
    for ticket in tickets {
        pacer.ended(Timestamp::from_millis(200), LIMITS, ticket, well(200));
    }
    let mut begun = Vec::new();
    while let Some(call) = pacer.call(Timestamp::from_millis(200), LIMITS) {
        let Call::Begin(0, ticket) = call else { panic!("{call:?}") };
        begun.push(ticket);
    }
    assert_eq!(begun.len(), 4);
    assert_eq!(pacer.ask(&scene(200), LIMITS, ASKING), Answer::Wait);
    assert_eq!(refused(pacer.ask(&scene(200), LIMITS, ASKING)).why, Reason::Full, "its turn is not near");
    let no_wait = Asking { may_wait: false, ..ASKING };
    assert_eq!(refused(pacer.ask(&scene(200), LIMITS, no_wait)).rung_secs, 1);
}

#[test]
fn retry_after_silences_the_whole_webhook_for_an_hour_at_most() {
    let mut pacer = Pacer::default();
    let (now, busy) =
        (Timestamp::from_millis(0), |retry_after_ms| Outcome::Busy { status: 429, retry_after_ms });
    let ticket = start(&mut pacer, &scene(0), LIMITS, ASKING);
    let other = start(&mut pacer, &scene(0), LIMITS, ASKING);
    pacer.ended(now, LIMITS, ticket, End::of(&busy(Some(5_000)), 1, true, 10));
    pacer.ended(now, LIMITS, other, well(10));
    let refusal = refused(pacer.ask(&scene(1), LIMITS, ASKING));
    assert_eq!((refusal.why, refusal.rung_secs), (Reason::RetryAfter, 5));
    refused(pacer.ask(&scene(4_999), LIMITS, Asking { may_wait: false, ..ASKING }));
    assert_eq!(pacer.ask(&scene(4_750), LIMITS, ASKING), Answer::Wait, "the end is near");
    assert_eq!(pacer.call(Timestamp::from_millis(4_999), LIMITS), None);
    assert_eq!(pacer.call_in_ms(Timestamp::from_millis(4_999), LIMITS), Some(1));
    pacer.leave(0);
    assert!(matches!(pacer.ask(&scene(1), LIMITS, Asking { test: true, ..ASKING }), Answer::Start(_)));
    let ticket = start(&mut pacer, &scene(5_000), LIMITS, ASKING);
    pacer.ended(Timestamp::from_millis(5_000), LIMITS, ticket, End::of(&busy(Some(u64::MAX)), 1, true, 10));
    refused(pacer.ask(&scene(3_604_000), LIMITS, ASKING));
    assert!(matches!(pacer.ask(&scene(3_605_000), LIMITS, ASKING), Answer::Start(_)));
}

#[test]
fn a_slow_webhook_never_waits_is_taken_out_of_batches_and_has_what_slow_ones_may_have() {
    let mut pacer = Pacer::default();
    let ticket = start(&mut pacer, &scene(0), LIMITS, ASKING);
    let late = scene(SLOW_MS as i64 + 1);
    let batched = Asking { batched: true, ..ASKING };
    assert!(!ticket.slow);
    assert!(matches!(pacer.ask(&scene(0), LIMITS, batched), Answer::Start(_)), "not slow yet");
    assert_eq!(pacer.ask(&late, LIMITS, batched), Answer::Apart);
    assert!(start(&mut pacer, &late, LIMITS, ASKING).slow);
    let few = Scene { slow_most: 3, ..late };
    assert_eq!(refused(pacer.ask(&few, LIMITS, ASKING)).why, Reason::Slow);
    assert_eq!(refused(pacer.ask(&few, LIMITS, batched)).why, Reason::Slow, "not even apart");
    let no_room = Scene { slow_room: false, ..late };
    assert_eq!(refused(pacer.ask(&no_room, LIMITS, ASKING)).why, Reason::Slow, "the rest is for others");
    assert!(start(&mut pacer, &late, LIMITS, ASKING).slow);
    assert_eq!(refused(pacer.ask(&late, LIMITS, ASKING)).why, Reason::Full);
    assert!(pacer.state(late.now).slow);
}

#[test]
fn while_slow_slots_are_scarce_only_who_answered_lately_has_quick_ones() {
    let mut pacer = Pacer::default();
    let scarce = |ms| Scene { scarce: true, slow_room: false, ..scene(ms) };
    let batched = Asking { batched: true, ..ASKING };
    assert_eq!(pacer.ask(&scarce(0), LIMITS, batched), Answer::Apart);
    let ticket = start(&mut pacer, &scarce(0), LIMITS, ASKING);
    assert!(ticket.slow, "nobody knows");
    assert_eq!(
        refused(pacer.ask(&scarce(251), LIMITS, ASKING)).why,
        Reason::Slow,
        "it takes longer than a moment"
    );
    pacer.ended(Timestamp::from_millis(300), LIMITS, ticket, well(300));
    let ticket = start(&mut pacer, &scarce(301), LIMITS, batched);
    assert!(!ticket.slow, "it answered");
    pacer.ended(Timestamp::from_millis(310), LIMITS, ticket, well(9));
    assert!(start(&mut pacer, &scarce(70_000), LIMITS, ASKING).slow, "that was long ago");
}

#[test]
fn those_who_wait_ask_again_when_the_webhook_becomes_slow_or_is_silenced() {
    for silenced in [true, false] {
        let mut pacer = Pacer::default();
        let tickets: Vec<_> = (0..4).map(|_| start(&mut pacer, &scene(0), LIMITS, ASKING)).collect();
        assert_eq!(pacer.ask(&scene(0), LIMITS, ASKING), Answer::Wait);
        assert_eq!(pacer.call(Timestamp::from_millis(10), LIMITS), None);
        let outcome = Outcome::Busy { status: 503, retry_after_ms: silenced.then_some(2_000) };
        let at = Timestamp::from_millis(if silenced { 10 } else { 1_200 });
        pacer.ended(at, LIMITS, tickets[0], End::of(&outcome, 1, true, 10));
        assert_eq!(pacer.call(at, LIMITS), Some(Call::Again(0)));
        assert_eq!(pacer.call(at, LIMITS), None);
    }
}

#[test]
fn an_open_breaker_parks_and_its_probe_travels_alone() {
    let mut pacer = Pacer::default();
    for delivery in 0..10 {
        let ticket = start(&mut pacer, &scene(0), LIMITS, ASKING);
        pacer.ended(Timestamp::from_millis(0), LIMITS, ticket, timeout(delivery));
    }
    let refusal = refused(pacer.ask(&scene(1), LIMITS, ASKING));
    assert_eq!(refusal.why, Reason::Breaker);
    assert!([1, 5].contains(&refusal.rung_secs));
    assert!(pacer.state(Timestamp::from_millis(1)).breaker);
    assert_eq!(pacer.ask(&scene(5_000), LIMITS, Asking { batched: true, ..ASKING }), Answer::Apart);
    let probe = start(&mut pacer, &scene(5_000), LIMITS, ASKING);
    assert_eq!(refused(pacer.ask(&scene(5_000), LIMITS, ASKING)).why, Reason::Breaker, "one probe");
    pacer.undo(Timestamp::from_millis(5_100), probe);
    let probe = start(&mut pacer, &scene(5_100), LIMITS, ASKING);
    // A probe counts, whoever asked for it.
    pacer.ended(Timestamp::from_millis(5_110), LIMITS, probe, End { counts: false, ..well(10) });
    let ticket = start(&mut pacer, &scene(5_111), LIMITS, ASKING);
    let no_wait = Asking { may_wait: false, ..ASKING };
    assert_eq!(refused(pacer.ask(&scene(5_111), LIMITS, no_wait)).why, Reason::Full, "one at first");
    pacer.ended(Timestamp::from_millis(5_120), LIMITS, ticket, well(10));
    let _two =
        [start(&mut pacer, &scene(5_121), LIMITS, ASKING), start(&mut pacer, &scene(5_121), LIMITS, ASKING)];
    assert_eq!(refused(pacer.ask(&scene(5_121), LIMITS, no_wait)).why, Reason::Full, "then two");
}

#[test]
fn what_somebody_asked_for_says_nothing_of_the_receiver() {
    let mut pacer = Pacer::default();
    for delivery in 0..100 {
        let ticket = start(&mut pacer, &scene(0), LIMITS, ASKING);
        pacer.ended(Timestamp::from_millis(0), LIMITS, ticket, End { counts: false, ..timeout(delivery) });
    }
    assert!(!pacer.state(Timestamp::from_millis(0)).breaker);
}

#[test]
fn lanes_take_turns_and_the_hungry_have_a_part_kept() {
    let mut pacer = Pacer::default();
    let limits = Limits { most: 8, ..LIMITS };
    // Everything is taken by fresh deliveries of a webhook that hangs, and a retry finds no room.
    let mut fresh: Vec<_> = (0..8).map(|_| start(&mut pacer, &scene(0), limits, ASKING)).collect();
    let retry = Asking { lane: 1, ..ASKING };
    assert_eq!(refused(pacer.ask(&scene(2_000), limits, retry)).why, Reason::Full);
    let mut end =
        |pacer: &mut Pacer, ms| pacer.ended(Timestamp::from_millis(ms), limits, fresh.remove(0), well(10));
    end(&mut pacer, 2_000);
    assert_eq!(refused(pacer.ask(&scene(2_001), limits, ASKING)).why, Reason::Full, "kept for the retry");
    let got = start(&mut pacer, &scene(2_002), limits, retry);
    end(&mut pacer, 2_003);
    refused(pacer.ask(&scene(2_003), limits, ASKING));
    end(&mut pacer, 2_003);
    let _fresh = start(&mut pacer, &scene(2_004), limits, ASKING);
    pacer.ended(Timestamp::from_millis(2_005), limits, got, well(10));

    // Those who wait are called in turns.
    let mut pacer = Pacer::default();
    let one = Limits { most: 1, ..LIMITS };
    let mut ticket = start(&mut pacer, &scene(0), one, ASKING);
    for _ in 0..4 {
        assert_eq!(pacer.ask(&scene(0), one, ASKING), Answer::Wait);
    }
    for lane in 1..LANES {
        assert_eq!(pacer.ask(&scene(0), one, Asking { lane, ..ASKING }), Answer::Wait);
    }
    let mut called = Vec::new();
    loop {
        pacer.ended(Timestamp::from_millis(1), one, ticket, well(10));
        match pacer.call(Timestamp::from_millis(1), one) {
            Some(Call::Begin(lane, next)) => {
                called.push(lane);
                ticket = next;
            }
            other => {
                assert_eq!(other, None);
                break;
            }
        }
    }
    assert_eq!(called, [1, 2, 0, 0, 0, 0]);
}

#[test]
fn a_rate_is_waited_for_in_place_when_its_token_is_near() {
    let mut pacer = Pacer::default();
    let limits = Limits { most: 100, per_second: Some(10.0), ..LIMITS };
    let _first = start(&mut pacer, &scene(0), limits, ASKING);
    assert_eq!(pacer.ask(&scene(0), limits, ASKING), Answer::Wait);
    assert_eq!(pacer.ask(&scene(0), limits, ASKING), Answer::Wait);
    let refusal = refused(pacer.ask(&scene(0), limits, ASKING));
    assert_eq!(refusal.why, Reason::Rate, "300 ms");
    assert_eq!(pacer.call_in_ms(Timestamp::from_millis(0), limits), Some(100));
    assert_eq!(pacer.call(Timestamp::from_millis(99), limits), None);
    assert!(matches!(pacer.call(Timestamp::from_millis(100), limits), Some(Call::Begin(0, _))));
    pacer.leave(0);
    assert_eq!(pacer.call_in_ms(Timestamp::from_millis(100), limits), None);
}

#[test]
fn what_is_at_rest_is_forgotten_and_what_is_not_is_not() {
    let mut pacer = Pacer::default();
    let ticket = start(&mut pacer, &scene(0), LIMITS, ASKING);
    assert!(!pacer.state(Timestamp::from_millis(1_000_000)).idle, "in flight");
    pacer.ended(Timestamp::from_millis(10), LIMITS, ticket, well(10));
    assert!(!pacer.state(Timestamp::from_millis(60_000)).idle);
    assert!(pacer.state(Timestamp::from_millis(120_011)).idle);
}

/// What may happen to a webhook.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask(Asking),
    End(usize, u8),
    Undo(usize),
    Leave(usize),
}

fn events() -> impl Strategy<Value = Vec<(u64, f64, Event)>> {
    let asking = (0..LANES, prop::bool::weighted(0.02), any::<bool>(), any::<bool>()).prop_map(
        |(lane, test, batched, may_wait)| {
            Event::Ask(Asking { lane, retried: lane == 1, test, batched, may_wait, left_ms: 10_000_000 })
        },
    );
    let event = prop_oneof![
        6 => asking,
        5 => (0usize..30, 0u8..12).prop_map(|(which, how)| Event::End(which, how)),
        1 => (0usize..30).prop_map(Event::Undo),
        1 => (0..LANES).prop_map(Event::Leave),
    ];
    let step = prop_oneof![8 => 0u64..20, 2 => 0u64..2_000, 1 => 0u64..40_000];
    prop::collection::vec((step, 0.0f64..1.0, event), 1..500)
}

proptest! {
    /// A virtual clock runs any history over one webhook: its caps, its rate, its silence and its breaker hold, whoever asks.
    #[test]
    fn no_history_breaks_a_cap(
        events in events(), most in 1u32..12, rate in prop::option::of(0.5f64..50.0), slow_most in 1u32..12,
        (scarce, slow_room) in any::<(bool, bool)>(),
    ) {
        let limits = Limits { most, per_second: rate, ..LIMITS };
        let mut pacer = Pacer::default();
        let mut now = Timestamp::from_millis(1_700_000_000_000);
        let mut open: Vec<(Ticket, bool)> = Vec::new();
        let mut begun: Vec<Timestamp> = Vec::new();
        let mut undone = 0;
        let mut waiting = [0u32; LANES];
        let mut silent_until = now;
        for (step, draw, event) in events {
            now = now.plus_ms(step);
            let chance = Chance::new(draw);
            let scene = Scene { now, chance, workers: 2, backlogged: 3, places: 8, slow_most, slow_share: slow_most, slow_room, scarce };
            match event {
                Event::Ask(asking) => match pacer.ask(&scene, limits, asking) {
                    Answer::Start(ticket) => {
                        prop_assert!(asking.test || now >= silent_until, "it was to be silent");
                        open.push((ticket, asking.test));
                        if !asking.test && !ticket.probe { begun.push(now) }
                    }
                    Answer::Wait => {
                        prop_assert!(asking.may_wait);
                        waiting[asking.lane] += 1;
                        prop_assert!(waiting[asking.lane] <= scene.places);
                    }
                    Answer::Apart => prop_assert!(asking.batched),
                    Answer::Refuse(refusal) => prop_assert!(RUNGS_SECS.contains(&refusal.rung_secs)),
                },
                Event::End(which, how) if which < open.len() => {
                    let (ticket, test) = open.remove(which);
                    let outcome = match how {
                        0..5 => Outcome::Delivered { status: 200 },
                        5 => Outcome::Busy { status: 429, retry_after_ms: Some(3_000) },
                        6 => Outcome::Unreachable(Unreachable::Internal),
                        _ => Outcome::Failed { status: 500 },
                    };
                    if how == 5 { silent_until = silent_until.max(now.plus_ms(3_000)) }
                    pacer.ended(now, limits, ticket, End::of(&outcome, u64::from(how), !test, 10));
                }
                Event::Undo(which) if which < open.len() => {
                    pacer.undo(now, open.remove(which).0);
                    undone += 1;
                }
                Event::Leave(lane) if waiting[lane] > 0 => { pacer.leave(lane); waiting[lane] -= 1 }
                Event::End(..) | Event::Undo(_) | Event::Leave(_) => {}
            }
            while let Some(call) = pacer.call(now, limits) {
                let lane = match call {
                    Call::Begin(lane, ticket) => {
                        prop_assert!(now >= silent_until);
                        open.push((ticket, false));
                        begun.push(now);
                        lane
                    }
                    Call::Again(lane) => lane,
                };
                prop_assert!(waiting[lane] > 0);
                waiting[lane] -= 1;
            }
            let counted = open.iter().filter(|(ticket, test)| !test && !ticket.probe).count() as u32;
            prop_assert!(counted <= most, "{counted} of {most}");
            prop_assert!(open.iter().filter(|(ticket, _)| ticket.probe).count() <= 1 || counted == 0);
            prop_assert_eq!(pacer.all_in_flight() as usize, open.len());
        }
        if let (Some(rate), Some(first), Some(last)) = (rate, begun.first(), begun.last()) {
            let allowed = last.since_ms(*first) as f64 * rate / 1000.0 + (rate / 10.0).max(1.0) + f64::from(undone);
            prop_assert!(begun.len() as f64 <= allowed + 1e-6, "{} begun, {allowed} allowed", begun.len());
        }
    }
}
