//! The database goes away and comes back.

use std::time::{Duration, Instant};

use futures::future::join_all;
use synap_proto::reason;
use synap_rpc::{RpcError, deadline};
use synap_testkit::postgres::TestServer;
use tonic::Code;

use crate::support::{
    Answer, Running, begin_request, commit_request, execute, id, migrate, service, until,
};

/// Most of it passes before the answer: a suspended database is waited for.
const LIMIT: Duration = Duration::from_secs(4);

/// The call says in time that there is no database.
async fn assert_unavailable<T: std::fmt::Debug>(call: impl Future<Output = Answer<T>>) {
    let started = Instant::now();
    let error: RpcError = deadline::within(LIMIT, call).await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error:?}");
    assert_eq!(error.reason, reason::DATABASE_UNAVAILABLE, "{error:?}");
    assert!(error.retry_after.is_some(), "{error:?}");
    assert!(started.elapsed() < LIMIT, "it took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_is_missed_in_time_and_used_again_when_it_is_back() {
    let server = TestServer::start_private().await;
    let database = server.database("outage", migrate).await;
    let running = Running::start(&database.url, &[]).await.ready().await;
    let api = &running.api;
    let (committed, entity) = api.write("ada").await;
    let pending = api.start("ada", &id()).await;

    // The test server acknowledges before it writes, which is no promise of the service.
    execute(&database.pool, "CHECKPOINT").await;
    server.provided().kill().await;
    let late = || api.commit(commit_request(&pending, "body"));
    let large = "x".repeat(1024 * 1024);
    // Everybody at once, and more than there are workers or connections.
    tokio::join!(
        async {
            join_all((0..50).map(|_| assert_unavailable(api.begin(begin_request("ada", &id())))))
                .await
        },
        async { join_all((0..10).map(|_| assert_unavailable(late()))).await },
        assert_unavailable(api.commit(commit_request(&pending, &large))),
        assert_unavailable(api.get("ada", &entity.id)),
        assert_unavailable(api.status()),
        assert_unavailable(api.finish(vec![committed.operation.clone().unwrap()])),
        assert_unavailable(api.abort(pending.operation.clone())),
        assert_unavailable(api.claim(10)),
        assert_unavailable(api.claim_deletions(10)),
        assert_unavailable(api.complete_deletions(vec![pending.key.clone()])),
    );
    assert_unavailable(late()).await;
    until("NOT_SERVING", async || !api.0.is_ready().await).await;

    server.provided().restart().await.unwrap();
    let running = running.ready().await;
    let api = &running.api;
    // What was acknowledged is there, what was refused can be repeated.
    until("a read", async || api.get("ada", &entity.id).await.is_ok()).await;
    let late = api.commit(commit_request(&pending, "body")).await.unwrap();
    assert_eq!(late.id, pending.entity_id);
    api.write("ada").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_without_its_database_and_is_ready_once_that_is_there() {
    let server = TestServer::start_private().await;
    let database = server.database("late", async |_| Ok::<_, String>(())).await;
    server.provided().kill().await;
    let running = Running::start(&database.url, &[]).await;
    assert_unavailable(running.api.begin(begin_request("ada", &id()))).await;
    assert!(!running.api.0.is_ready().await);
    server.provided().restart().await.unwrap();
    let running = running.ready().await;
    running.api.write("ada").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_while_its_database_is_away() {
    let server = TestServer::start_private().await;
    let database = server.database("stop", async |_| Ok::<_, String>(())).await;
    server.provided().kill().await;
    let running = Running::start(&database.url, &["--shutdown-grace-secs", "1"]).await;
    let started = Instant::now();
    running.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// Whoever works by hand on a row holds up its writers, and is not mistaken for an outage.
#[tokio::test]
async fn a_write_that_waits_for_a_lock_runs_out_of_its_own_time() {
    let (database, running) = service(&[]).await;
    let started = running.api.start("ada", &id()).await;
    let mut transaction = database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM write_operations FOR UPDATE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let commit = running.api.commit(commit_request(&started, "body"));
    let outcome = deadline::within(Duration::from_millis(500), commit).await.unwrap();
    assert_eq!(outcome.unwrap_err().code, Code::DeadlineExceeded);
    transaction.rollback().await.unwrap();
    // It may have gone through after all: a repeat is safe.
    running.api.commit(commit_request(&started, "body")).await.unwrap();
}

/// A caller may leave at any moment, also while a transaction is being begun. A connection that went
/// back to the pool inside one would take later writes with it: acknowledged, and never committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_leave_do_not_take_the_writes_of_others_along() {
    let (database, running) = service(&["--database-connections", "2"]).await;
    let api = &running.api;
    let gone = api.start("ada", &id()).await;
    for round in 0..40 {
        // Deadlines spread over the time that an abort takes, so that some end within its BEGIN.
        let leave = (0..32).map(|n| {
            let mut attempt = gone.operation.clone().unwrap();
            attempt.request_id = id();
            let limit = Duration::from_micros(5_500 + 200 * (n + round % 5));
            async move {
                let _ = deadline::within(limit, api.abort(Some(attempt))).await;
            }
        });
        join_all(leave).await;
    }
    until("no transaction is left open", async || {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        )
        .fetch_one(&database.pool)
        .await
        .unwrap();
        open == 0
    })
    .await;
    for _ in 0..8 {
        let (operation, entity) = api.write("ada").await;
        // Seen by somebody else: it is committed.
        let state: Option<String> = sqlx::query_scalar(
            "SELECT state FROM write_operations WHERE request_id = $1::text::uuid",
        )
        .bind(operation.operation.unwrap().request_id)
        .fetch_optional(&database.pool)
        .await
        .unwrap();
        assert_eq!(state.as_deref(), Some("COMMITTED"), "{} is acknowledged", entity.id);
    }
    running.stop().await;
}
