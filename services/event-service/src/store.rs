//! The event store in PostgreSQL.

mod admin;
mod append;
mod archives;
mod by_type;
mod cluster;
mod columns;
mod compression;
mod consumers;
mod feed;
mod join;
mod kept;
mod lease;
mod partitions;
mod read;
mod retention;
mod rollups;
mod segments;

pub(crate) use admin::Admin;
pub(crate) use archives::{ArchiveFile, Exported};
pub(crate) use columns::lock;
pub(crate) use consumers::Consumer;
pub(crate) use feed::{CursorError, Message};
pub(crate) use join::ReadError;
pub(crate) use kept::{Look, Staying, Why};
pub(crate) use lease::{Failures, Lease, UpkeepError};
pub(crate) use retention::Expired;
pub(crate) use rollups::{Activity, ActivityKey, ActivityRead, ComparedDay, day_span};
pub(crate) use segments::{Engine, Segment};

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use synap_postgres::{
    GroupCommit, GroupCommitOptions, Kept, Rejected, constraint_name, is_transient,
};
use synap_rpc::deadline;

use uuid::Uuid;

use crate::{
    archive::Archive,
    domain::{Appended, EventType, Expected, StreamId},
    legacy::DualWrite,
};
use append::{Job, Places, UNCONFIRMED_AFTER};
use cluster::Cluster;
use feed::Tailer;

/// The most that is waited for a connection: a suspended database needs seconds to wake up.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);
/// The answer leaves so long before the caller's deadline, at most: on a busy machine it takes a
/// while to get there.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// Bytes of data and metadata that one statement reads, give or take one event.
const PAGE_BYTES: u32 = 1024 * 1024;

/// The event store.
#[derive(Clone)]
pub(crate) struct Store {
    database: Database,
    tailer: Arc<Tailer>,
    group: Arc<GroupCommit<StreamId, Job, Appended, AppendError>>,
    places: Places,
    archive: Archive,
}

impl Store {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(
        pool: PgPool,
        options: GroupCommitOptions,
        archive: Archive,
        dual_write: DualWrite,
    ) -> Self {
        let kept = Arc::new(Kept::of(&pool, options.workers));
        let places = Places::of(&pool);
        let database = Database { pool, cluster: Arc::default(), dual_write };
        let tailer = Tailer::new(database.clone());
        let runner = database.clone();
        let group = GroupCommit::new(
            options,
            |job: &Job| job.append.stream.clone(),
            move |jobs| {
                let (database, kept) = (runner.clone(), Arc::clone(&kept));
                async move { database.append_batch(jobs, &kept).await }
            },
        );
        Self { database, tailer, group: Arc::new(group), places, archive }
    }
}

#[derive(Clone)]
struct Database {
    pool: PgPool,
    cluster: Arc<Cluster>,
    /// Whether appends write to the table of V0.2, too.
    dual_write: DualWrite,
}

impl Database {
    /// A connection, or in good time before the caller's deadline the news that there is none.
    async fn acquire(&self) -> Result<PoolConnection<Postgres>, DatabaseError> {
        let limit = patience().unwrap_or(ACQUIRE_LIMIT).min(ACQUIRE_LIMIT);
        let acquired = async {
            let mut connection = self.pool.acquire().await?;
            self.cluster.enter(&mut connection).await?;
            Ok(connection)
        };
        match tokio::time::timeout(limit, acquired).await {
            Ok(outcome) => outcome,
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }
}

/// Types as a statement takes them: none is NULL, and lets everything through.
fn names(types: &[EventType]) -> Option<Vec<&str>> {
    (!types.is_empty()).then(|| types.iter().map(EventType::as_str).collect())
}

/// How long the caller can be kept waiting and still be told why; `None` if it is in no hurry.
fn patience() -> Option<Duration> {
    let left = deadline::remaining()?;
    Some(left.saturating_sub((left / 10).min(ANSWER_MARGIN)))
}

/// What the database said; one error may be the answer to many callers.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub(crate) struct DatabaseError(Arc<sqlx::Error>);

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl DatabaseError {
    /// The database is not there or not in a state to work; the request has nothing to do with it.
    pub(crate) fn is_unavailable(&self) -> bool {
        let code = self.0.as_database_error().and_then(sqlx::error::DatabaseError::code);
        is_transient(&self.0)
            || code.is_some_and(|code| {
                // Out of disk, memory or connections.
                code.starts_with("53")
                    || matches!(
                        &*code,
                        "42P01" // undefined_table: not migrated yet
                            | "42883" // undefined_function: neither
                            | "3F000" // invalid_schema_name: neither
                            | "3D000" // invalid_catalog_name: not created yet
                            | "25006" // read_only_sql_transaction: a standby
                    )
            })
    }

    /// The same again, from the beginning, may meet another state: the connection was lost, locks
    /// were in a circle, or an event of the append was stored by somebody else meanwhile.
    fn may_repeat(&self) -> bool {
        match &*self.0 {
            // Waited for long enough.
            sqlx::Error::PoolTimedOut => false,
            error => is_transient(error) || constraint_name(error) == Some("event_ids_pkey"),
        }
    }

    /// What a statement asks for is not there, not allowed, or against a rule of a table.
    fn is_refusal(&self) -> bool {
        let code = self.0.as_database_error().and_then(sqlx::error::DatabaseError::code);
        !self.may_repeat()
            && code.is_some_and(|code| {
                ["22", "23", "42", "P0"].iter().any(|class| code.starts_with(class))
            })
    }

    /// Whether it was the pool that had no connection to give.
    fn is_exhausted(&self) -> bool {
        matches!(&*self.0, sqlx::Error::PoolTimedOut)
    }
}

/// Why events were not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AppendError {
    /// The stream is not where the caller expected it.
    #[error("stream {} is at version {current}, expected {expected}", stream.aggregate_id)]
    VersionConflict { stream: StreamId, current: i64, expected: Expected },
    /// An event id is in the ledger for another body, or for a part of another append.
    #[error("event {event_id} is stored already with another body or as part of another append")]
    EventIdReused { event_id: Uuid },
    /// The stream is another user's.
    #[error("stream {} is not of this user", stream.aggregate_id)]
    NotFound { stream: StreamId },
    /// Others were in the way each time.
    #[error("other appends were in the way each time")]
    Unsettled,
    /// As many prepared appends are open as may be.
    #[error("no room for another prepared append; append without preparing")]
    NoPlace,
    /// It was prepared, and its caller did not say in time that it may be stored.
    #[error(
        "the append was prepared and not confirmed within {UNCONFIRMED_AFTER:?}; nothing was stored"
    )]
    Unconfirmed,
    /// The commit did not come in time.
    #[error("the append was not committed in time")]
    TimedOut,
    /// There was no place in the queue, or the batch ended without an answer.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl AppendError {
    fn may_repeat(&self) -> bool {
        match self {
            Self::Unsettled => true,
            Self::Database(error) => error.may_repeat(),
            _ => false,
        }
    }
}
