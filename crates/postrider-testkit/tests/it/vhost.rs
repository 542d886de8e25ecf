use lapin::{
    BasicProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use postrider_testkit::{
    chaos::Proxy,
    eventually, http, logging,
    rabbit::{Broker, Vhost},
};

async fn declare_quorum(vhost: &Vhost, queue: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let connection = vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

async fn exists(broker: &Broker, vhost: &str) -> bool {
    let url = format!("{}api/vhosts/{vhost}", broker.management_url());
    http::client().get(url).send().await.unwrap().status() == 200
}

#[tokio::test]
async fn a_vhost_lives_as_long_as_its_value() {
    logging();
    let broker = Broker::shared().await;
    let vhost = Vhost::create(&broker, "life & death").await;
    let name = vhost.name().to_owned();
    assert!(exists(&broker, &name).await);
    drop(vhost);
    assert!(!exists(&broker, &name).await);
}

#[tokio::test]
async fn messages_go_in_and_out() {
    logging();
    let vhost = Vhost::create(&Broker::shared().await, "messages").await;
    declare_quorum(&vhost, "work").await;
    let queues = vhost.queues().await;
    assert_eq!(queues.len(), 1);
    assert_eq!(
        (queues[0].name.as_str(), queues[0].kind.as_str(), queues[0].durable),
        ("work", "quorum", true)
    );
    assert_eq!(queues[0].arguments["x-queue-type"], "quorum");

    for body in ["1", "2", "3"] {
        let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(body.into());
        vhost.publish("", "work", body.as_bytes(), properties).await;
    }
    assert_eq!(vhost.queue_depth("work").await, 3);
    assert_eq!(vhost.consumer_count("work").await, 0);
    let taken = vhost.take("work", 2).await;
    assert_eq!(taken[1].json(), 2);
    assert_eq!(taken[1].properties.message_id().as_ref().unwrap().as_str(), "2");
    assert_eq!(vhost.take_ready("work").await.len(), 1);
    assert_eq!(vhost.queue_depth("work").await, 0);
}

#[tokio::test]
#[should_panic(expected = "look at the queue nowhere")]
async fn a_missing_queue_has_no_depth() {
    let vhost = Vhost::create(&Broker::shared().await, "missing").await;
    vhost.queue_depth("nowhere").await;
}

#[tokio::test]
#[should_panic(expected = "returned: NO_ROUTE")]
async fn an_unroutable_message_is_a_failure() {
    let vhost = Vhost::create(&Broker::shared().await, "unroutable").await;
    vhost.publish("", "nowhere", b"", BasicProperties::default()).await;
}

#[tokio::test]
async fn connections_are_closed_from_the_other_side() {
    logging();
    let vhost = Vhost::create(&Broker::shared().await, "connections").await;
    declare_quorum(&vhost, "work").await;
    assert_eq!(vhost.queue_depth("work").await, 0);
    let connection = vhost.connect().await;
    eventually("one connection is closed", async || vhost.close_all_connections().await == 1).await;
    eventually("the client sees it", async || !connection.status().connected()).await;
    assert_eq!(vhost.queue_depth("work").await, 0);
}

#[tokio::test]
async fn a_broker_is_reached_through_a_proxy() {
    logging();
    let broker = Broker::shared().await;
    let vhost = Vhost::create(&broker, "proxied").await;
    let proxy = Proxy::start(broker.amqp_address()).await;
    let url = vhost.url_through(proxy.addr());
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.unwrap();
    assert!(connection.create_channel().await.is_ok());
    proxy.cut().await;
    eventually("the client sees the cut", async || !connection.status().connected()).await;
}
