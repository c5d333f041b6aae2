//! The events of V0.2 (`public.events`) and of early V0.3 (`public.events_v2`), taken over while
//! users go on writing. In reading order:
//!
//! 1. `dual_write`: while the old table is there, every append also writes to it, in the same
//!    statement, so that V0.2 could go on with it.
//! 2. `rows` reads the old rows in the order of time; `verdict` says of each what becomes of it.
//! 3. `batch` is one step of the migration: one short transaction, in which the position moves, too.
//!    Whoever is killed, the next step goes on where the last commit was.
//! 4. `history` gives the old events their versions and stores them.
//! 5. `compare` holds both stores beside each other; `retire` renames and drops the old tables.
//!
//! Which versions old events get, and why, is told in docs/legacy-events.md.

mod batch;
mod compare;
pub(crate) mod dual_write;
mod history;
mod quarantine;
mod retire;
mod rows;
mod state;
mod verdict;

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::store::{Admin, DatabaseError};

pub(crate) use compare::Day;
pub(crate) use dual_write::DualWrite;
pub(crate) use quarantine::Quarantined;
pub(crate) use retire::Step;
pub(crate) use rows::Position;
pub(crate) use state::{Migration, Pass};

/// The advisory lock of the migration: one batch at a time, whoever asks for it. The number means
/// nothing; it must only never change.
const LOCK: i64 = 0x53_79_6e_4c_65_67_63;

/// What became of rows: outcome → how many.
pub(crate) type Outcomes = BTreeMap<String, i64>;

/// An entity that old events are of, as entity-service knows it.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) user: String,
    pub(crate) entity_type: String,
    pub(crate) version: i64,
}

/// What the caller has found out about entities; `None` is one that there is not.
pub(crate) type Heads = HashMap<Uuid, Option<Head>>;

/// One step of the migration.
#[derive(Debug)]
pub(crate) struct BatchRequest {
    /// Rows at most.
    pub(crate) size: i64,
    pub(crate) heads: Heads,
    /// Where a dry run is, if it is one.
    pub(crate) dry_run: Option<Position>,
    /// Begin another round when there is nothing left to do.
    pub(crate) again: bool,
}

/// What a step did.
#[derive(Debug, Default)]
pub(crate) struct BatchAnswer {
    /// Nothing, for it must know these first.
    pub(crate) unknown: Vec<Uuid>,
    pub(crate) outcomes: Outcomes,
    /// Where a dry run goes on.
    pub(crate) next: Option<Position>,
    pub(crate) done: bool,
}

/// Why an operator cannot have what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LegacyError {
    /// It does not hold what must hold; in words.
    #[error("{0}")]
    NotReady(String),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for LegacyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The migration of the old tables.
#[derive(Clone)]
pub(crate) struct Legacy {
    admin: Admin,
    dual_write: DualWrite,
}

impl Legacy {
    pub(crate) fn new(admin: Admin, dual_write: DualWrite) -> Self {
        Self { admin, dual_write }
    }
}
