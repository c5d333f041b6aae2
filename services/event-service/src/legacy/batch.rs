//! One step of the migration.

use std::collections::HashMap;

use sqlx::{Connection as _, PgConnection};
use tracing::Instrument as _;

use super::{
    BatchAnswer, BatchRequest, Heads, LOCK, Legacy, LegacyError, Outcomes, dual_write, history,
    quarantine::{self, Odd},
    rows::{self, Origin, Position, Row},
    state::{self, Pass, State},
    verdict::{self, HistoryEvent, Verdict},
};
use crate::domain::StreamId;

impl Legacy {
    /// Works on the next rows, in one short transaction. A dry run writes nothing.
    pub(crate) async fn batch(&self, request: BatchRequest) -> Result<BatchAnswer, LegacyError> {
        let mut connection = self.admin.acquire().await?;
        // In a task of its own: a caller who leaves while BEGIN is under way would hand the
        // connection back to the pool inside a transaction.
        let work = async move {
            let mut transaction = connection.begin().await?;
            let answer = step(&mut transaction, request).await?;
            if answer.unknown.is_empty() {
                transaction.commit().await?;
            }
            Ok(answer)
        };
        let span = tracing::info_span!("db.legacy.migrate");
        tokio::spawn(work.instrument(span)).await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }
}

async fn step(
    connection: &mut PgConnection,
    request: BatchRequest,
) -> Result<BatchAnswer, LegacyError> {
    // An advisory lock, for it needs no xid: none is to be held while this waits for streams below.
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *connection).await?;
    let present: bool = sqlx::query_scalar(dual_write::PROBE).fetch_one(&mut *connection).await?;
    if !present {
        let why = "there is no table public.events of V0.2 here, or this role may not read and write \
                   it past row-level security: the service must connect as its owner";
        return Err(LegacyError::NotReady(why.to_owned()));
    }
    let has_v2 = state::has_v2(connection).await?;
    if let Some(position) = request.dry_run {
        return dry_run(connection, position, has_v2, request.size, &request.heads).await;
    }
    let mut state = match State::load(connection).await? {
        None => {
            nothing_has_left(connection).await?;
            State::begin(connection, 1, has_v2).await?
        }
        Some(state) if state.pass == Pass::Done && request.again => {
            nothing_has_left(connection).await?;
            State::begin(connection, state.round + 1, has_v2).await?
        }
        Some(state) if state.pass == Pass::Done => {
            return Ok(BatchAnswer { done: true, ..BatchAnswer::default() });
        }
        Some(state) => state,
    };
    let origin = state.position.origin;
    let rows =
        rows::fetch(connection, &state.position, request.size, state.pass == Pass::Copy).await?;
    let judged = Judged::of(&rows, origin, &request.heads);
    if !judged.unknown.is_empty() {
        return Ok(BatchAnswer { unknown: judged.unknown, ..BatchAnswer::default() });
    }
    let mut outcomes = judged.outcomes;
    if state.pass == Pass::Survey {
        count(connection, state.round, &judged.events).await?;
        add(&mut outcomes, "migrated", judged.events.len());
    } else {
        let placed = history::store(connection, state.round, judged.events).await?;
        add(&mut outcomes, "migrated", placed.stored);
        add(&mut outcomes, "left", placed.left);
        let mut odd = judged.odd;
        for number in placed.of_others {
            odd.push(Odd { row: number, reason: verdict::OTHER_USER });
            add(&mut outcomes, &outcome(verdict::OTHER_USER), 1);
        }
        quarantine::keep(connection, origin, &rows, &odd).await?;
        for (outcome, number) in &outcomes {
            *state.outcomes.entry(outcome.clone()).or_default() += number;
        }
    }
    state.seen += i64::try_from(rows.len()).unwrap_or(i64::MAX);
    if let Some(last) = rows.last() {
        state.position = last.position(origin);
    } else {
        state.next_table(has_v2);
        if state.pass == Pass::Done {
            let gone = gone(connection, state.round).await?;
            add(&mut outcomes, "gone", gone);
            add(&mut state.outcomes, "gone", gone);
        }
    }
    state.save(connection).await?;
    Ok(BatchAnswer { outcomes, done: state.pass == Pass::Done, ..BatchAnswer::default() })
}

/// The versions of history end below the first event that was appended, which is looked for in the
/// database.
async fn nothing_has_left(connection: &mut PgConnection) -> Result<(), LegacyError> {
    let left: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM event_store.archives WHERE state = 'archived')
             OR EXISTS (SELECT FROM event_store.retention WHERE deleted_before IS NOT NULL)",
    )
    .fetch_one(connection)
    .await?;
    if left {
        let why =
            "events are archived or deleted already: the versions of older ones cannot be told";
        return Err(LegacyError::NotReady(why.to_owned()));
    }
    Ok(())
}

