//! A door that a server shuts by itself: while it cannot do what most of its calls are for.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::RpcError;

/// Why a call (`/package.Service/Method`) is refused now; `None` lets it in.
pub(crate) type WhyShut = Arc<dyn Fn(&str) -> Option<RpcError> + Send + Sync>;

/// Refuses calls for as long as there is a reason. Health and reflection are always let in.
#[derive(Clone)]
pub(crate) struct DoorLayer {
    pub(crate) why_shut: WhyShut,
}

impl<S> Layer<S> for DoorLayer {
    type Service = DoorService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DoorService { inner, why_shut: Arc::clone(&self.why_shut) }
    }
}

#[derive(Clone)]
pub(crate) struct DoorService<S> {
    inner: S,
    why_shut: WhyShut,
}

impl<S> Service<Request<Body>> for DoorService<S>
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
        let path = request.uri().path();
        let why = if path.starts_with("/grpc.") { None } else { (self.why_shut)(path) };
        match why {
            Some(error) => Box::pin(std::future::ready(Ok(Status::from(error).into_http()))),
            None => Box::pin(self.inner.call(request)),
        }
    }
}
