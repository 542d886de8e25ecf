use lapin::{
    BasicProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use postrider_testkit::{
    logging,
    rabbit::{Node, Vhost},
};

#[tokio::test]
async fn a_confirmed_message_survives_kill_9() {
    logging();
    let Some(node) = Node::start().await else { return };
    let vhost = Vhost::create(node.broker(), "kill").await;
    let connection = vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare("work".into(), QueueDeclareOptions::durable(), quorum).await.unwrap();
    node.settled().await;
    vhost.publish("", "work", b"kept", BasicProperties::default().with_delivery_mode(2)).await;

    node.kill().await;
    assert!(tokio::net::TcpStream::connect(node.broker().amqp_address()).await.is_err());
    node.start_again().await;

    let taken = vhost.take("work", 1).await;
    assert_eq!(taken[0].body, b"kept");
}

#[tokio::test]
async fn a_node_is_frozen_and_obeys_its_rabbitmqctl() {
    let Some(node) = Node::start().await else { return };
    let Some(status) = node.ctl(&["eval", "40 + 2."]).await else { return };
    assert_eq!(status, "42");
    if !node.freeze(true).await {
        return;
    }
    let url = node.broker().url("%2f");
    let connect = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), connect).await.is_err(), "it answers");
    assert!(node.freeze(false).await);
    lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.unwrap();
}
