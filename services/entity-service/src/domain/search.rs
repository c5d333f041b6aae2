//! Searches by words.

use synap_types::{EntityType, UserId};
use uuid::Uuid;

use super::Entity;

/// What to search for.
#[derive(Debug, Clone)]
pub struct Search {
    /// The owner.
    pub user: UserId,
    /// What they are.
    pub entity_type: EntityType,
    /// As it was typed.
    pub typed: String,
    /// How many hits at most.
    pub limit: i64,
    /// Only those that come after this one.
    pub after: Option<Rank>,
}

/// Where a hit stands among the hits of one search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// How well it fits; a greater one comes first.
    pub score: f32,
    /// Which of those that fit as well.
    pub id: Uuid,
}

/// An entity that was found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The entity.
    pub entity: Entity,
    /// How well it fits.
    pub score: f32,
}

/// How far a walk along all entities came that writes missing search documents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walked {
    /// The last entity that was looked at; `None` at the end.
    pub last: Option<Uuid>,
    /// Documents that were written.
    pub filled: u64,
    /// Documents that are still missing behind it: somebody held their entities.
    pub left: u64,
}
