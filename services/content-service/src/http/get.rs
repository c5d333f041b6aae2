//! GET and HEAD of a blob.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request},
    response::Response,
};
use chrono::{DateTime, Utc};
use synap_types::BlobKey;

use super::{
    Blobs,
    answer::Refusal,
    range::{self, Asked},
};
use crate::store::{BlobMeta, Range};

/// Answers with the blob, a range of it, or only its description.
pub(super) async fn get(
    blobs: &Blobs,
    key: &BlobKey,
    disposition: &str,
    head: &request::Parts,
) -> Result<Response, Refusal> {
    let meta = blobs.store.head(key).await?;
    let mut headers = describe(key, disposition, &meta);
    if is_known(&head.headers, &headers) {
        return Ok(answer(StatusCode::NOT_MODIFIED, headers, Body::empty()));
    }
    let wanted = head.headers.get(header::RANGE).filter(|_| is_same(&head.headers, &headers));
    let (status, part) = match range::read(wanted.and_then(|text| text.to_str().ok()), meta.size) {
        Asked::Whole => (StatusCode::OK, 0..meta.size),
        Asked::Nothing => return Err(Refusal::OutOfRange(meta.size)),
        Asked::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
    };
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", part.start, part.end - 1, meta.size);
        headers.insert(header::CONTENT_RANGE, ascii(&text));
    }
    headers.insert(header::CONTENT_LENGTH, (part.end - part.start).into());
    let range = Range { offset: part.start, length: Some(part.end - part.start) };
    let body = if head.method == Method::HEAD || part.is_empty() {
        Body::empty()
    } else {
        Body::from_stream(blobs.store.read(key, range).await?.chunks)
    };
    Ok(answer(status, headers, body))
}

fn answer(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn describe(key: &BlobKey, disposition: &str, meta: &BlobMeta) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(key.content_type()));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, ascii(&etag(meta)));
    headers.insert(header::LAST_MODIFIED, ascii(&http_date(meta.updated)));
    // The URL ends one day; what a shared cache kept of it would not.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    // The content type says what it is, whatever a browser makes of the bytes.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !disposition.is_empty() {
        headers.insert(header::CONTENT_DISPOSITION, ascii(disposition));
    }
    headers
}

/// Names the bytes: a key is written once, so that its size and time never stay while they change.
fn etag(meta: &BlobMeta) -> String {
    format!("\"{:x}-{:x}\"", meta.updated.timestamp_micros(), meta.size)
}

fn http_date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Everything that we write into headers is ASCII; what is not would be lost, not refused.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// Whether the client has these bytes (`If-None-Match`).
fn is_known(request: &HeaderMap, blob: &HeaderMap) -> bool {
    let known = request.get_all(header::IF_NONE_MATCH).into_iter();
    let mut known = known.filter_map(|text| text.to_str().ok()).flat_map(|text| text.split(','));
    known.any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.trim_start_matches("W/").as_bytes() == blob[header::ETAG].as_bytes()
    })
}

/// Whether a range of what the client has part of may be sent (`If-Range`).
fn is_same(request: &HeaderMap, blob: &HeaderMap) -> bool {
    let Some(expected) = request.get(header::IF_RANGE) else { return true };
    expected == blob[header::ETAG] || expected == blob[header::LAST_MODIFIED]
}
