//! Weekly partitions: made ahead, and made for what fell into the DEFAULT partition.
//!
//! PostgreSQL reads the whole DEFAULT partition, under a lock that stops every append, before it
//! takes a new one beside it; and the rows that belong into the new one have to leave first. With
//! many rows in it that would take seconds. So the DEFAULT partition is replaced instead:
//!
//! 1. A second partitioned table, `events_next`, gets the new weeks and a new DEFAULT.
//! 2. What is in the DEFAULT partition is copied there, in short transactions. Events never change,
//!    so a copy stays right; those below the horizon are complete.
//! 3. In one transaction that stops appends for some milliseconds: the few events that came since
//!    are copied, the new tables change places with the old one, and that is dropped.
//!
//! Whatever ends it before the last commit leaves the events as they were; whoever comes next drops
//! `events_next` and begins anew.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use tracing::Instrument as _;

use super::{Admin, DatabaseError, Engine, Lease, Segment, UpkeepError};
use crate::domain::Week;

/// Events copied in one transaction.
const COPY_BATCH: i64 = 5_000;

/// Events copied while appends wait, at most.
const LAST_BATCH: i64 = 20_000;

/// Weeks in the past that get a partition of their own: what is older stays in DEFAULT, until its
/// retention ends.
const WEEKS_BACK: u32 = 160;

/// Rows of the DEFAULT partition that are counted at most.
const MAX_COUNTED: i64 = 1_000_000;

/// Up to where the DEFAULT partition is copied, in the order of all events.
struct Cursor {
    epoch: i64,
    xid: i64,
    pos: i64,
}

impl Admin {
    /// Makes the partitions of this week and of so many after it, and of the weeks of which there
    /// are events in DEFAULT. Answers their names. A hypertable makes its own.
    pub(crate) async fn make_partitions(
        &self,
        lease: &Lease,
        engine: &Engine,
        ahead: u32,
    ) -> Result<Vec<String>, UpkeepError> {
        if engine.is_hypertable {
            return Ok(Vec::new());
        }
        let existing = self.segments(engine).await?;
        let weeks = self.missing_weeks(&existing, ahead).await?;
        if weeks.is_empty() {
            return Ok(Vec::new());
        }
        let span = tracing::info_span!("db.partitions.make", count = weeks.len());
        let made = async {
            self.prepare_next(lease, &existing, &weeks).await?;
            synap_failpoint::hit("partitions.prepared").await;
            let copied = self.copy_default(lease).await?;
            synap_failpoint::hit("partitions.copied").await;
            self.change_places(lease, &weeks, copied).await?;
            Ok(weeks.iter().map(|week| week.partition()).collect())
        };
        made.instrument(span).await
    }

    /// The weeks that need a partition, by the database's clock.
    async fn missing_weeks(
        &self,
        existing: &[Segment],
        ahead: u32,
    ) -> Result<Vec<Week>, UpkeepError> {
        let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()").fetch_one(self.pool()).await?;
        let this_week = Week::of(now);
        let (first, last) = (this_week.minus(WEEKS_BACK), this_week.plus(ahead));
        let mut weeks: BTreeSet<Week> = (0..=ahead).map(|weeks| this_week.plus(weeks)).collect();
        let days: Vec<NaiveDate> = sqlx::query_scalar(
            "SELECT DISTINCT (occurred_at AT TIME ZONE 'UTC')::date FROM event_store.events_default
             WHERE occurred_at >= $1 AND occurred_at < $2",
        )
        .bind(first.begins_at())
        .bind(last.ends_at())
        .fetch_all(self.pool())
        .await?;
        weeks.extend(
            days.iter().map(|day| Week::of(day.and_time(chrono::NaiveTime::MIN).and_utc())),
        );
        let is_free = |week: &Week| {
            !existing
                .iter()
                .any(|it| it.begins_at < week.ends_at() && week.begins_at() < it.ends_at)
        };
        Ok(weeks.into_iter().filter(is_free).collect())
    }

