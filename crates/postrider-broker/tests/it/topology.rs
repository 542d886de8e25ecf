//! Applying, comparing, refusing.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use postrider_broker::topology::{self, Difference, Topology};
use postrider_broker::{BrokerError, Names};

use crate::open;

#[tokio::test]
async fn applied_twice_it_is_the_same_and_nothing_differs() {
    let (vhost, settings, session) = open("topology", 1000).await;
    let topology = Topology::new(&settings.names(), 1);
    assert_eq!(
        topology.diff(&session).await.unwrap().len(),
        topology.exchanges.len() + topology.queues.len()
    );
    let first = topology::apply(&session, Some(1)).await.unwrap();
    let second = topology::apply(&session, None).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(topology.diff(&session).await.unwrap(), []);
    let mut declared: Vec<String> = vhost.queues().await.into_iter().map(|queue| queue.name).collect();
    let mut expected: Vec<String> = topology.queues.iter().map(|queue| queue.name.clone()).collect();
    declared.sort();
    expected.sort();
    assert_eq!(declared, expected);

    let more = topology::apply(&session, Some(3)).await.unwrap();
    assert_eq!((more.shards, more.most_shards), (3, 3));
    let fewer = topology::apply(&session, Some(2)).await.unwrap();
    assert_eq!((fewer.shards, fewer.most_shards), (2, 3), "what ever existed is still consumed");
}

#[tokio::test]
async fn a_queue_with_another_argument_is_named_with_it() {
    let (vhost, settings, session) = open("inequivalent", 1000).await;
    let names = settings.names();
    let channel = vhost.connect().await.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(7));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(names.dead().as_str().into(), durable, arguments).await.unwrap();

    let error = topology::apply(&session, Some(1)).await.unwrap_err();
    let BrokerError::Inequivalent { name, argument, .. } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), argument.as_str()), (names.dead().as_str(), "x-delivery-limit"));
    let differences = Topology::new(&names, 1).diff(&session).await.unwrap();
    assert!(
        differences.iter().any(|difference| matches!(difference,
            Difference::Other { name, argument, .. } if *name == names.dead() && argument == "x-delivery-limit")),
        "{differences:?}"
    );
    let topology = Topology::new(&names, 1);
    let looked = topology.look(&session).await.unwrap();
    for (queue, looked) in topology.queues.iter().zip(&looked) {
        // Applying stopped there.
        let is_there = queue.name == names.dead() || queue.name == names.poison();
        assert_eq!((looked.depth.is_some(), looked.compared), (is_there, is_there), "{}", queue.name);
        assert_eq!(looked.difference.is_none(), queue.name == names.poison(), "{}", queue.name);
    }
}

#[tokio::test]
async fn a_missing_queue_is_found_and_put_back() {
    let (vhost, settings, session) = open("missing", 1000).await;
    let names: Names = settings.names();
    topology::apply(&session, Some(1)).await.unwrap();
    let channel = vhost.connect().await.create_channel().await.unwrap();
    channel.queue_delete(names.ladder(7).as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let differences = Topology::new(&names, 1).diff(&session).await.unwrap();
    assert_eq!(differences, [Difference::Missing(names.ladder(7))]);
    topology::apply(&session, None).await.unwrap();
    assert_eq!(Topology::new(&names, 1).diff(&session).await.unwrap(), []);
}
