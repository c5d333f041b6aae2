//! Appends that are done before it is known whether they may happen, and committed when it is.
//!
//! An open one holds what any append holds until its commit: a connection, its stream, its event ids,
//! its user's counts of the day; and the horizon of the feed. So there are few of them, none is open
//! for long, and whatever is in the way of one ends it: the caller appends as everybody does, and that
//! decides. It waits for nothing but its caller once it has its locks, so nobody waits in a circle.

use std::{sync::Arc, time::Duration};

use sqlx::{Connection as _, PgPool};
use synap_postgres::{Kept, Rejected};
use tokio::{sync::Semaphore, time::timeout};
use tracing::Instrument as _;

use super::{
    super::{AppendError, Database, DatabaseError, Store},
    Outcome,
    statement::together,
};
use crate::domain::StreamAppend;

/// How long one is waited for: for its connection, and once it is done, for its caller.
pub(in crate::store) const UNCONFIRMED_AFTER: Duration = Duration::from_millis(100);

/// So many are open at once, and no more than one for four connections of the pool.
const MOST: u32 = 2;

/// The bounds hold also if this process is stopped, or cut off from its database.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '100ms';
                     SET LOCAL idle_in_transaction_session_timeout = '1s'";

/// Room for open appends.
#[derive(Clone)]
pub(in crate::store) struct Places {
    free: Arc<Semaphore>,
    kept: Arc<Kept>,
}

impl Places {
    pub(in crate::store) fn of(pool: &PgPool) -> Self {
        let places = MOST.min(pool.options().get_max_connections() / 4) as usize;
        Self { free: Arc::new(Semaphore::new(places)), kept: Arc::new(Kept::of(pool, places)) }
    }
}

impl Store {
    /// Appends to one stream, and commits if `confirmed` says so in time; it is asked when everything
    /// but the commit is done. Otherwise, also if nobody waits for the answer any more, nothing is
    /// stored.
    pub(crate) async fn append_if(
        &self,
        append: StreamAppend,
        confirmed: impl Future<Output = bool> + Send + 'static,
    ) -> Outcome {
        let Places { free, kept } = self.places.clone();
        let place = free.try_acquire_owned().map_err(|_| AppendError::NoPlace)?;
        let span = tracing::info_span!("db.event.prepare");
        let store = self.clone();
        let work = async move {
            let outcome = store.database.append_if(&append, confirmed, &kept).await;
            drop(place);
            match outcome {
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
        kept: &Kept,
    ) -> Outcome {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => timeout(UNCONFIRMED_AFTER, self.acquire())
                .await
                .map_err(|_| AppendError::NoPlace)??,
        };
        let both = self.dual_write.wanted(&mut connection).await.map_err(DatabaseError::from)?;
        let mut transaction = connection.begin_with(BEGIN).await.map_err(DatabaseError::from)?;
        let outcomes = together(&mut transaction, std::slice::from_ref(append), both).await?;
        let appended = outcomes.into_iter().next().ok_or(Rejected::NoAnswer)??;
        if timeout(UNCONFIRMED_AFTER, confirmed).await == Ok(true) {
            transaction.commit().await.map_err(DatabaseError::from)?;
            kept.keep(connection);
            Ok(appended)
        } else {
            transaction.rollback().await.map_err(DatabaseError::from)?;
            kept.keep(connection);
            Err(AppendError::Unconfirmed)
        }
    }
}