/// What would become of the next rows.
async fn dry_run(
    connection: &mut PgConnection,
    position: Position,
    has_v2: bool,
    size: i64,
    heads: &Heads,
) -> Result<BatchAnswer, LegacyError> {
    let origin = position.origin;
    let rows = rows::fetch(connection, &position, size, false).await?;
    let judged = Judged::of(&rows, origin, heads);
    if !judged.unknown.is_empty() {
        return Ok(BatchAnswer { unknown: judged.unknown, ..BatchAnswer::default() });
    }
    let mut outcomes = judged.outcomes;
    add(&mut outcomes, "migrated", judged.events.len());
    let next = match rows.last() {
        Some(last) => Some(last.position(origin)),
        None if origin == Origin::Events && has_v2 => Some(Position::begin(Origin::EventsV2)),
        None => None,
    };
    Ok(BatchAnswer { outcomes, done: next.is_none(), next, ..BatchAnswer::default() })
}

/// The verdicts over a batch.
#[derive(Default)]
struct Judged {
    unknown: Vec<uuid::Uuid>,
    odd: Vec<Odd>,
    /// With the number of their row.
    events: Vec<(usize, HistoryEvent)>,
    /// Of all but those events.
    outcomes: Outcomes,
}

impl Judged {
    fn of(rows: &[Row], origin: Origin, heads: &Heads) -> Self {
        let mut judged = Self::default();
        for (number, row) in rows.iter().enumerate() {
            match verdict::of(row, origin, heads) {
                Verdict::Known => add(&mut judged.outcomes, "already_migrated", 1),
                Verdict::Odd(reason) => {
                    add(&mut judged.outcomes, &outcome(reason), 1);
                    judged.odd.push(Odd { row: number, reason });
                }
                Verdict::Unknown(entity) => judged.unknown.push(entity),
                Verdict::Event(event) => judged.events.push((number, *event)),
            }
        }
        judged.unknown.sort_unstable();
        judged.unknown.dedup();
        judged
    }
}

fn outcome(reason: &str) -> String {
    match reason {
        verdict::DUPLICATE_ID => reason.to_owned(),
        reason => format!("quarantined:{reason}"),
    }
}

fn add(outcomes: &mut Outcomes, outcome: &str, number: usize) {
    if number > 0 {
        *outcomes.entry(outcome.to_owned()).or_default() +=
            i64::try_from(number).unwrap_or(i64::MAX);
    }
}

/// Rows that the survey has counted and the copy has not found: somebody has deleted them, or changed
/// their time, in between. The versions of their streams have a gap where they would be.
async fn gone(connection: &mut PgConnection, round: i32) -> Result<usize, sqlx::Error> {
    let rows: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(pending), 0)::bigint FROM event_store.legacy_streams
         WHERE round = $1 AND next_version IS NOT NULL AND pending > 0",
    )
    .bind(round)
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(rows).unwrap_or(usize::MAX))
}

/// Adds to what the streams will get in this round: the events of their owners.
async fn count(
    connection: &mut PgConnection,
    round: i32,
    events: &[(usize, HistoryEvent)],
) -> Result<(), sqlx::Error> {
    let mut counts = HashMap::<(&StreamId, &str), (usize, i64)>::new();
    for (row, event) in events {
        counts.entry((&event.stream, event.user.as_str())).or_insert((*row, 0)).1 += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|(_, (first, _))| *first);
    let column = |value: fn(&StreamId) -> &str| {
        counts.iter().map(|((stream, _), _)| value(stream)).collect::<Vec<_>>()
    };
    let types = column(|stream| stream.aggregate_type.as_str());
    let ids: Vec<_> = counts.iter().map(|((stream, _), _)| stream.aggregate_id).collect();
    let users: Vec<_> = counts.iter().map(|((_, user), _)| *user).collect();
    let counts: Vec<_> = counts.iter().map(|(_, (_, count))| *count).collect();
    sqlx::query(
        // OFFSET 0 keeps one index probe a stream, as in rows_events.sql.
        "WITH counted AS (
             SELECT * FROM unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[])
                           WITH ORDINALITY AS n (type, id, user_id, pending, n)
         ),
         owned AS (
             SELECT DISTINCT ON (c.type, c.id) c.type, c.id,
                    coalesce(s.user_id, l.user_id, c.user_id) AS user_id
             FROM counted AS c
             LEFT JOIN LATERAL (
                 SELECT user_id FROM event_store.streams
                 WHERE aggregate_type = c.type AND aggregate_id = c.id OFFSET 0
             ) AS s ON true
             LEFT JOIN LATERAL (
                 SELECT user_id FROM event_store.legacy_streams
                 WHERE aggregate_type = c.type AND aggregate_id = c.id OFFSET 0
             ) AS l ON true
             ORDER BY c.type, c.id, c.n
         )
         INSERT INTO event_store.legacy_streams AS s
             (aggregate_type, aggregate_id, user_id, round, pending)
         SELECT o.type, o.id, o.user_id, $1, coalesce(c.pending, 0)
         FROM owned AS o
         LEFT JOIN counted AS c ON c.type = o.type AND c.id = o.id AND c.user_id = o.user_id
         ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
         SET user_id = excluded.user_id, round = $1, next_version = NULL,
             pending = CASE s.round WHEN $1 THEN s.pending ELSE 0 END + excluded.pending",
    )
    .bind(round)
    .bind(types)
    .bind(ids)
    .bind(users)
    .bind(counts)
    .execute(connection)
    .await?;
    Ok(())
}
