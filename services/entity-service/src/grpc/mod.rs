//! One file per gRPC service; a handler only validates, calls, and maps.

mod convert;
mod entities;
mod find;
mod operations;
mod storage;
mod takeover;
mod vectors;

pub(crate) use entities::Entities;
pub(crate) use operations::Operations;
pub(crate) use storage::Storage;
pub(crate) use takeover::Takeover;
