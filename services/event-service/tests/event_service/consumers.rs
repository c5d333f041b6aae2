//! Durable consumers.

use synap_proto::{
    event::{
        Consumer, DeleteConsumerRequest, ListConsumersRequest, SaveCheckpointRequest,
        SubscribeRequest,
    },
    reason,
};
use synap_rpc::RpcError;

use crate::harness::{
    Client, Feed, append, from_now, from_the_beginning, id, ids, send_one, service,
};

async fn save(client: &Client, cursor: &str, rewind: bool) -> String {
    let request =
        SaveCheckpointRequest { consumer: "indexer".into(), cursor: cursor.into(), rewind };
    client.clone().save_checkpoint(request).await.unwrap().into_inner().cursor
}

async fn list(client: &Client) -> Vec<Consumer> {
    let answer = client.clone().list_consumers(ListConsumersRequest {}).await.unwrap();
    answer.into_inner().consumers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_goes_on_after_its_checkpoint_which_never_goes_back_by_itself() {
    let (_database, running) = service().await;
    let client = &running.client;
    for n in 0..10 {
        send_one(client, append(900, n)).await.unwrap();
    }
    let consumer = |request| SubscribeRequest { consumer: "indexer".into(), ..request };
    // Without a checkpoint it begins where it asks to.
    let mut feed = Feed::open(client, consumer(from_the_beginning())).await.unwrap();
    let events = feed.events(10).await;
    assert!(list(client).await.is_empty());

    assert_eq!(save(client, &events[6].cursor, false).await, events[6].cursor);
    let mut feed = Feed::open(client, consumer(from_now())).await.unwrap();
    assert_eq!(feed.events(3).await, events[7..]);
    let listed = list(client).await;
    assert_eq!((listed[0].name.as_str(), listed[0].lag_events), ("indexer", 3));
    assert_eq!(listed[0].cursor, events[6].cursor);

    // From an instance that was replaced.
    assert_eq!(save(client, &events[2].cursor, false).await, events[6].cursor);
    assert_eq!(save(client, &events[2].cursor, true).await, events[2].cursor);
    assert_eq!(save(client, &events[9].cursor, false).await, events[9].cursor);
    let listed = list(client).await;
    assert_eq!((listed[0].lag_events, listed[0].lag.unwrap().seconds), (0, 0));
    send_one(client, append(900, 10)).await.unwrap();
    let mut feed = Feed::open(client, consumer(from_the_beginning())).await.unwrap();
    assert_eq!(ids(&feed.events(1).await), [id(10).to_string()]);

    let delete = async || {
        let request = DeleteConsumerRequest { consumer: "indexer".into() };
        client.clone().delete_consumer(request).await.map(drop).map_err(RpcError::from)
    };
    delete().await.unwrap();
    assert!(list(client).await.is_empty());
    assert_eq!(delete().await.unwrap_err().reason, reason::NOT_FOUND);
}
