//! Appends in two steps: done, and committed or not.

use std::time::{Duration, Instant};

use futures::{
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
    future::join_all,
};
use synap_proto::{
    event::{
        AppendEventsRequest, NewEvent, PrepareAppendRequest, StreamAppend, StreamAppendResult,
        prepare_append_request::Step,
    },
    reason,
};
use synap_rpc::RpcError;
use synap_testkit::postgres::TestDatabase;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::{
    harness::{
        Client, Feed, Running, append, appended, count, database, event, exactly,
        from_the_beginning, id, ids, repeated, send_one, service, until,
    },
    validation::assert_invalid,
};

type Answer = Result<StreamAppendResult, RpcError>;

/// A call under way. Dropped, it breaks off.
struct Prepared {
    steps: UnboundedSender<PrepareAppendRequest>,
    answer: JoinHandle<Answer>,
}

impl Prepared {
    fn call(client: &Client) -> Self {
        let (steps, messages) = unbounded();
        Self { steps, answer: tokio::spawn(call(client.clone(), messages)) }
    }

    fn of(client: &Client, append: StreamAppend) -> Self {
        Self::call(client).then(Some(Step::Append(AppendEventsRequest { appends: vec![append] })))
    }

    fn then(self, step: Option<Step>) -> Self {
        // If the call has ended, its answer says why.
        let _ = self.steps.unbounded_send(PrepareAppendRequest { step });
        self
    }

    fn ended(self) -> Self {
        self.steps.close_channel();
        self
    }

    /// Waits until everything is done but the commit.
    async fn done(self, database: &TestDatabase) -> Self {
        until("an append to be prepared", async || {
            open(database).await > 0 || self.answer.is_finished()
        })
        .await;
        self
    }

    async fn answer(mut self) -> Answer {
        (&mut self.answer).await.unwrap()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

async fn call(mut client: Client, messages: UnboundedReceiver<PrepareAppendRequest>) -> Answer {
    let answer = client.prepare_append(messages).await;
    let answer = answer.map_err(|status| RpcError::from_status(&status))?;
    Ok(answer.into_inner().result.unwrap())
}

/// Appends that are done and not committed.
async fn open(database: &TestDatabase) -> i64 {
    let open = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND state = 'idle in transaction'";
    count(database, open).await
}

/// What is stored in all tables.
async fn rows(database: &TestDatabase) -> i64 {
    let rows = "SELECT (SELECT count(*) FROM event_store.events)
                     + (SELECT count(*) FROM event_store.event_ids)
                     + (SELECT count(*) FROM event_store.streams)
                     + (SELECT count(*) FROM event_store.daily_activity)";
    count(database, rows).await
}

fn is_refused(answer: &Answer, reasons: &[&str]) -> bool {
    answer.as_ref().is_err_and(|error| reasons.contains(&error.reason.as_str()))
}

/// The answer to a call that there is room for. Where a slow machine has no connection in time there is
/// none, and it is called again.
async fn settled(call: impl AsyncFn() -> Answer) -> Answer {
    loop {
        let answer = call().await;
        if !is_refused(&answer, &[reason::OVERLOADED]) {
            return answer;
        }
    }
}

#[tokio::test]
async fn what_is_prepared_is_seen_when_it_is_committed_and_only_then() {
    let (database, running) = service().await;
    let client = &running.client;
    let first = || StreamAppend { expected_version: exactly(0), ..append(900, 1) };
    loop {
        let prepared = Prepared::of(client, first()).done(&database).await;
        assert_eq!(rows(&database).await, 0);
        let answer = prepared.then(Some(Step::Commit(()))).answer().await;
        // It is not waited for where a slow machine takes longer.
        if !is_refused(&answer, &[reason::APPEND_UNCONFIRMED, reason::OVERLOADED]) {
            assert_eq!(answer.unwrap(), appended(1, 1));
            break;
        }
    }
    assert_eq!(rows(&database).await, 4);
    assert_eq!(send_one(client, first()).await.unwrap(), repeated(1, 1));
    // And the statement for all streams: this one is there.
    let both = || StreamAppend { events: vec![event(2), event(3)], ..append(900, 0) };
    let commit = async || Prepared::of(client, both()).then(Some(Step::Commit(()))).answer().await;
    assert_eq!(settled(commit).await.unwrap(), appended(2, 3));
    let mut feed = Feed::open(client, from_the_beginning()).await.unwrap();
    assert_eq!(ids(&feed.events(3).await), [1, 2, 3].map(|n| id(n).to_string()));
}

#[tokio::test]
async fn what_is_not_committed_leaves_nothing() {
    let (database, running) = service().await;
    let client = &running.client;
    let prepared = async |n| Prepared::of(client, append(900 + n, n)).done(&database).await;
    drop(prepared(0).await);
    until("it to be rolled back", async || open(&database).await == 0).await;
    let other = || Step::Append(AppendEventsRequest { appends: vec![append(903, 4)] });
    let answers = [
        settled(async || prepared(1).await.ended().answer().await).await,
        settled(async || prepared(2).await.then(None).answer().await).await,
        settled(async || prepared(3).await.then(Some(other())).answer().await).await,
        // Silent for as long as it is waited for.
        settled(async || prepared(4).await.answer().await).await,
    ];
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(
            (error.code, error.reason.as_str()),
            (Code::Aborted, reason::APPEND_UNCONFIRMED)
        );
    }
    assert_eq!((open(&database).await, rows(&database).await), (0, 0));
    for n in 0..5 {
        assert_eq!(send_one(client, append(900 + n, n)).await.unwrap(), appended(1, 1));
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let (database, running) = service().await;
    let client = &running.client;
    let of = |appends| Some(Step::Append(AppendEventsRequest { appends }));
    let events = |numbers, data: &str| {
        let event = |n| NewEvent { data: data.to_owned(), ..event(n) };
        vec![StreamAppend { events: (0..numbers).map(event).collect(), ..append(900, 0) }]
    };
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(40_000));
    let cases = [
        ("append", None),
        ("append", Some(Step::Commit(()))),
        ("append.appends", of(vec![])),
        ("append.appends", of(vec![append(900, 1), append(901, 2)])),
        ("append.appends", of(events(17, "{}"))),
        ("append.appends", of(events(2, &large))),
        ("append.appends[0].events[0].data", of(events(1, "[]"))),
        ("append.appends[0].events[1].event_id", {
            of(vec![StreamAppend { events: vec![event(1), event(1)], ..append(900, 0) }])
        }),
    ];
    for (field, step) in cases {
        let refused = Prepared::call(client).then(step).then(Some(Step::Commit(()))).answer().await;
        assert_invalid(&refused.unwrap_err(), field);
    }
    // Nobody waits for a first message for long.
    assert_invalid(&Prepared::call(client).answer().await.unwrap_err(), "append");

    send_one(client, append(900, 1)).await.unwrap();
    let before = rows(&database).await;
    let refused = async |append: StreamAppend| {
        settled(async || Prepared::of(client, append.clone()).answer().await).await.unwrap_err()
    };
    let stale = StreamAppend { expected_version: exactly(0), ..append(900, 2) };
    assert_eq!(refused(stale).await.reason, reason::VERSION_CONFLICT);
    let foreign = StreamAppend { user_id: "eve".to_owned(), ..append(900, 2) };
    assert_eq!(refused(foreign).await.reason, reason::NOT_FOUND);
    // A repeat: whoever appends it gets its answer.
    let known = StreamAppend { expected_version: exactly(0), ..append(901, 1) };
    let answer = Prepared::of(client, known).answer().await;
    assert!(is_refused(&answer, &[reason::OVERLOADED]), "{answer:?}");
    assert_eq!(rows(&database).await, before);
}

#[tokio::test]
async fn an_event_that_is_prepared_and_appended_at_once_is_there_once() {
    let (database, running) = service().await;
    let client = &running.client;
    // The append waits for the prepared one, and finds it in the ledger, or nothing.
    for (n, commits) in [(1, true), (2, false)] {
        let prepared = Prepared::of(client, append(900 + n, n)).done(&database).await;
        let (client, ordinary) = (client.clone(), append(900 + n, n));
        let ordinary = tokio::spawn(async move { send_one(&client, ordinary).await });
        let answer =
            if commits { prepared.then(Some(Step::Commit(()))) } else { prepared }.answer().await;
        let expected = if answer.is_ok() { repeated(1, 1) } else { appended(1, 1) };
        assert!(commits || answer.is_err());
        assert_eq!(ordinary.await.unwrap().unwrap(), expected);
    }
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 2);

