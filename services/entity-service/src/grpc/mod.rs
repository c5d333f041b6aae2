//! One file per gRPC service; a handler only validates, calls, and maps.

mod adoption;
mod content_migration;
mod convert;
mod entities;
mod find;
mod operations;
mod storage;
mod takeover;
mod vectors;
mod verification;

pub(crate) use adoption::{Adoptions, refused_until_adopted};
pub(crate) use content_migration::ContentMigration;
pub(crate) use entities::Entities;
pub(crate) use operations::Operations;
pub(crate) use storage::Storage;
pub(crate) use takeover::Takeover;
pub(crate) use verification::Verification;

/// Calls that take as long as a database does.
pub(crate) const LONG_CALLS: &[&str] = &[
    "/synap.entity.v1.AdoptionService/AdoptDatabase",
    "/synap.entity.v1.AdoptionService/GetStatistics",
    "/synap.entity.v1.AdoptionService/InspectDatabase",
];
