//! Connections that stay with the work that will need them again in a moment.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use sqlx::{PgPool, Postgres, pool::PoolConnection};

use crate::pool::STALE_AFTER;

/// Connections between two uses, beside the pool that they are from.
///
/// A connection that goes back to its pool is tried there (see [`connect_pool`](crate::connect_pool)),
/// which costs the database and a core a round trip for every statement. Work that runs one batch
/// after the other need not give its connection back: it knows in what state it leaves it.
#[derive(Debug)]
pub struct Kept {
    most: usize,
    spare: Mutex<Vec<Spare>>,
}

#[derive(Debug)]
struct Spare {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Kept {
    /// Nothing yet, and `most` connections at any time; fewer where that would be more than half of
    /// the pool's.
    #[must_use]
    pub fn of(pool: &PgPool, most: usize) -> Self {
        let half = usize::try_from(pool.options().get_max_connections() / 2).unwrap_or(usize::MAX);
        Self { most: most.min(half), spare: Mutex::default() }
    }

    /// The connection that was used last, if that is less than 30 s ago; older ones go back to their
    /// pool, which tries them.
    pub fn take(&self) -> Option<PoolConnection<Postgres>> {
        let last = self.spare().pop()?;
        if last.since.elapsed() < STALE_AFTER {
            return Some(last.connection);
        }
        let _older = std::mem::take(&mut *self.spare());
        None
    }

    /// Keeps a connection for the next [`Kept::take`]. Only for one that is sound and outside of a
    /// transaction: nobody looks at it again. Where there are enough it goes back to its pool.
    pub fn keep(&self, connection: PoolConnection<Postgres>) {
        let spare = Spare { connection, since: Instant::now() };
        let mut kept = self.spare();
        if kept.len() < self.most {
            kept.push(spare);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
