//! Which files to look at.

use sqlx::{AssertSqlSafe, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{Store, has_blocks};
use crate::{
    domain::{FileToCheck, Level, Scope, Walk, WalkedFiles},
    error::Error,
};

/// Entities that one statement of a walk goes through at most, however few of them are wanted.
const WALKED: i64 = 20_000;

/// A page of entities by id; of these, those that are due. The last one of the page comes in any
/// case: it says how far the walk has got.
const WALK: &str = "
    WITH page AS MATERIALIZED (
        SELECT id, user_id, type, file_path, file_size, checksum FROM entities
        WHERE id > $1 ORDER BY id LIMIT $2
    ),
    page_end AS (SELECT id, (SELECT count(*) FROM page) AS walked FROM page
                 ORDER BY id DESC LIMIT 1),
    looked_at AS (
        SELECT p.*,
            CASE WHEN p.file_path IS NULL THEN $8 AND {has_text}
            ELSE ($6 = 4294967296 OR (hashtextextended(p.id::text, $7) & 4294967295) < $6)
             AND CASE $4 WHEN 'all' THEN true
                 WHEN 'never_checked' THEN c.entity_id IS NULL
                 ELSE c.outcome IS DISTINCT FROM 'sound'
                   OR coalesce(CASE $4 WHEN 'head' THEN c.checked_at ELSE c.file_verified_at END
                               < coalesce(clock_timestamp() - make_interval(secs => $5),
                                          '-infinity'), true)
                 END
            END AS due
        FROM page p LEFT JOIN file_checks c ON c.entity_id = p.id AND c.key = p.file_path
    )
    SELECT l.*, e.id AS page_end, e.walked FROM looked_at l, page_end e
    WHERE l.due OR l.id = e.id
    ORDER BY l.id LIMIT $3";
const HAS_TEXT: &str =
    "EXISTS (SELECT FROM content_blocks b WHERE b.entity_id = p.id AND b.content <> '')";

const GET: &str = "
    SELECT id, user_id, type, file_path, file_size, checksum FROM entities
    WHERE id = ANY ($1) AND file_path IS NOT NULL";

const LEAST_RECENTLY_CHECKED: &str = "
    SELECT e.id, e.user_id, e.type, e.file_path, e.file_size, e.checksum
    FROM file_checks c JOIN entities e ON e.id = c.entity_id
    WHERE e.file_path IS NOT NULL
    ORDER BY c.checked_at LIMIT $1";

/// The log of operations knows what was written last, by an index that it has anyway.
const NEWEST: &str = "
    WITH written AS MATERIALIZED (
        SELECT entity_id, updated_at FROM write_operations
        WHERE state IN ('DONE', 'ABORTED') ORDER BY updated_at DESC LIMIT 4 * $1::int8
    )
    SELECT e.id, e.user_id, e.type, e.file_path, e.file_size, e.checksum
    FROM (SELECT entity_id, max(updated_at) AS at FROM written GROUP BY entity_id) w
    JOIN entities e ON e.id = w.entity_id
    WHERE e.file_path IS NOT NULL
      AND NOT EXISTS (SELECT FROM file_checks c
                      WHERE c.entity_id = e.id AND c.key = e.file_path)
    ORDER BY w.at DESC LIMIT $1";

/// Below so many pages the table is read as a whole.
const FEW_PAGES: i64 = 200;
const PAGES: &str =
    "SELECT pg_relation_size('entities') / current_setting('block_size')::int8 AS pages";

const RANDOM_OF_FEW: &str = "
    SELECT id, user_id, type, file_path, file_size, checksum FROM entities
    WHERE file_path IS NOT NULL ORDER BY random() LIMIT $1";

/// Places for a row, drawn at random: a page, and one of the lines that a page can have at most. Every
/// row is at one place, so those that are there are drawn with the same chance, and no more is read
/// than was drawn. Of 30 places about one or two hold a row.
const RANDOM: &str = "
    SELECT id, user_id, type, file_path, file_size, checksum FROM entities
    WHERE file_path IS NOT NULL AND ctid = ANY (ARRAY(
        SELECT format('(%s,%s)', floor(random() * $2::int8)::int8,
                      1 + floor(random() * ((current_setting('block_size')::int - 24) / 28))::int)::tid
        FROM generate_series(1, 30 * $1::int8)))
    ORDER BY random() LIMIT $1";

impl Store {
    /// A page of a walk through all files.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.file_check.walk", skip_all, err(level = "debug"))]
    pub async fn walk_files(&self, walk: &Walk) -> Result<WalkedFiles, Error> {
        let mut connection = self.database.across_users().await?;
        let has_text = if has_blocks(&mut connection).await? { HAS_TEXT } else { "false" };
        let (scope, within) = match walk.scope {
            Scope::All => ("all", None),
            Scope::NeverChecked => ("never_checked", None),
            Scope::NotSound { level: Level::Head, within } => ("head", within),
            Scope::NotSound { level: Level::Checksum, within } => ("checksum", within),
        };
        let rows = sqlx::query(AssertSqlSafe(WALK.replace("{has_text}", has_text)))
            .persistent(false)
            .bind(walk.after)
            .bind(WALKED)
            .bind(walk.limit)
            .bind(scope)
            .bind(within.map(|within| within.as_secs_f64()))
            .bind(walk.sample.map_or(1 << 32, |sample| sample.threshold))
            .bind(walk.sample.map_or(0, |sample| sample.seed))
            .bind(walk.with_missing_files)
            .fetch_all(&mut *connection)
            .await?;
        let Some(last) = rows.last() else { return Ok(WalkedFiles::default()) };
        let (at, page_end): (Uuid, Uuid) = (last.try_get("id")?, last.try_get("page_end")?);
        let is_end = at == page_end && last.try_get::<i64, _>("walked")? < WALKED;
        let mut files = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.try_get::<Option<bool>, _>("due")? == Some(true) {
                files.push(file(row)?);
            }
        }
        Ok(WalkedFiles { files, next: (!is_end).then_some(at) })
    }

    /// The files of these entities as they are now.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.file_check.get", skip_all, err(level = "debug"))]
    pub async fn files_to_check(&self, ids: &[Uuid]) -> Result<Vec<FileToCheck>, Error> {
        let query = sqlx::query(GET).persistent(false).bind(ids);
        let rows = query.fetch_all(&mut *self.database.across_users().await?).await?;
        rows.iter().map(file).collect()
    }

    /// The files that were looked at longest ago.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.file_check.oldest", skip_all, err(level = "debug"))]
    pub async fn least_recently_checked(&self, limit: i64) -> Result<Vec<FileToCheck>, Error> {
        self.some_files(LEAST_RECENTLY_CHECKED, limit).await
    }

    /// The files that were written last and that nobody has looked at.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.file_check.newest", skip_all, err(level = "debug"))]
    pub async fn newest_files(&self, limit: i64) -> Result<Vec<FileToCheck>, Error> {
        self.some_files(NEWEST, limit).await
    }

    /// Files drawn at random, and whether they are all that there are.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.file_check.random", skip_all, err(level = "debug"))]
    pub async fn random_files(&self, limit: i64) -> Result<(Vec<FileToCheck>, bool), Error> {
        let mut connection = self.database.across_users().await?;
        let pages: i64 = sqlx::query_scalar(PAGES).fetch_one(&mut *connection).await?;
        if pages <= FEW_PAGES {
            drop(connection);
            let files = self.some_files(RANDOM_OF_FEW, limit).await?;
            let complete = i64::try_from(files.len()).is_ok_and(|found| found < limit);
            return Ok((files, complete));
        }
        let query = sqlx::query(RANDOM).persistent(false).bind(limit).bind(pages);
        let rows = query.fetch_all(&mut *connection).await?;
        Ok((rows.iter().map(file).collect::<Result<_, _>>()?, false))
    }

    async fn some_files(&self, which: &'static str, limit: i64) -> Result<Vec<FileToCheck>, Error> {
        let query = sqlx::query(which).persistent(false).bind(limit);
        let rows = query.fetch_all(&mut *self.database.across_users().await?).await?;
        rows.iter().map(file).collect()
    }
}

fn file(row: &PgRow) -> Result<FileToCheck, Error> {
    Ok(FileToCheck {
        entity_id: row.try_get("id")?,
        user_id: row.try_get("user_id")?,
        entity_type: row.try_get("type")?,
        key: row.try_get("file_path")?,
        size: row.try_get("file_size")?,
        checksum: row.try_get("checksum")?,
    })
}
