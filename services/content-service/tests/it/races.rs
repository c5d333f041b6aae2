//! Many writers of one key, and writers that go away.

use std::collections::BTreeSet;

use futures::future;
use synap_content_service::Backend;
use synap_proto::content::PutBlobRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;

use crate::running::{
    Running, bytes, messages, over_every_store, over_memory_and_local, start_with,
};

over_every_store!(a_race_for_a_key_ends_with_one_whole_body);
// s3s-fs replaces the file under a reader; with R2 the first write is the only one.
over_memory_and_local!(a_race_with_the_same_bytes_has_winners_only);

const KEY: &str = "users/u/notes/contended.md";

async fn a_race_for_a_key_ends_with_one_whole_body(service: Running) {
    let bodies: Vec<Vec<u8>> = (0..16_u8).map(|i| vec![i; 20_000]).collect();
    let puts = bodies.iter().map(|body| service.put(KEY, body));
    let outcomes = future::join_all(puts).await;

    let mut acknowledged = BTreeSet::new();
    for (body, outcome) in bodies.iter().zip(outcomes) {
        match outcome {
            Ok(_) => {
                acknowledged.insert(body.clone());
            }
            Err(error) if service.backend == Backend::S3 && error.code == Code::Unavailable => {}
            Err(error) => assert_eq!(
                (error.code, error.reason.as_str()),
                (Code::AlreadyExists, "BLOB_EXISTS")
            ),
        }
    }
    let (_, stays) = service.get(KEY).await.unwrap();
    assert!(acknowledged.contains(&stays));
    // s3s-fs lets several win; R2, memory and the local file system do not.
    if service.backend != Backend::S3 {
        assert_eq!(acknowledged.len(), 1);
    }
    assert!(service.files().len() <= 1, "{:?}", service.files());
}

async fn a_race_with_the_same_bytes_has_winners_only(service: Running) {
    let body = bytes(20_000);
    let puts = (0..16).map(|_| service.put(KEY, &body));
    for outcome in future::join_all(puts).await {
        outcome.unwrap();
    }
    assert_eq!(service.get(KEY).await.unwrap().1, body);
    assert!(service.files().len() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_leaves_nothing_and_frees_its_memory() {
    let body = bytes(2 * 1024 * 1024);
    for backend in [Backend::Memory, Backend::Local, Backend::S3] {
        // Room for one body: the next can only be taken once the one before is forgotten.
        let service = start_with(backend, |config| {
            config.max_blob_bytes = 2 * 1024 * 1024;
            config.max_inflight_bytes = 2 * 1024 * 1024;
        })
        .await;
        for _ in 0..3 {
            let mut parts = messages(KEY, &body);
            parts.pop();
            service.abandon(parts).await;
        }
        let other = vec![1; 2 * 1024 * 1024];
        service.put(KEY, &other).await.unwrap();
        assert!(service.get(KEY).await.unwrap().1 == other);
        assert!(service.files().len() <= 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_ends_halfway_leaves_nothing() {
    for backend in [Backend::Memory, Backend::Local, Backend::S3] {
        let service = start_with(backend, |_| ()).await;
        let (send, messages_of) = mpsc::unbounded_channel();
        let first = messages(KEY, &bytes(1_000_000)).remove(0);
        send.send(first).unwrap();
        drop(send);
        let error = service.send(UnboundedReceiverStream::new(messages_of)).await;
        assert_eq!(error.unwrap_err().reason, "BODY_MISMATCH");
        assert!(service.files().is_empty());
        assert_eq!(service.head(KEY).await.unwrap_err().code, Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_not_there_before_its_end_which_may_be_kept_back() {
    for backend in [Backend::Memory, Backend::Local, Backend::S3] {
        let service = start_with(backend, |_| ()).await;
        let (first, second) = (bytes(700_000), vec![7; 3]);
        let mut kept_back = Vec::new();
        for body in [&first, &second] {
            let (send, messages_of) = mpsc::unbounded_channel();
            for message in messages(KEY, body) {
                send.send(message).unwrap();
            }
            let (client, messages_of) =
                (service.client(), UnboundedReceiverStream::new(messages_of));
            let put = tokio::spawn(async move { client.clone().put_blob(messages_of).await });
            kept_back.push((send, put));
        }
        // Whoever goes away with all but the end sent has sent nothing.
        service.abandon(messages(KEY, &bytes(5))).await;
        assert_eq!(service.head(KEY).await.unwrap_err().code, Code::NotFound);
        assert!(service.files().is_empty());

        let (send, put) = kept_back.remove(0);
        drop(send);
        put.await.unwrap().unwrap();
        assert!(service.get(KEY).await.unwrap().1 == first);

        // More than was promised, and the key taken.
        let (send, put) = kept_back.remove(0);
        drop(send);
        assert_eq!(put.await.unwrap().unwrap_err().code(), Code::AlreadyExists);
        let mut parts = messages(KEY, &second);
        parts.push(PutBlobRequest { spec: None, data: vec![7].into() });
        let error = service.send(tokio_stream::iter(parts)).await.unwrap_err();
        assert_eq!(error.reason, "BODY_MISMATCH");
        assert!(service.get(KEY).await.unwrap().1 == first);
        assert!(service.files().len() <= 1);
    }
}
