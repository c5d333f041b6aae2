//! The lease under which partitions are made, archived and dropped: one worker at a time, of all
//! replicas and operators. A row, not a session's lock: that would not survive a pooler.

use std::time::Duration;

use chrono::NaiveDate;
use sqlx::{PgConnection, Postgres, Transaction};

use super::{Admin, DatabaseError};
use crate::archive::ArchiveError;

/// How often a lease is renewed: four times in its minute.
const RENEW_INTERVAL: Duration = Duration::from_secs(15);

/// Why a step of the upkeep was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpkeepError {
    /// Somebody else has the lease.
    #[error("another worker is at it")]
    UnderWay,
    /// Somebody else has taken over.
    #[error("another worker has taken over")]
    LeaseLost,
    /// A transaction elsewhere has been open for long.
    #[error("a long transaction somewhere in the database server holds back the horizon")]
    HeldBack,
    /// The events of V0.2 have to be where they can be compared.
    #[error(
        "the tables of V0.2's events are still there: nothing is archived or deleted before they are \
         retired, see `synapctl events drop-legacy`"
    )]
    LegacyIsThere,
    /// Retention has come past this day: there is nothing to compare its counts with.
    #[error("events of {0} are deleted: its counts cannot be compared any more")]
    Deleted(NaiveDate),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The task ended before its work.
    #[error("the work was broken off: {0}")]
    BrokenOff(#[from] tokio::task::JoinError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for UpkeepError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The first of the segments that failed. One must not keep the others: they are told of in the log,
/// and the first when all is done.
#[derive(Debug, Default)]
pub(crate) struct Failures(Option<UpkeepError>);

impl Failures {
    /// Takes what became of a segment. Fails at once without the lease: then nothing more can be done.
    pub(crate) fn see<T>(
        &mut self,
        table: &str,
        outcome: Result<T, UpkeepError>,
    ) -> Result<Option<T>, UpkeepError> {
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(UpkeepError::LeaseLost) => Err(UpkeepError::LeaseLost),
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(partition = table, error = cause, "left to the next time");
                self.0.get_or_insert(error);
                Ok(None)
            }
        }
    }

    /// Fails if a segment has.
    pub(crate) fn told(self) -> Result<(), UpkeepError> {
        self.0.map_or(Ok(()), Err)
    }
}

/// The right to do the upkeep, for a minute after each [`Lease::renew`]; see [`Admin::hold`].
#[derive(Debug)]
pub(crate) struct Lease {
    epoch: i64,
}

impl Admin {
    /// Takes the lease; `None` while somebody else has it.
    pub(crate) async fn lease(&self) -> Result<Option<Lease>, DatabaseError> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "INSERT INTO event_store.leases AS l (name, epoch, expires_at)
             VALUES ('upkeep', 1, now() + interval '1 minute')
             ON CONFLICT (name) DO UPDATE SET epoch = l.epoch + 1, expires_at = excluded.expires_at
             WHERE l.expires_at < now()
             RETURNING epoch",
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(epoch.map(|epoch| Lease { epoch }))
    }

    /// A transaction in which nobody can take over. It fails rather than that it holds up others: a
    /// lock on the table of events is waited for by every append that comes after.
    pub(crate) async fn begin(
        &self,
        lease: &Lease,
    ) -> Result<Transaction<'static, Postgres>, UpkeepError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("SET LOCAL lock_timeout = '500ms'").execute(&mut *transaction).await?;
        lease.renew(&mut transaction).await?;
        Ok(transaction)
    }

    /// Gives the lease back; one that cannot be given back expires.
    pub(crate) async fn release(&self, lease: Lease) {
        let released = sqlx::query(
            "UPDATE event_store.leases SET expires_at = '-infinity'
             WHERE name = 'upkeep' AND epoch = $1",
        )
        .bind(lease.epoch)
        .execute(self.pool())
        .await;
        if let Err(error) = released {
            tracing::debug!(reason = %error, "the lease of the upkeep expires by itself");
        }
    }

    /// Does work, and renews the lease meanwhile: no step of it need be short. Work without the lease
    /// is ended.
    pub(crate) async fn hold<T>(
        &self,
        lease: &Lease,
        work: impl Future<Output = Result<T, UpkeepError>>,
    ) -> Result<T, UpkeepError> {
        let renewing = async {
            loop {
                tokio::time::sleep(RENEW_INTERVAL).await;
                let mut connection = self.pool().acquire().await?;
                lease.renew(&mut connection).await?;
            }
        };
        tokio::select! {
            outcome = work => outcome,
            lost = renewing => lost,
        }
    }
}

impl Lease {
    /// Holds the lease for another minute, and within a transaction until its end. One that was given
    /// back stays so, whoever is late.
    async fn renew(&self, connection: &mut PgConnection) -> Result<(), UpkeepError> {
        let renewed = sqlx::query(
            "UPDATE event_store.leases SET expires_at = clock_timestamp() + interval '1 minute'
             WHERE name = 'upkeep' AND epoch = $1 AND expires_at <> '-infinity'",
        )
        .bind(self.epoch)
        .execute(connection)
        .await?;
        if renewed.rows_affected() == 1 { Ok(()) } else { Err(UpkeepError::LeaseLost) }
    }
}
