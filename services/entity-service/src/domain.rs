//! What entity-service speaks of, free of protobuf and SQL.

mod adoption;
mod content_migration;
mod edit;
mod listing;
mod search;
mod takeover;
mod vectors;
mod verification;
pub mod words;

use std::time::Duration;

use chrono::{DateTime, Utc};
use synap_types::{BlobKey, Checksum, EntityType, UserId};
use uuid::Uuid;

pub use adoption::{
    Amount, DatabaseState, Inspection, Oddity, Statistics, Step, StepProgress, Table,
};
pub use content_migration::{
    Among, Attachment, Check, Claim, Looked, MAX_MIGRATED_BYTES, Notable, Progress, Released,
    Uploaded, Wanted,
};
pub use edit::{Act, Edit, Edited, NewBody, Purgeable, Update};
pub use listing::{Head, Listing, Period, Position};
pub use search::{Hit, Rank, Search, Walked};
pub use takeover::{
    BodyToCopy, Condition, ContentBlock, CopyBack, Finding, LegacyTable, RowsHash, RowsText,
    Stretch, TableShape, TableState, TableStep,
};
pub use vectors::{Chunk, DIMENSIONS, VectorSearch, Vectors};
pub use verification::{
    ContentDifference, Differences, FileCheck, FileToCheck, Level, Outcome, Sample, Scope,
    VerificationSummary, Walk, WalkedFiles,
};

/// Names one write: ids of one user never meet another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperationId {
    /// The owner.
    pub user: UserId,
    /// The caller's request id (AIP-155), or one made for the call.
    pub request: Uuid,
}

/// One try at an operation. Only the newest epoch may commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The operation.
    pub operation: OperationId,
    /// Counts the attempts from 1.
    pub epoch: i64,
}

/// What a write is going to do: step 1 records it.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The operation.
    pub operation: OperationId,
    /// Made once by the caller for this try, so that a begin can be repeated when its reply is
    /// lost.
    pub attempt_id: Uuid,
    /// Made for this call alone: names what the first attempt makes.
    pub new_id: Option<Uuid>,
    /// SHA-256 of what was asked for.
    pub fingerprint: Checksum,
    /// What the entity is.
    pub entity_type: EntityType,
    /// What the write does.
    pub kind: Kind,
    /// How long the attempt may take; `None` is what the service is configured for.
    pub lease: Option<Duration>,
    /// JSON object for whoever continues the write.
    pub draft: Option<String>,
    /// What the new entity will be found by, if its document can be made ahead.
    pub words: Option<Words>,
}

/// What an entity is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Title, if any.
    pub title: Option<String>,
    /// Tags in the user's order.
    pub tags: Vec<String>,
    /// The beginning of the body.
    pub text: String,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Creates an entity.
    Create {
        /// File extension of its body.
        extension: String,
    },
    /// Changes an entity.
    Update {
        /// Which.
        entity_id: Uuid,
        /// File extension of its new body, if it gets one.
        extension: Option<String>,
    },
    /// Deletes an entity.
    Delete {
        /// Which.
        entity_id: Uuid,
    },
    /// Takes a deletion back.
    Undelete {
        /// Which.
        entity_id: Uuid,
    },
    /// Removes what was deleted longer ago than the retention.
    Purge {
        /// Which.
        entity_id: Uuid,
    },
    /// Puts a body back into the object store.
    Repair {
        /// Whose.
        entity_id: Uuid,
        /// File extension of the body.
        extension: String,
    },
}

