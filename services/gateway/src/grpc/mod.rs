//! One file per gRPC service; a handler only validates, calls, and maps.

mod convert;
mod files;
mod notes;

use synap_auth::Authenticator;
use synap_types::UserId;
use tonic::metadata::MetadataMap;

pub(crate) use files::{Files, LONG_CALLS};
pub(crate) use notes::Notes;

use crate::error::Error;

/// Who is calling.
async fn caller(authenticator: &Authenticator, metadata: &MetadataMap) -> Result<UserId, Error> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    Ok(authenticator.authenticate(header).await?)
}
