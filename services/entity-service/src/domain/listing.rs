//! Lists of entities.

use chrono::{DateTime, Utc};
use synap_types::{EntityType, UserId};
use uuid::Uuid;

/// Which entities to list, the newest first.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The owner.
    pub user: UserId,
    /// What they are.
    pub entity_type: EntityType,
    /// How many at most.
    pub limit: i64,
    /// Only those that come after this one.
    pub after: Option<Position>,
    /// Whether deleted ones are listed too.
    pub include_deleted: bool,
    /// Only those with all of these tags.
    pub tags: Vec<String>,
    /// When they were created.
    pub created: Period,
    /// When they were last changed.
    pub updated: Period,
}

/// What an entity is, and whose.
#[derive(Debug, Clone)]
pub struct Head {
    /// Which it is.
    pub id: Uuid,
    /// The owner.
    pub user_id: String,
    /// note, file, task, …
    pub entity_type: String,
    /// Counts its revisions from 1.
    pub version: i32,
}

/// Where an entity stands in a list, for as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Which of those created then.
    pub id: Uuid,
}

/// From a time, until before another; `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct Period {
    /// The first instant within.
    pub from: Option<DateTime<Utc>>,
    /// The first instant after it.
    pub until: Option<DateTime<Utc>>,
}
