//! Storage phases, as commands name them.

use synap_proto::entity::StoragePhase;

/// The name that the phase has in the database, in documents and on the command line.
pub(crate) fn name(phase: StoragePhase) -> &'static str {
    match phase {
        StoragePhase::Unspecified => "unknown",
        StoragePhase::Legacy => "legacy",
        StoragePhase::DualWrite => "dual_write",
        StoragePhase::ObjectPrimary => "object_primary",
        StoragePhase::ObjectOnly => "object_only",
        StoragePhase::LegacyDropped => "legacy_dropped",
    }
}
