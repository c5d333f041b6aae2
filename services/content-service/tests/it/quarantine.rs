//! Blobs that are moved aside, and back.

use std::time::Duration;

use synap_content_service::Backend;
use synap_proto::content::{
    BlobMoveOutcome::{self, Missing, Moved, Taken, TooYoung},
    QuarantineBlobsRequest, RestoreBlobsRequest,
};
use synap_rpc::RpcError;
use synap_testkit::{
    faults::{Fault, Faults},
    s3::S3Server,
};

use crate::running::{MIB, PART, Running, bytes, over_every_store, start_with};

over_every_store!(a_blob_goes_aside_and_comes_back, nothing_is_lost_for_a_move_that_cannot_be);

fn outcomes(moves: &[synap_proto::content::BlobMove]) -> Vec<BlobMoveOutcome> {
    moves.iter().map(synap_proto::content::BlobMove::outcome).collect()
}

async fn aside(
    service: &Running,
    keys: &[&str],
    min_age: Duration,
) -> Result<Vec<BlobMoveOutcome>, RpcError> {
    let keys = keys.iter().map(ToString::to_string).collect();
    let min_age = Some(min_age.try_into().unwrap());
    let request = QuarantineBlobsRequest { keys, min_age };
    let answer = service.client().quarantine_blobs(request).await;
    answer.map(|answer| outcomes(&answer.into_inner().moves)).map_err(RpcError::from)
}

async fn back(service: &Running, keys: &[&str]) -> Result<Vec<BlobMoveOutcome>, RpcError> {
    let keys = keys.iter().map(ToString::to_string).collect();
    let answer = service.client().restore_blobs(RestoreBlobsRequest { keys }).await;
    answer.map(|answer| outcomes(&answer.into_inner().moves)).map_err(RpcError::from)
}

async fn a_blob_goes_aside_and_comes_back(service: Running) {
    let keys = ["users/u/notes/x.md", "users/a%2Fb/files/y.pdf", "users/u/notes/empty.md"];
    for (key, size) in keys.iter().zip([10, PART + 10, 0]) {
        service.put(key, &bytes(size)).await.unwrap();
    }
    let young = aside(&service, &keys, Duration::from_mins(1)).await.unwrap();
    assert_eq!(young, [TooYoung; 3]);
    let none = "users/u/notes/none.md";
    for _ in 0..2 {
        let moved = aside(&service, &[&keys[..], &[none]].concat(), Duration::ZERO).await.unwrap();
        assert_eq!(moved, [Moved, Moved, Moved, Missing]);
        for (key, size) in keys.iter().zip([10, PART + 10, 0]) {
            assert_eq!(service.head(key).await.unwrap_err().reason, "NOT_FOUND");
            let there = service.get(&format!("quarantine/{key}")).await.unwrap();
            assert!(there.1 == bytes(size));
        }
    }
    for _ in 0..2 {
        let moved = back(&service, &[&keys[..], &[none]].concat()).await.unwrap();
        assert_eq!(moved, [Moved, Moved, Moved, Missing]);
        for (key, size) in keys.iter().zip([10, PART + 10, 0]) {
            assert!(service.get(key).await.unwrap().1 == bytes(size));
            assert!(service.head(&format!("quarantine/{key}")).await.is_err());
        }
    }
}

async fn nothing_is_lost_for_a_move_that_cannot_be(service: Running) {
    let key = "users/u/notes/x.md";
    let there = "quarantine/users/u/notes/x.md";
    service.put(key, b"one").await.unwrap();
    service.put(there, b"another").await.unwrap();
    assert_eq!(aside(&service, &[key], Duration::ZERO).await.unwrap(), [Taken]);
    assert_eq!(back(&service, &[key]).await.unwrap(), [Taken]);
    assert_eq!(service.get(key).await.unwrap().1, b"one");
    assert_eq!(service.get(there).await.unwrap().1, b"another");
    // A move that broke off after its copy.
    service.delete(&[there]).await.unwrap();
    service.put(there, b"one").await.unwrap();
    assert_eq!(aside(&service, &[key], Duration::ZERO).await.unwrap(), [Moved]);
    assert!(service.head(key).await.is_err());
    assert_eq!(service.get(there).await.unwrap().1, b"one");

    for bad in [there, "events/w/0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60.parquet", "x"] {
        let error = aside(&service, &[bad], Duration::ZERO).await.unwrap_err();
        assert_eq!(error.violations[0].field, "keys[0]");
        assert_eq!(back(&service, &[bad]).await.unwrap_err().reason, "INVALID_FIELD");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_midway_keeps_the_blob() {
    let server = S3Server::start().await.unwrap();
    let faults = Faults::before(&server).await.unwrap();
    let mut service = start_with(Backend::S3, |config| {
        config.store.s3_endpoint = Some(faults.endpoint().to_owned());
    })
    .await;
    service.s3 = Some(server);
    let key = "users/u/notes/x.md";
    let body = bytes(MIB);
    service.put(key, &body).await.unwrap();
    for failing in ["PUT", "GET", "POST"] {
        faults.rule(move |call| {
            (call.is(failing)).then_some(Fault::Status { code: 500, retry_after: None })
        });
        let error = aside(&service, &[key], Duration::ZERO).await.unwrap_err();
        assert_eq!(error.reason, "STORE_UNAVAILABLE", "{failing}");
        faults.none();
        assert!(service.get(key).await.unwrap().1 == body, "{failing}");
    }
    let mut lost = false;
    faults.rule(move |call| {
        (!std::mem::replace(&mut lost, call.is_write()) && call.is_write())
            .then_some(Fault::LoseAnswer)
    });
    assert_eq!(aside(&service, &[key], Duration::ZERO).await.unwrap(), [Moved]);
    faults.none();
    assert!(service.head(key).await.is_err());
    assert_eq!(back(&service, &[key]).await.unwrap(), [Moved]);
    assert!(service.get(key).await.unwrap().1 == body);
}
