//! Load shedding: a bounded number of calls run, a bounded number wait, the rest are told at once.
//!
//! A call runs until its answer begins. The stream of an answer holds no place: its pace is its
//! reader's, and a few hundred readers who stall would lock everybody else out.
//!
//! Health and reflection, which are open to strangers, have places of their own: nobody can take
//! those of calls with them, and no crowd of calls keeps a probe from being answered.

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

use http::{Request, Response};
use synap_proto::reason;
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::{RpcError, deadline::CHECK, held};

/// Health checks that run at once. Each takes microseconds, or 5 s if its caller sends nothing.
const MAX_CHECKS: usize = 128;
/// Streams of health and of reflection that are open at once, until the end of their answers.
const MAX_WATCHES: usize = 64;

/// Bounds the calls of a server.
#[derive(Debug, Clone)]
pub(crate) struct LimitLayer {
    checks: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
}

impl LimitLayer {
    /// `max_running` calls run at once, `max_waiting` more wait for a place.
    pub(crate) fn new(max_running: usize, max_waiting: usize) -> Self {
        Self {
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            running: Arc::new(Semaphore::new(max_running)),
            waiting: Arc::new(AtomicUsize::new(0)),
            max_waiting,
        }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = LimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LimitService { inner, limits: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct LimitService<S> {
    inner: S,
    limits: LimitLayer,
}

impl<S> Service<Request<Body>> for LimitService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with("/grpc.") {
            let LimitLayer { checks, watches, .. } = &self.limits;
            let places = if path == CHECK { checks } else { watches };
            let Ok(permit) = Arc::clone(places).try_acquire_owned() else {
                return Box::pin(async { Ok(Status::from(overloaded()).into_http()) });
            };
            let answer = self.inner.call(request);
            return Box::pin(async move { Ok(held::until_read(answer.await?, permit)) });
        }
        if let Ok(permit) = Arc::clone(&self.limits.running).try_acquire_owned() {
            let answer = self.inner.call(request);
            return Box::pin(async move {
                let answer = answer.await;
                drop(permit);
                answer
            });
        }
        let Some(place) = Place::take(&self.limits) else {
            return Box::pin(async { Ok(Status::from(overloaded()).into_http()) });
        };
        let running = Arc::clone(&self.limits.running);
        // The service that is ready is this one; the clone stays behind for the next call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let permit = running.acquire_owned().await;
            drop(place);
            let answer = inner.call(request).await;
            drop(permit);
            answer
        })
    }
}

/// A place in the queue; given back when dropped, so that a caller who leaves frees it.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(limits: &LimitLayer) -> Option<Self> {
        let before = limits.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(&limits.waiting));
        (before < limits.max_waiting).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn overloaded() -> RpcError {
    RpcError::new(
        Code::ResourceExhausted,
        reason::OVERLOADED,
        "more calls at once than this server takes; try again, a little later each time",
    )
    .retry_after(Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_neither_runs_nor_waits_is_told_at_once() {
        let gate = Arc::new(Semaphore::new(0));
        let handler = {
            let gate = Arc::clone(&gate);
            tower::service_fn(move |_: Request<Body>| {
                let gate = Arc::clone(&gate);
                async move {
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                }
            })
        };
        let layer = LimitLayer::new(1, 1);
        let mut server = layer.layer(handler);
        let call = |server: &mut LimitService<_>, path: &str| {
            server.call(Request::builder().uri(path).body(Body::empty()).unwrap())
        };
        let running = call(&mut server, "/synap/One");
        let waiting = tokio::spawn(call(&mut server, "/synap/Two"));
        let shed = call(&mut server, "/synap/Three").await.unwrap();
        assert_eq!(shed.headers()["grpc-status"], "8");
        let health = tokio::spawn(call(&mut server, "/grpc.health.v1.Health/Check"));

        gate.add_permits(3);
        assert!(running.await.unwrap().headers().get("grpc-status").is_none());
        assert!(waiting.await.unwrap().unwrap().headers().get("grpc-status").is_none());
        assert!(health.await.unwrap().unwrap().headers().get("grpc-status").is_none());
        assert_eq!(layer.waiting.load(Ordering::Relaxed), 0);
    }
}
