//! A store that cannot be used: a clear answer, not ready, and back by itself.

use std::fs;

use synap_content_service::Backend;
use synap_proto::content::BatchHeadBlobsRequest;
use synap_rpc::RpcError;
use synap_testkit::s3;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::running::{PART, Running, launch, start};

const KEY: &str = "users/u/notes/x.md";

fn assert_unavailable(error: &RpcError) {
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::Unavailable, "STORE_UNAVAILABLE"),
        "{}",
        error.message
    );
    assert!(error.retry_after.is_some());
    assert!(!error.message.contains(s3::SECRET_ACCESS_KEY));
}

async fn assert_every_call_says_so(service: &Running) {
    assert_unavailable(&service.put(KEY, b"body").await.unwrap_err());
    assert_unavailable(&service.get(KEY).await.unwrap_err());
    assert_unavailable(&service.head(KEY).await.unwrap_err());
    assert_unavailable(&service.delete(&[KEY]).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_lost_is_told_and_its_return_is_noticed() {
    let service = start(Backend::Local).await;
    service.put(KEY, b"before").await.unwrap();
    // Permissions would not do: tests may run as root.
    let aside = service.directory.with_extension("aside");
    fs::rename(&service.directory, &aside).unwrap();
    fs::write(&service.directory, b"no directory").unwrap();

    assert_every_call_says_so(&service).await;
    service.becomes(ServingStatus::NotServing).await;

    fs::remove_file(&service.directory).unwrap();
    fs::rename(&aside, &service.directory).unwrap();
    service.becomes(ServingStatus::Serving).await;
    assert_eq!(service.get(KEY).await.unwrap().1, b"before");
    service.put("users/u/notes/y.md", b"after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_store_that_is_gone_is_not_missing() {
    for backend in [Backend::Local, Backend::S3] {
        let service = start(backend).await;
        service.put(KEY, b"body").await.unwrap();
        let place = match &service.s3 {
            Some(s3) => s3.objects(),
            None => service.directory.clone(),
        };
        fs::rename(&place, place.with_extension("aside")).unwrap();
        assert_unavailable(&service.get(KEY).await.unwrap_err());
        let request = BatchHeadBlobsRequest { keys: vec![KEY.to_owned()], with_sha256: false };
        let status = service.client().batch_head_blobs(request).await.unwrap_err();
        assert_unavailable(&RpcError::from_status(&status));
        if backend == Backend::Local {
            assert_unavailable(&service.head(KEY).await.unwrap_err());
            assert_unavailable(&service.delete(&[KEY]).await.unwrap_err());
        }
        // Readiness may have left its file; the store is made anew only by a write.
        fs::rename(place.with_extension("aside"), &place).unwrap();
        assert_eq!(service.get(KEY).await.unwrap().1, b"body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_removed_is_made_anew() {
    let service = start(Backend::Local).await;
    service.put(KEY, b"before").await.unwrap();
    fs::remove_dir_all(&service.directory).unwrap();
    service.put(KEY, b"after").await.unwrap();
    let large = vec![1; PART + 1];
    fs::remove_dir_all(&service.directory).unwrap();
    service.put("users/u/files/x.pdf", &large).await.unwrap();
    assert!(service.get("users/u/files/x.pdf").await.unwrap().1 == large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_told_and_the_service_is_not_ready() {
    let service = launch(Backend::S3, |config| {
        config.store.r2_secret_access_key = Some("wrong".into());
    })
    .await;
    assert_every_call_says_so(&service).await;
    let error = service.put(KEY, b"body").await.unwrap_err();
    assert!(error.message.contains("R2_SECRET_ACCESS_KEY"), "{}", error.message);
    assert!(!service.channel.is_ready().await);
    assert!(service.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_told_within_the_deadline() {
    let service = launch(Backend::S3, |config| {
        // Nobody listens on the port that TCP reserves for nobody.
        config.store.s3_endpoint = Some("http://127.0.0.1:1".to_owned());
    })
    .await;
    assert_unavailable(&service.put(KEY, b"body").await.unwrap_err());
    assert!(!service.channel.is_ready().await);
}
