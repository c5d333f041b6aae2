//! Transactions: whose rows they may touch; given in time, or refused in time.
//!
//! There are three ways to the database. [`Database::for_user`] and its sibling begin a transaction
//! as a role that row-level security applies to: it sees and writes the rows of its user, whatever a
//! statement forgets. [`Database::batch`] is for the functions that do the same for several users in
//! one round trip. [`Database::across_users`] stays the owner of the tables, who sees all; it is for
//! what belongs to nobody: recovery's queues, retention, the phase.
//!
//! A caller may leave at any moment. What it has begun is rolled back then, and what it has
//! committed stays.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection, postgres::PgArguments,
    query::Query,
};
use synap_postgres::Kept;
use synap_rpc::deadline;
use synap_types::UserId;

use crate::error::Error;

/// The most that is waited for a connection: a suspended database needs seconds to wake up.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);
/// The answer leaves so long before the caller's deadline, at most: on a busy machine it takes a
/// while to get there.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// The first statement of every transaction for a user. Its settings end with the transaction.
const AS_USER: &str = "SELECT set_config('role', 'synap_entity', true),
                              set_config('app.current_user_id', $1, true)";
const PIVOT_AS_USER: &str = "SELECT set_config('role', 'synap_entity', true),
                                    set_config('app.current_user_id', $1, true),
                                    pg_advisory_xact_lock_shared($2)";

/// Held by every transaction that writes a body, from before it reads the storage phase until its
/// end, and alone by whoever changes the phase: so none commits in a phase what it began in another.
/// The number means nothing; it must only never change.
pub(super) const PHASE_LOCK: i64 = 0x53_79_6e_61_70_50_68;

/// A transaction for one user. Dropped without a commit it is rolled back, and nobody waits for that.
pub(super) type UserTransaction = Transaction<'static, Postgres>;

/// A connection for the one statement of a batch: a function of the database that is a whole
/// transaction, its prelude included (migration 0015). Not for any other statement.
pub(super) struct BatchConnection {
    connection: PoolConnection<Postgres>,
    kept: Arc<Kept>,
}

impl BatchConnection {
    /// Keeps the connection for the next batch, once the statement has been answered.
    pub(super) fn keep(self) {
        self.kept.keep(self.connection);
    }
}

impl Deref for BatchConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for BatchConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// The pool, used in such a way that a caller hears that the database is away before its deadline.
#[derive(Clone)]
pub(super) struct Database {
    pool: PgPool,
    /// The connections of batches.
    kept: Arc<Kept>,
}

impl Database {
    /// `batches` is how many batches run at once.
    pub(super) fn new(pool: PgPool, batches: usize) -> Self {
        let kept = Arc::new(Kept::of(&pool, batches));
        Self { pool, kept }
    }

    /// The pool, for those who look at nobody's rows.
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A transaction that sees and writes the rows of one user.
    pub(super) async fn for_user(&self, user: &UserId) -> Result<UserTransaction, Error> {
        self.begin_with(sqlx::query(AS_USER).bind(user.as_str())).await
    }

    /// As [`for_user`](Self::for_user), in a storage phase that does not change until its end.
    pub(super) async fn pivot_for_user(&self, user: &UserId) -> Result<UserTransaction, Error> {
        self.begin_with(sqlx::query(PIVOT_AS_USER).bind(user.as_str()).bind(PHASE_LOCK)).await
    }

    /// A connection for a batch, which says itself whose rows it may touch.
    pub(super) async fn batch(&self) -> Result<BatchConnection, Error> {
        let connection = match self.kept.take() {
            Some(connection) => connection,
            None => in_limit(self.pool.acquire()).await?,
        };
        Ok(BatchConnection { connection, kept: Arc::clone(&self.kept) })
    }

    /// A connection that sees the rows of all users, for single statements that serve none of them.
    pub(super) async fn across_users(&self) -> Result<PoolConnection<Postgres>, Error> {
        in_limit(self.pool.acquire()).await
    }

    async fn begin_with(
        &self,
        prelude: Query<'_, Postgres, PgArguments>,
    ) -> Result<UserTransaction, Error> {
        let mut transaction = self.begin_across_users().await?;
        prelude.execute(&mut *transaction).await.map_err(no_role)?;
        Ok(transaction)
    }

    /// A transaction that sees the rows of all users; or in good time before the caller's deadline
    /// the news that there is none.
    pub(super) async fn begin_across_users(&self) -> Result<Transaction<'static, Postgres>, Error> {
        let (pool, limit) = (self.pool.clone(), acquire_limit());
        // In a task of its own: if its caller left while BEGIN is under way, sqlx would not know of
        // the transaction, and the connection could only be thrown away.
        let begun = tokio::spawn(async move { tokio::time::timeout(limit, pool.begin()).await });
        match begun.await {
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(_)) => Err(sqlx::Error::PoolTimedOut.into()),
            Err(_) => Err(sqlx::Error::WorkerCrashed.into()),
        }
    }
}

/// Becoming the role fails where there is no role to become: before its migration, or if that was done as
/// another user.
pub(super) fn no_role(cause: sqlx::Error) -> Error {
    let code = cause.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if matches!(code.as_deref(), Some("22023" | "42501")) {
        return Error::NoRole(Arc::new(cause));
    }
    cause.into()
}

/// What is given within the time that a caller can be kept waiting, or the news that there is none.
async fn in_limit<T>(given: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(acquire_limit(), given).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
    }
}

fn acquire_limit() -> Duration {
    patience().unwrap_or(ACQUIRE_LIMIT).min(ACQUIRE_LIMIT)
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

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
