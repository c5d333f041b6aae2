//! Counts per user, day and type. `append.sql` keeps them up; here they are read, and compared with
//! the events they count.

use std::{collections::BTreeMap, ops::Range};

use chrono::{DateTime, Days, NaiveDate, Utc};
use synap_types::UserId;
use tracing::Instrument as _;

use super::{Admin, ArchiveFile, Database, DatabaseError, Store};

/// Which rows to read.
#[derive(Debug, Clone)]
pub(crate) struct ActivityRead {
    pub(crate) user: UserId,
    /// Rows after this one.
    pub(crate) after: ActivityKey,
    pub(crate) last_day: NaiveDate,
    /// Rows at most.
    pub(crate) limit: i64,
}

/// The place of a row among those of its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActivityKey {
    pub(crate) day: NaiveDate,
    pub(crate) event_type: String,
    pub(crate) aggregate_type: String,
}

impl ActivityKey {
    /// Before all rows of a day.
    pub(crate) fn before(day: NaiveDate) -> Self {
        Self { day, event_type: String::new(), aggregate_type: String::new() }
    }
}

/// How often a thing happened on a day.
#[derive(Debug)]
pub(crate) struct Activity {
    pub(crate) day: NaiveDate,
    pub(crate) event_type: String,
    pub(crate) aggregate_type: String,
    pub(crate) count: i64,
}

synap_postgres::from_row!(Activity { day, event_type, aggregate_type, count });

/// What a comparison of one day found.
#[derive(Debug)]
pub(crate) struct ComparedDay {
    /// Events of the day.
    pub(crate) events: i64,
    /// What the counts added up to.
    pub(crate) counted: i64,
    /// Rows that differed.
    pub(crate) differences: i64,
    /// Whether retention has come past the day: then nothing was compared, and nothing put right.
    pub(crate) is_deleted: bool,
}

synap_postgres::from_row!(ComparedDay { events, counted, differences, is_deleted });

impl Store {
    /// A page of one user's counts in the order of days.
    pub(crate) async fn daily_activity(
        &self,
        read: &ActivityRead,
    ) -> Result<Vec<Activity>, DatabaseError> {
        let span = tracing::info_span!("db.activity.read");
        self.database.activity(read).instrument(span).await
    }
}

impl Database {
    async fn activity(&self, read: &ActivityRead) -> Result<Vec<Activity>, DatabaseError> {
        let mut connection = self.acquire().await?;
        let rows = sqlx::query_as(
            "SELECT day, event_type, aggregate_type, count
             FROM event_store.daily_activity
             WHERE user_id = $1 AND (day, event_type, aggregate_type) > ($2, $3, $4) AND day <= $5
               AND count > 0
             ORDER BY day, event_type, aggregate_type
             LIMIT $6",
        )
        .bind(read.user.as_str())
        .bind(read.after.day)
        .bind(&read.after.event_type)
        .bind(&read.after.aggregate_type)
        .bind(read.last_day)
        .bind(read.limit)
        .fetch_all(&mut *connection)
        .await?;
        Ok(rows)
    }
}

impl Admin {
    /// Compares one day's counts with its events, and puts them right if `repair`. `archived` are the
    /// events of the day that are in `files`; `None` if those are not the archive's files any more.
    ///
    /// Events, counts and how far retention has come are seen by one snapshot, in which an append is
    /// there with both or not at all: what differs is wrong whatever is appended meanwhile. The difference is added, not the
    /// truth written: so an append that came between stays counted.
    pub(crate) async fn compare_day(
        &self,
        day: NaiveDate,
        repair: bool,
        files: &[ArchiveFile],
        archived: &BTreeMap<[String; 3], i64>,
    ) -> Result<Option<ComparedDay>, DatabaseError> {
        let span = tracing::info_span!("db.activity.compare", %day, repair);
        let bounds = day_span(day);
        let column = |of: usize| archived.keys().map(|kind| kind[of].as_str()).collect::<Vec<_>>();
        let compared = async {
            let mut transaction = self.database.pool.begin().await?;
            // Two repairs at once would both add the difference.
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('synap rollups', 0))")
                .execute(&mut *transaction)
                .await?;
            let compared = sqlx::query_as(include_str!("compare_day.sql"))
                .bind(day)
                .bind(bounds.start)
                .bind(bounds.end)
                .bind(repair)
                .bind(column(0))
                .bind(column(1))
                .bind(column(2))
                .bind(archived.values().copied().collect::<Vec<_>>())
                .bind(files.iter().map(|file| file.archive_id).collect::<Vec<_>>())
                .fetch_optional(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(compared)
        };
        compared.instrument(span).await
    }

    /// Before when events are deleted: their counts cannot be compared.
    pub(crate) async fn deleted_before(&self) -> Result<Option<DateTime<Utc>>, DatabaseError> {
        let time = sqlx::query_scalar("SELECT deleted_before FROM event_store.retention");
        Ok(time.fetch_optional(self.pool()).await?)
    }
}

/// From the first moment of a day to the first after it, in UTC.
pub(crate) fn day_span(day: NaiveDate) -> Range<DateTime<Utc>> {
    let midnight = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc();
    midnight(day)..midnight(day.checked_add_days(Days::new(1)).unwrap_or(day))
}
