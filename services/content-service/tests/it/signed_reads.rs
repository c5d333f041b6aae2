//! URLs that allow to read a blob, or a range of it.

use std::collections::BTreeMap;

use reqwest::{Client, Method, Response, StatusCode};
use synap_content_service::Backend;
use synap_proto::content::{SignUrlRequest, SignedMethod};

use crate::running::{Running, bytes, over_every_store, over_memory_and_local};

over_every_store!(
    a_url_reads_the_blob_with_its_type_and_name,
    ranges_are_what_was_asked_for,
    a_url_that_is_not_ours_reads_nothing,
);
// A HEAD needs a signature of its own on S3, whose ETags and sandboxes are its own as well.
over_memory_and_local!(a_blob_is_described_to_browsers);

const KEY: &str = "users/ada%40example%2Eorg/files/report.pdf";

pub(crate) fn wish(key: &str, file_name: &str) -> SignUrlRequest {
    SignUrlRequest {
        key: key.to_owned(),
        method: SignedMethod::Get.into(),
        expires_in: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        file_name: file_name.to_owned(),
        ..SignUrlRequest::default()
    }
}

async fn ask(method: Method, url: &str, headers: &[(&str, &str)]) -> Response {
    let request = Client::new().request(method, url);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.unwrap()
}

async fn get(url: &str, headers: &[(&str, &str)]) -> Response {
    ask(Method::GET, url, headers).await
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn a_url_reads_the_blob_with_its_type_and_name(service: Running) {
    let body = bytes(3_000_000);
    service.put(KEY, &body).await.unwrap();
    let signed = service.sign(wish(KEY, "Bericht für \"Ada\".pdf")).await.unwrap();
    assert_eq!((signed.method.as_str(), signed.headers.len()), ("GET", 0));
    let answer = get(&signed.url, &[]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, "content-type"), "application/pdf");
    assert_eq!(
        header(&answer, "content-disposition"),
        "attachment; filename=\"Bericht f_r _Ada_.pdf\"; \
         filename*=UTF-8''Bericht%20f%C3%BCr%20%22Ada%22.pdf"
    );
    assert_eq!(answer.content_length(), Some(3_000_000));
    assert!(answer.bytes().await.unwrap() == body);

    let signed = service.sign(wish(KEY, "")).await.unwrap();
    let answer = get(&signed.url, &[]).await;
    assert_eq!(header(&answer, "content-disposition"), "");
    assert!(answer.bytes().await.unwrap() == body);

    service.put("users/u/files/empty.bin", b"").await.unwrap();
    let signed = service.sign(wish("users/u/files/empty.bin", "")).await.unwrap();
    let answer = get(&signed.url, &[]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.bytes().await.unwrap().len(), 0);
}

async fn ranges_are_what_was_asked_for(service: Running) {
    let body = bytes(700_000);
    service.put(KEY, &body).await.unwrap();
    let url = service.sign(wish(KEY, "")).await.unwrap().url;
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=1-300000", 1..300_001),
        ("bytes=262143-262144", 262_143..262_145),
        ("bytes=699999-", 699_999..700_000),
        ("bytes=5-99999999", 5..700_000),
        ("bytes=-17", 699_983..700_000),
    ] {
        let answer = get(&url, &[("range", range)]).await;
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let described = format!("bytes {}-{}/700000", part.start, part.end - 1);
        assert_eq!(header(&answer, "content-range"), described);
        assert_eq!(answer.content_length(), Some((part.end - part.start) as u64));
        assert!(answer.bytes().await.unwrap() == body[part], "{range}");
    }
    let answer = get(&url, &[("range", "bytes=700000-")]).await;
    assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    if service.backend != Backend::S3 {
        assert_eq!(header(&answer, "content-range"), "bytes */700000");
    }
}

async fn a_url_that_is_not_ours_reads_nothing(service: Running) {
    let body = bytes(1000);
    service.put(KEY, &body).await.unwrap();
    let url = service.sign(wish(KEY, "name.pdf")).await.unwrap().url;
    let later = match service.backend {
        Backend::S3 => url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"),
        _ => url.replace("expires=1", "expires=2"),
    };
    for tampered in [
        later,
        url.replace("report.pdf", "other.pdf"),
        url.replace("name.pdf", "name.exe"),
        url.replace("ignature=", "ignature=0"),
        url.split('?').next().unwrap().to_owned(),
        format!("{url}&more=1"),
    ] {
        assert_ne!(tampered, url);
        let answer = get(&tampered, &[]).await;
        // What is no signature at all, S3 may call a bad request.
        assert!(matches!(answer.status().as_u16(), 400 | 403), "{}", answer.status());
        assert!(answer.bytes().await.unwrap() != body);
    }
    let missing = service.sign(wish("users/u/files/missing.pdf", "")).await.unwrap().url;
    assert_eq!(get(&missing, &[]).await.status(), StatusCode::NOT_FOUND);
}

async fn a_blob_is_described_to_browsers(service: Running) {
    let body = bytes(1000);
    service.put(KEY, &body).await.unwrap();
    let url = service.sign(wish(KEY, "")).await.unwrap().url;
    let answer = ask(Method::HEAD, &url, &[]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let described: BTreeMap<_, _> = [
        "content-type",
        "content-length",
        "accept-ranges",
        "cache-control",
        "x-content-type-options",
    ]
    .map(|name| (name, header(&answer, name)))
    .into();
    let expected = [
        ("content-type", "application/pdf"),
        ("content-length", "1000"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private"),
        ("x-content-type-options", "nosniff"),
    ];
    assert_eq!(described, expected.into());
    let etag = header(&answer, "etag").to_owned();

    let known = get(&url, &[("if-none-match", &etag)]).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    let more = get(&url, &[("range", "bytes=10-19"), ("if-range", &etag)]).await;
    assert_eq!(more.status(), StatusCode::PARTIAL_CONTENT);
    let other = get(&url, &[("range", "bytes=10-19"), ("if-range", "\"other\"")]).await;
    assert_eq!(other.status(), StatusCode::OK);
    assert_eq!(other.bytes().await.unwrap(), body);
}
