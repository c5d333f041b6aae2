//! What each failure becomes in HTTP: the statuses that S3 has for it.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header, request},
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use tonic::Code;

use crate::{error::ContentError, store::StoreError};

/// What is read on of a body that is refused. A client that is still sending when we hang up may
/// never see the answer; one with more to send than this has to live with that.
const MAX_DRAINED_BYTES: usize = 64 * 1024 * 1024;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Not signed by us, or over, or not for this.
    Unsigned,
    /// The key has a blob.
    Exists,
    /// The range begins past the end of a blob of so many bytes.
    OutOfRange(u64),
    /// The body is not what was signed, or did not come in full.
    Upload(ContentError),
    /// The store failed, or said no.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ContentError> for Refusal {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Store(error) => Self::Store(error),
            error => Self::Upload(error),
        }
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let say = |status: StatusCode, what: &str| (status, format!("{what}\n")).into_response();
        match refusal {
            Refusal::Unsigned => say(StatusCode::FORBIDDEN, "forbidden"),
            Refusal::Exists | Refusal::Store(StoreError::Taken) => {
                say(StatusCode::PRECONDITION_FAILED, "this blob was written before")
            }
            Refusal::OutOfRange(size) => {
                let mut answer = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
                    answer.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                answer
            }
            Refusal::Upload(ContentError::Body(mismatch)) => {
                say(StatusCode::BAD_REQUEST, &format!("{mismatch}; nothing was written"))
            }
            Refusal::Upload(ContentError::Stream(status))
                if status.code() == Code::DeadlineExceeded =>
            {
                say(StatusCode::REQUEST_TIMEOUT, "no more of the body came; nothing was written")
            }
            Refusal::Upload(_) => {
                say(StatusCode::BAD_REQUEST, "the body ended early; nothing was written")
            }
            Refusal::Store(StoreError::NotFound) => say(StatusCode::NOT_FOUND, "no such blob"),
            Refusal::Store(StoreError::NameTooLong) => {
                say(StatusCode::BAD_REQUEST, "the key is too long for the store")
            }
            Refusal::Store(StoreError::Unavailable { cause, .. }) => {
                tracing::warn!(reason = cause, "the object store failed");
                let mut answer =
                    say(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer; try again");
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                answer
            }
            Refusal::Store(error) => {
                tracing::error!(reason = error.cause(), "a signed URL could not be served");
                say(StatusCode::INTERNAL_SERVER_ERROR, "a fault of ours; the log has the details")
            }
        }
    }
}

/// Refuses a request whose body was not looked at.
pub(super) async fn refuse(
    refusal: Refusal,
    head: &request::Parts,
    body: Body,
    silence: Duration,
) -> Response {
    // A client that asked first (`Expect: 100-continue`) sends nothing if it is not told to.
    if !head.headers.contains_key(header::EXPECT) {
        drain(body, silence).await;
    }
    refusal.into()
}

/// Reads on, for a while, what a client sends.
async fn drain(body: Body, silence: Duration) {
    let mut chunks = body.into_data_stream();
    let mut left = MAX_DRAINED_BYTES;
    let reading = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(silence, reading).await;
}
