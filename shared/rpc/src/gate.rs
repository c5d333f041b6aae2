//! The door of a server with callers of its own: whoever is not known takes no place inside.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{Callers, held};

/// Lets in whom `callers` knows, and counts a call until its answer has been read.
#[derive(Clone)]
pub(crate) struct GateLayer {
    pub(crate) callers: Callers,
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService { inner, callers: self.callers.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct GateService<S> {
    inner: S,
    callers: Callers,
}

impl<S> Service<Request<Body>> for GateService<S>
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if request.uri().path().starts_with("/grpc.") {
            return Box::pin(self.inner.call(request));
        }
        let callers = self.callers.clone();
        // The service that is ready is this one; the clone stays behind for the next call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let admitted = match callers.admit(request.headers()).await {
                Ok(admitted) => admitted,
                Err(error) => return Ok(Status::from(error).into_http()),
            };
            request.extensions_mut().insert(admitted.user().clone());
            let answer = inner.call(request).await?;
            Ok(held::until_read(answer, admitted))
        })
    }
}
