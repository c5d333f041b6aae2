//! The feed: every event once, in the order (epoch, xid, pos), as far as that order is final.
//!
//! `feed.sql` takes one step; `tailer` steps along the end of the feed, once for all subscribers;
//! `subscription` is one of them, who takes steps of its own until it is there.

mod subscription;
mod tailer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{FromRow, Row as _, postgres::PgRow};
use synap_types::{EntityType, UserId};
use tracing::Instrument as _;

pub(crate) use subscription::{Message, Subscription};
pub(super) use tailer::Tailer;

use super::{Database, DatabaseError, PAGE_BYTES, Store, names};
use crate::domain::{Filter, Place, Start, StoredEvent, Subscribing};

/// Events that one step looks at, at most: what a statement costs is bounded also where a filter
/// lets nothing through.
const STEP: i64 = 1_000;

/// Why there is no subscription, or no checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CursorError {
    /// The store is not so far.
    #[error(
        "the cursor is ahead of this store, which was restored from an older copy: begin after an \
         earlier cursor, or at the beginning"
    )]
    Ahead,
    /// The store never was in that epoch.
    #[error("the cursor is from another store: begin at the beginning of this one")]
    Unknown,
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What one step found.
pub(super) struct Step {
    pub(super) events: Vec<Arc<StoredEvent>>,
    /// Where the next step begins.
    pub(super) end: Place,
    /// Whether that is the horizon: nothing more can be read now.
    pub(super) is_at_horizon: bool,
}

/// What keeps the feed from being final further than it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Horizon {
    /// For how long the oldest transaction keeps it back; zero if nothing does.
    pub(crate) age: Duration,
    /// The process and database of that transaction, where our role may see it.
    pub(crate) pid: Option<i32>,
    pub(crate) database: Option<String>,
}

impl Store {
    /// Follows the feed. The place is found before this returns.
    pub(crate) async fn subscribe(
        &self,
        subscribing: Subscribing,
    ) -> Result<Subscription, CursorError> {
        let checkpoint = match &subscribing.consumer {
            Some(name) => self.database.checkpoint(name).await?,
            None => None,
        };
        let place = match (checkpoint, subscribing.start) {
            (Some(place), _) => place,
            (None, Start::Now) => self.database.horizon().await?.0,
            (None, Start::After(place)) => self.checked(place).await?,
        };
        Ok(Subscription::new(&self.tailer, place, subscribing.filter, subscribing.heartbeat))
    }

    /// A place that this store can know of.
    pub(super) async fn checked(&self, place: Place) -> Result<Place, CursorError> {
        if place == Place::BEGINNING {
            return Ok(place);
        }
        let mut connection = self.database.acquire().await?;
        let (is_known, is_reached): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM event_store.epochs WHERE epoch = $1),
                    ($1, $2::text::xid8) <= (max(epoch), pg_snapshot_xmax(pg_current_snapshot()))
             FROM event_store.epochs",
        )
        .bind(place.epoch)
        .bind(place.xid.to_string())
        .fetch_one(&mut *connection)
        .await
        .map_err(DatabaseError::from)?;
        match (is_known, is_reached) {
            (_, false) => Err(CursorError::Ahead),
            (false, true) => Err(CursorError::Unknown),
            (true, true) => Ok(place),
        }
    }
}

/// A row of `feed.sql`.
struct Row {
    horizon: Place,
    seen: i64,
    last: Option<Place>,
    event: Option<(StoredEvent, i64)>,
}

impl FromRow<'_, PgRow> for Row {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let place = |epoch: i64| -> sqlx::Result<Place> {
            Ok(Place { epoch, xid: row.try_get("last_xid")?, pos: row.try_get("last_pos")? })
        };
        let event = |found: i64| -> sqlx::Result<(StoredEvent, i64)> {
            Ok((StoredEvent::from_row(row)?, found))
        };
        let last: Option<i64> = row.try_get("last_epoch")?;
        let found: Option<i64> = row.try_get("found")?;
        Ok(Self {
            horizon: Place {
                epoch: row.try_get("horizon_epoch")?,
                xid: row.try_get("horizon_xid")?,
                pos: 0,
            },
            seen: row.try_get("seen")?,
            last: last.map(place).transpose()?,
            event: found.map(event).transpose()?,
        })
    }
}