    // The prepared one does not wait for long for an append that is held up.
    let mut block = database.pool.begin().await.unwrap();
    let counts = "UPDATE event_store.daily_activity SET count = count";
    sqlx::query(counts).execute(&mut *block).await.unwrap();
    let ordinary = tokio::spawn({
        let (client, append) = (client.clone(), append(903, 3));
        async move { send_one(&client, append).await }
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    until("the append to be held up", async || count(&database, waiting).await > 0).await;
    for stream in [903, 904] {
        let started = Instant::now();
        let prepare = async || Prepared::of(client, append(stream, 3)).answer().await;
        assert_eq!(settled(prepare).await.unwrap_err().code, Code::Unavailable);
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    assert!(!ordinary.is_finished());
    block.rollback().await.unwrap();
    assert_eq!(ordinary.await.unwrap().unwrap(), appended(1, 1));
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 3);
    assert_eq!(
        count(&database, "SELECT sum(count)::bigint FROM event_store.daily_activity").await,
        3
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_open_calls_keep_few_connections_and_no_append_from_its_end() {
    let (database, running) = service().await;
    let client = &running.client;
    let calls: Vec<_> = (0..300)
        .map(|n| {
            let silent = n % 3 == 0;
            if silent { Prepared::call(client) } else { Prepared::of(client, append(2000 + n, n)) }
        })
        .collect();
    let mut most = 0;
    for n in 0..20 {
        assert_eq!(send_one(client, append(1000 + n, 1000 + n)).await.unwrap(), appended(1, 1));
        most = most.max(open(&database).await);
    }
    assert!(most <= 2, "{most} were open at once");
    for answer in join_all(calls.into_iter().map(Prepared::answer)).await {
        let error = answer.unwrap_err();
        match error.code {
            Code::InvalidArgument | Code::Aborted => {}
            Code::ResourceExhausted => assert!(error.retry_after.is_some()),
            code => assert_eq!(code, Code::Unavailable, "{error:?}"),
        }
    }
    assert_eq!((open(&database).await, rows(&database).await), (0, 20 * 3 + 1));
}

#[tokio::test]
async fn a_small_pool_has_no_place() {
    let database = database().await;
    let few = ["--database-connections", "3"];
    let running = Running::start(&database.url, &few).await.ready().await;
    let refused = Prepared::of(&running.client, append(900, 1)).answer().await.unwrap_err();
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::ResourceExhausted, reason::OVERLOADED)
    );
    running.stop().await.unwrap();
}
