//! Appends as `append.sql` takes them: one array a column.

use chrono::{DateTime, Utc};
use sqlx::{
    FromRow, Postgres,
    postgres::{PgArguments, PgRow},
    query::QueryAs,
};
use synap_types::Hasher;
use uuid::Uuid;

use crate::domain::{Expected, StreamAppend, StreamId};

#[derive(Default)]
pub(super) struct Columns<'a> {
    // One element an append.
    aggregate_type: Vec<&'a str>,
    aggregate_id: Vec<Uuid>,
    user_id: Vec<&'a str>,
    expected: Vec<i64>,
    size: Vec<i64>,
    /// Sorted, each once.
    locks: Vec<i64>,
    // One element an event.
    request: Vec<i64>,
    place: Vec<i64>,
    event_id: Vec<Uuid>,
    body_hash: Vec<Vec<u8>>,
    event_type: Vec<&'a str>,
    occurred_at: Vec<DateTime<Utc>>,
    data: Vec<&'a str>,
    metadata: Vec<&'a str>,
    causation_id: Vec<Option<Uuid>>,
    correlation_id: Vec<Option<Uuid>>,
    source: Vec<&'static str>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(appends: &'a [StreamAppend]) -> Self {
        let mut columns = Self::default();
        for (append, request) in appends.iter().zip(1..) {
            columns.push(append, request);
        }
        columns.locks.sort_unstable();
        columns.locks.dedup();
        columns
    }

    fn push(&mut self, append: &'a StreamAppend, request: i64) {
        self.aggregate_type.push(append.stream.aggregate_type.as_str());
        self.aggregate_id.push(append.stream.aggregate_id);
        self.user_id.push(append.user.as_str());
        self.expected.push(match append.expected {
            Expected::Exact(version) => version,
            Expected::Any => -1,
            Expected::Exists => -2,
            Expected::Adopt(version) => -3 - version,
        });
        self.size.push(append.size());
        self.locks.push(lock(&append.stream));
        for (event, place) in append.events.iter().zip(1..) {
            self.request.push(request);
            self.place.push(place);
            self.event_id.push(event.id);
            let hash = event.body_hash(&append.stream, &append.user);
            self.body_hash.push(hash.as_bytes().to_vec());
            self.event_type.push(event.event_type.as_str());
            self.occurred_at.push(event.occurred_at);
            self.data.push(event.data.as_str());
            self.metadata.push(event.metadata.as_str());
            self.causation_id.push(event.causation_id);
            self.correlation_id.push(event.correlation_id);
            self.source.push(event.source.as_str());
        }
    }

    pub(super) fn bind<R>(self, sql: &'static str) -> QueryAs<'a, Postgres, R, PgArguments>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_as(sql)
            .bind(self.aggregate_type)
            .bind(self.aggregate_id)
            .bind(self.user_id)
            .bind(self.expected)
            .bind(self.size)
            .bind(self.locks)
            .bind(self.request)
            .bind(self.place)
            .bind(self.event_id)
            .bind(self.body_hash)
            .bind(self.event_type)
            .bind(self.occurred_at)
            .bind(self.data)
            .bind(self.metadata)
            .bind(self.causation_id)
            .bind(self.correlation_id)
            .bind(self.source)
    }
}

/// The advisory lock of a stream. Two streams with one number only wait for each other. All
/// replicas and releases must agree on it.
pub(crate) fn lock(stream: &StreamId) -> i64 {
    let mut hasher = Hasher::default();
    hasher.update(b"synap event stream");
    hasher.update(stream.aggregate_id.as_bytes());
    hasher.update(stream.aggregate_type.as_str().as_bytes());
    let hash = hasher.finish();
    let (head, _) = hash.as_bytes().split_at(8);
    head.iter().fold(0, |number, byte| (number << 8) | i64::from(*byte))
}
