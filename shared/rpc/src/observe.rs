//! One span and one measurement per call, on both sides, until the last byte of the answer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, uri::PathAndQuery};
use http_body::{Body as _, Frame, SizeHint};
use synap_telemetry::{metrics, propagation};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};

use crate::oversize;

/// Which side of a call is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// One call under way: recorded when it ends, which is when its answer has been read, or when
/// whoever waits for it leaves.
pub(crate) struct Call {
    side: Side,
    /// `/package.Service/Method`. Shares the request's memory.
    path: PathAndQuery,
    span: Span,
    start: Instant,
    code: Option<Code>,
}

impl Call {
    /// Health checks and reflection are not followed: probes come every few seconds and would bury
    /// what matters.
    pub(crate) fn begin(side: Side, request: &Request<Body>) -> Option<Self> {
        let path = request.uri().path_and_query()?;
        let method = path.path().trim_start_matches('/');
        if method.starts_with("grpc.") {
            return None;
        }
        let span = tracing::info_span!(
            "rpc",
            otel.name = method,
            otel.kind = if side == Side::Server { "server" } else { "client" },
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.response.status_code = Empty,
        );
        Some(Self { side, path: path.clone(), span, start: Instant::now(), code: None })
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn ended(&mut self, code: Code) {
        self.code = Some(code);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Nobody said how it ended: the caller went away, or the connection did.
        let code = self.code.unwrap_or(Code::Cancelled);
        let elapsed = self.start.elapsed();
        let failed = match self.side {
            Side::Server => {
                metrics::record_server_call(self.path.path(), code, elapsed);
                metrics::is_server_error(code)
            }
            Side::Client => {
                metrics::record_client_call(self.path.path(), code, elapsed);
                code != Code::Ok
            }
        };
        let name = metrics::status_code_name(code);
        self.span.record("rpc.response.status_code", name);
        if failed {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

/// Opens a server span for every call, as a child of the caller's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObserveLayer;

impl<S> Layer<S> for ObserveLayer {
    type Service = ObserveService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ObserveService { inner }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ObserveService<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for ObserveService<S>
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
        let Some(call) = Call::begin(Side::Server, &request) else {
            return Box::pin(self.inner.call(request));
        };
        // Before the span is entered: afterwards its trace is fixed.
        propagation::set_parent(call.span(), request.headers());
        let answer = self.inner.call(request).instrument(call.span().clone());
        Box::pin(async move {
            let Ok(answer) = answer.await;
            Ok(watch(oversize::reword(answer), call))
        })
    }
}

/// Follows an answer to its end, where its status is.
pub(crate) fn watch(answer: Response<Body>, mut call: Call) -> Response<Body> {
    if let Some(code) = code(answer.headers()) {
        call.ended(code);
        return answer;
    }
    if answer.body().is_end_stream() {
        // Not gRPC: a proxy's error page, say.
        call.ended(Code::Unknown);
        return answer;
    }
    answer.map(|inner| Body::new(WatchedBody { inner, call }))
}

/// The status alone. `Status::from_header_map` would copy all headers, and panic on details that
/// are not base64.
fn code(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

struct WatchedBody {
    inner: Body,
    call: Call,
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = {
            let _entered = this.call.span.enter();
            Pin::new(&mut this.inner).poll_frame(cx)
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    this.call.ended(code);
                }
            }
            Poll::Ready(Some(Err(status))) => this.call.ended(status.code()),
            // The end, and no status before it: what tonic makes of it is UNKNOWN, too.
            Poll::Ready(None) => {
                this.call.code.get_or_insert(Code::Unknown);
            }
            Poll::Pending => {}
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
