//! The statements of an append, and what their answers mean.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    super::{
        AppendError, DatabaseError,
        columns::{self, Columns},
    },
    Outcome,
};
use crate::{
    domain::{Appended, Expected, StreamAppend},
    legacy::dual_write,
};

/// One statement for all, or the shorter one for a single first event. `both` is to write to the
/// table of V0.2, too.
pub(super) async fn together(
    connection: &mut PgConnection,
    appends: &[StreamAppend],
    both: bool,
) -> Result<Vec<Outcome>, DatabaseError> {
    if let [only] = appends
        && let Some(appended) = append_first(connection, only, both).await?
    {
        return Ok(vec![Ok(appended)]);
    }
    attempt(connection, appends, both).await
}

/// Appends the first event of a new stream. `None` if this is none, or the stream exists.
async fn append_first(
    connection: &mut PgConnection,
    append: &StreamAppend,
    both: bool,
) -> Result<Option<Appended>, DatabaseError> {
    let StreamAppend { stream, user, expected: Expected::Exact(0), events } = append else {
        return Ok(None);
    };
    let [event] = &events[..] else { return Ok(None) };
    let version: Option<i64> = sqlx::query_scalar(dual_write::append_first(both))
        .bind(stream.aggregate_type.as_str())
        .bind(stream.aggregate_id)
        .bind(user.as_str())
        .bind(columns::lock(stream))
        .bind(event.id)
        .bind(event.body_hash(stream, user).as_bytes().as_slice())
        .bind(event.event_type.as_str())
        .bind(event.occurred_at)
        .bind(event.data.as_str())
        .bind(event.metadata.as_str())
        .bind(event.causation_id)
        .bind(event.correlation_id)
        .bind(event.source.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(version.map(|version| Appended {
        first_version: version,
        last_version: version,
        duplicate: false,
    }))
}

/// What `append.sql` says about one append.
struct Row {
    /// Appended now, up to this version.
    last_version: Option<i64>,
    /// How many of its events the ledger had.
    known: Option<i64>,
    /// All of them, in this order and with the same bodies.
    repeated: Option<bool>,
    /// The version before the first of them.
    base: Option<i64>,
    /// One of them, with another body if there is such.
    other: Option<Uuid>,
}

synap_postgres::from_row!(Row { last_version, known, repeated, base, other });

/// Runs the statement and finds out why what was not appended was not.
pub(super) async fn attempt(
    connection: &mut PgConnection,
    appends: &[StreamAppend],
    both: bool,
) -> Result<Vec<Outcome>, DatabaseError> {
    let rows: Vec<Row> =
        Columns::of(appends).bind(dual_write::append(both)).fetch_all(&mut *connection).await?;
    let mut outcomes = Vec::with_capacity(rows.len());
    for (append, row) in appends.iter().zip(rows) {
        outcomes.push(match row {
            Row { last_version: Some(last_version), .. } => Ok(Appended {
                first_version: last_version - append.size() + 1,
                last_version,
                duplicate: false,
            }),
            Row { repeated: Some(true), base: Some(base), .. } => Ok(Appended {
                first_version: base + 1,
                last_version: base + append.size(),
                duplicate: true,
            }),
            Row { known: Some(_), other: Some(event_id), .. } => {
                Err(AppendError::EventIdReused { event_id })
            }
            _ => Err(why_not(connection, append).await?),
        });
    }
    Ok(outcomes)
}

/// Why the stream did not take an append. If nothing is in the way any more, it was somebody who
/// came between; another try decides.
async fn why_not(
    connection: &mut PgConnection,
    append: &StreamAppend,
) -> Result<AppendError, DatabaseError> {
    let head: Option<(i64, bool)> = sqlx::query_as(
        "SELECT version, user_id = $3 FROM event_store.streams
         WHERE aggregate_type = $1 AND aggregate_id = $2",
    )
    .bind(append.stream.aggregate_type.as_str())
    .bind(append.stream.aggregate_id)
    .bind(append.user.as_str())
    .fetch_optional(connection)
    .await?;
    let stream = append.stream.clone();
    Ok(match head {
        Some((_, false)) => AppendError::NotFound { stream },
        head => {
            let current = head.map_or(0, |(version, _)| version);
            if append.expected.allows(current) {
                AppendError::Unsettled
            } else {
                AppendError::VersionConflict { stream, current, expected: append.expected }
            }
        }
    })
}
