//! Appends: grouped where they are small, alone where they are large or of several streams, prepared
//! where the caller does not know yet whether they may happen.

mod prepared;
mod statement;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sqlx::{Connection as _, PgConnection};
use synap_postgres::{Kept, Rejected};
use tracing::Instrument as _;

use super::{AppendError, Database, DatabaseError, Store, patience};
use crate::domain::{Appended, StreamAppend};
pub(super) use prepared::{Places, UNCONFIRMED_AFTER};
use statement::{attempt, together};

/// Tries of one append, when others are in the way or a connection is lost.
const TRIES: u32 = 4;

/// What became of one append of a statement that did its work.
type Outcome = Result<Appended, AppendError>;

/// An append that waits for its group.
pub(super) struct Job {
    pub(super) append: StreamAppend,
    /// Whether the database works on it. While not, a caller whose time is up is told that there is
    /// no database, instead of that its time is up.
    running: Arc<AtomicBool>,
}

impl Store {
    /// Appends to one or more streams, each at most once in the list: all or nothing. Answers in
    /// the order of the list.
    ///
    /// An append whose events are all stored already is answered with their versions; in a list, it
    /// may stand beside ones that are new.
    pub(crate) async fn append(
        &self,
        mut appends: Vec<StreamAppend>,
    ) -> Result<Vec<Appended>, AppendError> {
        let span = tracing::info_span!("db.event.append", count = appends.len());
        if let [only] = &appends[..]
            && only.is_small()
            && let Some(only) = appends.pop()
        {
            let appended = self.append_grouped(only).instrument(span).await?;
            self.tailer.appended();
            return Ok(vec![appended]);
        }
        let appended = self.database.append_all(&appends).instrument(span).await?;
        self.tailer.appended();
        Ok(appended)
    }

    async fn append_grouped(&self, append: StreamAppend) -> Outcome {
        let running = Arc::new(AtomicBool::new(false));
        let committed = self.group.submit(Job { append, running: Arc::clone(&running) });
        let Some(limit) = patience() else {
            return committed.await;
        };
        match tokio::time::timeout(limit, committed).await {
            Ok(outcome) => outcome,
            Err(_) if running.load(Ordering::Relaxed) => Err(AppendError::TimedOut),
            Err(_) => Err(DatabaseError::from(sqlx::Error::PoolTimedOut).into()),
        }
    }
}

impl Database {
    /// Appends of many callers, in one statement and one commit.
    pub(super) async fn append_batch(&self, jobs: Vec<Job>, kept: &Kept) -> Vec<Outcome> {
        let (appends, running): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.append, job.running)).unzip();
        let set_running = |now| {
            for flag in &running {
                flag.store(now, Ordering::Relaxed);
            }
        };
        let attempted = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.acquire().await?,
            };
            set_running(true);
            let both = self.dual_write.wanted(&mut connection).await?;
            let outcomes = together(&mut connection, &appends, both).await?;
            kept.keep(connection);
            Ok::<_, DatabaseError>(outcomes)
        };
        match attempted.await {
            Ok(outcomes) => {
                let mut settled = Vec::with_capacity(outcomes.len());
                for (append, outcome) in appends.iter().zip(outcomes) {
                    settled.push(match outcome {
                        Err(AppendError::Unsettled) => self.append_one(append).await,
                        outcome => outcome,
                    });
                }
                settled
            }
            Err(error) if error.is_exhausted() => {
                appends.iter().map(|_| Err(error.clone().into())).collect()
            }
            Err(error) => {
                // One of them, or its neighbour in another replica, spoiled it for all; or the
                // database is gone.
                self.cluster.forget();
                tracing::debug!(reason = %error, count = appends.len(), "a group is taken apart");
                set_running(false);
                self.append_apart(&appends).await
            }
        }
    }

    async fn append_apart(&self, appends: &[StreamAppend]) -> Vec<Outcome> {
        let mut settled = Vec::with_capacity(appends.len());
        let mut down: Option<AppendError> = None;
        for append in appends {
            let outcome = match &down {
                Some(error) => Err(error.clone()),
                None => self.append_one(append).await,
            };
            if let Err(AppendError::Database(error)) = &outcome
                && error.is_unavailable()
            {
                down = Some(error.clone().into());
            }
            settled.push(outcome);
        }
        settled
    }

    async fn append_one(&self, append: &StreamAppend) -> Outcome {
        let appended = self.append_all(std::slice::from_ref(append)).await?;
        appended.into_iter().next().ok_or(AppendError::Unsettled)
    }

    /// Tries until it is decided. A repeat is safe, also after a commit whose reply was lost: it
    /// finds the events in the ledger.
    async fn append_all(&self, appends: &[StreamAppend]) -> Result<Vec<Appended>, AppendError> {
        let mut tries = 1;
        let mut refused = None;
        loop {
            match self.try_all(appends, refused.is_none()).await {
                Err(error) if error.may_repeat() && tries < TRIES => tries += 1,
                // It may be V0.2's table that was gone, or changed. Ours decides.
                Err(AppendError::Database(error)) if error.is_refusal() && refused.is_none() => {
                    refused = Some(error);
                }
                outcome => {
                    if let Some(why) = refused.filter(|_| outcome.is_ok()) {
                        self.dual_write.suspend(&why);
                    }
                    return outcome;
                }
            }
        }
    }

    /// `both` is to write to the table of V0.2, too, if it is there.
    async fn try_all(
        &self,
        appends: &[StreamAppend],
        both: bool,
    ) -> Result<Vec<Appended>, AppendError> {
        let mut connection = self.acquire().await?;
        let both =
            both && self.dual_write.wanted(&mut connection).await.map_err(DatabaseError::from)?;
        if appends.len() == 1 {
            return attempt(&mut connection, appends, both).await?.into_iter().collect();
        }
        // In a task of its own: a caller who leaves while BEGIN is under way would hand the
        // connection back to the pool inside a transaction, and later appends on it would be lost.
        let appends = appends.to_vec();
        let work = async move { all_or_none(&mut connection, &appends, both).await };
        tokio::spawn(work.in_current_span()).await.map_err(|_| Rejected::NoAnswer)?
    }
}

/// Several streams in one transaction. Dropped without a commit, it is rolled back.
async fn all_or_none(
    connection: &mut PgConnection,
    appends: &[StreamAppend],
    both: bool,
) -> Result<Vec<Appended>, AppendError> {
    let mut transaction = connection.begin().await.map_err(DatabaseError::from)?;
    let outcomes = attempt(&mut transaction, appends, both).await?;
    let appended = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
    transaction.commit().await.map_err(DatabaseError::from)?;
    Ok(appended)
}
