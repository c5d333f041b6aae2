//! A store, and a network, that fail in every way they have.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use synap_content_service::Backend;
use synap_testkit::{
    faults::{Call, Fault, Faults},
    s3::S3Server,
};
use tonic::Code;

use crate::running::{MIB, PART, Running, bytes, start_with};

const KEY: &str = "users/u/files/x.mp4";

/// A service whose way to S3 is the proxy. Nothing fails yet.
async fn behind_faults() -> (Running, Faults) {
    let server = S3Server::start().await.unwrap();
    let faults = Faults::before(&server).await.unwrap();
    let mut service = start_with(Backend::S3, |config| {
        config.store.s3_endpoint = Some(faults.endpoint().to_owned());
    })
    .await;
    service.s3 = Some(server);
    (service, faults)
}

fn reads(call: &Call) -> bool {
    call.is("GET") && call.path.ends_with(KEY)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_is_read_on_where_it_ended() {
    let (service, faults) = behind_faults().await;
    for size in [700_000, 3 * MIB] {
        let key = format!("users/u/files/{size}/{KEY}");
        let body = bytes(size);
        service.put(&key, &body).await.unwrap();
        // More often than object_store reads on by itself.
        let mut cuts = 0;
        faults.rule(move |call| {
            cuts += u32::from(reads(call));
            (reads(call) && cuts <= 9).then_some(Fault::Cut { after: 100_000 })
        });
        assert!(service.get(&key).await.unwrap().1 == body, "{size} bytes");
        let (_, part) = service.get_range(&key, 5, 650_000).await.unwrap();
        assert!(part == body[5..650_005]);
        faults.rule(|call| reads(call).then_some(Fault::Slow { pause: Duration::from_millis(1) }));
        assert!(service.get(&key).await.unwrap().1 == body, "{size} bytes, slowly");
        faults.none();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_comes_is_given_up() {
    let (service, faults) = behind_faults().await;
    service.put(KEY, &bytes(3 * MIB)).await.unwrap();
    faults.rule(|call| reads(call).then_some(Fault::Cut { after: 0 }));
    let error = service.get(KEY).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (Code::Unavailable, "STORE_UNAVAILABLE"));
    assert!(faults.calls().len() < 40, "{} calls", faults.calls().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_object_is_not_read_on() {
    let (service, faults) = behind_faults().await;
    let body = bytes(3 * MIB);
    service.put(KEY, &body).await.unwrap();
    let object = service.s3.as_ref().unwrap().objects().join(KEY);
    let mut first = true;
    faults.rule(move |call| {
        if !reads(call) {
            return None;
        }
        if !std::mem::take(&mut first) {
            // Another took its place: its time, and with it s3s-fs's tag, is another.
            std::fs::write(&object, vec![9; 3 * MIB]).unwrap();
            remove_remembered_tags(&object);
        }
        Some(Fault::Cut { after: 1_200_000 })
    });
    let error = service.get(KEY).await.unwrap_err();
    assert!(matches!(error.code, Code::Internal | Code::Unavailable), "{error:?}");
}

/// s3s-fs keeps tags beside the bucket; without them it hashes the object.
fn remove_remembered_tags(object: &std::path::Path) {
    let root = object.ancestors().find(|path| path.ends_with("blobs")).unwrap().parent().unwrap();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(".internal.json") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_no_failure() {
    let (service, faults) = behind_faults().await;
    for size in [10, PART + 10] {
        let key = format!("users/u/files/{size}.pdf");
        let body = bytes(size);
        let mut writes = 0;
        faults.rule(move |call| {
            writes += u32::from(call.is_write());
            (call.is_write() && writes == 1).then_some(Fault::LoseAnswer)
        });
        service.put(&key, &body).await.unwrap();
        assert_eq!(faults.injected(), if size == 10 { 1 } else { 2 });
        assert!(service.get(&key).await.unwrap().1 == body);
    }
    service.forgets_uploads().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_is_sent_again() {
    let (service, faults) = behind_faults().await;
    let body = bytes(3 * PART + 1);
    let mut parts = 0;
    faults.rule(move |call| {
        parts += u32::from(call.is_part());
        match (call.is_part(), parts) {
            (true, 1) => Some(Fault::Status { code: 503, retry_after: None }),
            (true, 2) => Some(Fault::Reset),
            (true, 4) => Some(Fault::LoseAnswer),
            _ => None,
        }
    });
    service.put(KEY, &body).await.unwrap();
    assert_eq!(faults.injected(), 3);
    assert!(service.get(KEY).await.unwrap().1 == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_every_part_leaves_nothing() {
    let (service, faults) = behind_faults().await;
    faults.rule(|call| call.is_part().then_some(Fault::Status { code: 500, retry_after: None }));
    let error = service.put(KEY, &bytes(2 * PART)).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (Code::Unavailable, "STORE_UNAVAILABLE"));
    service.forgets_uploads().await;
    assert!(service.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_call_in_five_failing_no_acknowledged_blob_differs() {
    let (service, faults) = behind_faults().await;
    faults.mixed(20, 7);
    let sizes = [0, 1, 4096, 100_000, MIB, PART + 1];
    let service = &service;
    let outcomes: Vec<_> = stream::iter(0..120_usize)
        .map(|i| async move {
            let size = if i % 40 == 5 { sizes[5] } else { sizes[i % 5] };
            let mut body = bytes(size);
            body.extend_from_slice(&i.to_le_bytes());
            let key = format!("users/u/files/{i}.bin");
            let outcome = service.put(&key, &body).await;
            (key, body, outcome)
        })
        .buffer_unordered(8)
        .collect()
        .await;
    assert!(faults.injected() > 20, "{} faults", faults.injected());
    faults.none();
    let mut acknowledged = 0;
    for (key, body, outcome) in outcomes {
        match outcome {
            Ok(_) => {
                acknowledged += 1;
                assert!(service.get(&key).await.unwrap().1 == body, "{key}");
            }
            // It may be there, but then as a whole.
            Err(error) => {
                assert_eq!(error.code, Code::Unavailable, "{error:?}");
                if let Ok((_, read)) = service.get(&key).await {
                    assert!(read == body, "{key}");
                }
            }
        }
    }
    assert!(acknowledged > 60, "{acknowledged}");
}