impl Kind {
    /// The name in the database.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
            Self::Undelete { .. } => "undelete",
            Self::Purge { .. } => "purge",
            Self::Repair { .. } => "repair",
        }
    }

    /// The entity that is there already.
    #[must_use]
    pub fn entity_id(&self) -> Option<Uuid> {
        match self {
            Self::Create { .. } => None,
            Self::Update { entity_id, .. }
            | Self::Delete { entity_id }
            | Self::Undelete { entity_id }
            | Self::Purge { entity_id }
            | Self::Repair { entity_id, .. } => Some(*entity_id),
        }
    }

    /// The file extension of the body that is written, if one is.
    #[must_use]
    pub fn extension(&self) -> Option<&str> {
        match self {
            Self::Create { extension } | Self::Repair { extension, .. } => Some(extension),
            Self::Update { extension, .. } => extension.as_deref(),
            Self::Delete { .. } | Self::Undelete { .. } | Self::Purge { .. } => None,
        }
    }
}

/// What became of an intent.
#[derive(Debug, Clone)]
pub enum Begun {
    /// The caller owns the attempt.
    Started(Started),
    /// The write has happened.
    Committed(Box<Committed>),
    /// Another attempt is under way.
    InProgress {
        /// When its lease runs out, from now.
        retry_after: Duration,
    },
}

/// An attempt, with everything that was decided before it.
#[derive(Debug, Clone)]
pub struct Started {
    /// The attempt.
    pub attempt: Attempt,
    /// The entity to write; fresh for each attempt at a create.
    pub entity_id: Uuid,
    /// The key to write the body to; fresh for each attempt. `None` where no body is written.
    pub key: Option<BlobKey>,
    /// The event's id; the same for all attempts.
    pub event_id: Uuid,
    /// When the write happens, by the database's clock; the same for all attempts.
    pub occurred_at: DateTime<Utc>,
    /// What the pivot must write.
    pub phase: Phase,
    /// How long the attempt has from now until another may take it over.
    pub lease: Duration,
}

/// An operation as it is, for those who did not begin it.
#[derive(Debug, Clone)]
pub struct Found {
    /// [`Begun::Started`] or [`Begun::Committed`].
    pub begun: Begun,
    /// What its begin left for whoever continues it.
    pub draft: Option<String>,
}

/// A write that has happened, with the answer that was given then.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The entity as it was written.
    pub entity: Entity,
    /// The event, while it is not known to be in the event store.
    pub pending_event: Option<PendingEvent>,
}

/// What the pivot of a create writes.
#[derive(Debug, Clone)]
pub struct Change {
    /// The attempt that wants to commit.
    pub attempt: Attempt,
    /// The phase it was started in.
    pub phase: Phase,
    /// The entity.
    pub create: EntityDraft,
    /// The event that tells of it.
    pub event: EventDraft,
    /// Its search document, if that was made ahead.
    pub document: Option<String>,
}

/// What the pivot of a repair writes: the attempt's key in place of another.
#[derive(Debug, Clone)]
pub struct Repair {
    /// The attempt that wants to commit.
    pub attempt: Attempt,
    /// The phase it was started in.
    pub phase: Phase,
    /// The version that the entity is at.
    pub version: i32,
    /// The key that its row names, of a blob that is missing or damaged.
    pub bad_key: String,
    /// Public name of the new blob, if one is configured.
    pub url: Option<String>,
}

/// A new entity.
#[derive(Debug, Clone)]
pub struct EntityDraft {
    /// Title, if any.
    pub title: Option<String>,
    /// The beginning of the body as plain text.
    pub preview: String,
    /// Tags in the user's order.
    pub tags: Vec<String>,
    /// The body in the object store, in every phase but `legacy`.
    pub file: Option<File>,
    /// The body itself, in the phases that write content_blocks.
    pub content_block: Option<String>,
    /// The beginning of the body, to find the entity by; `None` if it is not searched.
    pub search_text: Option<String>,
}

/// A body in the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Public name, if one is configured.
    pub url: Option<String>,
    /// The object key, as it stands in the row: V0.2 wrote keys of its own form.
    pub path: String,
    /// Bytes.
    pub size: i64,
    /// markdown, pdf, audio, video or image.
    pub file_type: String,
    /// `sha256:` and base64, as it stands in the row.
    pub checksum: String,
    /// The name that the user's file had, if any.
    pub name: Option<String>,
}

