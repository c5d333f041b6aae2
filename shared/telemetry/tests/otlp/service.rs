//! The process under test. Telemetry is one per process, so each scenario runs in a process of its
//! own: this test program started again, told by its environment what to do.

use std::env;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use synap_telemetry::{InitError, LogFormat, Options, Telemetry, init, metrics, propagation};
use tokio::process::Command;
use tonic::Code;
use tracing::{Instrument, debug, debug_span, info, info_span};

const SCENARIO: &str = "SYNAP_TEST_SCENARIO";
const ENDPOINT: &str = "SYNAP_TEST_ENDPOINT";
const SPANS: &str = "SYNAP_TEST_SPANS";

/// How long a process may take before the test gives it up: far more than it needs.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts this program again as `scenario` with `settings` as its environment, and waits for it.
/// `endpoint` may be empty.
pub(crate) async fn run(scenario: &str, endpoint: &str, settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env::current_exe().expect("a test program knows its path"));
    command.args(["--exact", "service_process", "--ignored", "--nocapture"]);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("OTEL_") || name == "RUST_LOG" {
            command.env_remove(name.as_ref());
        }
    }
    command.env(SCENARIO, scenario).env(ENDPOINT, endpoint).envs(settings.iter().copied());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .unwrap_or_else(|_| panic!("`{scenario}` did not end within {PATIENCE:?}"))
        .expect("a program can start itself");
    assert!(
        output.status.success(),
        "`{scenario}` failed:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        stderr(&output),
    );
    output
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs in the process that [`run`] started; does nothing when it was not started that way.
pub(crate) fn main() {
    let Ok(scenario) = env::var(SCENARIO) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        match scenario.as_str() {
            "note" => note().await,
            "busy" => busy().await,
            "silent" => silent().await,
            "dying" => dying().await,
            other => panic!("no scenario `{other}`"),
        }
    });
}

fn start(log_format: LogFormat) -> Telemetry {
    let spans = env::var(SPANS).unwrap_or_default();
    let telemetry = init(&Options {
        service_name: "synap-test",
        service_version: "1.2.3",
        log_format,
        default_filter: if spans == "trace" { "trace" } else { "info" },
        otlp_endpoint: env::var(ENDPOINT).ok(),
    });
    telemetry.expect("these options are right")
}

/// A note goes from one service to the next; both halves happen to be in this process.
async fn note() {
    let telemetry = start(LogFormat::Text);
    assert!(telemetry.exports());

    let headers = async {
        info!(op_id = "op-1", "note accepted");
        debug!("a detail");
        // Too detailed to be exported, though it is logged: the call still belongs to the trace.
        let hop = async {
            let mut headers = HeaderMap::new();
            propagation::inject_current(&mut headers);
            headers
        };
        hop.instrument(debug_span!("gateway.hop")).await
    }
    .instrument(info_span!("synap.gateway.v1.NoteService/CreateNote"))
    .await;
    serve(&headers).await;

    let mut unsampled = HeaderMap::new();
    let value = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    unsampled.insert("traceparent", value);
    let span = info_span!("unsampled");
    propagation::set_parent(&span, &unsampled);
    span.in_scope(|| info!("in a trace that its beginner did not sample"));

    info_span!(target: "h2", "Connection").in_scope(|| info!(target: "h2::proto", "a frame"));

    let method = "synap.entity.v1.OperationService/Begin";
    metrics::record_server_call(method, Code::Ok, Duration::from_millis(12));
    metrics::record_server_call("/made.up/Name", Code::Unimplemented, Duration::from_micros(80));
    metrics::record_client_call(&format!("/{method}"), Code::NotFound, Duration::from_secs(2));
    metrics::meter().u64_counter("synap.test.notes").build().add(3, &[]);

    telemetry.shutdown().await;
}

async fn serve(headers: &HeaderMap) {
    // As the RPC layers name theirs: at run time.
    let span = info_span!("rpc", otel.name = "synap.entity.v1.OperationService/Begin");
    propagation::set_parent(&span, headers);
    let handler = async {
        let query = async { info!(step = "begin", "operation begun") };
        query.instrument(info_span!("db.operation.begin")).await;
    };
    handler.instrument(span).await;
}

/// Exports again and again while spans and events of every level are let through.
async fn busy() {
    let telemetry = start(LogFormat::Text);
    for _ in 0..50 {
        info_span!("work").in_scope(|| info!("worked"));
        tokio::task::yield_now().await;
    }
    telemetry.shutdown().await;
}

/// No collector is named.
async fn silent() {
    let telemetry = start(LogFormat::Json);
    assert!(!telemetry.exports());

    let headers = async {
        info!(op_id = "op-1", elapsed_ms = 7, "note accepted");
        debug!("a detail");
        let mut headers = HeaderMap::new();
        propagation::inject_current(&mut headers);
        headers
    };
    let outermost = info_span!("outermost");
    let outer = info_span!(parent: &outermost, "outer", request_id = "r-1");
    let headers = headers.instrument(outer).await;
    assert!(headers.is_empty(), "{headers:?}");
    serve(&headers).await;
    metrics::record_server_call("a.B/C", Code::Ok, Duration::from_millis(1));

    let again = init(&Options {
        service_name: "synap-test",
        service_version: "1.2.3",
        log_format: LogFormat::Text,
        default_filter: "info",
        otlp_endpoint: None,
    });
    assert!(matches!(again, Err(InitError::AlreadyInitialised(_))), "{again:?}");
    telemetry.shutdown().await;
}

/// The collector is away, or worse. Prints how long the shutdown took, in milliseconds.
async fn dying() {
    let telemetry = start(LogFormat::Text);
    info_span!("work").in_scope(|| info!("worked"));
    metrics::record_server_call("a.B/C", Code::Ok, Duration::from_millis(1));
    let begun = Instant::now();
    telemetry.shutdown().await;
    println!("elapsed_ms={}", begun.elapsed().as_millis());
    info!("still logging");
}
