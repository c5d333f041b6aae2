//! The rows of content_blocks as text, in the format of PostgreSQL's COPY: what `psql` restores.

use futures::TryStreamExt as _;
use sqlx::{AssertSqlSafe, PgConnection};
use synap_types::Hasher;
use uuid::Uuid;

use super::{
    shape,
    table::{self, RESTORED},
};
use crate::{
    domain::{Phase, RowsHash, RowsText, TableState},
    error::Error,
    store::{Store, phase},
};

/// Bytes of bodies and vectors in one chunk, or one row; and rows.
const CHUNK_BYTES: i64 = 1 << 20;
const CHUNK_ROWS: i64 = 500;

/// A table's name and columns are the database's own words; ids are written as UUIDs are.
fn copy_out(name: &str, columns: &[String], after: Uuid, last: Uuid) -> String {
    let columns = shape::column_list(columns);
    format!(
        "COPY (SELECT {columns} FROM {name} WHERE entity_id > '{after}' AND entity_id <= '{last}'
               ORDER BY entity_id) TO STDOUT"
    )
}

/// Where a chunk ends. A vector is text of at most six times its bytes.
fn chunk_end(name: &str) -> String {
    format!(
        "SELECT entity_id
         FROM (SELECT entity_id, bytes, sum(bytes) OVER (ORDER BY entity_id) AS so_far
               FROM (SELECT entity_id, coalesce(octet_length(content), 0)
                            + 6 * coalesce(pg_column_size(embedding), 0) AS bytes
                     FROM {name} WHERE entity_id > $1 AND ($2 IS NULL OR entity_id <= $2)
                     ORDER BY entity_id LIMIT $3) AS r) AS s
         WHERE so_far - bytes < $4
         ORDER BY entity_id DESC LIMIT 1"
    )
}

impl Store {
    /// The next rows after one, `None` from the first, up to another if one is given.
    ///
    /// # Errors
    /// [`Error::LegacyNotReady`] if there is no table.
    #[tracing::instrument(name = "db.takeover.export", skip_all, err(level = "debug"))]
    pub async fn export_rows(
        &self,
        after: Option<Uuid>,
        until: Option<Uuid>,
    ) -> Result<RowsText, Error> {
        let mut connection = self.database.across_users().await?;
        // In a task of its own: a caller who leaves must not leave a COPY half read.
        let export = async move { export(&mut connection, after, until).await };
        tokio::spawn(export).await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    /// What a range of rows holds, as [`export_rows`](Self::export_rows) tells it.
    ///
    /// # Errors
    /// As [`export_rows`](Self::export_rows).
    pub async fn hash_rows(&self, after: Option<Uuid>, last: Uuid) -> Result<RowsHash, Error> {
        let (mut hasher, mut rows, mut from) = (Hasher::default(), 0, after);
        loop {
            let chunk = self.export_rows(from, Some(last)).await?;
            let Some(end) = chunk.last else {
                return Ok(RowsHash { rows, sha256: hasher.finish() });
            };
            hasher.update(&chunk.data);
            rows += chunk.rows;
            from = Some(end);
        }
    }

    /// Writes rows in place of those that a range has, into a fresh table, and tells how many.
    ///
    /// # Errors
    /// [`Error::LegacyNotReady`] unless the old table is dropped.
    #[tracing::instrument(name = "db.takeover.import", skip_all, err(level = "debug"))]
    pub async fn import_rows(
        &self,
        after: Option<Uuid>,
        last: Uuid,
        data: bytes::Bytes,
    ) -> Result<u64, Error> {
        let mut transaction = self.database.begin_across_users().await?;
        let import = async move {
            let in_phase = phase::find(&mut transaction).await? == Phase::LegacyDropped;
            if !in_phase || table::state(&mut transaction).await? != TableState::Dropped {
                let why = "rows are imported only where content_blocks is dropped";
                return Err(Error::LegacyNotReady(why.to_owned()));
            }
            let shape = shape::kept_shape(&mut transaction).await?;
            let definition = shape.definition.replace("{table}", RESTORED);
            sqlx::raw_sql(AssertSqlSafe(definition)).execute(&mut *transaction).await?;
            let delete = format!("DELETE FROM {RESTORED} WHERE entity_id > $1 AND entity_id <= $2");
            sqlx::query(AssertSqlSafe(delete))
                .bind(after.unwrap_or_default())
                .bind(last)
                .execute(&mut *transaction)
                .await?;
            let columns = shape::column_list(&shape.columns);
            let copy = format!("COPY {RESTORED} ({columns}) FROM STDIN");
            let mut copy = transaction.copy_in_raw(&copy).await?;
            copy.send(data).await?;
            let rows = copy.finish().await?;
            transaction.commit().await?;
            Ok(rows)
        };
        tokio::spawn(import).await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }
}

async fn export(
    connection: &mut PgConnection,
    after: Option<Uuid>,
    until: Option<Uuid>,
) -> Result<RowsText, Error> {
    let (name, columns) = table::to_read(connection).await?;
    let after = after.unwrap_or_default();
    let end: Option<Uuid> = sqlx::query_scalar(AssertSqlSafe(chunk_end(name)))
        .bind(after)
        .bind(until)
        .bind(CHUNK_ROWS)
        .bind(CHUNK_BYTES)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(last) = end else { return Ok(RowsText::default()) };
    let copy = copy_out(name, &columns, after, last);
    let mut rows = connection.copy_out_raw(&copy).await?;
    let mut text = RowsText { last: Some(last), ..RowsText::default() };
    while let Some(row) = rows.try_next().await? {
        text.rows += 1;
        text.data.extend_from_slice(&row);
    }
    Ok(text)
}
