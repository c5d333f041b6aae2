//! Both stores beside each other, day by day.

use chrono::NaiveDate;
use futures::{Stream, stream};
use uuid::Uuid;

use super::{Legacy, LegacyError, dual_write};

/// A day of both stores.
#[derive(Debug)]
pub(crate) struct Day {
    pub(crate) date: NaiveDate,
    pub(crate) legacy_rows: i64,
    pub(crate) quarantined: i64,
    pub(crate) events: i64,
    /// Exclusive or of the rows' hashes: the order does not matter.
    pub(crate) legacy_hash: i64,
    pub(crate) hash: i64,
    /// Ids of what differs, and how.
    pub(crate) different: Vec<Uuid>,
    pub(crate) kinds: Vec<String>,
}

synap_postgres::from_row!(Day {
    date,
    legacy_rows,
    quarantined,
    events,
    legacy_hash,
    hash,
    different,
    kinds,
});

/// The next day that either store has something of.
const NEXT_DAY: &str = "
    SELECT min(day) FROM (
        (SELECT (timestamp AT TIME ZONE 'UTC')::date AS day FROM public.events
         WHERE timestamp >= $1 AND timestamp < '10000-01-01+00' ORDER BY timestamp LIMIT 1)
        UNION ALL
        (SELECT (min(occurred_at) AT TIME ZONE 'UTC')::date FROM event_store.events
         WHERE occurred_at >= $1)
    ) AS days";

impl Legacy {
    /// Compares every day. After a comparison of everything, in which nothing differed, the old
    /// tables may be renamed.
    pub(crate) async fn compare(
        &self,
    ) -> Result<impl Stream<Item = Result<Day, LegacyError>> + Send + use<>, LegacyError> {
        let mut connection = self.admin.acquire().await?;
        let present: bool =
            sqlx::query_scalar(dual_write::PROBE).fetch_one(&mut *connection).await?;
        if !present {
            let why = "there is no table public.events to compare with".to_owned();
            return Err(LegacyError::NotReady(why));
        }
        let begun: chrono::DateTime<chrono::Utc> =
            sqlx::query_scalar("SELECT now()").fetch_one(&mut *connection).await?;
        let first = (self.clone(), NaiveDate::from_ymd_opt(1, 1, 1), true);
        Ok(stream::try_unfold(first, move |(legacy, from, same)| async move {
            let day = match from {
                Some(from) => legacy.next_day(from).await?,
                None => None,
            };
            let Some(date) = day else {
                if same {
                    legacy.verified(begun).await?;
                }
                return Ok(None);
            };
            let day = legacy.day(date).await?;
            // What V0.2 never heard of is not lost with its table.
            let same = same && day.kinds.iter().all(|kind| kind == "only_in_event_store");
            Ok(Some((day, (legacy, date.succ_opt(), same))))
        }))
    }

    async fn next_day(&self, from: NaiveDate) -> Result<Option<NaiveDate>, LegacyError> {
        let from = from.and_time(chrono::NaiveTime::MIN).and_utc();
        Ok(sqlx::query_scalar(NEXT_DAY).bind(from).fetch_one(self.admin.pool()).await?)
    }

    async fn day(&self, date: NaiveDate) -> Result<Day, LegacyError> {
        Ok(sqlx::query_as(include_str!("compare_day.sql"))
            .bind(date)
            .fetch_one(self.admin.pool())
            .await?)
    }

    /// Every day is the same, as of then; unless the migration went on since.
    async fn verified(&self, begun: chrono::DateTime<chrono::Utc>) -> Result<(), LegacyError> {
        sqlx::query(
            "UPDATE event_store.legacy_migration SET verified_at = $1
             WHERE pass = 'done' AND changed_at <= $1",
        )
        .bind(begun)
        .execute(self.admin.pool())
        .await?;
        Ok(())
    }
}
