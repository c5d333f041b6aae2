//! A real server on loopback with a real service, whose handlers do what the test says when the
//! test says it.
#![expect(clippy::unwrap_used, reason = "what a test needs must be there")]

mod budget;
mod content;
mod deadline;
mod flow;
mod gate;
mod health;
mod outage;
mod raw;
mod reflection;
mod refusal;
mod running;
mod stop;
mod trace;

use synap_rpc::RpcError;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The details that every error carries.
#[track_caller]
fn assert_error(status: &Status, code: Code, reason: &str) -> RpcError {
    let error = RpcError::from_status(status);
    assert_eq!((error.code, error.reason.as_str()), (code, reason), "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, synap_rpc::DOMAIN);
    error
}