    /// Step 1. The CHECKs spare PostgreSQL from reading the tables again when they change places.
    async fn prepare_next(
        &self,
        lease: &Lease,
        existing: &[Segment],
        weeks: &[Week],
    ) -> Result<(), UpkeepError> {
        let mut transaction = self.begin(lease).await?;
        run(&mut transaction, "DROP TABLE IF EXISTS event_store.events_next".to_owned()).await?;
        let like = "(LIKE event_store.events INCLUDING ALL";
        run(
            &mut transaction,
            format!(
                "CREATE TABLE event_store.events_next {like}) PARTITION BY RANGE (occurred_at)"
            ),
        )
        .await?;
        for week in weeks {
            let name = week.partition();
            let (begin, end) = (week.begins_at(), week.ends_at());
            for statement in [
                format!(
                    "CREATE TABLE event_store.{name} {like}, CONSTRAINT {name}_range
                     CHECK (occurred_at >= '{begin}' AND occurred_at < '{end}'))"
                ),
                format!(
                    "ALTER TABLE event_store.events_next ATTACH PARTITION event_store.{name}
                     FOR VALUES FROM ('{begin}') TO ('{end}')"
                ),
            ] {
                run(&mut transaction, statement).await?;
            }
        }
        for statement in [
            format!(
                "CREATE TABLE event_store.events_next_default {like}, CONSTRAINT events_next_range
                 CHECK ({}))",
                outside_of(existing, weeks)
            ),
            "ALTER TABLE event_store.events_next ATTACH PARTITION event_store.events_next_default
             DEFAULT"
                .to_owned(),
        ] {
            run(&mut transaction, statement).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Step 2.
    async fn copy_default(&self, lease: &Lease) -> Result<Cursor, UpkeepError> {
        let mut cursor = Cursor { epoch: 0, xid: 0, pos: 0 };
        loop {
            let mut transaction = self.begin(lease).await?;
            let copied: Option<(i64, i64, i64, i64)> = sqlx::query_as(
                "WITH batch AS MATERIALIZED (
                     SELECT * FROM event_store.events_default
                     WHERE (epoch, xid, pos) > ($1, $2::text::xid8, $3)
                       AND (epoch < (SELECT max(epoch) FROM event_store.epochs)
                            OR xid < pg_snapshot_xmin(pg_current_snapshot()))
                     ORDER BY epoch, xid, pos LIMIT $4
                 ), copied AS (
                     INSERT INTO event_store.events_next SELECT * FROM batch
                 )
                 SELECT epoch, xid::text::bigint, pos, (SELECT count(*) FROM batch) FROM batch
                 ORDER BY epoch DESC, xid DESC, pos DESC LIMIT 1",
            )
            .bind(cursor.epoch)
            .bind(cursor.xid.to_string())
            .bind(cursor.pos)
            .bind(COPY_BATCH)
            .fetch_optional(&mut *transaction)
            .await?;
            transaction.commit().await?;
            let Some((epoch, xid, pos, count)) = copied else { return Ok(cursor) };
            cursor = Cursor { epoch, xid, pos };
            if count < COPY_BATCH {
                return Ok(cursor);
            }
        }
    }

    /// Step 3.
    async fn change_places(
        &self,
        lease: &Lease,
        weeks: &[Week],
        copied: Cursor,
    ) -> Result<(), UpkeepError> {
        let mut transaction = self.begin(lease).await?;
        let later =
            "FROM event_store.events_default WHERE (epoch, xid, pos) > ($1, $2::text::xid8, $3)";
        let left: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT count(*) FROM (SELECT {later} LIMIT {LAST_BATCH}) AS later"
        )))
        .bind(copied.epoch)
        .bind(copied.xid.to_string())
        .bind(copied.pos)
        .fetch_one(&mut *transaction)
        .await?;
        if left >= LAST_BATCH {
            // A transaction that somebody left open holds back the horizon: another time.
            return Err(UpkeepError::HeldBack);
        }
        // The parent first, as appends do: nobody waits in a circle.
        run(&mut transaction, "LOCK TABLE ONLY event_store.events IN ACCESS EXCLUSIVE MODE".into())
            .await?;
        sqlx::query(AssertSqlSafe(format!("INSERT INTO event_store.events_next SELECT * {later}")))
            .bind(copied.epoch)
            .bind(copied.xid.to_string())
            .bind(copied.pos)
            .execute(&mut *transaction)
            .await?;
        let mut statements = vec![
            "ALTER TABLE event_store.events DETACH PARTITION event_store.events_default".into(),
        ];
        for week in weeks {
            let (name, begin, end) = (week.partition(), week.begins_at(), week.ends_at());
            statements.extend([
                format!("ALTER TABLE event_store.events_next DETACH PARTITION event_store.{name}"),
                format!(
                    "ALTER TABLE event_store.events ATTACH PARTITION event_store.{name}
                     FOR VALUES FROM ('{begin}') TO ('{end}')"
                ),
                format!("ALTER TABLE event_store.{name} DROP CONSTRAINT {name}_range"),
            ]);
        }
        statements.extend(
            [
                "ALTER TABLE event_store.events_next
                 DETACH PARTITION event_store.events_next_default",
                "ALTER TABLE event_store.events
                 ATTACH PARTITION event_store.events_next_default DEFAULT",
                "ALTER TABLE event_store.events_next_default DROP CONSTRAINT events_next_range",
                "DROP TABLE event_store.events_next, event_store.events_default",
                "ALTER TABLE event_store.events_next_default RENAME TO events_default",
            ]
            .map(str::to_owned),
        );
        for statement in statements {
            run(&mut transaction, statement).await?;
        }
        synap_failpoint::hit("partitions.swapping").await;
        Ok(transaction.commit().await?)
    }

    /// How many events no weekly partition takes: a million if there are more.
    pub(crate) async fn outside(&self, engine: &Engine) -> Result<i64, DatabaseError> {
        if engine.is_hypertable {
            return Ok(0);
        }
        let rows = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT FROM event_store.events_default LIMIT $1) AS counted",
        )
        .bind(MAX_COUNTED)
        .fetch_one(self.pool())
        .await?;
        Ok(rows)
    }
}

/// The condition that a time is in none of the partitions. Those that follow one another are one range:
/// that DEFAULT is as it says is proved while appends wait.
fn outside_of(existing: &[Segment], weeks: &[Week]) -> String {
    let existing = existing.iter().map(|it| (it.begins_at, it.ends_at));
    let weeks = weeks.iter().map(|it| (it.begins_at(), it.ends_at()));
    let all: BTreeSet<_> = existing.chain(weeks).collect();
    let mut ranges: Vec<(DateTime<Utc>, DateTime<Utc>)> = Vec::new();
    for (begin, end) in all {
        match ranges.last_mut() {
            Some(last) if last.1 == begin => last.1 = end,
            _ => ranges.push((begin, end)),
        }
    }
    let outside = |(begin, end)| format!("(occurred_at < '{begin}' OR occurred_at >= '{end}')");
    ranges.into_iter().map(outside).collect::<Vec<_>>().join(" AND ")
}

/// Runs a statement that takes no parameters: its names are made of numbers, here.
async fn run(connection: &mut PgConnection, statement: String) -> Result<(), UpkeepError> {
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}
