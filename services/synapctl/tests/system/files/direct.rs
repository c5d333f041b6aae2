//! Files that go straight to the store and are read straight from there.

use futures::future::join_all;
use synap_proto::{
    gateway::{CreateDownloadUrlRequest, FileMetadata},
    reason,
};
use synap_types::Checksum;
use tonic::Code;

use super::{ID, MIB, assert_nothing_left, promised};
use crate::support::{
    System,
    files::{pdf, put},
    refusal::{assert_field, assert_status},
};

/// A file that goes straight to the store and is read straight from there.
async fn direct(system: System) {
    let ada = system.client("ada");
    let body = pdf(1, 9 * MIB);
    let what = || promised("application/pdf", &body, ID);
    for missing in [
        FileMetadata { size: None, ..what() },
        FileMetadata { checksum: String::new(), ..what() },
        FileMetadata { size: Some(5 * 1024 * 1024 * 1024 + 1), ..what() },
    ] {
        let field = if missing.checksum.is_empty() { "checksum" } else { "size" };
        let refused = ada.upload_url(missing).await.unwrap_err();
        assert_field(&refused, reason::INVALID_FIELD, &format!("metadata.{field}"));
    }

    let first = ada.upload_url(what()).await.unwrap();
    assert_eq!((first.upload_id.as_str(), first.method.as_str()), (ID, "PUT"));
    let early = ada.complete(ID).await.unwrap_err();
    assert_status(&early, Code::FailedPrecondition, reason::UPLOAD_INCOMPLETE);
    // Again: the same place under a fresh signature.
    let url = ada.upload_url(what()).await.unwrap();
    let place = |url: &str| url.split('?').next().unwrap().to_owned();
    assert_eq!(place(&url.url), place(&first.url));

    // The URL is bound to the bytes.
    assert!(!put(&url, body[1..].to_vec()).await.is_success());
    if system.s3().is_none() {
        // The S3 server of the tests refuses other bytes, too, but keeps them.
        assert!(!put(&url, pdf(2, 9 * MIB)).await.is_success());
    }
    assert_eq!(put(&url, body.clone()).await, 200);

    // Any number of calls at once, and later: one file, equal answers.
    let answers = join_all((0..4).map(|_| ada.complete(ID))).await;
    let (file, _) = answers[0].as_ref().unwrap().clone();
    for answer in answers {
        assert_eq!(answer.unwrap().0, file);
    }
    assert_eq!(ada.complete(ID).await.unwrap(), (file.clone(), false));
    assert_eq!(file.file_size, i64::try_from(body.len()).unwrap());
    assert_eq!(file.checksum, Checksum::of(&body).to_string());
    assert!(ada.download(&file.id, 0, 0).await.unwrap().1 == body);
    let late = ada.upload_url(what()).await.unwrap_err();
    assert_status(&late, Code::FailedPrecondition, reason::UPLOAD_COMPLETE);

    let request = CreateDownloadUrlRequest { id: file.id.clone(), expires_in: None };
    let url = ada.files().create_download_url(ada.request(request)).await.unwrap().into_inner();
    let read = reqwest::get(&url.url).await.unwrap();
    assert!(read.status().is_success());
    assert!(read.bytes().await.unwrap() == body);

    // Bytes that are what was promised, but not of the type.
    let text = b"no picture".to_vec();
    let lie = ada.upload_url(promised("image/png", &text, "")).await.unwrap();
    assert_eq!(put(&lie, text).await, 200);
    let refused = ada.complete(&lie.upload_id).await.unwrap_err();
    assert_field(&refused, reason::INVALID_FIELD, "metadata.content_type");
    let refused = ada.complete(&lie.upload_id).await.unwrap_err();
    assert_status(&refused, Code::NotFound, reason::NOT_FOUND);

    system.settled().await;
    let kept = system.check_everything().await;
    assert_eq!(kept.keys().collect::<Vec<_>>(), [&file.id]);
}

#[tokio::test]
async fn a_file_can_go_straight_to_the_local_store() {
    direct(System::start().await).await;
}

#[tokio::test]
async fn a_file_can_go_straight_to_s3() {
    let mut system = System::new().await;
    system.use_s3().await;
    system.start_all(None).await;
    direct(system).await;
}

#[tokio::test]
async fn an_upload_that_is_never_completed_leaves_nothing() {
    let mut system = System::new().await;
    system.environment.push(("MAX_OPERATION_LEASE_SECS", "16".to_owned()));
    system.start_all(None).await;
    let ada = system.client("ada");
    let body = pdf(1, 100_000);
    // Valid for eight seconds.
    let sent = ada.upload_url(promised("application/pdf", &body, "")).await.unwrap();
    let never_sent = ada.upload_url(promised("application/pdf", &body, ID)).await.unwrap();
    assert_eq!(put(&sent, body.clone()).await, 200);
    assert_nothing_left(&system).await;
    for upload in [&sent, &never_sent] {
        let late = ada.complete(&upload.upload_id).await.unwrap_err();
        assert_status(&late, Code::NotFound, reason::NOT_FOUND);
    }
    // The id can be used again, for another place.
    let again = ada.upload_url(promised("application/pdf", &body, ID)).await.unwrap();
    assert_ne!(again.url.split('?').next(), never_sent.url.split('?').next());
    assert_eq!(put(&again, body.clone()).await, 200);
    let (file, _) = ada.complete(ID).await.unwrap();
    system.settled().await;
    assert_eq!(system.check_everything().await[&file.id].body, body);
}
