//! How an attempt goes on or ends: under a longer lease, finished after its event is appended, or
//! given up before its pivot.

use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

use super::{Store, database::no_role, rows};
use crate::{
    domain::{Attempt, OperationId},
    error::Error,
};

/// An end that is later already stays: two may hold the same attempt. The state is a parameter so that
/// no plan reads the index of all open operations instead of asking for this one.
const EXTEND: &str = "
    UPDATE write_operations
    SET lease_until = greatest(lease_until, clock_timestamp() + make_interval(secs => $4))
    WHERE user_id = $1 AND request_id = $2 AND epoch = $3 AND state = $5
    RETURNING extract(epoch FROM lease_until - clock_timestamp())::float8";

const FIND: &str = "
    SELECT state, epoch, blob_key FROM write_operations
    WHERE user_id = $1 AND request_id = $2
    FOR UPDATE";

const ABORT: &str = "
    UPDATE write_operations SET state = 'ABORTED', updated_at = clock_timestamp()
    WHERE user_id = $1 AND request_id = $2";

impl Store {
    /// Step 5: the events of these operations are in the event store.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.operation.finish", skip_all, err(level = "debug"))]
    pub async fn finish(&self, operations: &[OperationId]) -> Result<(), Error> {
        // In one order for all replicas, so that two batches cannot wait for each other.
        let mut operations: Vec<&OperationId> = operations.iter().collect();
        operations.sort_unstable_by(|a, b| rows::lock_order(a, b));
        let users: Vec<&str> = operations.iter().map(|id| id.user.as_str()).collect();
        let requests: Vec<Uuid> = operations.iter().map(|id| id.request).collect();
        let mut connection = self.database.batch().await?;
        sqlx::query("SELECT synap_finish_operations($1, $2)")
            .bind(users)
            .bind(requests)
            .execute(&mut *connection)
            .await
            .map_err(no_role)?;
        connection.keep();
        Ok(())
    }

    /// Moves the end of an attempt's lease away, and tells how long it has from now.
    ///
    /// # Errors
    /// [`Error::Fenced`] if the attempt can no longer commit, or already has.
    #[tracing::instrument(name = "db.operation.extend", skip_all, err(level = "debug"))]
    pub async fn extend(
        &self,
        attempt: &Attempt,
        lease: Option<Duration>,
    ) -> Result<Duration, Error> {
        let mut transaction = self.database.for_user(&attempt.operation.user).await?;
        let left: Option<f64> = sqlx::query_scalar(EXTEND)
            .bind(attempt.operation.user.as_str())
            .bind(attempt.operation.request)
            .bind(attempt.epoch)
            .bind(self.times.lease(lease).as_secs_f64())
            .bind("PENDING")
            .fetch_optional(&mut *transaction)
            .await?;
        transaction.commit().await?;
        left.map(rows::lease).ok_or(Error::Fenced)
    }

    /// Gives up an attempt before its pivot: it cannot commit any more, and its key will be
    /// deleted. An attempt that was taken over, or that nobody knows, is given up already.
    ///
    /// # Errors
    /// [`Error::AlreadyCommitted`] if the operation is committed.
    #[tracing::instrument(name = "db.operation.abort", skip_all, err(level = "debug"))]
    pub async fn abort(&self, attempt: &Attempt) -> Result<(), Error> {
        let OperationId { user, request } = &attempt.operation;
        let mut transaction = self.database.for_user(user).await?;
        let row = sqlx::query(FIND)
            .bind(user.as_str())
            .bind(request)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(()) };
        match row.try_get("state")? {
            "COMMITTED" | "DONE" => return Err(Error::AlreadyCommitted),
            "PENDING" if row.try_get::<i64, _>("epoch")? == attempt.epoch => {}
            _ => return Ok(()),
        }
        let key: Option<&str> = row.try_get("blob_key")?;
        rows::give_up_key(&mut transaction, key, self.times.blob_settle_secs).await?;
        sqlx::query(ABORT).bind(user.as_str()).bind(request).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}
