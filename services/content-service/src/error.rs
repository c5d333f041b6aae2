//! What each failure becomes on the wire: the only place that names a gRPC code.

use std::{io, time::Duration};

use synap_proto::{content::BlobPutOutcome, field::Violation, reason};
use synap_rpc::RpcError;
use synap_types::Checksum;
use tonic::{Code, Status};

use crate::{config::ConfigError, domain::BodyMismatch, store::StoreError};

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum ContentError {
    /// A field cannot be accepted.
    Field(Violation),
    /// The body is not what was promised.
    Body(BodyMismatch),
    /// The stored bytes are not those that the caller knows.
    Corrupt {
        /// What they should be.
        expected: Checksum,
        /// What they are.
        found: Checksum,
    },
    /// The store failed, or said no.
    Store(StoreError),
    /// The caller's stream ended early, or was refused below us.
    Stream(Status),
}

impl ContentError {
    /// What it becomes where it is of one blob among many that are written.
    pub(crate) fn of_one_put(self) -> (BlobPutOutcome, String) {
        let outcome = match &self {
            Self::Body(_) | Self::Store(StoreError::NameTooLong) => BlobPutOutcome::Refused,
            Self::Store(StoreError::Taken) => BlobPutOutcome::Taken,
            Self::Store(StoreError::Unavailable { .. }) => BlobPutOutcome::Unavailable,
            // Said of what was there a moment ago.
            Self::Corrupt { .. } | Self::Store(StoreError::NotFound) => BlobPutOutcome::Different,
            Self::Store(StoreError::OutOfRange { .. } | StoreError::Unexpected(_))
            | Self::Field(_)
            | Self::Stream(_) => BlobPutOutcome::Failed,
        };
        (outcome, Status::from(self).message().to_owned())
    }
}

impl From<ContentError> for Status {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Field(violation) => RpcError::from(violation).into(),
            ContentError::Body(mismatch @ BodyMismatch::TooLarge { .. }) => {
                RpcError::from(Violation::new("spec.size", mismatch)).into()
            }
            ContentError::Body(mismatch) => RpcError::new(
                Code::InvalidArgument,
                reason::BODY_MISMATCH,
                format!("{mismatch}; nothing was written"),
            )
            .into(),
            ContentError::Corrupt { expected, found } => {
                tracing::error!(%expected, %found, "a stored body is not what it was");
                RpcError::new(
                    Code::DataLoss,
                    reason::BODY_CORRUPT,
                    format!("the stored body's checksum is {found}, expected was {expected}"),
                )
                .into()
            }
            ContentError::Store(error) => RpcError::from(error).into(),
            ContentError::Stream(status) => status,
        }
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => {
                Self::new(Code::NotFound, reason::NOT_FOUND, "there is no blob under this key")
            }
            StoreError::Taken => Self::new(
                Code::AlreadyExists,
                reason::BLOB_EXISTS,
                "the key is taken by other bytes; every write needs a key of its own",
            ),
            StoreError::OutOfRange { size } => Self::new(
                Code::OutOfRange,
                reason::RANGE_NOT_SATISFIABLE,
                format!("the blob has {size} bytes; the range begins behind them"),
            ),
            // Only a write can say so: what cannot be written is not found.
            StoreError::NameTooLong => Self::from(Violation::new(
                "spec.key",
                "has a segment that is too long for the file system of the store",
            )),
            StoreError::Unavailable { advice, cause } => {
                tracing::warn!(reason = cause, "the object store failed");
                Self::new(Code::Unavailable, reason::STORE_UNAVAILABLE, advice)
                    .retry_after(Duration::from_secs(1))
            }
            StoreError::Unexpected(_) => Self::internal(&error),
        }
    }
}

/// Why the service could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be made from the settings, or its directory cannot be made.
    #[error("the blob store cannot be opened: {0}")]
    Store(io::Error),
    /// The port cannot be opened.
    #[error(transparent)]
    Listen(io::Error),
    /// The listener failed.
    #[error("the server failed")]
    Serve(#[source] tonic::transport::Error),
}
