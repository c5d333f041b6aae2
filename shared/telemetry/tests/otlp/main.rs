//! What leaves a process, seen from a collector that speaks the real protocol.
#![expect(clippy::expect_used, reason = "a test says what it expected")]

mod collector;
mod service;

use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};

use collector::{Collector, pairs};
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, metric, number_data_point,
};
use service::{run, stderr};
use synap_telemetry::SHUTDOWN_LIMIT;

#[test]
#[ignore = "the process that the other tests start"]
fn service_process() {
    service::main();
}

#[tokio::test]
async fn a_note_is_one_trace_with_its_logs() {
    let (collector, address) = Collector::start().await;
    let settings = [
        ("RUST_LOG", "debug"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=synap"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    run("note", &format!("http://{address}"), &settings).await;
    let received = collector.received();

    // No debug span, no span of h2, none that the trace's beginner did not sample.
    let gateway = received.span("synap.gateway.v1.NoteService/CreateNote");
    let entity = received.span("synap.entity.v1.OperationService/Begin");
    let query = received.span("db.operation.begin");
    assert_eq!(received.span_names(), [&query.name, &entity.name, &gateway.name]);
    assert_eq!(gateway.trace_id.len(), 16);
    assert_eq!((&entity.trace_id, &query.trace_id), (&gateway.trace_id, &gateway.trace_id));
    assert!(gateway.parent_span_id.is_empty(), "{gateway:?}");
    assert_eq!(entity.parent_span_id, gateway.span_id);
    assert_eq!(query.parent_span_id, entity.span_id);
    assert!(received.spans.iter().all(|span| span.events.is_empty()), "an event is sent once");

    let log = received.log("operation begun");
    assert_eq!((&log.trace_id, &log.span_id), (&query.trace_id, &query.span_id));
    assert_eq!(log.severity_text, "INFO");
    assert_eq!(pairs(&log.attributes), [("step", "begin")]);
    received.log("a detail");
    assert!(!received.logs.iter().any(|log| format!("{log:?}").contains("a frame")));

    let resource = received.resources.first().expect("a resource");
    let resource = pairs(&resource.attributes);
    for known in [
        ("deployment.environment.name", "test"),
        ("service.name", "synap-test"),
        ("service.version", "1.2.3"),
    ] {
        assert!(resource.contains(&known), "{known:?} in {resource:?}");
    }
    let instance = resource.iter().find(|(name, _)| *name == "service.instance.id");
    assert!(instance.is_some_and(|(_, id)| id.len() == 32), "{resource:?}");
    for other in &received.resources {
        assert_eq!(pairs(&other.attributes), resource);
    }
    let sent = received.headers.iter().map(|headers| headers.get("x-team"));
    assert!(sent.clone().count() >= 3 && sent.flatten().count() == received.headers.len());
}

#[tokio::test]
async fn calls_are_measured_in_seconds_under_the_conventional_names() {
    let (collector, address) = Collector::start().await;
    run("note", &format!("http://{address}"), &[]).await;
    let received = collector.received();

    let served = points(received.metric("rpc.server.call.duration"));
    assert_eq!(served.len(), 2, "{served:?}");
    let ok =
        served.iter().find(|point| point.attributes.len() == 3).expect("a call that went well");
    assert_eq!(
        pairs(&ok.attributes),
        [
            ("rpc.method", "synap.entity.v1.OperationService/Begin"),
            ("rpc.response.status_code", "OK"),
            ("rpc.system.name", "grpc"),
        ]
    );
    assert_eq!((ok.count, ok.sum), (1, Some(0.012)));
    let bucket = ok.bucket_counts.iter().position(|&count| count == 1).expect("one bucket");
    assert_eq!(ok.explicit_bounds[bucket - 1..=bucket], [0.01, 0.025]);
    let unknown = served.iter().find(|point| point.attributes.len() == 4).expect("the other call");
    assert_eq!(
        pairs(&unknown.attributes),
        [
            ("error.type", "UNIMPLEMENTED"),
            ("rpc.method", "_OTHER"),
            ("rpc.response.status_code", "UNIMPLEMENTED"),
            ("rpc.system.name", "grpc"),
        ]
    );

    let made = points(received.metric("rpc.client.call.duration"));
    let [made] = made else { panic!("one call was made: {made:?}") };
    assert_eq!(
        pairs(&made.attributes),
        [
            ("error.type", "NOT_FOUND"),
            ("rpc.method", "synap.entity.v1.OperationService/Begin"),
            ("rpc.response.status_code", "NOT_FOUND"),
            ("rpc.system.name", "grpc"),
        ]
    );
    assert_eq!(made.sum, Some(2.0));

    let Some(metric::Data::Sum(notes)) = &received.metric("synap.test.notes").data else {
        panic!("a counter is a sum")
    };
    let value = notes.data_points.first().and_then(|point| point.value);
    assert_eq!(value, Some(number_data_point::Value::AsInt(3)));
}

fn points(metric: &Metric) -> &[HistogramDataPoint] {
    assert_eq!(metric.unit, "s");
    match &metric.data {
        Some(metric::Data::Histogram(histogram)) => &histogram.data_points,
        other => panic!("not a histogram: {other:?}"),
    }
}

#[tokio::test]
async fn an_export_does_not_feed_itself() {
    let (collector, address) = Collector::start().await;
    let settings = [
        ("SYNAP_TEST_SPANS", "trace"),
        ("RUST_LOG", "trace"),
        // Every span and every event is an export of its own.
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "1"),
    ];
    let output = run("busy", &format!("http://{address}"), &settings).await;
    let noise = stderr(&output);
    assert!(noise.contains(" h2::"), "exporting logs something, or this shows nothing: {noise}");

    let received = collector.received();
    assert_eq!(received.span_names(), ["work"; 50]);
    let bodies: Vec<_> = received.logs.iter().map(|log| log.body.clone()).collect();
    assert_eq!(bodies.len(), 50, "{bodies:?}");
}

#[tokio::test]
async fn the_operator_chooses_the_sampler() {
    let (collector, address) = Collector::start().await;
    let settings = [("OTEL_TRACES_SAMPLER", "always_off")];
    run("note", &format!("http://{address}"), &settings).await;
    let received = collector.received();
    assert_eq!(received.span_names(), [""; 0]);
    received.log("operation begun");
}

#[tokio::test]
async fn rust_log_quietens_the_log_and_not_the_traces() {
    let (collector, address) = Collector::start().await;
    let settings = [("RUST_LOG", "error")];
    let output = run("note", &format!("http://{address}"), &settings).await;
    assert_eq!(stderr(&output), "");
    let received = collector.received();
    assert_eq!(received.spans.len(), 3, "{:?}", received.span_names());
    assert_eq!(received.logs, []);
}

#[tokio::test]
async fn without_a_collector_there_are_only_logs() {
    let output = run("silent", "", &[]).await;
    let lines = stderr(&output);
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let [accepted, begun] = lines.as_slice() else { panic!("two lines: {lines:?}") };
    assert_eq!(accepted["message"], "note accepted");
    assert_eq!(accepted["level"], "INFO");
    assert_eq!(accepted["op_id"], "op-1");
    assert_eq!(accepted["elapsed_ms"], 7);
    assert_eq!(accepted["spans"][0]["name"], "outermost");
    assert_eq!(accepted["spans"][1]["request_id"], "r-1");
    assert!(accepted["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{accepted}");
    assert_eq!(begun["message"], "operation begun");
}

#[tokio::test]
async fn shutdown_gives_up_on_a_collector_that_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let output = run("dying", &format!("http://{address}"), &[]).await;
    assert_flush_failed(&output);
}

/// The connection stands and nothing ever comes back.
#[tokio::test]
async fn shutdown_gives_up_on_a_collector_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = listener.local_addr().expect("an address");
    let begun = Instant::now();
    let output = run("dying", &format!("http://{address}"), &[]).await;
    let lifetime = begun.elapsed();
    assert_flush_failed(&output);
    assert!(stderr(&output).contains("no answer within 5 s"), "{}", stderr(&output));
    // Nothing that shutdown left behind holds up the end of the process.
    assert!(lifetime < SHUTDOWN_LIMIT + Duration::from_secs(3), "{lifetime:?}");
    drop(listener);
}

fn assert_flush_failed(output: &Output) {
    let log = stderr(output);
    for signal in ["traces", "metrics", "logs"] {
        let said = log.lines().any(|line| {
            line.contains("telemetry could not be flushed")
                && line.contains(&format!("\"{signal}\""))
        });
        assert!(said, "nothing about {signal}:\n{log}");
    }
    assert!(log.contains("still logging"), "{log}");

    let stdout = String::from_utf8_lossy(&output.stdout);
    let elapsed = stdout.lines().find_map(|line| line.split("elapsed_ms=").nth(1));
    let elapsed: u64 = elapsed.and_then(|ms| ms.parse().ok()).expect("the process measured itself");
    // The limit, and what a busy machine adds.
    let limit = SHUTDOWN_LIMIT + Duration::from_secs(1);
    assert!(Duration::from_millis(elapsed) < limit, "{elapsed} ms");
}
