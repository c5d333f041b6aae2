//! Every error that a caller can get, and the only place that says how it looks on the wire.

use std::{sync::Arc, time::Duration};

use synap_postgres::MigrateError;
use synap_proto::{field::Violation, reason};
use synap_rpc::{RpcError, deadline};
use tonic::{Code, Status};

use crate::domain::Phase;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{0}")]
    Invalid(#[from] Violation),
    /// No such entity of this user.
    #[error("no such entity")]
    EntityNotFound,
    /// The request id was used for something else.
    #[error("the request id was used for a request with another payload")]
    RequestIdReused,
    /// The attempt was taken over, or its operation forgotten.
    #[error("the attempt was taken over by a later one")]
    Fenced,
    /// The operation was given up, or nobody knows it.
    #[error("no such operation")]
    OperationNotFound,
    /// The entity is not at the version that the caller has seen.
    #[error("the entity is at version {current} by now")]
    VersionConflict {
        /// The version it is at.
        current: i32,
    },
    /// The entity is to be undeleted, and is not deleted.
    #[error("the entity is not deleted")]
    NotDeleted,
    /// The entity is to be purged, and was not deleted for long enough.
    #[error("the entity is not deleted, or not for as long as deleted entities are kept")]
    PurgeNotDue,
    /// The storage phase is not the one that the attempt was started in.
    #[error("the storage phase changed since the attempt was begun")]
    PhaseChanged,
    /// The database is V0.2's, and nothing is done with it before an operator has it adopted.
    #[error("the database is one of Synap V0.2 that is not adopted yet: run `synapctl adopt`")]
    NotAdopted,
    /// The database cannot be adopted as it is, for each of these reasons.
    #[error("the database cannot be adopted as it is: {}", .0.join("; "))]
    NotAdoptable(Vec<String>),
    /// A step of the adoption failed. All before it is done; it can be tried again.
    #[error("{step}: {cause}")]
    AdoptionFailed {
        /// What it was to do.
        step: String,
        /// What the database said.
        cause: String,
    },
    /// The installation is not in the phase that it was to be moved on from.
    #[error("the storage phase is {} by now", current.name())]
    OtherPhase {
        /// The phase it is in.
        current: Phase,
    },
    /// What was asked for is not done in this storage phase.
    #[error("this is done in the storage phase dual_write, and the phase is {}", current.name())]
    WrongPhase {
        /// The phase it is in.
        current: Phase,
    },
    /// What an operator wants of content_blocks cannot be done yet.
    #[error("{0}")]
    LegacyNotReady(String),
    /// The operation is committed and cannot be given up.
    #[error("the operation is already committed")]
    AlreadyCommitted,
    /// More writes are waiting than the queue holds.
    #[error("too many writes are waiting")]
    QueueFull,
    /// The write did not end in time.
    #[error("the write did not end in time")]
    TimedOut,
    /// The database said no, or nothing; one error may be the answer to a whole batch.
    #[error(transparent)]
    Database(Arc<sqlx::Error>),
    /// The database has no role to work as, or not for us: its migrations are missing, or were run
    /// by somebody else.
    #[error("the role synap_entity is not there, or not granted to the service's user")]
    NoRole(Arc<sqlx::Error>),
    /// A row holds what no code of ours writes.
    #[error("a row of {table} holds {what}")]
    CorruptRow {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// The database is not there, or not in a state to work: whatever is tried next will fail too.
    #[must_use]
    pub fn is_database_away(&self) -> bool {
        let cause = match self {
            Self::Database(cause) => cause,
            Self::NoRole(_) => return true,
            _ => return false,
        };
        let Some(answer) = cause.as_database_error() else {
            return synap_postgres::is_transient(cause);
        };
        answer.code().is_some_and(|code| {
            // Connection exception; out of disk, memory or connections.
            code.starts_with("08")
                || code.starts_with("53")
                || matches!(
                    &*code,
                    "57P01" | "57P02" | "57P03" // stopping or starting
                        | "42P01" | "3F000" // undefined table, schema: not migrated yet
                        | "3D000" // no such database: not created yet
                        | "25006" // a standby
                )
        })
    }
}

impl Error {
    /// What kept a step of the adoption from being done, in words for the operator who is there to
    /// read them; but that the database is away, which passes, stays what it is.
    pub(crate) fn of_step(self, step: &str) -> Self {
        match &self {
            Self::Database(cause) if !self.is_database_away() => {
                Self::AdoptionFailed { step: step.to_owned(), cause: cause.to_string() }
            }
            _ => self,
        }
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Database { source, .. } => source.into(),
            MigrateError::Failed { source, .. } if synap_postgres::is_transient(&source) => {
                source.into()
            }
            other => Self::AdoptionFailed {
                step: "apply the migrations".to_owned(),
                cause: other.to_string(),
            },
        }
    }
}

