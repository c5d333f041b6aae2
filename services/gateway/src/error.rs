//! Every error that a caller can get, and the only place that says how it looks on the wire.

use std::time::Duration;

use synap_auth::AuthError;
use synap_proto::{field::Violation, reason};
use synap_rpc::RpcError;
use tonic::{Code, Status};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is wrong.
    #[error("{0}")]
    Invalid(#[from] Violation),
    /// Nobody we know is calling.
    #[error("{0}")]
    Unauthenticated(#[from] AuthError),
    /// No such note of this user.
    #[error("no such note")]
    NoteNotFound,
    /// A call with the same request id is still under way at the deadline.
    #[error("a call with the same request_id is still under way")]
    InProgress {
        /// When its attempt can be taken over.
        retry_after: Duration,
    },
    /// The body is missing from the store, or is not what its row says.
    #[error("the stored body of note {note} is missing or damaged: {what}")]
    BodyCorrupt {
        /// The note.
        note: uuid::Uuid,
        /// What was found.
        what: &'static str,
    },
    /// A service answered with an error, or with what it should not.
    #[error(transparent)]
    Service(Box<RpcError>),
}

impl From<RpcError> for Error {
    fn from(error: RpcError) -> Self {
        Self::Service(Box::new(error))
    }
}

impl Error {
    /// Whether the attempt was taken over, or its ground has changed: the operation goes on from
    /// its beginning.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Service(error)
            if error.reason == reason::OPERATION_FENCED || error.reason == reason::PHASE_CHANGED)
    }

    /// A service left out what its contract promises.
    #[must_use]
    pub fn contract(service: &str, what: &str) -> Self {
        tracing::error!(service, what, "a service broke its contract");
        RpcError::new(
            Code::Internal,
            reason::INTERNAL,
            "an internal error; the service's log has it",
        )
        .into()
    }
}

impl From<Error> for RpcError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(violation) => violation.into(),
            Error::Unauthenticated(AuthError::KeysUnavailable) => {
                Self::new(Code::Unavailable, reason::SERVICE_UNAVAILABLE, message)
                    .retry_after(Duration::from_secs(5))
            }
            // Somebody whom we trust vouches for it, and yet it has no place in the store: another
            // token of the same issuer would not help.
            Error::Unauthenticated(AuthError::InvalidSubject(why)) => {
                Violation::new("sub", why).into()
            }
            Error::Unauthenticated(_) => {
                Self::new(Code::Unauthenticated, reason::UNAUTHENTICATED, message)
            }
            Error::NoteNotFound => Self::new(Code::NotFound, reason::NOT_FOUND, message),
            Error::InProgress { retry_after } => {
                Self::new(Code::Aborted, reason::REQUEST_IN_PROGRESS, message)
                    .retry_after(retry_after)
            }
            Error::BodyCorrupt { note, .. } => {
                tracing::error!(entity_id = %note, message, "a body is damaged");
                Self::new(Code::DataLoss, reason::BODY_CORRUPT, message)
                    .with("note", note.to_string())
            }
            Error::Service(error) => *error,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        RpcError::from(error).into()
    }
}
