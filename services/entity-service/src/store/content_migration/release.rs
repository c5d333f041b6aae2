//! Claims that are given up.

use sqlx::PgConnection;
use uuid::Uuid;

use super::super::Store;
use crate::{domain::Released, error::Error};

/// A claim with another key is another's. The upload may still be under way.
const RELEASE: &str = "
    WITH given AS (
        SELECT m.entity_id, m.key, i.failure, i.detail
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
             AS i (entity_id, key, failure, detail)
        JOIN content_migrations m ON m.entity_id = i.entity_id AND m.key = i.key
        FOR UPDATE OF m
    ),
    failed AS (
        UPDATE content_migrations m
        SET state = 'failed', key = NULL, failure = g.failure, detail = g.detail,
            updated_at = clock_timestamp()
        FROM given g WHERE m.entity_id = g.entity_id AND g.failure IS NOT NULL
    ),
    ended AS (
        DELETE FROM content_migrations m
        USING given g WHERE m.entity_id = g.entity_id AND g.failure IS NULL
    )
    INSERT INTO blob_gc (key, not_before, settled_at)
    SELECT key, clock_timestamp(), clock_timestamp() + make_interval(secs => $5) FROM given
    ON CONFLICT (key) DO NOTHING";

impl Store {
    /// Gives claims up. Those that have failed are handed out again only on demand.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.content_migration.release", skip_all, err(level = "debug"))]
    pub async fn release_claims(&self, claims: &[Released]) -> Result<(), Error> {
        let mut connection = self.database.across_users().await?;
        release(&mut connection, claims, self.times.blob_settle_secs).await
    }
}

pub(super) async fn release(
    connection: &mut PgConnection,
    claims: &[Released],
    settle_secs: f64,
) -> Result<(), Error> {
    if claims.is_empty() {
        return Ok(());
    }
    // Rows are locked in one order by all who do this.
    let mut claims: Vec<&Released> = claims.iter().collect();
    claims.sort_unstable_by_key(|claim| claim.entity_id);
    let failure = |claim: &Released| claim.failure.clone().unzip();
    let (failures, details): (Vec<_>, Vec<_>) = claims.iter().map(|one| failure(one)).unzip();
    sqlx::query(RELEASE)
        .bind(claims.iter().map(|claim| claim.entity_id).collect::<Vec<Uuid>>())
        .bind(claims.iter().map(|claim| claim.key.as_str()).collect::<Vec<_>>())
        .bind(failures)
        .bind(details)
        .bind(settle_secs)
        .execute(connection)
        .await?;
    Ok(())
}
