//! Appends.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use sqlx::{PgConnection, PgPool};
use synap_proto::{
    event::{
        AppendEventsRequest, ExpectedVersion, NewEvent, StreamAppend,
        event_service_client::EventServiceClient, expected_version::Expectation,
    },
    field,
};
use synap_rpc::Channel;
use synap_types::{Clock as _, IdGenerator as _, SystemClock, SystemIds};
use uuid::Uuid;

use super::Bench;
use crate::bench::{
    load::Done,
    report,
    system::{BenchSystem, CALLERS_PER_CONNECTION},
};

/// Events of a batch.
const BATCH: usize = 100;
/// What the gateway writes when a note is created.
const DATA: &str = r#"{"entityType":"note","title":"A note of a benchmark","tags":["bench"],"file":{"path":"users/bench/notes/0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60.md","size":4096,"checksum":"sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},"inputType":"text","audioUrl":null,"autoEnrich":false}"#;

/// The floor: the columns of the event store.
const TABLE: &str = "
    CREATE TABLE bench_appends (
        event_id uuid PRIMARY KEY, aggregate_type text NOT NULL, aggregate_id uuid NOT NULL,
        version bigint NOT NULL, event_type text NOT NULL, user_id text NOT NULL,
        occurred_at timestamptz NOT NULL, data jsonb NOT NULL, metadata jsonb NOT NULL,
        causation_id uuid, correlation_id uuid, source text NOT NULL);
    CREATE INDEX ON bench_appends (user_id, occurred_at)";

pub(super) async fn bench(bench: &Bench, system: &BenchSystem) -> anyhow::Result<()> {
    sqlx::raw_sql(TABLE).execute(&bench.pool).await?;
    let title = "append of one event, the first of its stream, against INSERT";
    report::print_title(bench.args.json, title);
    for &callers in &bench.args.concurrency {
        let of_system = append(system, callers, Kind::First)?;
        bench.measure(("append_first", callers), None, of_system, insert(&bench.pool, 1)).await?;
    }
    let title = "append of one event to a stream that is there, against INSERT";
    report::print_title(bench.args.json, title);
    for &callers in &bench.args.concurrency {
        let of_system = append(system, callers, Kind::Next)?;
        bench.measure(("append_next", callers), None, of_system, insert(&bench.pool, 1)).await?;
    }
    for (operation, copy) in [("append_100", false), ("append_100_copy", true)] {
        let against = if copy { "COPY" } else { "INSERT" };
        let title =
            format!("append of {BATCH} events to one stream, against {against}; in batches");
        report::print_title(bench.args.json, &title);
        for &callers in &bench.args.concurrency {
            let of_system = append(system, callers, Kind::Batch)?;
            if copy {
                bench.measure((operation, callers), None, of_system, copy_in(&bench.pool)).await?;
            } else {
                let floor = insert(&bench.pool, BATCH);
                bench.measure((operation, callers), None, of_system, floor).await?;
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A new stream each.
    First,
    /// One event to the caller's own stream, at the version that it is at.
    Next,
    /// [`BATCH`] of those.
    Batch,
}

/// A caller's stream.
struct Own {
    id: Uuid,
    version: AtomicI64,
}

fn append(
    system: &BenchSystem,
    callers: usize,
    kind: Kind,
) -> anyhow::Result<impl Fn(usize) -> Done + Clone + Send + Sync + 'static + use<>> {
    let connections = callers.div_ceil(CALLERS_PER_CONNECTION);
    let stubs: Vec<EventServiceClient<Channel>> = (0..connections)
        .map(|_| system.event().map(EventServiceClient::new))
        .collect::<Result<_, _>>()?;
    let own: Vec<Own> =
        (0..callers).map(|_| Own { id: SystemIds.next_id(), version: 0.into() }).collect();
    let shared = Arc::new((stubs, own));
    Ok(move |worker: usize| -> Done {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (stubs, own) = &*shared;
            let own = &own[worker % own.len()];
            let (id, version) = match kind {
                Kind::First => (SystemIds.next_id(), 0),
                Kind::Next | Kind::Batch => (own.id, own.version.load(Ordering::Relaxed)),
            };
            let events = if kind == Kind::Batch { BATCH } else { 1 };
            let append = append_of(&format!("bench-{worker}"), id, version, events);
            let request = AppendEventsRequest { appends: vec![append] };
            let answer = stubs[worker % stubs.len()].clone().append_events(request).await?;
            let appended = &answer.get_ref().results[0];
            if kind != Kind::First {
                own.version.store(appended.last_version, Ordering::Relaxed);
            }
            Ok(())
        })
    })
}

/// The first event of a stream.
pub(super) fn of_new_stream(user: &str) -> StreamAppend {
    append_of(user, SystemIds.next_id(), 0, 1)
}

fn append_of(user: &str, id: Uuid, version: i64, events: usize) -> StreamAppend {
    StreamAppend {
        aggregate_type: "note".to_owned(),
        aggregate_id: id.to_string(),
        user_id: user.to_owned(),
        expected_version: Some(ExpectedVersion { expectation: Some(Expectation::Exact(version)) }),
        events: (0..events).map(|_| event()).collect(),
    }
}

fn event() -> NewEvent {
    NewEvent {
        event_id: SystemIds.next_id().to_string(),
        r#type: "entity.created".to_owned(),
        occur_time: Some(field::timestamp(SystemClock.now())),
        data: DATA.to_owned(),
        ..NewEvent::default()
    }
}

const INSERT: &str = "
    INSERT INTO bench_appends
    SELECT id, 'note', id, 1, 'entity.created', $2, now(), $3::jsonb, '{}', NULL, NULL, 'api'
    FROM unnest($1::uuid[]) AS id";

/// Rows in one statement and one commit.
fn insert(pool: &PgPool, rows: usize) -> impl Fn(usize) -> Done + Clone + Send + Sync + use<> {
    let pool = pool.clone();
    move |worker| -> Done {
        let pool = pool.clone();
        Box::pin(async move {
            let ids: Vec<Uuid> = (0..rows).map(|_| SystemIds.next_id()).collect();
            let insert = sqlx::query(INSERT).bind(ids).bind(format!("bench-{worker}")).bind(DATA);
            insert.execute(&pool).await?;
            Ok(())
        })
    }
}

/// A row of the floor.
pub(super) async fn insert_one(
    connection: &mut PgConnection,
    id: Uuid,
    user: &str,
) -> anyhow::Result<()> {
    sqlx::query(INSERT).bind(vec![id]).bind(user).bind(DATA).execute(connection).await?;
    Ok(())
}

/// A batch by COPY.
fn copy_in(pool: &PgPool) -> impl Fn(usize) -> Done + Clone + Send + Sync + use<> {
    let pool = pool.clone();
    move |worker| -> Done {
        let pool = pool.clone();
        Box::pin(async move {
            let now = SystemClock.now().to_rfc3339();
            let mut text = String::new();
            for _ in 0..BATCH {
                let id = SystemIds.next_id().to_string();
                let row = [
                    &*id,
                    "note",
                    &id,
                    "1",
                    "entity.created",
                    &format!("bench-{worker}"),
                    &now,
                    DATA,
                    "{}",
                    "\\N",
                    "\\N",
                    "api",
                ];
                text.push_str(&row.join("\t"));
                text.push('\n');
            }
            let mut connection = pool.acquire().await?;
            let mut copy = connection.copy_in_raw("COPY bench_appends FROM STDIN").await?;
            copy.send(text.into_bytes()).await?;
            copy.finish().await?;
            Ok(())
        })
    }
}
