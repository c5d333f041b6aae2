//! Vectors: what texts mean, to a model.

use synap_types::{EntityType, UserId};
use uuid::Uuid;

/// What every vector has: pgvector's column has one length.
pub const DIMENSIONS: usize = 1536;

/// All vectors of an entity by one model. They replace those that are there.
#[derive(Debug, Clone)]
pub struct Vectors {
    /// The owner.
    pub user: UserId,
    /// The entity.
    pub entity_id: Uuid,
    /// The model that made them.
    pub model: String,
    /// One for each part of the text.
    pub chunks: Vec<Chunk>,
}

/// The vector of a part of a text.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Counts the parts from 0.
    pub number: i32,
    /// Its direction: finite numbers, not all zero.
    pub embedding: Vec<f32>,
}

/// What to search for.
#[derive(Debug, Clone)]
pub struct VectorSearch {
    /// The owner.
    pub user: UserId,
    /// What they are.
    pub entity_type: EntityType,
    /// The model that made the vector: others are not compared with it.
    pub model: String,
    /// What is searched for.
    pub embedding: Vec<f32>,
    /// How many hits at most.
    pub limit: i64,
}
