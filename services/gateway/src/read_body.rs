//! A note's body as its row names it, checked against the row.

use std::time::Duration;

use bytes::Bytes;
use synap_rpc::deadline;
use synap_types::Checksum;

use crate::{
    clients::ContentClient,
    domain::{Entity, StoredFile},
    error::Error,
};

/// The most that is waited for a blob, where its reader has more time.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why a body cannot be read in the store, for a metric and for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// There is nothing under its key.
    Missing,
    /// It has another size, another checksum, or is no text; and which of these.
    Corrupt(&'static str),
    /// The store does not answer.
    Unreachable,
}

impl Unreadable {
    /// The value of an attribute.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Corrupt(_) => "corrupt",
            Self::Unreachable => "unreachable",
        }
    }

    /// What a caller is told of it.
    pub(crate) fn of(self, entity: &Entity) -> Error {
        let Entity { id, version: revision, .. } = *entity;
        match self {
            Self::Missing => Error::BodyCorrupt { id, revision, what: "it is not in the store" },
            Self::Corrupt(what) => Error::BodyCorrupt { id, revision, what },
            Self::Unreachable => Error::BodyUnreachable { id, revision },
        }
    }
}

/// Reads a whole body. Half of the time that is left is kept for whoever has another copy.
pub(crate) async fn read_body(
    content: &ContentClient,
    file: &StoredFile,
) -> Result<String, Unreadable> {
    let limit = deadline::remaining().map_or(PATIENCE, |left| left / 2);
    let body = match deadline::within(limit, content.get(&file.path, file.size)).await {
        Ok(Ok(body)) => body.ok_or(Unreadable::Missing)?,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a blob cannot be read");
            return Err(Unreadable::Unreachable);
        }
        Err(_) => {
            tracing::warn!(?limit, "a blob did not come in time");
            return Err(Unreadable::Unreachable);
        }
    };
    check(file, &body)?;
    into_text(body).ok_or(Unreadable::Corrupt("it is not UTF-8"))
}

/// Whether these bytes are what the row describes. Early V0.3 left rows without a size or a
/// checksum: those can only be believed.
pub(crate) fn check(file: &StoredFile, body: &[u8]) -> Result<(), Unreadable> {
    if file.size > 0 && usize::try_from(file.size).ok() != Some(body.len()) {
        return Err(Unreadable::Corrupt("it has another size"));
    }
    let Ok(checksum) = file.checksum.parse::<Checksum>() else { return Ok(()) };
    if Checksum::of(body) == checksum {
        Ok(())
    } else {
        Err(Unreadable::Corrupt("its bytes are not those of its checksum"))
    }
}

/// The bytes as text, without a copy where nobody else holds them.
fn into_text(body: Bytes) -> Option<String> {
    String::from_utf8(Vec::from(body)).ok()
}
