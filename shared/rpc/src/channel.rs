//! The caller's end: a connection that comes back by itself, and calls that carry their deadline
//! and their trace.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use synap_proto::reason;
use synap_telemetry::propagation;
use tonic::{
    Code, Status,
    body::Body,
    transport::{self, ClientTlsConfig, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::Service;
use tracing::{Instrument as _, Span};

use crate::{
    RpcError,
    deadline::{self, BoundedBody},
    flow,
    observe::{Call, Side, watch},
};

/// A call gets this deadline if it neither asks for one nor is made while another call is served.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// A connection to one service. Cheap to clone; connects when first used and again when broken.
#[derive(Debug, Clone)]
pub struct Channel {
    inner: transport::Channel,
    service: &'static str,
}

/// The address is not one that can be connected to.
#[derive(Debug)]
pub struct ChannelError {
    service: &'static str,
    cause: transport::Error,
}

impl std::fmt::Display for ChannelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the address of {} is not a URL like http://127.0.0.1:50051", self.service)
    }
}

impl std::error::Error for ChannelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl Channel {
    /// A channel to `service` (its name, for messages) at `url`: `http://host:port`, or `https://`
    /// for TLS with the machine's root certificates.
    ///
    /// # Errors
    /// [`ChannelError`] if the URL cannot be used. Whether anybody listens shows at the first call.
    pub fn connect(service: &'static str, url: &str) -> Result<Self, ChannelError> {
        let failed = |cause| ChannelError { service, cause };
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(failed)?
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .http2_adaptive_window(false)
            .initial_stream_window_size(flow::STREAM_WINDOW)
            .initial_connection_window_size(flow::CONNECTION_WINDOW)
            .max_frame_size(flow::FRAME);
        if url.starts_with("https:") {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(failed)?;
        }
        Ok(Self { inner: endpoint.connect_lazy(), service })
    }

    /// Whether the service says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let request = HealthCheckRequest { service: "readiness".to_owned() };
        let answer = HealthClient::new(self.clone()).check(request).await;
        answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Asked in `call`, under the deadline: a lazy connection is not ready while it connects.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let limit = limit(request.headers());
        let at = deadline::after(limit);
        deadline::set_header(request.headers_mut(), limit);
        let mut call = Call::begin(Side::Client, &request);
        let span = call.as_ref().map_or_else(Span::none, |call| call.span().clone());
        span.in_scope(|| propagation::inject_current(request.headers_mut()));

        let service = self.service;
        let mut inner = self.inner.clone();
        let answer = async move {
            std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
            inner.call(request).await
        };
        let answer = tokio::time::timeout_at(at, answer).instrument(span);
        Box::pin(async move {
            let error = match answer.await {
                Ok(Ok(answer)) => {
                    let answer = answer.map(|inner| {
                        let inner = FallibleBody { inner, service };
                        Body::new(BoundedBody::new(inner, at, None))
                    });
                    return Ok(match call {
                        Some(call) => watch(answer, call),
                        None => answer,
                    });
                }
                // tonic reads our header, too, and its timer may be the first by a hair.
                Ok(Err(cause)) if is_timeout(&cause) => deadline::exceeded(),
                Ok(Err(cause)) => unreachable_service(service, &cause),
                Err(_) => deadline::exceeded(),
            };
            if let Some(call) = &mut call {
                call.ended(error.code);
            }
            Ok(Status::from(error).into_http())
        })
    }
}

/// What the caller asks for in its header (`Request::set_timeout`), within what is left of the call
/// that is being served.
fn limit(headers: &HeaderMap) -> Duration {
    let asked = deadline::header_timeout(headers);
    match (asked, deadline::remaining()) {
        (Some(asked), Some(left)) => asked.min(left),
        (Some(limit), None) | (None, Some(limit)) => limit,
        (None, None) => DEFAULT_DEADLINE,
    }
}

fn is_timeout(cause: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(cause), |cause| cause.source());
    causes.any(<dyn std::error::Error + 'static>::is::<tonic::TimeoutExpired>)
}

/// A connection that could not be made, or broke: to the caller both are the service not being
/// there. tonic would call some of them UNKNOWN.
fn unreachable_service(service: &str, cause: &(dyn std::error::Error + 'static)) -> RpcError {
    tracing::debug!(error = cause, service, "no answer");
    RpcError::new(
        Code::Unavailable,
        reason::SERVICE_UNAVAILABLE,
        format!("{service} does not answer; try again"),
    )
    .with("service", service)
    .retry_after(Duration::from_secs(1))
}

/// An answer whose connection may break halfway.
struct FallibleBody {
    inner: Body,
    service: &'static str,
}

impl http_body::Body for FallibleBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let service = self.service;
        Pin::new(&mut self.inner)
            .poll_frame(cx)
            .map_err(|cause| unreachable_service(service, &cause).into())
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
