//! One try of a request. It has no time limit as a whole: 5 GiB take as long as they take. What ends
//! it is silence, of us while we send and of S3 afterwards.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
};
use reqwest::{Client, redirect};
use tokio::{sync::Notify, time::Sleep};
use url::Url;

use crate::config::S3Limits;

/// What is read of an answer that nobody wants, so that its connection can be used again: S3's
/// errors are a few hundred bytes, and come at once.
const UNWANTED_BYTES: u64 = 64 * 1024;
const UNWANTED_WAIT: Duration = Duration::from_secs(1);

/// Sends requests.
#[derive(Debug)]
pub(super) struct Sender {
    client: Client,
    silence: Duration,
}

/// Neither side sent a byte for so long.
#[derive(Debug, thiserror::Error)]
#[error("no byte came or went for {0:?}")]
struct Silent(Duration);

impl Sender {
    pub(super) fn new(limits: &S3Limits) -> io::Result<Self> {
        let client = Client::builder()
            .connect_timeout(limits.connect_timeout())
            .redirect(redirect::Policy::none())
            // A connection for each request in flight: one that is lost takes one along.
            .http1_only()
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { client, silence: limits.silence() })
    }

    /// Sends a request, and returns when the head of the answer is there.
    pub(super) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = Url::parse(&head.uri.to_string())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut request = reqwest::Request::new(head.method, url);
        *request.headers_mut() = head.headers;
        let moved = Arc::new(Notify::new());
        *request.body_mut() = Some(watched(body, &moved));

        let answering = self.client.execute(request);
        tokio::pin!(answering);
        let answer = loop {
            tokio::select! {
                answer = &mut answering => break answer.map_err(broken)?,
                // More of the body was taken.
                () = moved.notified() => {}
                () = tokio::time::sleep(self.silence) => return Err(silent(self.silence)),
            }
        };
        let (head, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        let body = Heard { body, silence: self.silence, waiting: None };
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

fn watched(body: HttpRequestBody, moved: &Arc<Notify>) -> reqwest::Body {
    if body.content_length() == 0 {
        return Bytes::new().into();
    }
    reqwest::Body::wrap(Watched { body, moved: Arc::clone(moved) })
}

/// Reads what is left of an answer, if that is little.
pub(super) async fn finish(answer: HttpResponse) {
    let body = answer.into_body();
    if body.size_hint().upper().is_some_and(|bytes| bytes <= UNWANTED_BYTES) {
        let _ = tokio::time::timeout(UNWANTED_WAIT, body.bytes()).await;
    }
}

fn silent(silence: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, Silent(silence))
}

/// The URL is left out: object_store names it where it may be named.
fn broken(error: reqwest::Error) -> HttpError {
    let kind = if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else if error.is_builder() {
        HttpErrorKind::Unknown
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

/// The body of a request; tells when some of it is taken.
struct Watched {
    body: HttpRequestBody,
    moved: Arc<Notify>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.moved.notify_one();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; silence ends it. Time counts only while somebody waits for the next bytes.
struct Heard {
    body: reqwest::Body,
    silence: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Body for Heard {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = None;
            return Poll::Ready(next.map(|frame| frame.map_err(broken)));
        }
        let silence = this.silence;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        waiting.as_mut().poll(cx).map(|()| Some(Err(silent(silence))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use object_store::PutPayload;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::Instant,
    };

    use super::*;

    /// What sockets hold does not count: it must be little of the whole.
    const SIZE: usize = 32 * 1024 * 1024;

    /// Reads a megabyte, pauses, reads on; answers at the end.
    async fn slow_reader(pause: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (mut buffer, mut seen) = (vec![0; 1024 * 1024], 0);
            while seen < SIZE {
                seen += socket.read(&mut buffer).await.unwrap();
                tokio::time::sleep(pause).await;
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        });
        url
    }

    async fn send(pause: Duration, silence: Duration) -> Result<HttpResponse, HttpError> {
        let chunk = Bytes::from(vec![7; 64 * 1024]);
        let body: PutPayload = std::iter::repeat_n(chunk, SIZE / (64 * 1024)).collect();
        let request = http::Request::put(slow_reader(pause).await).body(body.into()).unwrap();
        let client = Sender::new(&S3Limits::default()).unwrap().client;
        Sender { client, silence }.send(request).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_that_moves_may_take_longer_than_the_silence_that_is_allowed() {
        let (begun, silence) = (Instant::now(), Duration::from_secs(2));
        send(Duration::from_millis(100), silence).await.unwrap();
        assert!(begun.elapsed() > silence, "took only {:?}", begun.elapsed());
        let stuck = send(Duration::from_hours(1), silence).await.unwrap_err();
        assert_eq!(stuck.kind(), HttpErrorKind::Timeout);
    }
}
