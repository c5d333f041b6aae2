//! Bodies of content_blocks on their way into the object store. A key is recorded before anybody
//! writes to it, and what is recorded is the only state there is: what an entity needs is decided from
//! its row each time. No transaction is open while bodies travel.

mod attach;
mod bodies;
mod claim;
mod facts;
mod release;

use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

use super::Store;
use crate::{domain::Progress, error::Error};

const RENEW: &str = "
    UPDATE content_migrations
    SET lease_until = clock_timestamp() + make_interval(secs => $2)
    WHERE entity_id = ANY ($3) AND claimant = $1 AND state = 'claimed'";

const PROGRESS: &str = "
    SELECT CASE WHEN reltuples > 0 THEN reltuples::int8 ELSE (SELECT count(*) FROM entities) END
               AS entities,
           (SELECT count(*) FROM content_migrations WHERE state = 'claimed') AS claims
    FROM pg_class WHERE oid = 'entities'::regclass";

const FAILED: &str = "
    SELECT failure, count(*) FROM content_migrations WHERE state = 'failed' GROUP BY failure";

impl Store {
    /// Moves the end of leases of a claimant away, and tells how long they have.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.content_migration.renew", skip_all, err(level = "debug"))]
    pub async fn renew_claims(&self, claimant: Uuid, ids: &[Uuid]) -> Result<Duration, Error> {
        let lease = self.times.lease(None);
        sqlx::query(RENEW)
            .bind(claimant)
            .bind(lease.as_secs_f64())
            .bind(ids)
            .execute(&mut *self.database.across_users().await?)
            .await?;
        Ok(lease)
    }

    /// How far the migration is.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.content_migration.get", skip_all, err(level = "debug"))]
    pub async fn content_migration(&self) -> Result<Progress, Error> {
        let mut connection = self.database.across_users().await?;
        let row = sqlx::query(PROGRESS).fetch_one(&mut *connection).await?;
        let failed: Vec<(String, i64)> = sqlx::query_as(FAILED).fetch_all(&mut *connection).await?;
        Ok(Progress {
            estimated_entities: row.try_get("entities")?,
            claims: row.try_get("claims")?,
            failed: failed.into_iter().collect(),
        })
    }
}
