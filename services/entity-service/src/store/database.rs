//! Connections: given in time, or refused in time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use synap_rpc::deadline;

use crate::error::Error;

/// The most that is waited for a connection: a suspended database needs seconds to wake up.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);
/// The answer leaves so long before the caller's deadline, at most: on a busy machine it takes a
/// while to get there.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// The pool, used in such a way that a caller hears that the database is away before its deadline.
#[derive(Clone)]
pub(super) struct Database {
    pool: PgPool,
}

impl Database {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// A connection, or in good time before the caller's deadline the news that there is none.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, Error> {
        let limit = patience().unwrap_or(ACQUIRE_LIMIT).min(ACQUIRE_LIMIT);
        match tokio::time::timeout(limit, self.pool.acquire()).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }
}

/// How long the caller can be kept waiting and still be told why; `None` if it is in no hurry.
fn patience() -> Option<Duration> {
    let left = deadline::remaining()?;
    Some(left.saturating_sub((left / 10).min(ANSWER_MARGIN)))
}

/// Work that waits for its batch.
pub(super) struct Job<Work> {
    work: Work,
    /// Whether the database works on it. While not, a caller whose time is up is told that there is
    /// no database, instead of that its time is up.
    running: Arc<AtomicBool>,
}

impl<Work> Job<Work> {
    pub(super) fn work(&self) -> &Work {
        &self.work
    }

    /// The batch has a connection.
    pub(super) fn run_all(jobs: Vec<Self>) -> Vec<Work> {
        let start = |job: Self| {
            job.running.store(true, Ordering::Relaxed);
            job.work
        };
        jobs.into_iter().map(start).collect()
    }
}

/// Queues work, and gives its answer or the reason why there is none before the caller's deadline.
pub(super) async fn in_time<Work, Out>(
    work: Work,
    submit: impl AsyncFnOnce(Job<Work>) -> Result<Out, Error>,
) -> Result<Out, Error> {
    let running = Arc::new(AtomicBool::new(false));
    let answer = submit(Job { work, running: Arc::clone(&running) });
    let Some(limit) = patience() else {
        return answer.await;
    };
    match tokio::time::timeout(limit, answer).await {
        Ok(outcome) => outcome,
        Err(_) if running.load(Ordering::Relaxed) => Err(Error::TimedOut),
        Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
    }
}

/// The answers of a batch that is done one by one. When the database goes away under one, the
/// others hear it at once instead of each finding out.
pub(super) struct OneByOne {
    away: Option<Error>,
}

impl OneByOne {
    pub(super) fn new() -> Self {
        Self { away: None }
    }

    pub(super) async fn run<Out>(
        &mut self,
        work: impl Future<Output = Result<Out, Error>>,
    ) -> Result<Out, Error> {
        if let Some(away) = &self.away {
            return Err(away.clone());
        }
        let outcome = work.await;
        if let Err(error) = &outcome
            && error.is_database_away()
        {
            self.away = Some(error.clone());
        }
        outcome
    }
}
