//! URLs that allow one PUT: of exactly the promised body, once.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use synap_content_service::Backend;
use synap_proto::content::{SignUrlRequest, SignUrlResponse, SignedMethod};
use synap_types::Checksum;
use tonic::Code;

use crate::running::{Running, bytes, over_every_store, over_memory_and_local, start_with};

over_every_store!(
    the_promised_body_is_taken_and_is_a_blob_like_any_other,
    an_empty_body_is_a_body,
    a_request_that_was_not_signed_so_is_refused,
    a_blob_is_not_written_over,
    a_url_ends,
    what_cannot_be_signed_is_named,
);
// s3s-fs keeps a body whose checksum it refuses; R2 does not.
over_memory_and_local!(another_body_of_the_same_size_leaves_nothing, half_a_body_leaves_nothing);

const KEY: &str = "users/ada%40example%2Eorg/notes/signed.md";

pub(crate) fn wish(key: &str, body: &[u8]) -> SignUrlRequest {
    SignUrlRequest {
        key: key.to_owned(),
        method: SignedMethod::Put.into(),
        expires_in: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        size: i64::try_from(body.len()).unwrap(),
        sha256: Checksum::of(body).as_bytes().to_vec().into(),
        file_name: String::new(),
    }
}

/// The request that the answer describes.
pub(crate) fn request(signed: &SignUrlResponse, body: &[u8]) -> RequestBuilder {
    let method = signed.method.parse().unwrap();
    let request = Client::new().request(method, &signed.url).body(body.to_vec());
    signed.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

/// The request with another value, or none, for one of its headers.
fn changed(signed: &SignUrlResponse, name: &str, value: Option<&str>) -> SignUrlResponse {
    let mut signed = signed.clone();
    assert!(signed.headers.remove(name).is_some(), "{name} is not among {:?}", signed.headers);
    if let Some(value) = value {
        signed.headers.insert(name.to_owned(), value.to_owned());
    }
    signed
}

async fn the_promised_body_is_taken_and_is_a_blob_like_any_other(service: Running) {
    for size in [3, 20_000, 3_000_000] {
        let key = format!("users/ada%40example%2Eorg/notes/{size}.md");
        let body = bytes(size);
        let signed = service.sign(wish(&key, &body)).await.unwrap();
        assert_eq!(signed.method, "PUT");
        let mut names: Vec<_> = signed.headers.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "if-none-match", "x-amz-checksum-sha256"]);
        assert_eq!(status(request(&signed, &body)).await, StatusCode::OK);
        let (blob, read) = service.get(&key).await.unwrap();
        assert!(read == body);
        assert_eq!(blob.content_type, "text/markdown; charset=utf-8");
    }
}

async fn an_empty_body_is_a_body(service: Running) {
    let signed = service.sign(wish(KEY, b"")).await.unwrap();
    // reqwest leaves the length of nothing out.
    let request = request(&signed, b"").header("content-length", "0");
    assert_eq!(status(request).await, StatusCode::OK);
    assert_eq!(service.get(KEY).await.unwrap().1, b"");
}