impl Error {
    /// Whether it may be otherwise the next time.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Database(cause) => self.is_database_away() || synap_postgres::is_transient(cause),
            Self::NoRole(_) | Self::QueueFull | Self::TimedOut => true,
            _ => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Database(Arc::new(cause))
    }
}

impl From<Error> for RpcError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(violation) => violation.into(),
            Error::EntityNotFound | Error::OperationNotFound => {
                Self::new(Code::NotFound, reason::NOT_FOUND, message)
            }
            Error::RequestIdReused => Self {
                violations: vec![Violation::new("request_id", &message)],
                ..Self::new(Code::InvalidArgument, reason::REQUEST_ID_REUSED, message)
            },
            Error::Fenced => Self::new(Code::Aborted, reason::OPERATION_FENCED, message),
            Error::VersionConflict { current } => {
                Self::new(Code::Aborted, reason::VERSION_CONFLICT, message)
                    .with("version", current.to_string())
            }
            Error::NotDeleted => Self::new(Code::AlreadyExists, reason::NOT_DELETED, message),
            Error::PurgeNotDue => {
                Self::new(Code::FailedPrecondition, reason::PURGE_NOT_DUE, message)
            }
            Error::PhaseChanged => Self::new(Code::Aborted, reason::PHASE_CHANGED, message),
            Error::NotAdopted => Self::new(Code::FailedPrecondition, reason::NOT_ADOPTED, message),
            Error::NotAdoptable(_) => {
                Self::new(Code::FailedPrecondition, reason::NOT_ADOPTABLE, message)
            }
            Error::AdoptionFailed { .. } => {
                Self::new(Code::FailedPrecondition, reason::ADOPTION_FAILED, message)
            }
            Error::OtherPhase { current } => {
                Self::new(Code::Aborted, reason::PHASE_CHANGED, message)
                    .with("phase", current.name())
            }
            Error::WrongPhase { current } => {
                Self::new(Code::FailedPrecondition, reason::WRONG_PHASE, message)
                    .with("phase", current.name())
            }
            Error::LegacyNotReady(_) => {
                Self::new(Code::FailedPrecondition, reason::LEGACY_NOT_READY, message)
            }
            Error::AlreadyCommitted => {
                Self::new(Code::FailedPrecondition, reason::OPERATION_COMMITTED, message)
            }
            Error::QueueFull => Self::new(Code::ResourceExhausted, reason::OVERLOADED, message)
                .retry_after(Duration::from_millis(500)),
            Error::TimedOut => deadline::exceeded(),
            Error::NoRole(ref cause) | Error::Database(ref cause)
                if error.is_database_away() || synap_postgres::is_transient(cause) =>
            {
                tracing::warn!(
                    error = cause as &dyn std::error::Error,
                    "the database does not answer"
                );
                Self::new(
                    Code::Unavailable,
                    reason::DATABASE_UNAVAILABLE,
                    "the database does not answer; try again",
                )
                .retry_after(Duration::from_secs(1))
            }
            Error::NoRole(_) | Error::Database(_) | Error::CorruptRow { .. } => {
                Self::internal(&error)
            }
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        RpcError::from(error).into()
    }
}
