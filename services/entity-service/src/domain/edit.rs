//! Writes on an entity that is there.

use uuid::Uuid;

use super::{Attempt, Entity, EventDraft, File, Phase};

/// What the pivot of a write on an entity that is there makes true.
#[derive(Debug, Clone)]
pub struct Edit {
    /// The attempt that wants to commit.
    pub attempt: Attempt,
    /// The phase it was started in.
    pub phase: Phase,
    /// What is done.
    pub act: Act,
    /// The version that the caller has seen; `None` takes whatever there is.
    pub expected_version: Option<i32>,
    /// The event that tells of it.
    pub event: EventDraft,
}

/// What a pivot has made true.
#[derive(Debug, Clone)]
pub struct Edited {
    /// The entity as it was written.
    pub entity: Entity,
    /// The entity had its versions before it had events.
    pub adopts: bool,
}

/// What is done to an entity.
#[derive(Debug, Clone)]
pub enum Act {
    /// It changes.
    Update(Box<Update>),
    /// It is not found any more; its row and its bodies stay.
    Delete,
    /// It is found again.
    Undelete,
    /// It is removed, with everything that hangs on it.
    Purge,
}

impl Act {
    /// The name of the kind of operation that does it, in the database and on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Update(_) => "update",
            Self::Delete => "delete",
            Self::Undelete => "undelete",
            Self::Purge => "purge",
        }
    }

    /// The new body, if there is one.
    #[must_use]
    pub fn body(&self) -> Option<&NewBody> {
        match self {
            Self::Update(update) => update.body.as_ref(),
            Self::Delete | Self::Undelete | Self::Purge => None,
        }
    }
}

/// What changes: what is `None` stays as it is.
#[derive(Debug, Clone)]
pub struct Update {
    /// Title; empty for none.
    pub title: Option<String>,
    /// Tags in the user's order.
    pub tags: Option<Vec<String>>,
    /// A body in the place of the one that is there.
    pub body: Option<NewBody>,
}

/// A body that takes the place of another.
#[derive(Debug, Clone)]
pub struct NewBody {
    /// Its beginning as plain text.
    pub preview: String,
    /// Where it is in the object store, in every phase but `legacy`.
    pub file: Option<File>,
    /// The body itself, in the phases that write content_blocks.
    pub content_block: Option<String>,
    /// The beginning of the body, to find the entity by; `None` if it is not searched.
    pub search_text: Option<String>,
}

/// An entity that was deleted longer ago than the retention.
#[derive(Debug, Clone)]
pub struct Purgeable {
    /// The owner, as the row has it.
    pub user_id: String,
    /// What it is.
    pub entity_type: String,
    /// Which.
    pub entity_id: Uuid,
}
