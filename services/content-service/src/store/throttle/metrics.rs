//! What the requests to S3 were, and how it went. Never which keys.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use http_body::Body as _;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, ObservableGauge},
};

use super::{limit::Limit, retry};

/// Upper bounds in seconds: a HEAD takes milliseconds, a part of a large blob minutes.
const DURATION_BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// The instruments.
#[derive(Debug)]
pub(super) struct Metrics {
    duration: Histogram<f64>,
    retries: Counter<u64>,
    throttles: Counter<u64>,
    bytes: Counter<u64>,
    /// Asked by whoever exports.
    _gauges: [ObservableGauge<u64>; 2],
}

impl Metrics {
    pub(super) fn new(limit: &Arc<Limit>) -> Self {
        let meter = synap_telemetry::metrics::meter();
        let counter = |name, what| {
            meter.u64_counter(name).with_unit("{request}").with_description(what).build()
        };
        let gauge = |name, what, read: fn(&Limit) -> usize| {
            let limit = Arc::clone(limit);
            meter
                .u64_observable_gauge(name)
                .with_unit("{request}")
                .with_description(what)
                .with_callback(move |observer| observer.observe(read(&limit) as u64, &[]))
                .build()
        };
        Self {
            duration: meter
                .f64_histogram("synap.s3.request.duration")
                .with_unit("s")
                .with_description("One try of a request to S3, until the head of its answer")
                .with_boundaries(DURATION_BOUNDS.to_vec())
                .build(),
            retries: counter("synap.s3.retries", "Requests to S3 that were sent again"),
            throttles: counter("synap.s3.throttles", "Requests that S3 answered with 429 or 503"),
            bytes: meter
                .u64_counter("synap.s3.bytes")
                .with_unit("By")
                .with_description("Bodies that S3 took, and those that it began to give")
                .build(),
            _gauges: [
                gauge("synap.s3.limit", "Requests to S3 that may be in flight", |limit| {
                    limit.now().0
                }),
                gauge("synap.s3.in_flight", "Requests to S3 in flight", |limit| limit.now().1),
            ],
        }
    }

    /// A try of a request whose body has so many bytes.
    pub(super) fn tried(
        &self,
        operation: &'static str,
        sent: u64,
        outcome: &Result<HttpResponse, HttpError>,
        elapsed: Duration,
    ) {
        let attributes =
            [KeyValue::new("operation", operation), KeyValue::new("outcome", name(outcome))];
        self.duration.record(elapsed.as_secs_f64(), &attributes);
        if outcome.as_ref().is_ok_and(|answer| retry::is_throttle(answer.status())) {
            self.throttles.add(1, &attributes[..1]);
        }
        if let Ok(answer) = outcome
            && answer.status().is_success()
        {
            let given = answer.body().size_hint().exact().unwrap_or_default();
            for (direction, bytes) in [("sent", sent), ("received", given)] {
                let attributes =
                    [KeyValue::new("operation", operation), KeyValue::new("direction", direction)];
                self.bytes.add(bytes, &attributes);
            }
        }
    }

    pub(super) fn repeated(&self, operation: &'static str) {
        self.retries.add(1, &[KeyValue::new("operation", operation)]);
    }
}

fn name(outcome: &Result<HttpResponse, HttpError>) -> &'static str {
    match outcome.as_ref().map(HttpResponse::status) {
        Ok(status) if status.is_success() => "ok",
        Ok(status) if retry::is_throttle(status) => "throttled",
        Ok(StatusCode::NOT_FOUND) => "not_found",
        Ok(StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED) => "exists",
        Ok(status) if status.is_server_error() => "failed",
        Ok(_) => "refused",
        Err(error) => match error.kind() {
            HttpErrorKind::Connect => "unreachable",
            HttpErrorKind::Timeout => "silent",
            _ => "broken",
        },
    }
}

/// What a request does, in S3's terms.
pub(super) fn operation(request: &HttpRequest) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    let asks = |name| query.split('&').any(|part| part.split('=').next() == Some(name));
    match *request.method() {
        Method::HEAD => "head",
        Method::GET if asks("list-type") => "list",
        Method::GET if asks("uploads") => "list_uploads",
        Method::GET => "get",
        Method::PUT if asks("partNumber") => "put_part",
        Method::PUT => "put",
        Method::POST if asks("delete") => "delete",
        Method::POST if asks("uploads") => "begin_upload",
        Method::POST => "complete_upload",
        Method::DELETE if asks("uploadId") => "abort_upload",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::*;

    #[test]
    fn a_request_is_called_by_what_it_does() {
        for (method, query, name) in [
            (Method::PUT, "", "put"),
            (Method::PUT, "?partNumber=1&uploadId=x", "put_part"),
            (Method::POST, "?uploads", "begin_upload"),
            (Method::POST, "?uploadId=x", "complete_upload"),
            (Method::DELETE, "?uploadId=x", "abort_upload"),
            (Method::POST, "?delete", "delete"),
            (Method::GET, "?list-type=2&prefix=users%2F", "list"),
            (Method::GET, "", "get"),
        ] {
            let uri = format!("http://h/bucket/key{query}");
            let request = http::Request::builder().method(method).uri(uri);
            assert_eq!(operation(&request.body(HttpRequestBody::empty()).unwrap()), name);
        }
    }
}
