//! What went wrong in a store, and who can do something about it.

use std::{error::Error, io};

use http::StatusCode;
use object_store::client::{HttpError, HttpErrorKind};

/// A store failed, or said no.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// There is no such blob.
    #[error("there is no such blob")]
    NotFound,
    /// The key is taken by other bytes.
    #[error("the key is taken")]
    Taken,
    /// The bytes that were asked for begin at or past the blob's end.
    #[error("the blob has {size} bytes")]
    OutOfRange {
        /// Of the blob.
        size: u64,
    },
    /// The file system cannot have a name so long.
    #[error("the name is too long")]
    NameTooLong,
    /// The store cannot be reached, is full, or refuses us: it passes, or an operator must act.
    #[error("{cause}")]
    Unavailable {
        /// For the caller: what to do.
        advice: &'static str,
        /// For the log: the store's own words.
        cause: String,
    },
    /// Nothing that a store in working order would answer.
    #[error("{0}")]
    Unexpected(String),
}

const NO_ACCESS: &str = "the object store refuses our credentials; check R2_ACCESS_KEY_ID, \
     R2_SECRET_ACCESS_KEY and what they may do with the bucket";
const NO_BUCKET: &str = "the object store has no such bucket; create it, or check R2_BUCKET_NAME";
const NO_PERMISSION: &str =
    "the blob directory refuses access; check the owner and permissions of BLOB_DIR";
const FULL: &str = "the blob directory is full; free space on the disk of BLOB_DIR";
const READ_ONLY: &str = "the disk of BLOB_DIR is mounted read-only; mount it for writing";
const NO_ANSWER: &str = "the object store does not answer as it should; the log of content-service \
     has its words; try again";

impl StoreError {
    /// A write that fails with "not found" found no place to write to: that is no missing blob.
    pub(super) fn of_write(error: object_store::Error) -> Self {
        let cause = words(&error);
        match Self::from(error) {
            Self::NotFound => Self::Unavailable { advice: NO_ANSWER, cause },
            other => other,
        }
    }

    /// As [`StoreError::of_write`].
    pub(super) fn of_a_write(self) -> Self {
        match self {
            Self::NotFound => Self::Unavailable { advice: NO_ANSWER, cause: self.cause() },
            other => other,
        }
    }

    /// As [`StoreError::of_write`].
    pub(super) fn from_local_write(error: io::Error) -> Self {
        Self::from(error).of_a_write()
    }

    /// A refusal that object_store has not seen.
    pub(super) fn of_answer(status: StatusCode, body: &str) -> Self {
        let advice = match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => NO_ACCESS,
            StatusCode::NOT_FOUND if body.contains("NoSuchBucket") => NO_BUCKET,
            _ => NO_ANSWER,
        };
        Self::Unavailable { advice, cause: without_users(&format!("{status}: {body}")) }
    }

    /// A body that ended before all of it came.
    pub(super) fn cut_off() -> Self {
        let cause = "the store ended the body early".to_owned();
        Self::Unavailable { advice: NO_ANSWER, cause }
    }

    /// Another object took the place of the one that was being read.
    pub(super) fn changed() -> Self {
        Self::Unexpected("the object changed while it was read".to_owned())
    }

    /// For the log: the store's own words, without the user ids that keys contain.
    pub(crate) fn cause(&self) -> String {
        self.to_string()
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as Said;
        let cause = words(&error);
        let unavailable = |advice, cause| Self::Unavailable { advice, cause };
        match &error {
            // R2 and S3 say 404 for both; what is missing is in the body.
            Said::NotFound { .. } if cause.contains("NoSuchBucket") => {
                unavailable(NO_BUCKET, cause)
            }
            Said::NotFound { .. } => Self::NotFound,
            Said::AlreadyExists { .. } => Self::Taken,
            Said::PermissionDenied { .. } | Said::Unauthenticated { .. } => {
                unavailable(NO_ACCESS, cause)
            }
            Said::Generic { .. } => of_io(io_kind(&error), cause),
            _ => Self::Unexpected(cause),
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        of_io(Some(error.kind()), words(&error))
    }
}

