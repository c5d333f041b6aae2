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
        None => State::begin(connection, 1, has_v2).await?,
        Some(state) if state.pass == Pass::Done && request.again => {
            State::begin(connection, state.round + 1, has_v2).await?
        }
        Some(state) if state.pass == Pass::Done => {
            return Ok(BatchAnswer { done: true, ..BatchAnswer::default() });
        }
        Some(state) => state,
    };
    let origin = state.position.origin;
    let rows = rows::fetch(connection, &state.position, request.size).await?;
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
    match rows.last() {
        Some(last) => state.position = last.position(origin),
        None => state.next_table(has_v2),
    }
    state.save(connection).await?;
    Ok(BatchAnswer { outcomes, done: state.pass == Pass::Done, ..BatchAnswer::default() })
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
    let rows = rows::fetch(connection, &position, size).await?;
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

/// Adds to what the streams will get in this round.
async fn count(
    connection: &mut PgConnection,
    round: i32,
    events: &[(usize, HistoryEvent)],
) -> Result<(), sqlx::Error> {
    let mut counts = HashMap::<&StreamId, i64>::new();
    for (_, event) in events {
        *counts.entry(&event.stream).or_default() += 1;
    }
    let (streams, counts): (Vec<_>, Vec<_>) = counts.into_iter().unzip();
    let types: Vec<_> = streams.iter().map(|stream| stream.aggregate_type.as_str()).collect();
    let ids: Vec<_> = streams.iter().map(|stream| stream.aggregate_id).collect();
    sqlx::query(
        "INSERT INTO event_store.legacy_streams AS s (aggregate_type, aggregate_id, round, pending)
         SELECT type, id, $1, pending
         FROM unnest($2::text[], $3::uuid[], $4::bigint[]) AS n (type, id, pending)
         ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
         SET round = $1, next_version = NULL,
             pending = CASE s.round WHEN $1 THEN s.pending ELSE 0 END + excluded.pending",
    )
    .bind(round)
    .bind(types)
    .bind(ids)
    .bind(counts)
    .execute(connection)
    .await?;
    Ok(())
}