/// The event of a write, without what the operation already knows.
#[derive(Debug, Clone)]
pub struct EventDraft {
    /// Type: `entity.created`.
    pub event_type: String,
    /// JSON object.
    pub data: String,
}

/// An entity as it is, or was at a version.
#[derive(Debug, Clone)]
pub struct Entity {
    /// Its id.
    pub id: Uuid,
    /// The owner, as the row has it.
    pub user_id: String,
    /// What it is.
    pub entity_type: String,
    /// Title, if any.
    pub title: Option<String>,
    /// The beginning of the body.
    pub preview: Option<String>,
    /// Tags in the user's order.
    pub tags: Vec<String>,
    /// The body, where it is in the object store.
    pub file: Option<File>,
    /// Counts the revisions from 1.
    pub version: i32,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// An event whose operation is committed and which may not be in the event store yet.
#[derive(Debug, Clone)]
pub struct PendingEvent {
    /// The operation, at the epoch it is at now.
    pub attempt: Attempt,
    /// The event's id.
    pub event_id: Uuid,
    /// The entity's type.
    pub entity_type: String,
    /// The stream.
    pub entity_id: Uuid,
    /// The version that the event brings the stream to.
    pub version: i32,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// Type and data.
    pub event: EventDraft,
    /// The entity had its versions before it had events.
    pub adopts: bool,
}

/// What recovery found.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// Events to append.
    pub pending_events: Vec<PendingEvent>,
    /// How many expired pending operations were given up.
    pub aborted: u64,
}

/// Where bodies are written and read (docs/storage-phases.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// content_blocks only.
    Legacy,
    /// Both; reads prefer the blob.
    DualWrite,
    /// Both; reads take the blob.
    ObjectPrimary,
    /// The blob only.
    ObjectOnly,
    /// The blob only; content_blocks is gone.
    LegacyDropped,
}

impl Phase {
    /// The phase by its name in the database.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Legacy, Self::DualWrite, Self::ObjectPrimary, Self::ObjectOnly, Self::LegacyDropped]
            .into_iter()
            .find(|phase| phase.name() == name)
    }

    /// The phase's name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::DualWrite => "dual_write",
            Self::ObjectPrimary => "object_primary",
            Self::ObjectOnly => "object_only",
            Self::LegacyDropped => "legacy_dropped",
        }
    }

    /// What an entity of this type is written by while the installation is in this phase. Files
    /// came with the object store, and are nowhere else.
    #[must_use]
    pub fn of(self, entity_type: &EntityType) -> Self {
        if *entity_type == EntityType::file() { Self::ObjectOnly } else { self }
    }

    /// Whether the installation can go from here to there in one step, forth or back.
    #[must_use]
    pub fn is_next_to(self, other: Self) -> bool {
        (self as u8).abs_diff(other as u8) == 1
    }

    /// Whether a write puts the body into the object store.
    #[must_use]
    pub fn writes_blob(self) -> bool {
        self != Self::Legacy
    }

    /// Whether a write puts the body into content_blocks.
    #[must_use]
    pub fn writes_content_block(self) -> bool {
        matches!(self, Self::Legacy | Self::DualWrite | Self::ObjectPrimary)
    }
}

/// A step of the installation from one phase to the next, or back.
#[derive(Debug, Clone, Copy)]
pub struct PhaseChange {
    /// The phase that it is believed to be in.
    pub expected: Phase,
    /// A phase next to that one.
    pub next: Phase,
}

/// The storage phase and the depth of the recovery queues.
#[derive(Debug, Clone)]
pub struct StorageStatus {
    /// The phase.
    pub phase: Phase,
    /// When it was entered.
    pub phase_since: DateTime<Utc>,
    /// Operations begun and not committed.
    pub pending_operations: i64,
    /// Committed operations whose event is not known to be appended.
    pub committed_operations: i64,
    /// Blobs waiting to be deleted.
    pub blob_deletions: i64,
}