async fn a_request_that_was_not_signed_so_is_refused(service: Running) {
    let body = bytes(1000);
    let signed = service.sign(wish(KEY, &body)).await.unwrap();
    let elsewhere = |from: &str, to: &str| {
        let url = signed.url.replace(from, to);
        assert_ne!(url, signed.url);
        SignUrlResponse { url, ..signed.clone() }
    };
    let other_sum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let (later, over) = match service.backend {
        Backend::S3 => (("X-Amz-Expires=60", "X-Amz-Expires=61"), "X-Amz-Signature"),
        _ => (("expires=1", "expires=2"), "signature"),
    };
    let unsigned = signed.url.split('?').next().unwrap();
    let cases = [
        ("a shorter body", request(&signed, &body[1..])),
        ("a longer body", request(&signed, &bytes(1001))),
        ("another type", request(&changed(&signed, "content-type", Some("text/html")), &body)),
        ("no type", request(&changed(&signed, "content-type", None), &body)),
        ("may overwrite", request(&changed(&signed, "if-none-match", None), &body)),
        ("no sum", request(&changed(&signed, "x-amz-checksum-sha256", None), &body)),
        (
            "another sum",
            request(&changed(&signed, "x-amz-checksum-sha256", Some(other_sum)), &body),
        ),
        ("another key", request(&elsewhere("signed.md", "other.md"), &body)),
        ("another user", request(&elsewhere("users/ada", "users/bob"), &body)),
        ("a later end", request(&elsewhere(later.0, later.1), &body)),
        ("half a signature", request(&elsewhere(over, "X"), &body)),
        (
            "no signature",
            request(&SignUrlResponse { url: unsigned.to_owned(), ..signed.clone() }, &body),
        ),
        (
            "to read with it",
            request(&SignUrlResponse { method: "GET".to_owned(), ..signed.clone() }, b""),
        ),
        (
            "to delete with it",
            request(&SignUrlResponse { method: "DELETE".to_owned(), ..signed.clone() }, b""),
        ),
    ];
    for (what, request) in cases {
        assert_eq!(status(request).await, StatusCode::FORBIDDEN, "{what}");
    }
    assert!(service.files().is_empty(), "{:?}", service.files());
    assert_eq!(service.head(KEY).await.unwrap_err().code, Code::NotFound);
    // And the URL itself was right.
    assert_eq!(status(request(&signed, &body)).await, StatusCode::OK);
}

async fn a_blob_is_not_written_over(service: Running) {
    let (first, second) = (bytes(1000), vec![5; 2_000_000]);
    service.put(KEY, &first).await.unwrap();
    for body in [&first, &second] {
        let signed = service.sign(wish(KEY, body)).await.unwrap();
        assert_eq!(status(request(&signed, body)).await, StatusCode::PRECONDITION_FAILED);
    }
    assert_eq!(service.get(KEY).await.unwrap().1, first);
}

async fn a_url_ends(service: Running) {
    let body = bytes(1000);
    let short = SignUrlRequest {
        expires_in: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..wish(KEY, &body)
    };
    let signed = service.sign(short).await.unwrap();
    let ends = signed.expire_time.unwrap();
    let left = || async {
        // The time itself is what is waited for.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        i64::try_from(now).unwrap() <= ends.seconds
    };
    while left().await {}
    assert_eq!(status(request(&signed, &body)).await, StatusCode::FORBIDDEN);
    assert_eq!(service.head(KEY).await.unwrap_err().code, Code::NotFound);
}

async fn what_cannot_be_signed_is_named(service: Running) {
    let too_long = SignUrlRequest {
        expires_in: Some(prost_types::Duration { seconds: 604_801, nanos: 0 }),
        ..wish(KEY, b"x")
    };
    let error = service.sign(too_long).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    assert_eq!(error.violations[0].field, "expires_in");
}

async fn another_body_of_the_same_size_leaves_nothing(service: Running) {
    let body = bytes(200_000);
    let signed = service.sign(wish(KEY, &body)).await.unwrap();
    let mut other = body.clone();
    other[199_999] ^= 1;
    assert_eq!(status(request(&signed, &other)).await, StatusCode::BAD_REQUEST);
    assert!(service.files().is_empty(), "{:?}", service.files());
    assert_eq!(service.head(KEY).await.unwrap_err().code, Code::NotFound);
    assert_eq!(status(request(&signed, &body)).await, StatusCode::OK);
}

/// A client that stops halfway: its connection is dropped, and what it held is free again.
async fn half_a_body_leaves_nothing(service: Running) {
    let backend = service.backend;
    drop(service);
    let service = start_with(backend, |config| config.urls.http_silence_secs = 1).await;
    let body = bytes(200_000);
    let signed = service.sign(wish(KEY, &body)).await.unwrap();
    let half = body[..100_000].to_vec();
    let half = tokio_stream::iter([Ok::<_, std::io::Error>(half)]);
    let silence = tokio_stream::StreamExt::chain(half, tokio_stream::pending());
    let request = request(&signed, b"")
        .header("content-length", "200000")
        .body(reqwest::Body::wrap_stream(silence));
    assert_eq!(status(request).await, StatusCode::REQUEST_TIMEOUT);
    assert!(service.files().is_empty(), "{:?}", service.files());
    assert_eq!(service.head(KEY).await.unwrap_err().code, Code::NotFound);
}
