//! Deadlines. A call without one gets the server's default; what is left of it travels on every
//! hop, and whoever sees it pass answers `DEADLINE_EXCEEDED` (tonic alone would say `CANCELLED`).
//!
//! As everywhere in gRPC a deadline is the whole call's: its wait for a place, its handler, and the
//! stream of its answer. Who follows a stream for long asks for a long deadline, up to the server's
//! `MAX_DEADLINE_SECS`, and calls again when it has passed.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use synap_proto::reason;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::RpcError;

/// We answer this much before the caller stops listening, so that it hears our reason and not its
/// own timer.
const MARGIN: Duration = Duration::from_millis(5);

/// Stands for "never" where a limit is too long for the clock to add.
const FAR: Duration = Duration::from_hours(24 * 365);

/// The health check, and the longest that one may take: anybody may make it, and none has reason
/// to take long.
pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";
const CHECK_LIMIT: Duration = Duration::from_secs(5);

tokio::task_local! {
    static DEADLINE: Instant;
}

/// The time left to the call that the current task serves; `None` outside of a call.
#[must_use]
pub fn remaining() -> Option<Duration> {
    DEADLINE.try_with(|at| at.saturating_duration_since(Instant::now())).ok()
}

/// Runs a future under a deadline: calls made inside carry what is left of it.
///
/// # Errors
/// [`exceeded`] if the time passes first.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, RpcError> {
    let at = after(limit);
    let at = DEADLINE.try_with(|outer| at.min(*outer)).unwrap_or(at);
    tokio::time::timeout_at(at, DEADLINE.scope(at, future)).await.map_err(|_| exceeded())
}

/// The answer when time is up.
#[must_use]
pub fn exceeded() -> RpcError {
    RpcError::new(
        Code::DeadlineExceeded,
        reason::DEADLINE_EXCEEDED,
        "the deadline passed; the outcome is unknown, and a repeat with the same request_id is safe",
    )
}

/// The answer when the server goes away before the call has ended.
fn stopped() -> RpcError {
    RpcError::new(
        Code::Unavailable,
        reason::SERVICE_UNAVAILABLE,
        "the service is stopping; the outcome is unknown, and a repeat with the same request_id is safe",
    )
    .retry_after(Duration::from_secs(1))
}

pub(crate) fn after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + FAR)
}

/// Bounds every call of a server.
#[derive(Debug, Clone)]
pub(crate) struct DeadlineLayer {
    /// For calls that bring no deadline.
    pub(crate) default: Duration,
    /// The longest that is granted.
    pub(crate) max: Duration,
    /// Paths of calls that have the longest where they bring none.
    pub(crate) long_calls: &'static [&'static str],
    /// Ends all calls at once.
    pub(crate) stop: CancellationToken,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner, limits: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct DeadlineService<S> {
    inner: S,
    limits: DeadlineLayer,
}

impl<S> Service<Request<Body>> for DeadlineService<S>
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
        let asked = header_timeout(request.headers())
            .map(|limit| limit.saturating_sub(MARGIN.min(limit / 4)));
        let DeadlineLayer { default, max, long_calls, .. } = self.limits;
        let (default, max) = match request.uri().path() {
            CHECK => (default, CHECK_LIMIT.min(max)),
            path if long_calls.contains(&path) => (max, max),
            _ => (default, max),
        };
        let at = after(asked.unwrap_or(default).min(max));
        let stop = self.limits.stop.clone();
        let answer = DEADLINE.scope(at, self.inner.call(request));
        Box::pin(async move {
            let error = tokio::select! {
                biased;
                Ok(answer) = answer => {
                    return Ok(answer.map(|inner| {
                        Body::new(BoundedBody::new(inner, at, Some(stop)))
                    }));
                }
                error = alarm(at, Some(&stop)) => error,
            };
            Ok(Status::from(error).into_http())
        })
    }
}

async fn alarm(at: Instant, stop: Option<&CancellationToken>) -> RpcError {
    let stop = async {
        match stop {
            Some(stop) => stop.cancelled().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tokio::time::sleep_until(at) => exceeded(),
        () = stop => stopped(),
    }
}

/// An answer that ends with its status when time is up. What is called while it is made carries
/// what is left of the time.
pub(crate) struct BoundedBody<B> {
    /// None once the time was up: whatever made the answer is stopped.
    inner: Option<B>,
    at: Instant,
    stop: Option<CancellationToken>,
    /// Set when the answer has to be waited for; most are there at once.
    alarm: Option<Pin<Box<dyn Future<Output = RpcError> + Send>>>,
}

impl<B> BoundedBody<B> {
    pub(crate) fn new(inner: B, at: Instant, stop: Option<CancellationToken>) -> Self {
        Self { inner: Some(inner), at, stop, alarm: None }
    }
}

impl<B> http_body::Body for BoundedBody<B>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let polled = DEADLINE.sync_scope(this.at, || Pin::new(inner).poll_frame(cx));
        if polled.is_ready() {
            return polled;
        }
        let alarm = this.alarm.get_or_insert_with(|| {
            let (at, stop) = (this.at, this.stop.take());
            Box::pin(async move { alarm(at, stop.as_ref()).await })
        });
        alarm.as_mut().poll(cx).map(|error| {
            this.inner = None;
            Some(Ok(Frame::trailers(trailers(error))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // Not the inner one's: it may be cut short.
        SizeHint::default()
    }
}

fn trailers(error: RpcError) -> HeaderMap {
    let (parts, ()) = Status::from(error).into_http().into_parts();
    let mut trailers = parts.headers;
    trailers.remove(http::header::CONTENT_TYPE);
    trailers
}

/// Reads `grpc-timeout`: at most 8 digits and a unit, by the gRPC specification.
pub(crate) fn header_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Writes `grpc-timeout`, in milliseconds where they fit.
pub(crate) fn set_header(headers: &mut HeaderMap, limit: Duration) {
    let millis = limit.as_millis();
    let text = if millis < 100_000_000 {
        format!("{millis}m")
    } else {
        format!("{}S", limit.as_secs().min(99_999_999))
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert("grpc-timeout", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_the_specification_says() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_str(text).unwrap());
            header_timeout(&headers)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_hours(99_999_999)));
        for bad in ["", "m", "1", "-1S", "+1S", "1.5S", "123456789S", "5 m"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for limit in
            [Duration::from_millis(1), Duration::from_secs(10), Duration::from_mins(10_000)]
        {
            let mut headers = HeaderMap::new();
            set_header(&mut headers, limit);
            assert_eq!(header_timeout(&headers), Some(limit));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_inner_limit_cannot_outlive_the_outer_one() {
        let outcome = within(Duration::from_secs(1), async {
            let inner = within(Duration::from_mins(1), async { remaining() }).await;
            assert!(inner.unwrap().unwrap() <= Duration::from_secs(1));
            std::future::pending::<()>().await;
        })
        .await;
        assert_eq!(outcome.unwrap_err().code, Code::DeadlineExceeded);
        assert_eq!(remaining(), None);
    }
}