impl Database {
    pub(super) async fn step(&self, after: Place, filter: &Filter) -> Result<Step, DatabaseError> {
        let mut connection = self.acquire().await?;
        let aggregate_types: Vec<_> =
            filter.aggregate_types.iter().map(EntityType::as_str).collect();
        let rows: Vec<Row> = sqlx::query_as(include_str!("feed.sql"))
            .bind(after.epoch)
            .bind(after.xid.to_string())
            .bind(after.pos)
            .bind(STEP)
            .bind(i64::from(PAGE_BYTES))
            .bind(names(&filter.types))
            .bind((!aggregate_types.is_empty()).then_some(aggregate_types))
            .bind(filter.user.as_ref().map(UserId::as_str))
            .fetch_all(&mut *connection)
            .instrument(tracing::debug_span!("db.feed.step"))
            .await?;
        let Some(Row { horizon, seen, last, .. }) = rows.first() else {
            return Err(sqlx::Error::RowNotFound.into());
        };
        let (horizon, seen, last) = (*horizon, *seen, *last);
        let (events, found): (Vec<_>, Vec<_>) =
            rows.into_iter().filter_map(|row| row.event).unzip();
        let got = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let is_cut = found.first().is_some_and(|found| got < *found);
        let is_at_horizon = !is_cut && seen < STEP;
        let end = if is_cut {
            events.last().map(StoredEvent::place)
        } else if is_at_horizon {
            // A place ahead of the horizon is that of a checkpoint or a heartbeat of just before.
            Some(horizon.max(after))
        } else {
            last
        };
        Ok(Step {
            events: events.into_iter().map(Arc::new).collect(),
            end: end.unwrap_or(after),
            is_at_horizon,
        })
    }

    /// Where the feed ends now, and who keeps it from ending later.
    pub(super) async fn horizon(&self) -> Result<(Place, Held), DatabaseError> {
        let mut connection = self.acquire().await?;
        let held: Held = sqlx::query_as(include_str!("horizon.sql"))
            .fetch_one(&mut *connection)
            .instrument(tracing::debug_span!("db.feed.horizon"))
            .await?;
        Ok((Place { epoch: held.epoch, xid: held.xid, pos: 0 }, held))
    }
}

/// Who keeps the horizon back, as far as it can be seen.
#[derive(Debug, Default)]
pub(crate) struct Holder {
    pub(crate) age: Option<Duration>,
    pub(crate) pid: Option<i32>,
    pub(crate) database: Option<String>,
}

impl Store {
    /// Who keeps readers of the feed back now.
    pub(crate) async fn horizon_holder(&self) -> Result<Holder, DatabaseError> {
        let (_, held) = self.database.horizon().await?;
        if !held.is_behind {
            return Ok(Holder::default());
        }
        let age = held.age();
        Ok(Holder { age, pid: held.pid, database: held.database })
    }
}

/// A row of `horizon.sql`.
pub(super) struct Held {
    epoch: i64,
    xid: i64,
    is_behind: bool,
    pid: Option<i32>,
    database: Option<String>,
    age_ms: Option<i64>,
}

synap_postgres::from_row!(Held { epoch, xid, is_behind, pid, database, age_ms });

impl Held {
    fn age(&self) -> Option<Duration> {
        self.age_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
    }
}

/// Since when the horizon has been where it is: all that is known of a transaction which our role
/// may not see.
#[derive(Debug, Default)]
struct Standstill {
    since: Option<(Place, Instant)>,
}

impl Standstill {
    fn horizon(&mut self, place: Place, held: Held) -> Horizon {
        if !held.is_behind {
            self.since = None;
            return Horizon::default();
        }
        let since = match self.since {
            Some((at, since)) if at == place => since,
            _ => Instant::now(),
        };
        self.since = Some((place, since));
        let age = held.age().unwrap_or_default().max(since.elapsed());
        Horizon { age, pid: held.pid, database: held.database }
    }
}
