//! The way of an installation from content_blocks to the object store, and back: what must hold
//! (`check`), bodies on their way back (`copy_back`), the table's rows as text (`rows_text`), how it
//! is made (`shape`) and its end (`table`). What is named here is asked for by an operator, across all users.

mod check;
mod copy_back;
mod rows_text;
mod shape;
mod table;

use sqlx::PgConnection;

use crate::error::Error;

/// Entities that one step of a walk looks at.
const WALK: i64 = 1000;
/// Bytes of their bodies that it reads, or one body: a statement has 30 s.
const WALK_BYTES: i64 = 64 << 20;

/// Entities there are: an estimate, because counting millions takes longer than a page.
async fn estimate(connection: &mut PgConnection, table: &str) -> Result<i64, Error> {
    let estimate =
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass($1)";
    let rows = sqlx::query_scalar(estimate).bind(table).fetch_optional(connection).await?;
    Ok(rows.unwrap_or_default())
}
