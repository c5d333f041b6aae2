//! One trace over two hops, seen from a collector that speaks OTLP.
//!
//! Telemetry is one per process, so the calls are made in a process of their own: this test program
//! started again.

use std::{
    env,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, Status as SpanStatus, span::SpanKind, status::StatusCode},
};
use synap_proto::content::{BuildKeyRequest, HeadBlobResponse};
use synap_telemetry::{LogFormat, Options};
use tokio::{net::TcpListener, process::Command};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, async_trait};
use tracing::{Instrument as _, info_span};

use crate::{
    content::Content,
    running::{Running, args},
};

const ENDPOINT: &str = "SYNAP_TEST_ENDPOINT";
/// How long the process may take before it is given up: far more than it needs.
const PATIENCE: Duration = Duration::from_mins(1);

const HEAD: &str = "synap.content.v1.ContentService/HeadBlob";
const BUILD: &str = "synap.content.v1.ContentService/BuildKey";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(TraceServiceServer::new(collector.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let batches = request.into_inner().resource_spans.into_iter();
        let spans = batches.flat_map(|batch| batch.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn two_hops_are_one_trace() {
    let (collector, address) = Collector::start().await;
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "trace::calling_process", "--ignored", "--nocapture"]);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("OTEL_") || name == "RUST_LOG" {
            command.env_remove(name.as_ref());
        }
    }
    command.env(ENDPOINT, format!("http://{address}")).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");

    let spans = collector.spans();
    for (root, name, code, server_failed) in [
        ("good", "OK", StatusCode::Unset, false),
        ("absent", "NOT_FOUND", StatusCode::Error, false),
        ("broken", "DATA_LOSS", StatusCode::Error, true),
    ] {
        let root = spans.iter().find(|span| span.name == root).unwrap();
        let mut trace: Vec<_> =
            spans.iter().filter(|span| span.trace_id == root.trace_id).collect();
        assert_eq!(trace.len(), 5, "no health check among them: {trace:#?}");
        let mut parent = root;
        for (method, kind) in [
            (BUILD, SpanKind::Client),
            (BUILD, SpanKind::Server),
            (HEAD, SpanKind::Client),
            (HEAD, SpanKind::Server),
        ] {
            let found = trace.iter().position(|span| span.parent_span_id == parent.span_id);
            let span = trace.swap_remove(found.unwrap());
            assert_eq!((span.name.as_str(), span.kind()), (method, kind));
            assert_eq!(attribute(span, "rpc.response.status_code"), name);
            assert_eq!(attribute(span, "rpc.method"), method);
            let status = span.status.as_ref().map_or(StatusCode::Unset, SpanStatus::code);
            let expected = match kind {
                SpanKind::Server if !server_failed => StatusCode::Unset,
                _ => code,
            };
            assert_eq!(status, expected, "{span:#?}");
            parent = span;
        }
    }
}

fn attribute<'a>(span: &'a Span, name: &str) -> &'a str {
    let found = span.attributes.iter().find(|pair| pair.key == name);
    match found.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
#[ignore = "the process that the other test starts"]
fn calling_process() {
    let Ok(endpoint) = env::var(ENDPOINT) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let telemetry = synap_telemetry::init(&Options {
            service_name: "synap-test",
            service_version: "1.2.3",
            log_format: LogFormat::Text,
            default_filter: "info",
            otlp_endpoint: Some(endpoint),
        })
        .unwrap();
        calls().await;
        telemetry.shutdown().await;
    });
}

async fn calls() {
    let (second, mut stage) = Running::scripted(&args()).await;
    let first = Running::start(&args(), Content::before(second.channel())).await;
    tokio::spawn(async move {
        while let Some(arrived) = stage.heads.recv().await {
            let answer = match arrived.key.as_str() {
                "absent" => Err(Status::not_found("absent")),
                "broken" => Err(Status::data_loss("broken")),
                _ => Ok(HeadBlobResponse::default()),
            };
            arrived.answer.send(answer).unwrap();
        }
    });
    for (span, key) in [
        (info_span!("good"), "good"),
        (info_span!("absent"), "absent"),
        (info_span!("broken"), "broken"),
    ] {
        let mut client = first.client();
        async {
            first.channel().is_ready().await;
            let request = BuildKeyRequest { user_id: key.to_owned(), ..BuildKeyRequest::default() };
            let answer = client.build_key(request).await;
            assert_eq!(answer.is_ok(), key == "good", "{answer:?}");
        }
        .instrument(span)
        .await;
    }
    first.stopped().await;
    second.stopped().await;
}
