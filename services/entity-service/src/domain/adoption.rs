//! What is found in a database that is to be taken over, and how far that is.

use super::Phase;

/// Whose database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseState {
    /// Nothing of ours or of V0.2's.
    Empty,
    /// V0.2's tables, and nothing of ours.
    Legacy,
    /// Some of our migrations are applied.
    Migrating,
    /// All of them are.
    Adopted,
}

/// A number of rows or bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// `None` if counting took too long.
    pub value: Option<i64>,
    /// Not counted, but estimated.
    pub about: bool,
}

/// A table of the database.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: Amount,
    /// Bytes on disk, with indexes and what is stored out of line.
    pub bytes: i64,
    /// Whether row-level security is enabled.
    pub row_security: bool,
    /// The names of its policies.
    pub policies: Vec<String>,
    /// Whether our role owns it.
    pub owned: bool,
}

/// Rows that are not what one would expect.
#[derive(Debug, Clone)]
pub struct Oddity {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub description: &'static str,
    /// How many.
    pub count: Amount,
}

/// A step of the adoption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What kind of step.
    pub name: &'static str,
    /// What it does.
    pub description: String,
}

/// What the database is.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Whose it is.
    pub state: DatabaseState,
    /// PostgreSQL's version.
    pub server: String,
    /// pgvector's version, where it is created.
    pub vector: Option<String>,
    /// TimescaleDB's version, where it is created.
    pub timescaledb: Option<String>,
    /// The role that we connect as.
    pub role: String,
    /// Bytes of the whole database.
    pub bytes: i64,
    /// The largest first.
    pub tables: Vec<Table>,
    /// While nothing of ours is there.
    pub oddities: Vec<Oddity>,
    /// Why it cannot be adopted as it is: one sentence each.
    pub blockers: Vec<String>,
    /// What adopting it would do.
    pub steps: Vec<Step>,
    /// The storage phase, once there is one.
    pub phase: Option<Phase>,
}

/// How far a step is.
#[derive(Debug, Clone)]
pub struct StepProgress {
    /// The step.
    pub step: Step,
    /// How much of it is done: rows, blocks of a table, or migrations.
    pub done: i64,
    /// Of how much; 0 if that is not known.
    pub total: i64,
    /// What it waits for.
    pub waiting_for: Option<String>,
    /// The step is done.
    pub finished: bool,
}

/// How much of what is stored where.
#[derive(Debug, Clone, Copy, Default)]
pub struct Statistics {
    /// Bytes of the whole database.
    pub database_bytes: i64,
    /// Bytes of `content_blocks` on disk.
    pub content_blocks_bytes: i64,
    /// Bytes of `entity_vectors` on disk.
    pub vectors_bytes: i64,
    /// Rows of `entities`.
    pub entities: Amount,
    /// Those written within 30 days.
    pub recent_entities: Amount,
    /// Bodies in `content_blocks`.
    pub block_bodies: Amount,
    /// Their bytes.
    pub block_body_bytes: Amount,
    /// Embeddings in `content_blocks`.
    pub block_embeddings: Amount,
    /// Bodies that rows name in the object store.
    pub objects: Amount,
    /// Their bytes.
    pub object_bytes: Amount,
    /// Bodies in `content_blocks` of which no row names an object.
    pub unmigrated: Amount,
    /// Their bytes.
    pub unmigrated_bytes: Amount,
    /// Rows of `entity_vectors`.
    pub vectors: Amount,
}
