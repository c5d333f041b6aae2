//! The event store as an operator and the workers see it: statements over many rows.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use synap_postgres::{InvalidUrl, PoolOptions};

use super::{Database, DatabaseError, UpkeepError};
use crate::legacy::DualWrite;

/// A statement of an operator may take so long: it counts or copies a week of events.
const STATEMENT_LIMIT: Duration = Duration::from_mins(10);

/// Whether a table of V0.2's or early V0.3's events is there, under its name: others have a table
/// `events`, too, but not with these columns. The catalogue tells it to every role.
const LEGACY_IS_THERE: &str = "
    SELECT EXISTS (
        SELECT FROM pg_attribute AS a
        JOIN pg_class AS c ON c.oid = a.attrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relname IN ('events', 'events_v2')
          AND a.attname IN ('timestamp', 'data') AND NOT a.attisdropped
        GROUP BY c.oid HAVING count(*) = 2)";

/// The event store for work in bulk. Its connections are its own: the appends' are set up for
/// statements that find a few rows by key, and are not to be waited for.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(super) database: Database,
}

impl Admin {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(url: &str) -> Result<Self, InvalidUrl> {
        let options = PoolOptions {
            max_connections: 4,
            statement_timeout: Some(STATEMENT_LIMIT),
            ..PoolOptions::new("synap-event-admin")
        };
        let pool = synap_postgres::connect_pool(url, &options)?;
        Ok(Self {
            database: Database { pool, cluster: Arc::default(), dual_write: DualWrite::default() },
        })
    }

    /// A connection, in the epoch of its cluster.
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Postgres>, DatabaseError> {
        self.database.acquire().await
    }

    /// Whether there is nothing left to compare: a comparison, and the versions of history, look for
    /// events in the database only. What our role may do with the tables makes no difference: without
    /// rights nobody can have compared them.
    pub(crate) async fn legacy_is_gone(&self) -> Result<(), UpkeepError> {
        let is_there: bool = sqlx::query_scalar(LEGACY_IS_THERE).fetch_one(self.pool()).await?;
        if is_there { Err(UpkeepError::LegacyIsThere) } else { Ok(()) }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }
}
