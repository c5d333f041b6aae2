//! What looks at objects found.

use std::collections::HashSet;

use uuid::Uuid;

use super::Store;
use crate::{
    domain::{FileCheck, Level, Outcome},
    error::Error,
};

/// In the order of ids, so that two who record the same wait for each other and for nothing else. Who
/// only asks and finds nothing takes back nothing that was found by reading.
const RECORD: &str = "
    INSERT INTO file_checks AS c (entity_id, key, level, outcome, file_verified_at)
    SELECT e.id, i.key, i.level, i.outcome, CASE WHEN i.verified THEN clock_timestamp() END
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bool[])
        AS i (id, key, level, outcome, verified)
    JOIN entities e ON e.id = i.id AND e.file_path = i.key
    ORDER BY e.id
    ON CONFLICT (entity_id) DO UPDATE SET
        key = excluded.key, checked_at = excluded.checked_at,
        (level, outcome, file_verified_at) = (
            SELECT CASE WHEN stays THEN c.level ELSE excluded.level END,
                   CASE WHEN stays THEN c.outcome ELSE excluded.outcome END,
                   CASE WHEN stays THEN c.file_verified_at ELSE excluded.file_verified_at END
            FROM (SELECT c.key = excluded.key AND excluded.level = 'head'
                     AND excluded.outcome = 'sound'
                     AND (c.file_verified_at IS NOT NULL OR c.outcome = 'checksum_differs'))
                AS s (stays))
    RETURNING entity_id";

impl Store {
    /// Records what looks found, and returns the entities that name another key by now: nothing is
    /// known of them.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.file_check.record", skip_all, err(level = "debug"))]
    pub async fn record_checks(&self, checks: &[FileCheck]) -> Result<Vec<Uuid>, Error> {
        let each = |name: fn(&FileCheck) -> &str| checks.iter().map(name).collect::<Vec<_>>();
        let ids: Vec<Uuid> = checks.iter().map(|check| check.entity_id).collect();
        let verified: Vec<bool> = checks
            .iter()
            .map(|check| check.level == Level::Checksum && check.outcome == Outcome::Sound)
            .collect();
        let recorded: HashSet<Uuid> = sqlx::query_scalar(RECORD)
            .persistent(false)
            .bind(&ids)
            .bind(each(|check| &check.key))
            .bind(each(|check| check.level.name()))
            .bind(each(|check| check.outcome.name()))
            .bind(verified)
            .fetch_all(&mut *self.database.across_users().await?)
            .await?
            .into_iter()
            .collect();
        Ok(ids.into_iter().filter(|id| !recorded.contains(id)).collect())
    }
}
