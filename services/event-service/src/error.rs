//! What each failure looks like on the wire. The only file that names a `Status`.

use std::{pin::Pin, time::Duration};

use futures::Stream;
use synap_postgres::Rejected;
use synap_proto::{field::Violation, reason};
use synap_rpc::{RpcError, deadline};
use tonic::{Code, Response, Status};

use crate::store::{AppendError, DatabaseError};

/// What a handler answers.
pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// The body of an answer that is a stream.
pub(crate) type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Any failure of a handler, on its way to a `Status`.
#[derive(Debug)]
pub(crate) struct Failure(RpcError);

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.0.into()
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self(violation.into())
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self(if error.is_unavailable() {
            tracing::debug!(reason = %error, "the database is unavailable");
            RpcError::new(
                Code::Unavailable,
                reason::DATABASE_UNAVAILABLE,
                "the database does not answer; try again, a repeat is safe",
            )
            .retry_after(Duration::from_secs(1))
        } else {
            RpcError::internal(&error)
        })
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let message = error.to_string();
        Self(match error {
            AppendError::VersionConflict { stream, current, expected } => {
                RpcError::new(Code::Aborted, reason::VERSION_CONFLICT, message)
                    .with("current_version", current.to_string())
                    .with("expected_version", expected.to_string())
                    .with("aggregate_type", stream.aggregate_type.as_str())
                    .with("aggregate_id", stream.aggregate_id.to_string())
            }
            AppendError::EventIdReused { event_id } => {
                RpcError::new(Code::InvalidArgument, reason::EVENT_ID_REUSED, message)
                    .with("event_id", event_id.to_string())
            }
            AppendError::NotFound { stream } => {
                RpcError::new(Code::NotFound, reason::NOT_FOUND, message)
                    .with("aggregate_type", stream.aggregate_type.as_str())
                    .with("aggregate_id", stream.aggregate_id.to_string())
            }
            AppendError::Unsettled | AppendError::Rejected(Rejected::QueueFull) => {
                RpcError::new(Code::ResourceExhausted, reason::OVERLOADED, message)
                    .retry_after(Duration::from_millis(500))
            }
            AppendError::TimedOut => deadline::exceeded(),
            AppendError::Rejected(Rejected::NoAnswer) => RpcError::internal(&error),
            AppendError::Database(error) => return error.into(),
        })
    }
}
