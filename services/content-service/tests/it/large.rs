//! Bodies that flow through in parts, known beforehand or not.

use futures::future;
use synap_content_service::Backend;
use synap_proto::content::{PutBlobRequest, PutBlobSpec};
use synap_types::Checksum;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;

use crate::running::{
    MAX_BLOB_BYTES, PART, Running, bytes, messages, messages_with, over_every_store, spec,
    start_with,
};

over_every_store!(
    bodies_around_the_size_of_a_part_come_back,
    a_body_of_unknown_size_comes_back,
    a_large_body_that_is_not_what_was_promised_leaves_nothing,
    a_large_body_whose_caller_leaves_leaves_nothing,
    the_same_large_body_may_be_put_again,
    a_race_of_large_bodies_ends_with_one_of_them,
);

const KEY: &str = "users/u/files/x.mp4";

async fn bodies_around_the_size_of_a_part_come_back(service: Running) {
    for size in [PART - 1, PART, PART + 1, 3 * PART + 1] {
        let key = format!("users/u/files/{size}.pdf");
        let body = bytes(size);
        let put = service.put(&key, &body).await.unwrap();
        assert_eq!(put.size, i64::try_from(size).unwrap());
        assert_eq!(&put.sha256[..], Checksum::of(&body).as_bytes());
        let (found, read) = service.get(&key).await.unwrap();
        assert!(read == body, "{size} bytes came back as {}", read.len());
        assert_eq!((found.size, &*found.content_type), (put.size, "application/pdf"));
    }
    assert!([0, 4].contains(&service.files().len()), "{:?}", service.files());
    service.forgets_uploads().await;
}

/// What a caller says who does not know the whole body.
fn vague(key: &str) -> PutBlobSpec {
    PutBlobSpec { key: key.to_owned(), ..PutBlobSpec::default() }
}

async fn a_body_of_unknown_size_comes_back(service: Running) {
    for size in [0, 1, PART, PART + 1] {
        let key = format!("users/u/files/{size}.pdf");
        let body = bytes(size);
        let only_hash = PutBlobSpec { size: None, ..spec(&key, &body) };
        for said in [vague(&key), only_hash] {
            let put = service.send(tokio_stream::iter(messages_with(said, &body))).await.unwrap();
            assert_eq!(put.size, i64::try_from(size).unwrap());
            assert_eq!(&put.sha256[..], Checksum::of(&body).as_bytes());
        }
        assert!(service.get(&key).await.unwrap().1 == body, "{size} bytes");
    }
    service.forgets_uploads().await;
}

async fn a_large_body_that_is_not_what_was_promised_leaves_nothing(service: Running) {
    let body = bytes(PART + 1000);
    let good = spec(KEY, &body);
    let size = good.size.unwrap();
    let other = Checksum::of(b"other").as_bytes().to_vec();
    for (lie, said) in [
        ("another hash", PutBlobSpec { sha256: other.clone().into(), ..good.clone() }),
        ("another hash and no size", PutBlobSpec { sha256: other.into(), ..vague(KEY) }),
        ("one byte less", PutBlobSpec { size: Some(size - 1), ..good.clone() }),
        ("one byte more", PutBlobSpec { size: Some(size + 1), ..good.clone() }),
    ] {
        let error = service.send(tokio_stream::iter(messages_with(said, &body))).await;
        let error = error.unwrap_err();
        assert_eq!(
            (error.code, &*error.reason),
            (Code::InvalidArgument, "BODY_MISMATCH"),
            "promised {lie}: {}",
            error.message
        );
    }
    let too_much = vec![0; usize::try_from(MAX_BLOB_BYTES).unwrap() + 1];
    let error = service.send(tokio_stream::iter(messages_with(vague(KEY), &too_much))).await;
    let error = error.unwrap_err();
    assert_eq!(error.violations[0].field, "spec.size", "{}", error.message);

    assert_eq!(service.files(), Vec::<std::path::PathBuf>::new());
    assert_eq!(service.head(KEY).await.unwrap_err().reason, "NOT_FOUND");
    service.forgets_uploads().await;
}

async fn a_large_body_whose_caller_leaves_leaves_nothing(service: Running) {
    let body = bytes(2 * PART + PART / 2);
    for said in [spec(KEY, &body), vague(KEY)] {
        let mut parts = messages_with(said, &body);
        parts.pop();
        service.abandon(parts).await;
    }
    service.forgets_uploads().await;
    assert!(service.files().is_empty());
    assert_eq!(service.head(KEY).await.unwrap_err().code, Code::NotFound);
    // Nor is its key lost.
    service.put(KEY, &body).await.unwrap();
    assert!(service.get(KEY).await.unwrap().1 == body);
}

