//! How much there is, and what the last looks found.

use sqlx::{AssertSqlSafe, Row as _};

use super::{Store, has_blocks};
use crate::{domain::VerificationSummary, error::Error};

/// A join finds the texts without a file: where almost all entities have one, that reads few of them.
const SUMMARY: &str = "
    SELECT count(*) AS entities,
           count(*) FILTER (WHERE e.file_path IS NULL AND {has_text}) AS without_file,
           count(e.file_url) AS with_file_url,
           count(e.file_path) AS with_file,
           count(*) FILTER (WHERE c.outcome = 'sound') AS sound,
           count(*) FILTER (WHERE c.outcome = 'sound' AND c.file_verified_at IS NOT NULL)
               AS verified,
           count(*) FILTER (WHERE c.outcome = 'missing') AS missing,
           count(*) FILTER (WHERE c.outcome = 'size_differs') AS size_differs,
           count(*) FILTER (WHERE c.outcome = 'checksum_differs') AS checksum_differs,
           min(c.checked_at) AS oldest_check,
           (SELECT count(*) FROM content_migrations) AS open_claims
    FROM entities e LEFT JOIN file_checks c ON c.entity_id = e.id AND c.key = e.file_path
    {blocks}";
const BLOCKS: &str = "LEFT JOIN content_blocks b ON b.entity_id = e.id AND e.file_path IS NULL";

const FINDINGS: &str = "
    SELECT count(*) FILTER (WHERE c.outcome = 'missing') AS missing,
           count(*) FILTER (WHERE c.outcome = 'size_differs') AS size_differs,
           count(*) FILTER (WHERE c.outcome = 'checksum_differs') AS checksum_differs
    FROM file_checks c JOIN entities e ON e.id = c.entity_id AND e.file_path = c.key
    WHERE c.outcome <> 'sound'";

impl Store {
    /// Counts everything. Reads all rows of entities.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.file_check.summary", skip_all, err(level = "debug"))]
    pub async fn verification_summary(&self) -> Result<VerificationSummary, Error> {
        let mut transaction = self.long_across_users().await?;
        let (has_text, blocks) = if has_blocks(&mut transaction).await? {
            ("b.content <> ''", BLOCKS)
        } else {
            ("false", "")
        };
        let statement = SUMMARY.replace("{has_text}", has_text).replace("{blocks}", blocks);
        let query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        let row = query.fetch_one(&mut *transaction).await?;
        Ok(VerificationSummary {
            entities: row.try_get("entities")?,
            without_file: row.try_get("without_file")?,
            with_file_url: row.try_get("with_file_url")?,
            with_file: row.try_get("with_file")?,
            sound: row.try_get("sound")?,
            verified: row.try_get("verified")?,
            missing: row.try_get("missing")?,
            size_differs: row.try_get("size_differs")?,
            checksum_differs: row.try_get("checksum_differs")?,
            oldest_check: row.try_get("oldest_check")?,
            open_claims: row.try_get("open_claims")?,
        })
    }

    /// Counts what is known to be wrong, and nothing else.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.file_check.findings", skip_all, err(level = "debug"))]
    pub async fn known_findings(&self) -> Result<VerificationSummary, Error> {
        let query = sqlx::query(FINDINGS).persistent(false);
        let row = query.fetch_one(&mut *self.database.across_users().await?).await?;
        Ok(VerificationSummary {
            missing: row.try_get("missing")?,
            size_differs: row.try_get("size_differs")?,
            checksum_differs: row.try_get("checksum_differs")?,
            ..VerificationSummary::default()
        })
    }
}
