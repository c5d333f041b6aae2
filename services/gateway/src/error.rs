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
    /// No such file of this user, or it is deleted.
    #[error("no such file")]
    FileNotFound,
    /// No such upload of this user, or its time is over.
    #[error("no such upload, or it was not completed in time; CreateUploadUrl begins another")]
    UploadNotFound,
    /// The bytes of a direct upload are not in the store.
    #[error(
        "there is nothing under the upload's URL yet; send the body there with the method and \
         headers of CreateUploadUrl, then call again"
    )]
    UploadIncomplete,
    /// A URL is wanted for an upload that is a file by now.
    #[error("the upload is complete; CompleteUpload with its id returns the file")]
    UploadComplete {
        /// Its id.
        upload: uuid::Uuid,
    },
    /// A body is not what was promised.
    #[error("the body is not of the promised {}; nothing was stored", field.trim_start_matches("metadata."))]
    BodyMismatch {
        /// The promise.
        field: &'static str,
    },
    /// An attempt was taken over when part of its body had passed by.
    #[error("the upload was interrupted; send it again with the same request_id")]
    BodyGone,
    /// The request id was used for another body.
    #[error("the request id was used for a file with another body")]
    RequestIdReused,
    /// The note or file was changed since its etag was read.
    #[error("it was changed since: its etag is {etag} by now")]
    EtagMismatch {
        /// The current one.
        etag: String,
    },
    /// The body of an older revision that was in content_blocks only.
    #[error("the body of this revision was overwritten: it was from before the object store")]
    RevisionBodyGone,
    /// A caller has begun a body and does not go on with it.
    #[error("nothing of the body came for {} s; nothing was stored", limit.as_secs())]
    BodyStalled {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The caller's stream failed, or was refused below us.
    #[error("the stream of the body ended early: {0}")]
    Stream(Box<Status>),
    /// A call with the same request id is still under way at the deadline.
    #[error("a call with the same request_id is still under way")]
    InProgress {
        /// When its attempt can be taken over.
        retry_after: Duration,
    },
    /// The body is missing from the store, or is not what its row says.
    #[error("the stored body of {id} at revision {revision} is missing or damaged: {what}")]
    BodyCorrupt {
        /// The note or file.
        id: uuid::Uuid,
        /// Its version.
        revision: i32,
        /// What was found.
        what: &'static str,
    },
    /// The store did not give a body in the time there was.
    #[error("the stored body of {id} at revision {revision} cannot be reached; try again")]
    BodyUnreachable {
        /// The note.
        id: uuid::Uuid,
        /// Its version.
        revision: i32,
    },
    /// The gateway ends while a caller watches.
    #[error("the gateway is stopping; call again with the last cursor")]
    Stopping,
    /// As many watch as can.
    #[error("as many callers watch as can; try again later, or list events")]
    TooManyWatches,
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
    /// Whether the attempt was taken over: the operation itself knows what became of it.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Service(error) if error.reason == reason::OPERATION_FENCED)
    }

    /// Whether the attempt was begun in a storage phase that is over: another has to be begun.
    #[must_use]
    pub fn is_phase_changed(&self) -> bool {
        matches!(self, Self::Service(error) if error.reason == reason::PHASE_CHANGED)
    }

    /// Whether the event before this one is missing in the stream.
    #[must_use]
    pub fn is_out_of_order(&self) -> bool {
        matches!(self, Self::Service(error) if error.reason == reason::VERSION_CONFLICT)
    }

    /// What is said of one entity of a user: entity-service speaks of entities and versions, the
    /// caller of a note or a file and its etag.
    #[must_use]
    pub fn about(self, missing: Self, etag: impl FnOnce(i32) -> String) -> Self {
        let Self::Service(inner) = &self else { return self };
        match inner.reason.as_str() {
            reason::NOT_FOUND => missing,
            reason::VERSION_CONFLICT => {
                let version = inner.metadata.get("version").and_then(|text| text.parse().ok());
                version.map_or(self, |version| Self::EtagMismatch { etag: etag(version) })
            }
            _ => self,
        }
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
            Error::NoteNotFound | Error::FileNotFound | Error::UploadNotFound => {
                Self::new(Code::NotFound, reason::NOT_FOUND, message)
            }
            Error::UploadIncomplete => {
                Self::new(Code::FailedPrecondition, reason::UPLOAD_INCOMPLETE, message)
            }
            Error::UploadComplete { upload } => {
                Self::new(Code::FailedPrecondition, reason::UPLOAD_COMPLETE, message)
                    .with("upload_id", upload.to_string())
            }
            Error::BodyMismatch { field } => Self {
                violations: vec![Violation::new(field, &message)],
                ..Self::new(Code::InvalidArgument, reason::BODY_MISMATCH, message)
            },
            Error::BodyGone => Self::new(Code::Aborted, reason::OPERATION_FENCED, message)
                .retry_after(Duration::from_secs(1)),
            Error::RequestIdReused => Self {
                violations: vec![Violation::new("metadata.request_id", &message)],
                ..Self::new(Code::InvalidArgument, reason::REQUEST_ID_REUSED, message)
            },
            Error::EtagMismatch { etag } => {
                Self::new(Code::Aborted, reason::ETAG_MISMATCH, message).with("etag", etag)
            }
            Error::RevisionBodyGone => {
                Self::new(Code::FailedPrecondition, reason::REVISION_BODY_GONE, message)
            }
            Error::BodyStalled { .. } => {
                Self::new(Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED, message)
            }
            Error::Stream(status) => Self::from_status(&status),
            Error::InProgress { retry_after } => {
                Self::new(Code::Aborted, reason::REQUEST_IN_PROGRESS, message)
                    .retry_after(retry_after)
            }
            Error::BodyCorrupt { id, revision, .. } => {
                tracing::error!(entity_id = %id, revision, message, "a body is damaged");
                Self::new(Code::DataLoss, reason::BODY_CORRUPT, message)
                    .with("id", id.to_string())
                    .with("revision", revision.to_string())
            }
            Error::BodyUnreachable { id, revision } => {
                Self::new(Code::Unavailable, reason::SERVICE_UNAVAILABLE, message)
                    .with("id", id.to_string())
                    .with("revision", revision.to_string())
                    .retry_after(Duration::from_secs(1))
            }
            Error::Stopping => Self::new(Code::Unavailable, reason::SERVICE_UNAVAILABLE, message)
                .retry_after(Duration::from_secs(1)),
            Error::TooManyWatches => {
                Self::new(Code::ResourceExhausted, reason::OVERLOADED, message)
                    .retry_after(Duration::from_secs(5))
            }
            Error::Service(error) => *error,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            // As it is: whoever refused it says why.
            Error::Stream(status) => *status,
            error => RpcError::from(error).into(),
        }
    }
}
