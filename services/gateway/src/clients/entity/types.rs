//! What the write protocol speaks of.

use std::time::Duration;

use chrono::{DateTime, Utc};
use synap_proto::entity::StoragePhase;
use synap_types::{BlobKey, Checksum, EntityType, UserId};
use uuid::Uuid;

use super::super::EntityEvent;
use crate::domain::{Entity, StoredFile};

/// Names one write.
#[derive(Debug, Clone)]
pub(crate) struct OperationId {
    pub(crate) user: UserId,
    pub(crate) request: Uuid,
}

/// What a write is going to do.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) operation: OperationId,
    pub(crate) fingerprint: Checksum,
    /// `note`, `file`, …
    pub(crate) entity_type: String,
    pub(crate) kind: Kind,
    /// How long an attempt may take; `None` is entity-service's default.
    pub(crate) lease: Option<Duration>,
    /// JSON object for whoever continues the write.
    pub(crate) draft: Option<String>,
    /// What the new entity will be found by, if its search document is to be made ahead.
    pub(crate) words: Option<Words>,
}

/// What an entity is found by.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    pub(crate) title: String,
    pub(crate) tags: Vec<String>,
    /// The beginning of the body; 16 KiB at most.
    pub(crate) text: String,
}

impl Intent {
    /// The key that the body of a first attempt with this new id will have; `None` where there is no
    /// body.
    pub(crate) fn key(&self, new_id: Uuid) -> Option<BlobKey> {
        let user = &self.operation.user;
        let entity_type = EntityType::parse(self.entity_type.as_str()).ok()?;
        let key = match self.kind {
            Kind::Create { extension } => {
                BlobKey::build(user, &entity_type, &new_id.to_string(), extension)
            }
            Kind::Update { id, extension: Some(extension) } | Kind::Repair { id, extension } => {
                BlobKey::revision(user, &entity_type, id, new_id, extension)
            }
            Kind::Update { extension: None, .. }
            | Kind::Delete { .. }
            | Kind::Undelete { .. }
            | Kind::Purge { .. } => return None,
        };
        key.ok()
    }
}

/// What a write does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Creates an entity whose body has this file extension.
    Create { extension: &'static str },
    /// Changes an entity, and gives it a body with this file extension, if any.
    Update { id: Uuid, extension: Option<&'static str> },
    /// Deletes an entity.
    Delete { id: Uuid },
    /// Takes a deletion back.
    Undelete { id: Uuid },
    /// Removes what was deleted longer ago than the retention.
    Purge { id: Uuid },
    /// Puts a body with this file extension back into the store.
    Repair { id: Uuid, extension: &'static str },
}

/// What became of an intent.
#[derive(Debug)]
pub(crate) enum Begun {
    Started(Attempt),
    Committed(Box<Committed>),
    InProgress { retry_after: Duration },
}

/// An operation as it is, for those who did not begin it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) begun: Begun,
    /// What its begin left, or empty.
    pub(crate) draft: String,
}

/// An attempt that this gateway owns.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) operation: OperationId,
    pub(crate) epoch: i64,
    pub(crate) entity_id: Uuid,
    /// Empty where no body is written.
    pub(crate) key: String,
    pub(crate) event_id: Uuid,
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) phase: Phase,
    /// How long it had, when it was told, until somebody else may take it over.
    pub(crate) lease: Duration,
}

/// A write that has happened.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) entity: Entity,
    /// The event, while it is not known to be in the event store.
    pub(crate) pending_event: Option<EntityEvent>,
}

/// What the pivot writes.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) what: What,
    pub(crate) event_type: &'static str,
    /// JSON object.
    pub(crate) event_data: String,
}

/// What the pivot does to the entity. With a version that the caller has seen only to that one.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Create(Box<Creation>),
    Update(Box<Update>),
    Delete {
        expected_version: Option<i32>,
    },
    Undelete {
        expected_version: Option<i32>,
    },
    Purge,
    /// Only the blob that its row names, only while it does at this version. Nobody is told: there
    /// is no event.
    Repair {
        version: i32,
        bad_key: String,
        url: String,
    },
}

/// What changes: what is `None` stays as it is.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) expected_version: Option<i32>,
    /// Empty for none.
    pub(crate) title: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) body: Option<NewBody>,
}

/// A body that takes the place of another.
#[derive(Debug, Clone)]
pub(crate) struct NewBody {
    pub(crate) preview: String,
    pub(crate) file: Option<StoredFile>,
    pub(crate) content_block: Option<String>,
    /// The beginning of the body, to find the entity by.
    pub(crate) search_text: Option<String>,
}

/// An entity that was deleted longer ago than the retention.
#[derive(Debug)]
pub(crate) struct Purgeable {
    pub(crate) user: UserId,
    pub(crate) entity_type: String,
    pub(crate) id: Uuid,
}

/// A new entity.
#[derive(Debug, Clone)]
pub(crate) struct Creation {
    pub(crate) title: String,
    pub(crate) preview: String,
    pub(crate) tags: Vec<String>,
    pub(crate) file: Option<StoredFile>,
    pub(crate) content_block: Option<String>,
    /// The beginning of the body, to find the entity by.
    pub(crate) search_text: Option<String>,
}

/// Where bodies are written (docs/storage-phases.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase(pub(super) StoragePhase);

impl Phase {
    pub(crate) fn writes_blob(self) -> bool {
        self.0 != StoragePhase::Legacy
    }

    /// Whether a body that cannot be read in the store is in content_blocks.
    pub(crate) fn repairs(self) -> bool {
        self.0 == StoragePhase::DualWrite
    }

    pub(crate) fn writes_content_block(self) -> bool {
        use StoragePhase::{DualWrite, Legacy, ObjectPrimary};
        matches!(self.0, Legacy | DualWrite | ObjectPrimary)
    }
}
