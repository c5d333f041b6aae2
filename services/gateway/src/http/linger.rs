//! An answer that comes before the end of its request has to reach its reader.
//!
//! A client that is refused early (too large, no token, no such procedure) is often still writing.
//! Were the connection closed now, what it has sent would be answered with a reset, and a reset
//! takes with it the answer that the client has not read yet. So a body that nobody wants is read on
//! for a while, and thrown away.

use std::{
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::header,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a client may go on writing after its answer.
const LINGER: Duration = Duration::from_secs(5);
/// Bodies that are thrown away at one time. They cost a task each, and no memory for what they hold.
const MAX_LINGERING: usize = 256;

static LINGERING: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(MAX_LINGERING)));

/// Reads on what the answer has left unread.
pub(super) async fn lingering(request: Request, next: Next) -> Response {
    // Who asks first sends nothing before it is told to: reading would tell it to.
    let asks_first = request.headers().contains_key(header::EXPECT);
    let request =
        request.map(|inner| Body::new(LingeringBody { inner: Some(inner), unasked: asks_first }));
    next.run(request).await
}

struct LingeringBody {
    /// None after its end.
    inner: Option<Body>,
    /// The client waits to be asked for the body, and has not been.
    unasked: bool,
}

impl HttpBody for LingeringBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.unasked = false;
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(inner).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            self.inner = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for LingeringBody {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if self.unasked || inner.is_end_stream() {
            return;
        }
        let Ok(permit) = Arc::clone(&LINGERING).try_acquire_owned() else { return };
        // No runtime is one that is going away, and the connection with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(throw_away(inner, permit));
        }
    }
}

async fn throw_away(mut body: Body, _permit: OwnedSemaphorePermit) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever writes for longer does not want to hear the answer.
    let _ = tokio::time::timeout(LINGER, rest).await;
}
