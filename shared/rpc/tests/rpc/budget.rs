//! How many bytes of messages are held at once.

use std::time::Duration;

use bytes::Bytes;
use synap_proto::{
    content::{HeadBlobResponse, PutBlobRequest},
    reason,
};
use synap_rpc::ByteBudget;
use tonic::Code;

use crate::{
    assert_error,
    running::{Running, args, head},
};

const KIB: usize = 1024;

#[tokio::test]
async fn messages_are_counted_while_their_calls_run_and_streams_are_not() {
    let budget = ByteBudget::new(1024 * KIB);
    let counted = &["/synap.content.v1.ContentService/HeadBlob"];
    let (server, mut stage) = Running::told(&args(), |server| server.within(budget, counted)).await;
    let client = server.client();
    let key = "x".repeat(600 * KIB);
    for _ in 0..2 {
        let first = head(&client, &key);
        let arrived = stage.heads.recv().await.unwrap();
        let status = head(&client, &key).await.unwrap().unwrap_err();
        let error = assert_error(&status, Code::ResourceExhausted, reason::OVERLOADED);
        assert!(error.retry_after > Some(Duration::ZERO), "{error:?}");

        // What fits beside it runs, and what is not counted.
        let small = head(&client, &key[..100 * KIB]);
        let of_small = stage.heads.recv().await.unwrap();
        let chunk = PutBlobRequest { spec: None, data: Bytes::from(vec![7; 512 * KIB]) };
        let chunks = tokio_stream::iter(vec![chunk; 8]);
        assert!(client.clone().put_blob(chunks).await.is_ok());

        for arrived in [arrived, of_small] {
            arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
        }
        assert!(first.await.unwrap().is_ok() && small.await.unwrap().is_ok());
    }
}
