//! What each failure looks like on the wire. The only file that names a `Status`.

use std::{pin::Pin, time::Duration};

use futures::Stream;
use synap_postgres::Rejected;
use synap_proto::{field::Violation, reason};
use synap_rpc::{RpcError, deadline};
use tonic::{Code, Response, Status};

use crate::{
    archive::ArchiveError,
    domain::ConsumerName,
    legacy::LegacyError,
    store::{AppendError, CursorError, DatabaseError, ReadError, UpkeepError},
};

/// What a handler answers.
pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// The body of an answer that is a stream.
pub(crate) type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Any failure of a handler, on its way to a `Status`.
#[derive(Debug)]
pub(crate) struct Failure(RpcError);

impl Failure {
    /// A subscription ends because the service does.
    pub(crate) fn stopping() -> Self {
        let message = "the service is stopping; subscribe again after the last cursor";
        Self(
            RpcError::new(Code::Unavailable, reason::SERVICE_UNAVAILABLE, message)
                .retry_after(Duration::from_secs(1)),
        )
    }

    /// There is no consumer of that name.
    pub(crate) fn no_consumer(name: &ConsumerName) -> Self {
        Self(
            RpcError::new(Code::NotFound, reason::NOT_FOUND, "no such consumer")
                .with("consumer", name.as_str()),
        )
    }
}

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

impl From<CursorError> for Failure {
    fn from(error: CursorError) -> Self {
        let message = error.to_string();
        let reason = match error {
            CursorError::Ahead => reason::CURSOR_AHEAD,
            CursorError::Unknown => reason::CURSOR_UNKNOWN,
            CursorError::Database(error) => return error.into(),
        };
        Self(RpcError::new(Code::FailedPrecondition, reason, message))
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
            AppendError::Unconfirmed => {
                RpcError::new(Code::Aborted, reason::APPEND_UNCONFIRMED, message)
            }
            AppendError::Unsettled
            | AppendError::NoPlace
            | AppendError::Rejected(Rejected::QueueFull) => {
                RpcError::new(Code::ResourceExhausted, reason::OVERLOADED, message)
                    .retry_after(Duration::from_millis(500))
            }
            AppendError::TimedOut => deadline::exceeded(),
            AppendError::Rejected(Rejected::NoAnswer) => RpcError::internal(&error),
            AppendError::Database(error) => return error.into(),
        })
    }
}

impl From<UpkeepError> for Failure {
    fn from(error: UpkeepError) -> Self {
        let message = error.to_string();
        Self(match error {
            UpkeepError::UnderWay | UpkeepError::LeaseLost | UpkeepError::HeldBack => {
                RpcError::new(Code::Aborted, reason::UPKEEP_UNDER_WAY, message)
                    .retry_after(Duration::from_secs(5))
            }
            UpkeepError::LegacyIsThere => {
                RpcError::new(Code::FailedPrecondition, reason::LEGACY_NOT_READY, message)
            }
            UpkeepError::Deleted(_) => Violation::new("start_date", message).into(),
            UpkeepError::BrokenOff(_) => RpcError::internal(&error),
            UpkeepError::Archive(error) => return error.into(),
            UpkeepError::Database(error) => return error.into(),
        })
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(error) => error.into(),
            ReadError::Archive(error) => error.into(),
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let message = error.to_string();
        Self(match error {
            ArchiveError::NotConfigured => {
                RpcError::new(Code::FailedPrecondition, reason::ARCHIVE_NOT_CONFIGURED, message)
            }
            ArchiveError::Content(error) if error.code == Code::Unavailable => {
                RpcError::new(Code::Unavailable, reason::SERVICE_UNAVAILABLE, message)
                    .retry_after(Duration::from_secs(1))
            }
            ArchiveError::Damaged { key, .. } => {
                RpcError::new(Code::DataLoss, reason::ARCHIVE_CORRUPT, message).with("key", key)
            }
            ArchiveError::Database(error) => return error.into(),
            error => RpcError::internal(&error),
        })
    }
}

impl From<LegacyError> for Failure {
    fn from(error: LegacyError) -> Self {
        match error {
            LegacyError::NotReady(why) => {
                Self(RpcError::new(Code::FailedPrecondition, reason::LEGACY_NOT_READY, why))
            }
            LegacyError::Database(error) => error.into(),
        }
    }
}
