//! What the server refuses before a handler sees it.

use std::time::Duration;

use synap_proto::{
    content::{DeleteBlobsRequest, HeadBlobResponse},
    reason,
};
use synap_rpc::ServerArgs;
use tonic::Code;

use crate::{
    assert_error, raw,
    running::{Running, args, head},
};

#[tokio::test]
async fn a_message_over_the_limit_is_too_large() {
    let (server, _stage) = Running::scripted(&args()).await;
    let keys = vec!["x".repeat(1024); 5 * 1024];
    let mut client = server.client();
    let status = client.delete_blobs(DeleteBlobsRequest { keys }).await.unwrap_err();
    let error = assert_error(&status, Code::ResourceExhausted, reason::MESSAGE_TOO_LARGE);
    assert!(error.message.contains("4194304"), "{error:?}");

    let keys = vec!["x".repeat(1024); 3 * 1024];
    assert!(client.delete_blobs(DeleteBlobsRequest { keys }).await.is_ok());
}

#[tokio::test]
async fn a_message_that_is_not_protobuf_names_the_field() {
    let (server, _stage) = Running::scripted(&args()).await;
    let nested = raw::field(1, &raw::field(1, b"\xff"));
    for (method, message, path) in [
        ("HeadBlob", raw::field(1, b"caf\xe9"), "key"),
        ("BuildKey", raw::field(3, b"\xc3\x28"), "entity_id"),
        ("DeleteBlobs", raw::field(1, b"\xed\xa0\x80"), "keys"),
        // In a stream, and inside another message.
        ("PutBlob", nested, "spec.key"),
        ("HeadBlob", vec![0x0a, 0x7f, b'x'], "key"),
        // Not even a field.
        ("HeadBlob", vec![0xff], ""),
    ] {
        let status = raw::call(server.address, method, None, &message).await;
        let error = assert_error(&status, Code::InvalidArgument, reason::INVALID_FIELD);
        let [violation] = error.violations.as_slice() else { panic!("one field: {error:?}") };
        assert_eq!(violation.field, path, "{method}: {error:?}");
    }
}

#[tokio::test]
async fn what_neither_runs_nor_waits_is_told_at_once() {
    let (server, mut stage) =
        Running::scripted(&ServerArgs { max_concurrent_calls: 2, max_waiting_calls: 1, ..args() })
            .await;
    let client = server.client();
    let mut calls = vec![head(&client, "running"), head(&client, "running")];
    let arrived = [stage.heads.recv().await.unwrap(), stage.heads.recv().await.unwrap()];
    calls.push(head(&client, "last"));
    calls.push(head(&client, "last"));
    // Two are running, and of the other two one has a place to wait: the only one that can end is
    // the one that has none.
    let (shed, _, rest) = futures::future::select_all(calls).await;
    let error =
        assert_error(&shed.unwrap().unwrap_err(), Code::ResourceExhausted, reason::OVERLOADED);
    assert!(error.retry_after > Some(Duration::ZERO), "{error:?}");

    // Whoever watches over the server still gets an answer.
    assert!(server.channel().is_ready().await);

    for arrived in arrived {
        assert_eq!(arrived.key, "running");
        arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    }
    let last = stage.heads.recv().await.unwrap();
    assert_eq!(last.key, "last");
    last.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    for call in rest {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_caller_who_leaves_gives_its_place_back() {
    let (server, mut stage) =
        Running::scripted(&ServerArgs { max_concurrent_calls: 1, max_waiting_calls: 0, ..args() })
            .await;
    let client = server.client();
    for _ in 0..3 {
        let call = head(&client, "leaves");
        let mut arrived = stage.heads.recv().await.unwrap();
        call.abort();
        arrived.answer.closed().await;
    }
    // The stream of an answer holds no place either.
    let mut reader = client.clone();
    let call = tokio::spawn(async move {
        reader.get_blob(synap_proto::content::GetBlobRequest::default()).await
    });
    let writer = stage.streams.recv().await.unwrap();
    let stream = call.await.unwrap().unwrap();
    let call = head(&client, "runs");
    let arrived = stage.heads.recv().await.unwrap();
    arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    assert!(call.await.unwrap().is_ok());
    drop((stream, writer));
}
