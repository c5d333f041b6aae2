//! Many small blobs in one call.

use synap_content_service::Backend;
use synap_proto::content::{
    BatchPutBlobsRequest, BlobPut,
    BlobPutOutcome::{self, Durable, Refused, Taken, Unavailable},
    NewBlob, PutBlobSpec,
};
use synap_rpc::RpcError;
use synap_testkit::{
    faults::{Call, Fault, Faults},
    s3::S3Server,
};
use synap_types::Checksum;

use crate::running::{MIB, Running, bytes, over_every_store, spec, start_with};

over_every_store!(
    many_are_written_and_read_back,
    each_has_its_own_outcome,
    a_call_that_cannot_be_accepted_writes_nothing,
);

fn key(i: usize) -> String {
    format!("users/{}/notes/{i}/first.md", i % 3)
}

fn blob(key: &str, body: &[u8]) -> NewBlob {
    NewBlob { spec: Some(spec(key, body)), data: body.to_vec().into() }
}

async fn put_all(
    service: &Running,
    blobs: Vec<NewBlob>,
    read_back: bool,
) -> Result<Vec<BlobPut>, RpcError> {
    let request = BatchPutBlobsRequest { blobs, read_back };
    let answer = service.client().batch_put_blobs(request).await;
    answer.map(|answer| answer.into_inner().puts).map_err(RpcError::from)
}

fn outcomes(puts: &[BlobPut]) -> Vec<BlobPutOutcome> {
    puts.iter().map(BlobPut::outcome).collect()
}

async fn many_are_written_and_read_back(service: Running) {
    // Also the largest that there may be, and an empty one.
    let body = |i: usize| bytes(if i == 7 { MIB } else { i * 100 });
    for read_back in [true, false, true] {
        let blobs = (0..100).map(|i| blob(&key(i), &body(i))).collect();
        let puts = put_all(&service, blobs, read_back).await.unwrap();
        assert_eq!(puts.len(), 100);
        for (i, put) in puts.into_iter().enumerate() {
            assert_eq!((put.outcome(), &*put.key, &*put.detail), (Durable, &*key(i), ""));
            let described = put.blob.unwrap();
            assert_eq!(&described.sha256[..], Checksum::of(&body(i)).as_bytes());
            let (blob, read) = service.get(&key(i)).await.unwrap();
            assert!(read == body(i));
            assert_eq!((described.size, described.url), (blob.size, blob.url));
        }
    }
    assert!(put_all(&service, Vec::new(), true).await.unwrap().is_empty());
}

async fn each_has_its_own_outcome(service: Running) {
    service.put(&key(1), b"another").await.unwrap();
    let mut lie = blob(&key(2), b"two");
    lie.data = b"owt".as_slice().into();
    let mut short = blob(&key(3), b"three");
    short.data.truncate(2);
    // What is promised of it is what there is.
    let unknown = PutBlobSpec { key: key(4), ..PutBlobSpec::default() };
    let unknown = NewBlob { spec: Some(unknown), data: b"four".as_slice().into() };
    let blobs = vec![blob(&key(0), b"none"), blob(&key(1), b"one"), lie, short, unknown];
    let puts = put_all(&service, blobs, true).await.unwrap();
    assert_eq!(outcomes(&puts), [Durable, Taken, Refused, Refused, Durable]);
    assert!(puts[1].detail.contains("taken") && puts[2].detail.contains("checksum"));
    assert_eq!(&puts[4].blob.as_ref().unwrap().sha256[..], Checksum::of(b"four").as_bytes());
    assert_eq!(service.get(&key(1)).await.unwrap().1, b"another");
    for i in [2, 3] {
        assert_eq!(service.head(&key(i)).await.unwrap_err().reason, "NOT_FOUND");
    }
}

async fn a_call_that_cannot_be_accepted_writes_nothing(service: Running) {
    let good = || blob(&key(0), b"body");
    let with = |bad: NewBlob| vec![good(), bad];
    let most = vec![7; MIB];
    for (blobs, field) in [
        ((0..101).map(|i| blob(&key(i), b"")).collect(), "blobs"),
        ((0..4).map(|i| blob(&key(i), &most[MIB / 5..])).collect(), "blobs"),
        (with(blob(&key(1), &[&most[..], b"!"].concat())), "blobs[1].data"),
        (with(blob("users/u/../../x.md", b"")), "blobs[1].spec.key"),
        (with(good()), "blobs[1].spec.key"),
        (with(NewBlob::default()), "blobs[1].spec"),
        (
            with(NewBlob {
                spec: Some(PutBlobSpec { sha256: vec![0; 31].into(), ..spec(&key(1), b"") }),
                ..NewBlob::default()
            }),
            "blobs[1].spec.sha256",
        ),
    ] {
        let error = put_all(&service, blobs, true).await.unwrap_err();
        assert_eq!(error.reason, "INVALID_FIELD", "{field}");
        assert_eq!(error.violations[0].field, field);
        assert!(service.files().is_empty());
        assert_eq!(service.head(&key(0)).await.unwrap_err().reason, "NOT_FOUND");
    }
}

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

fn is_of(i: usize, call: &Call) -> bool {
    call.path.ends_with(&key(i))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_says_no_to_some_is_unavailable_to_those() {
    let (service, faults) = behind_faults().await;
    // One is never written, of one the answer is lost, and one cannot be read back.
    let mut lost = false;
    faults.rule(move |call| match call {
        call if is_of(1, call) => Some(Fault::Status { code: 503, retry_after: None }),
        call if is_of(2, call) && !std::mem::replace(&mut lost, true) => Some(Fault::LoseAnswer),
        call if is_of(3, call) && call.is("GET") => {
            Some(Fault::Status { code: 429, retry_after: None })
        }
        _ => None,
    });
    let blobs = || (0..5).map(|i| blob(&key(i), &bytes(1000 + i))).collect();
    let puts = put_all(&service, blobs(), true).await.unwrap();
    assert_eq!(outcomes(&puts), [Durable, Unavailable, Durable, Unavailable, Durable]);
    assert!(!puts[1].detail.is_empty() && puts[1].blob.is_none());
    assert_eq!(service.files().len(), 4);

    faults.none();
    let puts = put_all(&service, blobs(), true).await.unwrap();
    assert_eq!(outcomes(&puts), [Durable; 5]);
    for i in 0..5 {
        assert!(service.get(&key(i)).await.unwrap().1 == bytes(1000 + i));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_back_is_what_the_store_has() {
    let (service, faults) = behind_faults().await;
    let object = service.s3.as_ref().unwrap().objects().join(key(0));
    faults.rule(move |call| {
        if is_of(0, call) && call.is("GET") {
            std::fs::write(&object, b"what a bad disk makes of it").unwrap();
        }
        None
    });
    let blobs = vec![blob(&key(0), b"body"), blob(&key(1), b"body")];
    let puts = put_all(&service, blobs, true).await.unwrap();
    assert_eq!(outcomes(&puts), [BlobPutOutcome::Different, Durable]);
}
