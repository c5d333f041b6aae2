//! What event-service does unasked: partitions ahead of time, archive, retention. Every replica
//! tries, one at a time does it; an operator can ask for it too.

use std::{error::Error, time::Duration};

use chrono::NaiveDate;
use opentelemetry::metrics::{Counter, Gauge};

use crate::{
    archive::{Archive, Archived},
    config::UpkeepArgs,
    store::{
        Admin, ComparedDay, DatabaseError, Engine, Expired, Failures, Lease, Staying, UpkeepError,
        day_span,
    },
};

/// How often a database is asked whether it is there and migrated.
const READY_INTERVAL: Duration = Duration::from_secs(1);

/// Days at least that events stay in the database after they were recorded, whatever they are of: so
/// long a subscriber without a checkpoint may be away.
const MIN_RECORDED_DAYS: u32 = 1;

/// The upkeep of the event store.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) admin: Admin,
    pub(crate) archive: Archive,
    args: UpkeepArgs,
    metrics: Metrics,
}

/// What an operator wants to be told of.
#[derive(Clone)]
struct Metrics {
    outside: Gauge<u64>,
    ahead: Gauge<u64>,
    archived: Counter<u64>,
    expired: Counter<u64>,
}

impl Metrics {
    fn new() -> Self {
        let meter = synap_telemetry::metrics::meter();
        let gauge =
            |name, unit, what| meter.u64_gauge(name).with_unit(unit).with_description(what).build();
        let counter = |name, what| {
            meter.u64_counter(name).with_unit("{event}").with_description(what).build()
        };
        Self {
            archived: counter("synap.event.archived", "Events that moved to the archive"),
            expired: counter("synap.event.expired", "Events deleted after their retention"),
            outside: gauge(
                "synap.event.default_partition.rows",
                "{event}",
                "Events in no weekly partition; more than 0 needs a person",
            ),
            ahead: gauge(
                "synap.event.partitions.ahead",
                "{partition}",
                "Partitions of weeks that have not begun",
            ),
        }
    }
}

/// What the partitions are like now.
#[derive(Debug)]
pub(crate) struct Partitions {
    /// Those that are new.
    pub(crate) made: Vec<String>,
    /// Events that are in none of them.
    pub(crate) outside: i64,
}

impl Upkeep {
    pub(crate) fn new(admin: Admin, archive: Archive, args: UpkeepArgs) -> Self {
        Self { admin, archive, args, metrics: Metrics::new() }
    }

    /// For ever, once the database is there.
    pub(crate) async fn run<Ready>(&self, ready: impl Fn() -> Ready)
    where
        Ready: Future<Output = bool>,
    {
        let Some(interval) = self.args.interval() else { return std::future::pending().await };
        while !ready().await {
            tokio::time::sleep(READY_INTERVAL).await;
        }
        loop {
            if let Err(error) = self.all().await {
                tracing::warn!(error = &error as &dyn Error, "the upkeep is not complete");
            }
            tokio::time::sleep(interval).await;
        }
    }

