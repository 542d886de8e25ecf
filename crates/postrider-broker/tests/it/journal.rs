//! The journal's numbers have no gaps, whatever happens to its connections.

use postrider_broker::{Journal, Session, topology};
use postrider_core::books::End;
use postrider_core::wire::{self, DoneFact, Fact, JournalMessage};
use postrider_core::{DeliveryId, Timestamp, WebhookId};
use postrider_testkit::chaos::Proxy;
use tokio_util::sync::CancellationToken;

use crate::{metrics, open};

fn fact(n: usize) -> Fact {
    Fact::Done(DoneFact {
        delivery: DeliveryId::from_trusted(n.to_string()),
        series: 1,
        webhook: WebhookId::from_trusted("wh"),
        end: End::Delivered,
        reason: String::new(),
        attempts: 1,
        at: Timestamp::from_millis(0),
        repeats: 0,
    })
}

#[tokio::test]
async fn over_lost_connections_every_fact_arrives_and_numbers_have_no_gap() {
    let (vhost, settings, session) = open("journal", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let names = settings.names();
    let proxy = Proxy::start(&vhost.broker().amqp_address()).await;
    let through = postrider_broker::Settings { url: vhost.url_through(proxy.addr()), ..settings };
    let stop = CancellationToken::new();
    let journal = Journal::start("test", names.clone(), stop.clone());

    const FACTS: usize = 600;
    let records = (0..FACTS).map(|n| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.record(vec![fact(n)]).await })
    });
    let records: Vec<_> = records.collect();
    for _ in 0..3 {
        let lossy = Session::open(&through, &metrics()).await.unwrap();
        journal.over(lossy.publisher());
        proxy.cut().await;
        lossy.lost().await;
        proxy.restore().await;
    }
    journal.over(session.publisher());
    for record in records {
        record.await.unwrap().unwrap();
    }
    stop.cancel();

    let mut messages: Vec<JournalMessage> = vhost
        .take_ready(&names.journal())
        .await
        .iter()
        .map(|taken| wire::decode(&taken.body).unwrap())
        .collect();
    messages.sort_by_key(|message| message.first);
    messages.dedup_by_key(|message| message.first);
    let mut next = 0;
    for message in &messages {
        assert_eq!(message.first, next, "no gap and no overlap");
        assert_eq!(message.writer, journal.writer());
        next += message.facts.len() as u64;
    }
    assert_eq!(next, FACTS as u64);
}
