//! A connection that stays with the work that will need it again in a moment.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use sqlx::{PgPool, Postgres, pool::PoolConnection};

use crate::pool::STALE_AFTER;

/// A pool of fewer connections than this has none to spare for those who keep one.
const SPARE_FROM: u32 = 4;

/// One connection between two uses, beside the pool that it is from.
///
/// A connection that goes back to its pool is tried there (see [`connect_pool`](crate::connect_pool)),
/// which costs the database and a core a round trip for every statement. Work that runs one batch
/// after the other need not give its connection back: it knows in what state it leaves it.
#[derive(Debug)]
pub struct Kept {
    enabled: bool,
    spare: Mutex<Option<Spare>>,
}

#[derive(Debug)]
struct Spare {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Kept {
    /// Nothing yet. A pool of fewer than 4 connections has none to spare: then nothing is ever kept.
    #[must_use]
    pub fn of(pool: &PgPool) -> Self {
        let enabled = pool.options().get_max_connections() >= SPARE_FROM;
        Self { enabled, spare: Mutex::default() }
    }

    /// The connection, if there is one that was used in the last 30 s; an older one goes back to
    /// its pool, which tries it.
    pub fn take(&self) -> Option<PoolConnection<Postgres>> {
        let spare = self.spare().take()?;
        (spare.since.elapsed() < STALE_AFTER).then_some(spare.connection)
    }

    /// Keeps a connection for the next [`Kept::take`]. Only for one that is sound and outside of a
    /// transaction: nobody looks at it again. If there is one already, it goes back to its pool.
    pub fn keep(&self, connection: PoolConnection<Postgres>) {
        if self.enabled {
            let spare = Spare { connection, since: Instant::now() };
            // Dropped after the lock is.
            let _before = self.spare().replace(spare);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Option<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
