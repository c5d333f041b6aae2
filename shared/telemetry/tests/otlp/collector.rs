//! A real OTLP collector: the three gRPC services on loopback, keeping what they receive.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

#[derive(Clone, Default)]
pub(crate) struct Collector {
    received: Arc<Mutex<Received>>,
}

/// What arrived, in the order in which it did.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) spans: Vec<Span>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) logs: Vec<LogRecord>,
    /// One for each resource message of each request.
    pub(crate) resources: Vec<Resource>,
    /// One for each request.
    pub(crate) headers: Vec<MetadataMap>,
}

impl Received {
    pub(crate) fn span(&self, name: &str) -> &Span {
        let mut found = self.spans.iter().filter(|span| span.name == name);
        let span =
            found.next().unwrap_or_else(|| panic!("no span {name}: {:?}", self.span_names()));
        assert!(found.next().is_none(), "two spans {name}");
        span
    }

    /// Sorted, because spans arrive in the order in which they end.
    pub(crate) fn span_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.spans.iter().map(|span| span.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn metric(&self, name: &str) -> &Metric {
        let mut found = self.metrics.iter().filter(|metric| metric.name == name);
        found.next_back().unwrap_or_else(|| panic!("no metric {name}"))
    }

    pub(crate) fn log(&self, body: &str) -> &LogRecord {
        let mut found = self.logs.iter().filter(|log| log.body.as_ref().map(text) == Some(body));
        let log = found.next().unwrap_or_else(|| panic!("no log `{body}`: {:?}", self.logs));
        assert!(found.next().is_none(), "two logs `{body}`");
        log
    }
}

/// Attributes as sorted pairs of text.
pub(crate) fn pairs(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
    let mut pairs: Vec<_> = attributes
        .iter()
        .map(|pair| (pair.key.as_str(), pair.value.as_ref().map_or("", text)))
        .collect();
    pairs.sort_unstable();
    pairs
}

fn text(value: &AnyValue) -> &str {
    match &value.value {
        Some(Value::StringValue(text)) => text,
        other => panic!("not text: {other:?}"),
    }
}

impl Collector {
    /// Starts a collector that serves until the test's runtime ends.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        tokio::spawn(
            Server::builder()
                .add_service(TraceServiceServer::new(collector.clone()))
                .add_service(MetricsServiceServer::new(collector.clone()))
                .add_service(LogsServiceServer::new(collector.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        (collector, address)
    }

    pub(crate) fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().expect("no test panics while it holds this")
    }
}

#[async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = self.received();
        received.headers.push(request.metadata().clone());
        for batch in request.into_inner().resource_spans {
            received.resources.extend(batch.resource);
            received.spans.extend(batch.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut received = self.received();
        received.headers.push(request.metadata().clone());
        for batch in request.into_inner().resource_metrics {
            received.resources.extend(batch.resource);
            received
                .metrics
                .extend(batch.scope_metrics.into_iter().flat_map(|scope| scope.metrics));
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let mut received = self.received();
        received.headers.push(request.metadata().clone());
        for batch in request.into_inner().resource_logs {
            received.resources.extend(batch.resource);
            received.logs.extend(batch.scope_logs.into_iter().flat_map(|scope| scope.log_records));
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