async fn the_same_large_body_may_be_put_again(service: Running) {
    let body = bytes(PART + 7);
    let first = service.put(KEY, &body).await.unwrap();
    assert_eq!(service.put(KEY, &body).await.unwrap(), first);
    let mut other = body.clone();
    other[PART] ^= 1;
    for other in [&other, &body[..PART + 6]] {
        let error = service.put(KEY, other).await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (Code::AlreadyExists, "BLOB_EXISTS"));
    }
    assert!(service.get(KEY).await.unwrap().1 == body);
    assert!(service.files().len() <= 1);
    service.forgets_uploads().await;
}

async fn a_race_of_large_bodies_ends_with_one_of_them(service: Running) {
    let bodies: Vec<_> = (0..4_u8).map(|i| vec![i; PART + 1]).collect();
    let puts = bodies.iter().map(|body| service.put(KEY, body));
    let outcomes = future::join_all(puts).await;
    let mut acknowledged = Vec::new();
    for (body, outcome) in bodies.iter().zip(outcomes) {
        match outcome {
            Ok(_) => acknowledged.push(body),
            // What s3s-fs says of a race depends on where it is lost.
            Err(error) if service.backend == Backend::S3 => {
                assert!(matches!(error.code, Code::AlreadyExists | Code::Unavailable));
            }
            Err(error) => assert_eq!(error.code, Code::AlreadyExists),
        }
    }
    let (_, stays) = service.get(KEY).await.unwrap();
    assert!(acknowledged.contains(&&stays));
    if service.backend != Backend::S3 {
        assert_eq!(acknowledged.len(), 1);
    }
    assert!(service.files().len() <= 1, "{:?}", service.files());
    service.forgets_uploads().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_turn_out_large_do_not_wait_for_each_other() {
    for backend in [Backend::Local, Backend::S3] {
        // Room for two that are held, and for no more than one part of each beyond.
        let service =
            start_with(backend, |config| config.max_inflight_bytes = 2 * PART as u64).await;
        let body = bytes(2 * PART);
        let keys: Vec<_> = (0..5).map(|i| format!("users/u/files/{i}.pdf")).collect();
        let puts = keys.iter().map(|key| {
            let said = if key.contains('3') { spec(key, &body) } else { vague(key) };
            service.send(tokio_stream::iter(messages_with(said, &body)))
        });
        for outcome in future::join_all(puts).await {
            outcome.unwrap();
        }
        for key in &keys {
            assert!(service.get(key).await.unwrap().1 == body);
        }
    }
}

/// A caller who has sent all but the end, and stays.
struct Stalled {
    send: mpsc::UnboundedSender<PutBlobRequest>,
    last: PutBlobRequest,
    put: tokio::task::JoinHandle<Result<(), Code>>,
}

async fn stalled(service: &Running, body: &[u8]) -> Stalled {
    let mut parts = messages(KEY, body);
    let last = parts.pop().unwrap();
    let (send, messages_of) = mpsc::unbounded_channel();
    for part in parts {
        send.send(part).unwrap();
    }
    let mut client = service.client();
    let put = tokio::spawn(async move {
        let put = client.put_blob(UnboundedReceiverStream::new(messages_of)).await;
        put.map(drop).map_err(|status| status.code())
    });
    while service.s3.as_ref().unwrap().unfinished().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    Stalled { send, last, put }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_what_was_begun_under_the_key() {
    let service = start_with(Backend::S3, |_| ()).await;
    let body = bytes(2 * PART);
    // The process of this one might as well be dead: nobody but S3 knows the upload.
    let Stalled { send, last, put } = stalled(&service, &body).await;
    service.delete(&["users/u/files/another.mp4"]).await.unwrap();
    let known = service.s3.as_ref().unwrap().unfinished().unwrap();
    assert_eq!(known.iter().map(|one| &*one.key).collect::<Vec<_>>(), [KEY]);

    service.delete(&["users/u/files/another.mp4", KEY]).await.unwrap();
    assert_eq!(service.s3.as_ref().unwrap().unfinished().unwrap(), []);
    // And whoever still writes cannot bring it back.
    // It may have heard already, by a part that was on its way.
    let _ = send.send(last);
    drop(send);
    assert_eq!(put.await.unwrap(), Err(Code::Unavailable));
    assert!(service.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stops_leaves_no_upload() {
    let service = start_with(Backend::S3, |config| config.server.shutdown_grace_secs = 0).await;
    let Stalled { send, put, .. } = stalled(&service, &bytes(2 * PART)).await;
    let Running { stop, served, s3, .. } = service;
    drop(stop);
    served.await.unwrap().unwrap();
    assert_eq!(s3.unwrap().unfinished().unwrap(), []);
    assert_eq!(put.await.unwrap(), Err(Code::Unavailable));
    drop(send);
}
