//! Something that is kept until an answer has been sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Status, body::Body};

/// Keeps `what` until the last of the answer has been handed on, or its reader is gone.
pub(crate) fn until_read<T: Send + Unpin + 'static>(
    answer: Response<Body>,
    what: T,
) -> Response<Body> {
    if answer.body().is_end_stream() {
        return answer;
    }
    answer.map(|inner| Body::new(HeldBody { inner, what: Some(what) }))
}

struct HeldBody<T> {
    inner: Body,
    what: Option<T>,
}

impl<T: Unpin> http_body::Body for HeldBody<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let ended = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(Some(Err(_)) | None) => true,
            Poll::Pending => false,
        };
        if ended {
            // Before the caller can know that its call has ended: its next one must find the place
            // free.
            self.what = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
