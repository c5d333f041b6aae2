//! What there is to verify in the object store, and what was found there.
//!
//! Every statement here is planned anew: they are asked seldom, of tables that may have grown a
//! thousandfold since the last time, and a plan that was kept would not know.

mod differences;
mod keys;
mod list;
mod record;
mod summary;

use sqlx::{PgConnection, Postgres, Transaction};

use super::Store;
use crate::error::Error;

/// What reads a whole table may take longer than a statement that somebody waits for.
const LONG: &str = "SELECT set_config('statement_timeout', '10min', true)";

/// content_blocks is renamed, and then dropped, at the end of the migration from V0.2.
const HAS_BLOCKS: &str = "SELECT to_regclass('content_blocks') IS NOT NULL";

impl Store {
    /// A transaction across users for a statement that takes long.
    async fn long_across_users(&self) -> Result<Transaction<'static, Postgres>, Error> {
        let mut transaction = self.database.begin_across_users().await?;
        sqlx::query(LONG).execute(&mut *transaction).await?;
        Ok(transaction)
    }
}

async fn has_blocks(connection: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(HAS_BLOCKS).fetch_one(connection).await?)
}
