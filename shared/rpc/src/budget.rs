//! How many bytes of messages a server holds at once, whoever sends them.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use synap_proto::reason;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::RpcError;

/// A number of bytes that is shared out. Cheap to clone; all clones share.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    max: usize,
    used: AtomicUsize,
}

impl ByteBudget {
    /// A budget of `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { inner: Arc::new(Inner { max, used: AtomicUsize::new(0) }) }
    }

    /// A share with nothing in it yet.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: Arc::clone(&self.inner), taken: AtomicUsize::new(0) }
    }
}

/// The bytes of one call; they go back when this is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Inner>,
    taken: AtomicUsize,
}

impl Share {
    /// Takes more bytes.
    ///
    /// # Errors
    /// [`Exhausted`] if they are not there: the others have them.
    pub fn take(&self, bytes: usize) -> Result<(), Exhausted> {
        let Inner { max, used } = &*self.budget;
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| sum <= max);
        if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(Exhausted { max_bytes: *max });
        }
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.taken.get_mut(), Ordering::Relaxed);
    }
}

/// The budget is used up for now; on the wire `RESOURCE_EXHAUSTED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "more bytes of messages at once than this server holds; try again, a little later each time"
)]
pub struct Exhausted {
    max_bytes: usize,
}

impl From<Exhausted> for RpcError {
    fn from(exhausted: Exhausted) -> Self {
        Self::new(Code::ResourceExhausted, reason::OVERLOADED, exhausted.to_string())
            .with("max_bytes", exhausted.max_bytes.to_string())
            .retry_after(Duration::from_millis(500))
    }
}

/// Counts what the requests of some methods bring, until their answer begins.
#[derive(Debug, Clone)]
pub(crate) struct BudgetLayer {
    pub(crate) budget: ByteBudget,
    pub(crate) methods: &'static [&'static str],
}

impl<S> Layer<S> for BudgetLayer {
    type Service = BudgetService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BudgetService { inner, limits: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct BudgetService<S> {
    inner: S,
    limits: BudgetLayer,
}

impl<S> Service<Request<Body>> for BudgetService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !self.limits.methods.contains(&request.uri().path()) {
            return Box::pin(self.inner.call(request));
        }
        let share = Arc::new(self.limits.budget.share());
        let counted = Arc::clone(&share);
        let request = request.map(|inner| Body::new(CountedBody { inner, share: counted }));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // The body is gone when the message is there; the message is not.
            drop(share);
            answer
        })
    }
}

struct CountedBody {
    inner: Body,
    share: Arc<Share>,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(exhausted) = self.share.take(data.len())
        {
            return Poll::Ready(Some(Err(RpcError::from(exhausted).into())));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_goes_back() {
        let budget = ByteBudget::new(10);
        let (one, two) = (budget.share(), budget.clone().share());
        one.take(4).unwrap();
        one.take(2).unwrap();
        two.take(4).unwrap();
        assert_eq!(two.take(1), Err(Exhausted { max_bytes: 10 }));
        two.take(0).unwrap();
        assert!(two.take(usize::MAX).is_err(), "no sum overflows");
        drop(one);
        two.take(6).unwrap();
        drop(two);
        assert_eq!(budget.inner.used.load(Ordering::Relaxed), 0);
    }
}
