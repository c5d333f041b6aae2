//! Transactions that are done before it is known whether they may happen, and committed when it is.
//!
//! An open one holds what it holds until its commit: a connection and its locks; and it holds back
//! whoever reads in the order of transactions. So there are few of them, none is open for long, and
//! whatever is in the way of one ends it: its caller does the same as everybody does, and that decides.
//! It waits for nothing but its caller once it has its locks, so nobody waits in a circle.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::{sync::Semaphore, time::timeout};

use crate::Kept;

/// How long one is waited for: for its connection, and once it is done, for its caller.
const LIMIT: Duration = Duration::from_millis(100);

/// So many are open at once, and no more than one for four connections of the pool.
const MOST: u32 = 2;

/// The bounds hold also if this process is stopped, or cut off from its database.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '100ms';
                     SET LOCAL idle_in_transaction_session_timeout = '1s'";

/// Why one was not committed: nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unprepared {
    /// As many are open as may be.
    #[error("no room to prepare another; do it without preparing")]
    NoPlace,
    /// It was done, and its caller did not say in time that it may happen.
    #[error("it was prepared and not confirmed within {LIMIT:?}; nothing was written")]
    Unconfirmed,
}

/// Room for open transactions.
#[derive(Debug)]
pub struct Prepared {
    free: Semaphore,
    kept: Kept,
}

impl Prepared {
    /// For transactions on connections of a pool.
    #[must_use]
    pub fn of(pool: &PgPool) -> Self {
        let places = MOST.min(pool.options().get_max_connections() / 4) as usize;
        Self { free: Semaphore::new(places), kept: Kept::of(pool, places) }
    }

    /// Does work in a transaction, and commits it if `confirmed` says so in time; it is asked when
    /// everything but the commit is done. `acquire` is for a connection of the pool, if none is kept.
    /// To be run in a task of its own: a BEGIN that is broken off costs its connection.
    ///
    /// # Errors
    /// [`Unprepared`], the work's, or the database's; and then nothing is written, unless the
    /// database was lost during COMMIT.
    pub async fn commit_if<T, E: From<sqlx::Error> + From<Unprepared>>(
        &self,
        acquire: impl Future<Output = Result<PoolConnection<Postgres>, E>>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
        confirmed: impl Future<Output = bool>,
    ) -> Result<T, E> {
        let _place = self.free.try_acquire().map_err(|_| Unprepared::NoPlace)?;
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => timeout(LIMIT, acquire).await.map_err(|_| Unprepared::NoPlace)??,
        };
        let mut transaction = connection.begin_with(BEGIN).await?;
        let done = work(&mut transaction).await?;
        let confirmed = timeout(LIMIT, confirmed).await == Ok(true);
        if confirmed {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        self.kept.keep(connection);
        if confirmed { Ok(done) } else { Err(Unprepared::Unconfirmed.into()) }
    }
}
