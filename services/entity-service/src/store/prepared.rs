//! Step 3 in two steps: done while step 2 is, committed when that is done. What bounds it, and why, is
//! said at [`Prepared`](synap_postgres::Prepared). What others wait for meanwhile is the operation's
//! row, and a change of the phase its lock.

use sqlx::PgConnection;
use tracing::Instrument as _;

use super::Store;
use crate::{
    domain::{Change, Entity},
    error::Error,
};

impl Store {
    /// As [`commit`](Self::commit), if `confirmed` says so in time; it is asked when everything but the
    /// commit is done. Otherwise, also if nobody waits for the answer any more, nothing is written.
    ///
    /// # Errors
    /// As there, and [`Error::Unprepared`]; and then nothing was written.
    pub async fn commit_if(
        &self,
        mut change: Change,
        confirmed: impl Future<Output = bool> + Send + 'static,
    ) -> Result<Entity, Error> {
        let span = tracing::info_span!("db.operation.prepare");
        let Self { database, documents, committer, prepared, .. } = self.clone();
        let work = async move {
            let commit = async |transaction: &mut PgConnection| {
                change.document = documents.take(&change).await;
                committer.commit_with(transaction, change).await
            };
            prepared.commit_if(database.across_users(), commit, confirmed).await
        };
        // In a task of its own: a caller who leaves must not break BEGIN off.
        let done = tokio::spawn(work.instrument(span)).await;
        done.map_err(|_| sqlx::Error::WorkerCrashed)?
    }
}
