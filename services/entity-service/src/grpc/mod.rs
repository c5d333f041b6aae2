//! One file per gRPC service; a handler only validates, calls, and maps.

mod content_migration;
mod convert;
mod entities;
mod find;
mod operations;
mod storage;
mod vectors;

pub(crate) use content_migration::ContentMigration;
pub(crate) use entities::Entities;
pub(crate) use operations::Operations;
pub(crate) use storage::Storage;
