//! Old events find their versions, and their place in the event store.
//!
//! The versions of history end where those of the event store begin: below the first event that was
//! appended, or, if there is none, at the version that the entity has. The survey has counted them,
//! so the first one can begin as far below.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::verdict::HistoryEvent;
use crate::{domain::StreamId, store::lock};

/// What became of the events of a batch.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) stored: usize,
    /// Which the survey has not counted: they came later. The next round has them.
    pub(super) left: usize,
    /// Rows whose stream is another user's.
    pub(super) of_others: Vec<usize>,
}

/// A stream as it is before the batch.
struct StreamRow {
    pending: Option<i64>,
    next_version: Option<i64>,
    lowest_version: Option<i64>,
    owner: Option<String>,
    /// The first version that was appended.
    first_version: Option<i64>,
}

synap_postgres::from_row!(StreamRow {
    pending,
    next_version,
    lowest_version,
    owner,
    first_version,
});

/// A stream on its way through the batch.
struct Stream {
    row: StreamRow,
    pending: i64,
    next: Option<i64>,
    /// The highest version of history, where the stream is made here.
    top: i64,
    user: String,
}

/// Stores the events, which are in the order of time.
pub(super) async fn store(
    connection: &mut PgConnection,
    round: i32,
    events: Vec<(usize, HistoryEvent)>,
) -> Result<Placed, sqlx::Error> {
    let mut placed = Placed::default();
    let mut streams = load(connection, round, &events).await?;
    let mut columns = EventColumns::default();
    for (row, event) in &events {
        let Some(stream) = streams.get_mut(&event.stream) else { continue };
        if stream.user != event.user.as_str() {
            placed.of_others.push(*row);
        } else if let Some(version) = stream.take_version(event.entity_version) {
            columns.push(event, version);
            placed.stored += 1;
        } else {
            placed.left += 1;
        }
    }
    if placed.stored > 0 {
        insert(connection, streams, columns).await?;
    }
    Ok(placed)
}

impl Stream {
    /// The version of the stream's next event; `None` if the survey has not counted it.
    fn take_version(&mut self, entity_version: Option<i64>) -> Option<i64> {
        if self.pending == 0 {
            return None;
        }
        let version = self.next.unwrap_or_else(|| {
            let above = self.row.lowest_version.or(self.row.first_version);
            // An aggregate that is no entity has only its events to count by.
            let top = above.map_or(entity_version.unwrap_or(self.pending), |above| above - 1);
            self.top = top.max(1);
            top - self.pending + 1
        });
        (self.pending, self.next) = (self.pending - 1, Some(version + 1));
        Some(version)
    }
}

/// Locks the streams, in the order that appends do, and reads them.
async fn load(
    connection: &mut PgConnection,
    round: i32,
    events: &[(usize, HistoryEvent)],
) -> Result<HashMap<StreamId, Stream>, sqlx::Error> {
    let mut users: HashMap<&StreamId, &str> = HashMap::new();
    for (_, event) in events {
        users.entry(&event.stream).or_insert(event.user.as_str());
    }
    let mut locks: Vec<i64> = users.keys().map(|stream| lock(stream)).collect();
    locks.sort_unstable();
    locks.dedup();
    sqlx::query("SELECT count(pg_advisory_xact_lock(key)) FROM unnest($1::bigint[]) AS key")
        .bind(locks)
        .execute(&mut *connection)
        .await?;
    let (streams, users): (Vec<_>, Vec<_>) = users.into_iter().unzip();
    let types: Vec<_> = streams.iter().map(|stream| stream.aggregate_type.as_str()).collect();
    let ids: Vec<_> = streams.iter().map(|stream| stream.aggregate_id).collect();
    let rows: Vec<StreamRow> = sqlx::query_as(
        // OFFSET 0 keeps one index probe a stream, as in rows_events.sql.
        "SELECT CASE l.round WHEN $1 THEN l.pending END AS pending,
                CASE l.round WHEN $1 THEN l.next_version END AS next_version, l.lowest_version,
                coalesce(s.user_id, l.user_id) AS owner, f.first_version
         FROM unnest($2::text[], $3::uuid[]) WITH ORDINALITY AS n (aggregate_type, aggregate_id, n)
         LEFT JOIN LATERAL (
             SELECT * FROM event_store.legacy_streams AS l
             WHERE l.aggregate_type = n.aggregate_type AND l.aggregate_id = n.aggregate_id OFFSET 0
         ) AS l ON true
         LEFT JOIN LATERAL (
             SELECT * FROM event_store.streams AS s
             WHERE s.aggregate_type = n.aggregate_type AND s.aggregate_id = n.aggregate_id OFFSET 0
         ) AS s ON true
         LEFT JOIN LATERAL (
             SELECT min(e.version) AS first_version FROM event_store.events AS e
             WHERE s.user_id IS NOT NULL AND l.lowest_version IS NULL
               AND e.aggregate_type = n.aggregate_type AND e.aggregate_id = n.aggregate_id
         ) AS f ON true
         ORDER BY n.n",
    )
    .bind(round)
    .bind(types)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let stream = |((stream, user), row): ((&StreamId, &str), StreamRow)| {
        let user = row.owner.clone().unwrap_or_else(|| user.to_owned());
        let (pending, next) = (row.pending.unwrap_or(0), row.next_version);
        (stream.clone(), Stream { row, pending, next, top: 1, user })
    };
    Ok(streams.into_iter().zip(users).zip(rows).map(stream).collect())
}

