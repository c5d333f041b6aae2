//! The bodies that were claimed, a few MiB at a time. Whether one is still what is in the row is asked
//! when it is attached.

use std::collections::HashMap;

use sqlx::Row as _;
use uuid::Uuid;

use super::super::Store;
use crate::error::Error;

/// The same bytes for every caller, whatever the encoding of the database is.
const MANY: &str = "
    SELECT entity_id, convert_to(content, 'UTF8') AS body FROM content_blocks
    WHERE entity_id = ANY ($1) AND content IS NOT NULL";

/// PostgreSQL reads all of it for each piece; nobody else has to hold it.
const PIECE: &str = "
    SELECT substring(convert_to(content, 'UTF8') FROM $2 FOR $3) FROM content_blocks
    WHERE entity_id = $1 AND content IS NOT NULL";

impl Store {
    /// The bodies of some entities; those that are gone are left out.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.content_migration.read", skip_all, err(level = "debug"))]
    pub async fn legacy_bodies(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<u8>>, Error> {
        let mut connection = self.database.across_users().await?;
        let rows = sqlx::query(MANY).bind(ids).fetch_all(&mut *connection).await?;
        rows.iter().map(|row| Ok((row.try_get("entity_id")?, row.try_get("body")?))).collect()
    }

    /// A part of a large body, from a byte on; less than was asked for at its end.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.content_migration.read", skip_all, err(level = "debug"))]
    pub async fn legacy_piece(&self, id: Uuid, from: i64, bytes: i64) -> Result<Vec<u8>, Error> {
        let from = i32::try_from(from + 1).unwrap_or(i32::MAX);
        let piece: Option<Vec<u8>> = sqlx::query_scalar(PIECE)
            .bind(id)
            .bind(from)
            .bind(i32::try_from(bytes).unwrap_or(i32::MAX))
            .fetch_optional(&mut *self.database.across_users().await?)
            .await?;
        Ok(piece.unwrap_or_default())
    }
}
