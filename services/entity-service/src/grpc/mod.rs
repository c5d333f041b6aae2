//! One file per gRPC service; a handler only validates, calls, and maps.

mod convert;
mod entities;
mod operations;
mod storage;

pub(crate) use entities::Entities;
pub(crate) use operations::Operations;
pub(crate) use storage::Storage;