impl From<HttpError> for StoreError {
    fn from(error: HttpError) -> Self {
        Self::Unavailable { advice: NO_ANSWER, cause: words(&error) }
    }
}

fn of_io(kind: Option<io::ErrorKind>, cause: String) -> StoreError {
    use io::ErrorKind as Kind;
    let advice = match kind {
        // A directory where a blob would be: keys of blobs go through it, none ends there.
        Some(Kind::IsADirectory | Kind::NotFound) => return StoreError::NotFound,
        Some(Kind::AlreadyExists) => return StoreError::Taken,
        Some(Kind::InvalidFilename) => return StoreError::NameTooLong,
        Some(Kind::PermissionDenied) => NO_PERMISSION,
        Some(Kind::StorageFull | Kind::QuotaExceeded) => FULL,
        Some(Kind::ReadOnlyFilesystem) => READ_ONLY,
        _ => NO_ANSWER,
    };
    StoreError::Unavailable { advice, cause }
}

/// Whether a request was on its way when its connection ended: its outcome is unknown.
pub(super) fn broke_off(error: &object_store::Error) -> bool {
    causes(error)
        .find_map(|cause| cause.downcast_ref::<HttpError>())
        .is_some_and(|http| http.kind() != HttpErrorKind::Connect)
}

fn io_kind(error: &object_store::Error) -> Option<io::ErrorKind> {
    let io = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>());
    io.map(io::Error::kind)
}

/// An error, what caused it, what caused that, …
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// An error and its causes in one line, each said once, fit for the log.
pub(crate) fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    without_users(&text)
}

/// Writes `users/*/…` for `users/{user}/…`: user ids are personal data and stay out of the log.
fn without_users(text: &str) -> String {
    const PREFIX: &str = "users/";
    let mut parts = text.split(PREFIX);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_segment = |c: char| c.is_ascii_alphanumeric() || "-_~.%".contains(c);
        let rest = part.trim_start_matches(is_segment);
        clean.push_str(PREFIX);
        clean.push('*');
        clean.push_str(rest);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn Error + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: source.into() }
    }

    #[test]
    fn what_an_operator_can_mend_is_unavailable_and_says_how() {
        for (kind, advice) in [
            (io::ErrorKind::StorageFull, FULL),
            (io::ErrorKind::PermissionDenied, NO_PERMISSION),
            (io::ErrorKind::ReadOnlyFilesystem, READ_ONLY),
            (io::ErrorKind::ConnectionRefused, NO_ANSWER),
            (io::ErrorKind::NotADirectory, NO_ANSWER),
        ] {
            let error = StoreError::from(generic(io::Error::from(kind)));
            assert!(
                matches!(error, StoreError::Unavailable { advice: said, .. } if said == advice),
                "{kind:?}: {error:?}"
            );
        }
    }

    #[test]
    fn a_missing_bucket_is_no_missing_blob() {
        let missing = |body: &str| object_store::Error::NotFound {
            path: "users/u/notes/x.md".to_owned(),
            source: body.into(),
        };
        let object = StoreError::from(missing("<Code>NoSuchKey</Code>"));
        assert!(matches!(object, StoreError::NotFound));
        let bucket = StoreError::from(missing("<Code>NoSuchBucket</Code>"));
        assert!(matches!(bucket, StoreError::Unavailable { advice: NO_BUCKET, .. }));
        let write = StoreError::of_write(missing("<Code>NoSuchKey</Code>"));
        assert!(matches!(write, StoreError::Unavailable { .. }));
    }

    #[test]
    fn no_user_id_gets_into_the_log() {
        let error = generic(
            "PUT http://h/bucket/users/ada%2540example%252Eorg/notes/1.md failed: \
             <Resource>/bucket/users/ada%40example%2Eorg/notes/1.md</Resource>",
        );
        let cause = StoreError::from(error).cause();
        assert!(!cause.contains("ada"), "{cause}");
        assert_eq!(cause.matches("users/*/notes/1.md").count(), 2, "{cause}");
    }
}
