//! One file per gRPC service; a handler only validates, calls, and maps.

mod convert;
mod files;
mod notes;

use synap_types::UserId;
use tonic::Request;

pub(crate) use files::{Files, LONG_CALLS};
pub(crate) use notes::Notes;

use crate::error::Error;

/// Who calls: the server lets in nobody whom it does not know, see [`synap_rpc::Callers`].
fn caller<T>(request: &Request<T>) -> Result<UserId, Error> {
    let user = request.extensions().get::<UserId>().cloned();
    user.ok_or_else(|| Error::contract("gateway", "a call without a caller"))
}
