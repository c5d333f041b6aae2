//! Appends that are done before it is known whether they may happen, and committed when it is: what
//! bounds them, and why, is said at [`Prepared`].

use sqlx::PgConnection;
use synap_postgres::{Prepared, Rejected};
use tracing::Instrument as _;

use super::{
    super::{AppendError, Database, Store},
    Outcome,
    statement::together,
};
use crate::domain::StreamAppend;

impl Store {
    /// Appends to one stream, and commits if `confirmed` says so in time; it is asked when everything
    /// but the commit is done. Otherwise, also if nobody waits for the answer any more, nothing is
    /// stored.
    pub(crate) async fn append_if(
        &self,
        append: StreamAppend,
        confirmed: impl Future<Output = bool> + Send + 'static,
    ) -> Outcome {
        let span = tracing::info_span!("db.event.prepare");
        let store = self.clone();
        let work = async move {
            match store.database.append_if(&append, confirmed, &store.prepared).await {
                Ok(appended) => {
                    store.tailer.appended();
                    Ok(appended)
                }
                Err(AppendError::Database(error)) => {
                    store.database.cluster.forget();
                    // The ledger has an event of it.
                    let in_the_way = error.may_repeat() && !error.is_unavailable();
                    Err(if in_the_way { AppendError::Unsettled } else { error.into() })
                }
                Err(error) => Err(error),
            }
        };
        // In a task of its own: as in `try_all`, BEGIN must not be broken off.
        tokio::spawn(work.instrument(span)).await.map_err(|_| Rejected::NoAnswer)?
    }
}

impl Database {
    async fn append_if(
        &self,
        append: &StreamAppend,
        confirmed: impl Future<Output = bool>,
        prepared: &Prepared,
    ) -> Outcome {
        let acquire = async { Ok(self.acquire().await?) };
        let work = async |transaction: &mut PgConnection| {
            let both = self.dual_write.wanted(&mut *transaction).await?;
            let outcomes = together(transaction, std::slice::from_ref(append), both).await?;
            outcomes.into_iter().next().ok_or(Rejected::NoAnswer)?
        };
        prepared.commit_if(acquire, work, confirmed).await
    }
}
