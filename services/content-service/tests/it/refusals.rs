//! What must not be stored is refused, says why, and leaves nothing behind.

use synap_content_service::Backend;
use synap_proto::content::{PutBlobRequest, PutBlobSpec};
use synap_rpc::RpcError;
use synap_types::Checksum;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::running::{
    MAX_BLOB_BYTES, Running, bytes, messages, over_every_store, over_memory_and_local, spec, start,
};

over_every_store!(
    a_body_that_is_not_what_was_promised_leaves_nothing,
    a_spec_that_cannot_be_accepted_leaves_nothing,
    no_key_leads_out_of_its_place,
    the_first_body_of_a_key_stays,
    a_blob_that_does_not_exist_is_not_found,
);
// s3s-fs answers 500 for its own directories; R2 has none.
over_memory_and_local!(a_part_of_a_key_is_no_blob);

const KEY: &str = "users/u/notes/x.md";

async fn assert_nothing_left(service: &Running) {
    assert_eq!(service.files(), Vec::<std::path::PathBuf>::new());
    assert_eq!(service.head(KEY).await.unwrap_err().reason, "NOT_FOUND");
}

async fn a_body_that_is_not_what_was_promised_leaves_nothing(service: Running) {
    let body = bytes(1_200_000);
    let promise = |change: fn(&mut PutBlobSpec)| {
        let mut parts = messages(KEY, &body);
        change(parts[0].spec.as_mut().unwrap());
        parts
    };
    let other: fn(&mut PutBlobSpec) = |spec| {
        spec.sha256 = Checksum::of(b"other").as_bytes().to_vec().into();
    };
    for (lie, change) in [
        ("another hash", other),
        ("one byte less", |spec| spec.size = spec.size.map(|size| size - 1)),
        ("one byte more", |spec| spec.size = spec.size.map(|size| size + 1)),
        ("nothing", |spec| spec.size = Some(0)),
    ] {
        let error = service.send(tokio_stream::iter(promise(change))).await;
        let error = error.unwrap_err();
        assert_eq!(
            (error.code, error.reason.as_str()),
            (Code::InvalidArgument, "BODY_MISMATCH"),
            "promised {lie}: {}",
            error.message
        );
        assert_nothing_left(&service).await;
    }
}

async fn a_spec_that_cannot_be_accepted_leaves_nothing(service: Running) {
    let one = |spec| {
        let data = b"body".as_slice().into();
        vec![PutBlobRequest { spec, data }]
    };
    let good = spec(KEY, b"body");
    let too_large = i64::try_from(MAX_BLOB_BYTES).unwrap() + 1;
    let mut twice = one(Some(good.clone()));
    twice[0].data = b"bo".as_slice().into();
    twice.push(PutBlobRequest { spec: Some(good.clone()), data: b"dy".as_slice().into() });
    for (parts, field) in [
        (vec![], "spec"),
        (one(None), "spec"),
        (twice, "spec"),
        (one(Some(PutBlobSpec { size: Some(too_large), ..good.clone() })), "spec.size"),
        (one(Some(PutBlobSpec { size: Some(-1), ..good.clone() })), "spec.size"),
        (one(Some(PutBlobSpec { sha256: vec![0; 31].into(), ..good })), "spec.sha256"),
    ] {
        let error = service.send(tokio_stream::iter(parts)).await.unwrap_err();
        assert_invalid(&error, field);
        assert_nothing_left(&service).await;
    }
}

fn assert_invalid(error: &RpcError, field: &str) {
    assert_eq!(error.code, Code::InvalidArgument, "{}", error.message);
    assert_eq!(error.reason, "INVALID_FIELD");
    let fields: Vec<_> = error.violations.iter().map(|one| &one.field).collect();
    assert_eq!(fields, [field], "{}", error.message);
}

async fn no_key_leads_out_of_its_place(service: Running) {
    let long = format!("users/u/{}", "x/".repeat(508)) + "y";
    assert_eq!(long.len(), 1025);
    for key in [
        "",
        "/etc/passwd",
        "users/../x",
        "users/u/../../x.md",
        "users/u/x#1",
        "users/u/notes/x.md/",
        "users/u/notes/x.md\0",
        "users\\u\\x.md",
        ".probe",
        "synap-readiness-probe",
        &long,
    ] {
        let error = service.put(key, b"body").await.unwrap_err();
        assert_invalid(&error, "spec.key");
        assert_invalid(&service.get(key).await.unwrap_err(), "key");
        assert_invalid(&service.head(key).await.unwrap_err(), "key");
        let error = service.delete(&[KEY, key]).await.unwrap_err();
        assert_invalid(&error, "keys[1]");
    }
    let many = vec![KEY; 1001];
    assert_invalid(&service.delete(&many).await.unwrap_err(), "keys");
    assert_nothing_left(&service).await;
}

async fn the_first_body_of_a_key_stays(service: Running) {
    service.put(KEY, b"first").await.unwrap();
    // Other bytes of another size, and of the same.
    for other in [b"second".as_slice(), b"FIRST"] {
        let error = service.put(KEY, other).await.unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (Code::AlreadyExists, "BLOB_EXISTS"));
        assert_eq!(service.get(KEY).await.unwrap().1, b"first");
    }
    assert!(service.files().len() <= 1);
}

async fn a_blob_that_does_not_exist_is_not_found(service: Running) {
    let status = service
        .client()
        .head_blob(synap_proto::content::HeadBlobRequest {
            key: KEY.to_owned(),
            with_sha256: false,
        })
        .await
        .unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NOT_FOUND", "synap"));
    let error = service.get(KEY).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
}

async fn a_part_of_a_key_is_no_blob(service: Running) {
    service.put(KEY, b"body").await.unwrap();
    for part in ["users/u/notes", "users/u/notes/x"] {
        assert_eq!(service.head(part).await.unwrap_err().code, Code::NotFound);
        assert_eq!(service.get(part).await.unwrap_err().code, Code::NotFound);
    }
    assert_eq!(service.get(KEY).await.unwrap().1, b"body");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_the_local_store_is_not_deleted() {
    let service = start(Backend::Local).await;
    service.put(KEY, b"body").await.unwrap();
    service.delete(&["users/u/notes"]).await.unwrap();
    assert_eq!(service.get(KEY).await.unwrap().1, b"body");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_name_of_a_key_is_no_name_too_long() {
    let service = start(Backend::Local).await;
    // The file system cannot have a longer one: no staging file may be named after it.
    let key = format!("users/u/notes/{}", "x".repeat(255));
    service.put(&key, b"body").await.unwrap();
    assert_eq!(service.get(&key).await.unwrap().1, b"body");
}
