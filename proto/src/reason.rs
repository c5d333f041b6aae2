//! The `reason` of every `google.rpc.ErrorInfo` (AIP-193). Clients switch on these: a reason is
//! never renamed.

/// A field is missing, malformed or over a limit; `BadRequest` names it.
pub const INVALID_FIELD: &str = "INVALID_FIELD";
/// A message is larger than the service reads.
pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
/// There is no such thing, or it is another user's.
pub const NOT_FOUND: &str = "NOT_FOUND";
/// The token is missing, expired, or not signed by a key we trust.
pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
/// The request id was used for a request that asked for something else.
pub const REQUEST_ID_REUSED: &str = "REQUEST_ID_REUSED";
/// A call with the same request id is still under way.
pub const REQUEST_IN_PROGRESS: &str = "REQUEST_IN_PROGRESS";
/// The attempt was taken over by a later one and can no longer commit.
pub const OPERATION_FENCED: &str = "OPERATION_FENCED";
/// The operation has been committed and can no longer be given up.
pub const OPERATION_COMMITTED: &str = "OPERATION_COMMITTED";
/// The database is one of V0.2 that nobody has adopted: `synapctl adopt` does.
pub const NOT_ADOPTED: &str = "NOT_ADOPTED";
/// The database cannot be adopted as it is; the message says what to do about it.
pub const NOT_ADOPTABLE: &str = "NOT_ADOPTABLE";
/// A step of the adoption failed; the message has the database's words.
pub const ADOPTION_FAILED: &str = "ADOPTION_FAILED";
/// The storage phase changed under the attempt.
pub const PHASE_CHANGED: &str = "PHASE_CHANGED";
/// What was asked for is not done in this storage phase; the metadata has the phase.
pub const WRONG_PHASE: &str = "WRONG_PHASE";
/// The stream or the entity is not at the expected version.
pub const VERSION_CONFLICT: &str = "VERSION_CONFLICT";
/// The entity was changed since the etag was read; the metadata has the current one.
pub const ETAG_MISMATCH: &str = "ETAG_MISMATCH";
/// The entity is to be undeleted, and is not deleted.
pub const NOT_DELETED: &str = "NOT_DELETED";
/// The entity is to be purged, and was not deleted for long enough.
pub const PURGE_NOT_DUE: &str = "PURGE_NOT_DUE";
/// The body of this revision was overwritten: it was from before the object store.
pub const REVISION_BODY_GONE: &str = "REVISION_BODY_GONE";
/// The upload's bytes are not in the store yet.
pub const UPLOAD_INCOMPLETE: &str = "UPLOAD_INCOMPLETE";
/// The upload is a file by now.
pub const UPLOAD_COMPLETE: &str = "UPLOAD_COMPLETE";
/// The event id was used for an event with another body.
pub const EVENT_ID_REUSED: &str = "EVENT_ID_REUSED";
/// A prepared append was not confirmed in time, or given up; nothing was stored.
pub const APPEND_UNCONFIRMED: &str = "APPEND_UNCONFIRMED";
/// The cursor is from a store that is ahead of this one: this one was restored from an older copy.
pub const CURSOR_AHEAD: &str = "CURSOR_AHEAD";
/// The cursor is from another store.
pub const CURSOR_UNKNOWN: &str = "CURSOR_UNKNOWN";
/// Partitions, archive and retention are under way by another worker.
pub const UPKEEP_UNDER_WAY: &str = "UPKEEP_UNDER_WAY";
/// Events are in the archive, and the event store was not told where content-service is.
pub const ARCHIVE_NOT_CONFIGURED: &str = "ARCHIVE_NOT_CONFIGURED";
/// A file of the archive is missing or is not what was written.
pub const ARCHIVE_CORRUPT: &str = "ARCHIVE_CORRUPT";
/// What an operator wants of the old tables cannot be done yet; the message says why.
pub const LEGACY_NOT_READY: &str = "LEGACY_NOT_READY";
/// The key is taken by other bytes.
pub const BLOB_EXISTS: &str = "BLOB_EXISTS";
/// The body is not what its size or checksum promised.
pub const BODY_MISMATCH: &str = "BODY_MISMATCH";
/// The stored body is missing or does not match its checksum.
pub const BODY_CORRUPT: &str = "BODY_CORRUPT";
/// The range begins at or past the end of the body.
pub const RANGE_NOT_SATISFIABLE: &str = "RANGE_NOT_SATISFIABLE";
/// The database does not answer.
pub const DATABASE_UNAVAILABLE: &str = "DATABASE_UNAVAILABLE";
/// The object store does not answer or refuses to write.
pub const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
/// A service behind this one does not answer.
pub const SERVICE_UNAVAILABLE: &str = "SERVICE_UNAVAILABLE";
/// The deadline passed before the answer was there.
pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
/// More calls at once than the service takes.
pub const OVERLOADED: &str = "OVERLOADED";
/// More calls of one user in a while than the service takes; the call was not looked at.
pub const RATE_LIMITED: &str = "RATE_LIMITED";
/// A fault of ours; the log has the details.
pub const INTERNAL: &str = "INTERNAL";