/// Events as `insert.sql` takes them: one array a column.
#[derive(Default)]
struct EventColumns<'a> {
    aggregate_type: Vec<&'a str>,
    aggregate_id: Vec<Uuid>,
    version: Vec<i64>,
    user_id: Vec<&'a str>,
    event_id: Vec<Uuid>,
    body_hash: Vec<Vec<u8>>,
    event_type: Vec<&'a str>,
    occurred_at: Vec<chrono::DateTime<chrono::Utc>>,
    data: Vec<&'a str>,
    metadata: Vec<&'a str>,
    causation_id: Vec<Option<Uuid>>,
    correlation_id: Vec<Option<Uuid>>,
    source: Vec<&'static str>,
}

impl<'a> EventColumns<'a> {
    fn push(&mut self, history: &'a HistoryEvent, version: i64) {
        let HistoryEvent { stream, user, event, .. } = history;
        self.aggregate_type.push(stream.aggregate_type.as_str());
        self.aggregate_id.push(stream.aggregate_id);
        self.version.push(version);
        self.user_id.push(user.as_str());
        self.event_id.push(event.id);
        self.body_hash.push(event.body_hash(stream, user).as_bytes().to_vec());
        self.event_type.push(event.event_type.as_str());
        self.occurred_at.push(event.occurred_at);
        self.data.push(event.data.as_str());
        self.metadata.push(event.metadata.as_str());
        self.causation_id.push(event.causation_id);
        self.correlation_id.push(event.correlation_id);
        self.source.push(event.source.as_str());
    }
}

async fn insert(
    connection: &mut PgConnection,
    streams: HashMap<StreamId, Stream>,
    events: EventColumns<'_>,
) -> Result<(), sqlx::Error> {
    let mut streams: Vec<_> = streams.into_iter().filter(|(_, one)| one.next.is_some()).collect();
    streams.sort_unstable_by_key(|(id, _)| lock(id));
    let types: Vec<_> = streams.iter().map(|(id, _)| id.aggregate_type.as_str()).collect();
    let ids: Vec<_> = streams.iter().map(|(id, _)| id.aggregate_id).collect();
    let users: Vec<_> = streams.iter().map(|(_, one)| one.user.as_str()).collect();
    let tops: Vec<_> = streams.iter().map(|(_, one)| one.top).collect();
    let pending: Vec<_> = streams.iter().map(|(_, one)| one.pending).collect();
    let next: Vec<_> = streams.iter().map(|(_, one)| one.next).collect();
    sqlx::query(include_str!("insert.sql"))
        .bind(types)
        .bind(ids)
        .bind(users)
        .bind(tops)
        .bind(pending)
        .bind(next)
        .bind(events.aggregate_type)
        .bind(events.aggregate_id)
        .bind(events.version)
        .bind(events.user_id)
        .bind(events.event_id)
        .bind(events.body_hash)
        .bind(events.event_type)
        .bind(events.occurred_at)
        .bind(events.data)
        .bind(events.metadata)
        .bind(events.causation_id)
        .bind(events.correlation_id)
        .bind(events.source)
        .execute(connection)
        .await?;
    Ok(())
}