    async fn all(&self) -> Result<(), UpkeepError> {
        let all = async {
            self.make_partitions().await?;
            // Nothing leaves the database unless somebody has said so.
            if !self.args.auto_archive {
                return Ok(());
            }
            let archived = if self.archive.is_configured() {
                self.archive(false, None, |_| {}).await
            } else {
                Ok(())
            };
            // Also if some of the archive failed.
            self.retain(false, None).await?;
            archived
        };
        match all.await {
            // Another replica is at it.
            Err(UpkeepError::UnderWay) => Ok(()),
            Err(error @ UpkeepError::LegacyIsThere) => {
                tracing::info!(reason = %error, "no archive and no retention yet");
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    /// Makes the partitions that are missing.
    pub(crate) async fn make_partitions(&self) -> Result<Partitions, UpkeepError> {
        self.alone(async |lease, engine| {
            let ahead = self.args.partitions_ahead.get();
            let made = self.admin.make_partitions(lease, engine, ahead).await;
            // Told in any case: above all where partitions could not be made.
            let outside = self.look(engine).await?;
            let made = made?;
            if !made.is_empty() {
                tracing::info!(count = made.len(), "partitions made");
            }
            Ok(Partitions { made, outside })
        })
        .await
    }

    /// Archives what is older than so many days, by default those of the configuration, and tells of
    /// each segment. Where TimescaleDB compresses, that is done instead, and nothing is told.
    pub(crate) async fn archive(
        &self,
        dry_run: bool,
        days: Option<u32>,
        mut tell: impl FnMut(Archived),
    ) -> Result<(), UpkeepError> {
        let days = days.unwrap_or(self.args.archive_after_days);
        let recorded_days = days.max(MIN_RECORDED_DAYS);
        if dry_run {
            let engine = self.admin.engine().await?;
            for segment in self.admin.segments_older_than(&engine, days).await? {
                let look = self.admin.look(&segment, recorded_days).await?;
                tell(Archived::left(segment, look));
            }
            return Ok(());
        }
        self.admin.legacy_is_gone().await?;
        self.alone(async |lease, engine| {
            self.sweep(lease).await?;
            let mut failures = Failures::default();
            for segment in self.admin.segments_older_than(engine, days).await? {
                let table = segment.table.clone();
                if engine.is_community && engine.is_hypertable {
                    failures.see(&table, self.admin.compress(lease, &segment).await)?;
                    continue;
                }
                let archived = self.archive.put(&self.admin, lease, engine, segment, recorded_days);
                let Some(archived) = failures.see(&table, archived.await)? else { continue };
                if archived.is_done {
                    self.metrics.archived.add(archived.events.unsigned_abs(), &[]);
                }
                archived.kept().iter().for_each(Staying::warn);
                tell(archived);
            }
            // What could not be finished is thrown away.
            self.sweep(lease).await?;
            failures.told()
        })
        .await
    }

    /// Deletes the blobs that nobody needs: of exports that were given up, and past their retention.
    async fn sweep(&self, lease: &Lease) -> Result<(), UpkeepError> {
        self.admin.discard_exports(lease).await?;
        let keys = self.admin.discarded().await?;
        for key in &keys {
            self.archive.delete(key).await?;
        }
        Ok(self.admin.forget_discarded(&keys).await?)
    }

    /// Deletes what is older than its retention; a dry run only says what that would be.
    pub(crate) async fn retain(
        &self,
        dry_run: bool,
        days: Option<u32>,
    ) -> Result<Expired, UpkeepError> {
        let days = days.unwrap_or(self.args.retention_days);
        if dry_run {
            let engine = self.admin.engine().await?;
            return Ok(self.admin.expired(&engine, days).await?);
        }
        self.admin.legacy_is_gone().await?;
        self.alone(async |lease, engine| {
            let expired = self.admin.expire(lease, engine, days).await?;
            expired.kept.iter().for_each(Staying::warn);
            if self.archive.is_configured() {
                self.sweep(lease).await?;
            }
            let deleted = expired.live_events + expired.archived_events;
            self.metrics.expired.add(deleted.unsigned_abs(), &[]);
            Ok(expired)
        })
        .await
    }

    /// Compares the counts of one day with its events, wherever they are.
    pub(crate) async fn compare_day(
        &self,
        day: NaiveDate,
        repair: bool,
    ) -> Result<ComparedDay, UpkeepError> {
        loop {
            let span = day_span(day);
            let files = self.admin.archive_files_of(&span).await?;
            let archived = self.archive.count(&files, span).await?;
            match self.admin.compare_day(day, repair, &files, &archived).await? {
                Some(ComparedDay { is_deleted: true, .. }) => {
                    return Err(UpkeepError::Deleted(day));
                }
                Some(compared) => return Ok(compared),
                None => {}
            }
        }
    }

    /// Does work under the lease.
    async fn alone<T>(
        &self,
        work: impl AsyncFnOnce(&Lease, &Engine) -> Result<T, UpkeepError>,
    ) -> Result<T, UpkeepError> {
        let engine = self.admin.engine().await?;
        let lease = self.admin.lease().await?.ok_or(UpkeepError::UnderWay)?;
        let outcome = self.admin.hold(&lease, work(&lease, &engine)).await;
        self.admin.release(lease).await;
        outcome
    }

    async fn look(&self, engine: &Engine) -> Result<i64, DatabaseError> {
        let outside = self.admin.outside(engine).await?;
        self.metrics.outside.record(outside.unsigned_abs(), &[]);
        let ahead = self.admin.segments(engine).await?;
        let ahead = ahead.iter().filter(|it| it.is_ahead).count();
        self.metrics.ahead.record(ahead as u64, &[]);
        if outside > 0 {
            tracing::warn!(count = outside, "events are in no weekly partition");
        }
        Ok(outside)
    }
}
