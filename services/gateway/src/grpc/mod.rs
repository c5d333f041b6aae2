//! One file per gRPC service; a handler only validates, calls, and maps.

mod activity;
mod convert;
mod files;
mod notes;

use synap_types::UserId;
use tonic::Request;

pub(crate) use activity::Activities;
pub(crate) use files::Files;
pub(crate) use notes::Notes;

use crate::error::Error;

/// Calls that take as long as a file does, or as their caller listens.
pub(crate) const LONG_CALLS: &[&str] = &[
    "/synap.gateway.v1.FileService/UploadFile",
    "/synap.gateway.v1.FileService/DownloadFile",
    "/synap.gateway.v1.FileService/CompleteUpload",
    "/synap.gateway.v1.ActivityService/WatchEvents",
];

/// Who calls: the server lets in nobody whom it does not know, see [`synap_rpc::Callers`].
fn caller<T>(request: &Request<T>) -> Result<UserId, Error> {
    let user = request.extensions().get::<UserId>().cloned();
    user.ok_or_else(|| Error::contract("gateway", "a call without a caller"))
}
