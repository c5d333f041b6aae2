//! The old rows, in the order of time.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{MAX_DATA_BYTES, MAX_METADATA_BYTES};

/// One of the old tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Events,
    EventsV2,
}

impl Origin {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::EventsV2 => "events_v2",
        }
    }

    pub(super) fn by_name(name: &str) -> Option<Self> {
        [Self::Events, Self::EventsV2].into_iter().find(|origin| origin.name() == name)
    }
}

/// A row's place in the order: time, id and ctid, as PostgreSQL writes them. There is a ctid because
/// `events_v2` has no key, and text because a time may be infinite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(super) origin: Origin,
    pub(super) key: [String; 3],
}

impl Position {
    /// Before the first row.
    pub(crate) fn begin(origin: Origin) -> Self {
        Self { origin, key: ["-infinity".into(), Uuid::nil().to_string(), "(0,0)".into()] }
    }

    /// For a caller to give back.
    pub(crate) fn to_cursor(&self) -> String {
        let [at, id, place] = &self.key;
        [self.origin.name(), at, id, place].join("|")
    }

    /// From what [`Position::to_cursor`] wrote; empty is the beginning. `None` if it did not.
    pub(crate) fn from_cursor(cursor: &str) -> Option<Self> {
        if cursor.is_empty() {
            return Some(Self::begin(Origin::Events));
        }
        let parts: Vec<&str> = cursor.split('|').collect();
        let [origin, at, id, place] = parts[..] else { return None };
        let key = [at.to_owned(), id.to_owned(), place.to_owned()];
        Some(Self { origin: Origin::by_name(origin)?, key })
    }
}

/// An old row. What is missing is not of the kind that it should be, or too long to be looked at.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) at: String,
    pub(super) key_id: String,
    pub(super) place: String,
    pub(super) id: Option<Uuid>,
    pub(super) user_id: Option<String>,
    pub(super) occurred_at: Option<DateTime<Utc>>,
    pub(super) event_type: Option<String>,
    /// `None` if it is too long.
    pub(super) data: Option<String>,
    pub(super) metadata: Option<String>,
    pub(super) source: Option<String>,
    pub(super) causation_id: Option<Uuid>,
    pub(super) correlation_id: Option<Uuid>,
    /// What it is of: null in `events`, which are of entities only.
    pub(super) aggregate_type: Option<String>,
    pub(super) entity: Option<String>,
    /// An event with this id is there already, or will be: whether it is this one.
    pub(super) known_same: Option<bool>,
}

synap_postgres::from_row!(Row {
    at,
    key_id,
    place,
    id,
    user_id,
    occurred_at,
    event_type,
    data,
    metadata,
    source,
    causation_id,
    correlation_id,
    aggregate_type,
    entity,
    known_same,
});

impl Row {
    pub(super) fn position(&self, origin: Origin) -> Position {
        Position { origin, key: [self.at.clone(), self.key_id.clone(), self.place.clone()] }
    }
}

/// The next rows after a position.
pub(super) async fn fetch(
    connection: &mut PgConnection,
    after: &Position,
    limit: i64,
    copying: bool,
) -> Result<Vec<Row>, sqlx::Error> {
    let sql = match after.origin {
        Origin::Events => include_str!("rows_events.sql"),
        Origin::EventsV2 => include_str!("rows_events_v2.sql"),
    };
    let [at, id, place] = &after.key;
    sqlx::query_as(sql)
        .bind(at)
        .bind(id)
        .bind(place)
        .bind(limit)
        .bind(i32::try_from(MAX_DATA_BYTES).unwrap_or(i32::MAX))
        .bind(i32::try_from(MAX_METADATA_BYTES).unwrap_or(i32::MAX))
        .bind(copying)
        .fetch_all(connection)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_there_and_back() {
        let position = Position {
            origin: Origin::EventsV2,
            key: ["2023-01-01 00:00:00.5+00".into(), Uuid::max().to_string(), "(7,1)".into()],
        };
        assert_eq!(Position::from_cursor(&position.to_cursor()), Some(position));
        assert_eq!(Position::from_cursor(""), Some(Position::begin(Origin::Events)));
        for bad in ["x", "events|a|b", "nothing|a|b|c", "events|a|b|c|d"] {
            assert_eq!(Position::from_cursor(bad), None);
        }
    }
}
