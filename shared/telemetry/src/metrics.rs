//! The instruments that every service has, and the place to get others.
//!
//! The RPC layers record every call with [`record_server_call`] and [`record_client_call`]; names,
//! units and attributes are the semantic conventions of OpenTelemetry for RPC. Without a collector
//! both return after one load.
//!
//! A service that measures something of its own has one struct for it, made once after
//! [`init`](crate::init) and passed to whoever counts, never looked up by name on the way:
//!
//! ```
//! use opentelemetry::metrics::Counter;
//!
//! /// What the recovery worker did.
//! struct RecoveryMetrics {
//!     rolled_forward: Counter<u64>,
//!     undone: Counter<u64>,
//! }
//!
//! impl RecoveryMetrics {
//!     fn new() -> Self {
//!         let meter = synap_telemetry::metrics::meter();
//!         let counter = |name, what| {
//!             meter.u64_counter(name).with_unit("{operation}").with_description(what).build()
//!         };
//!         Self {
//!             rolled_forward: counter("synap.recovery.rolled_forward", "Committed, then finished"),
//!             undone: counter("synap.recovery.undone", "Never committed, now wholly gone"),
//!         }
//!     }
//! }
//!
//! let metrics = RecoveryMetrics::new();
//! metrics.rolled_forward.add(1, &[]);
//! # metrics.undone.add(1, &[]);
//! ```
//!
//! Names begin with `synap.`; units are UCUM (`s`, `By`, `{operation}`); attributes take few values:
//! never an id, a key or a user.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::metrics::{Histogram, Meter};
use opentelemetry::{KeyValue, global};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, RPC_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME,
};
use opentelemetry_semantic_conventions::metric::{
    RPC_CLIENT_CALL_DURATION, RPC_SERVER_CALL_DURATION,
};
use tonic::Code;

use crate::otlp::SCOPE;

/// Stands for every method that the server does not have, as the conventions ask: their names come
/// from the caller, and each would be a time series of its own.
pub const OTHER_METHOD: &str = "_OTHER";

/// Upper bounds in seconds. Those from 5 ms to 10 s are the conventions' own, so that ready-made
/// dashboards fit; a call on loopback takes a fraction of a millisecond, an upload up to a minute.
const CALL_DURATION_BOUNDS: [f64; 21] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
];

struct RpcMetrics {
    server_call_duration: Histogram<f64>,
    client_call_duration: Histogram<f64>,
}

/// Empty when nothing is exported.
static RPC: OnceLock<RpcMetrics> = OnceLock::new();

/// Called once, after the global meter provider is set.
pub(crate) fn install() {
    RPC.get_or_init(|| {
        let meter = meter();
        let duration = |name, description| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(CALL_DURATION_BOUNDS.to_vec())
                .build()
        };
        RpcMetrics {
            server_call_duration: duration(RPC_SERVER_CALL_DURATION, "Duration of calls served"),
            client_call_duration: duration(RPC_CLIENT_CALL_DURATION, "Duration of calls made"),
        }
    });
}

/// Where other instruments are made. Call it after [`init`](crate::init): what is made before, or
/// without a collector, counts nothing.
#[must_use]
pub fn meter() -> Meter {
    global::meter(SCOPE)
}

/// Records a call that this process served, from its headers to the end of its last message.
///
/// `method` is the full name, with or without the slash in front
/// (`synap.gateway.v1.NoteService/CreateNote`), or [`OTHER_METHOD`]. A call answered with
/// `UNIMPLEMENTED` counts as [`OTHER_METHOD`] anyway.
pub fn record_server_call(method: &str, status: Code, elapsed: Duration) {
    if let Some(rpc) = RPC.get() {
        let method = if status == Code::Unimplemented { OTHER_METHOD } else { method };
        let attributes = call_attributes(method, status, is_server_error(status));
        rpc.server_call_duration.record(elapsed.as_secs_f64(), &attributes);
    }
}

/// Records a call that this process made, as [`record_server_call`] does. The status is the one the
/// client saw, its own `DEADLINE_EXCEEDED` and `UNAVAILABLE` included.
pub fn record_client_call(method: &str, status: Code, elapsed: Duration) {
    if let Some(rpc) = RPC.get() {
        let attributes = call_attributes(method, status, status != Code::Ok);
        rpc.client_call_duration.record(elapsed.as_secs_f64(), &attributes);
    }
}

fn call_attributes(method: &str, status: Code, failed: bool) -> Vec<KeyValue> {
    let method = method.strip_prefix('/').unwrap_or(method);
    let status = status_code_name(status);
    let mut attributes = Vec::with_capacity(4);
    attributes.push(KeyValue::new(RPC_SYSTEM_NAME, "grpc"));
    attributes.push(KeyValue::new(RPC_METHOD, method.to_owned()));
    attributes.push(KeyValue::new(RPC_RESPONSE_STATUS_CODE, status));
    if failed {
        attributes.push(KeyValue::new(ERROR_TYPE, status));
    }
    attributes
}

/// Whether a status means that the server failed, and not that it refused or could not find what
/// was asked. On a server's side only these mark a span as an error; on a client's side every
/// status but `OK` does. (Semantic conventions for gRPC.)
#[must_use]
pub const fn is_server_error(status: Code) -> bool {
    matches!(
        status,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The name of a status as the gRPC specification writes it: the value of
/// `rpc.response.status_code` in metrics, spans and logs.
#[must_use]
pub const fn status_code_name(status: Code) -> &'static str {
    match status {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise() {
        assert!(CALL_DURATION_BOUNDS.is_sorted_by(|a, b| a < b));
    }

    /// `Debug` of a code is its name in another spelling: `DeadlineExceeded`.
    #[test]
    fn every_status_is_called_by_its_own_name() {
        for number in 0..=16 {
            let code = Code::from(number);
            let plain = status_code_name(code).replace('_', "").to_lowercase();
            assert_eq!(plain, format!("{code:?}").to_lowercase());
        }
    }
}
