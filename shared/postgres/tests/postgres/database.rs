//! Pools, migrations and errors, against a real server.

use std::{future::poll_fn, task::Poll, time::Duration};

use crate::support::{Scratch, connect, fast_options, scratch, start};
use sqlx::{
    Connection as _, PgPool, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};
use synap_postgres::{
    MigrateError, PoolOptions, Provided, connect_pool, constraint_name, is_transient, migrate,
    migrations_current,
};

const TABLE: &str = "_test_migrations";

async fn server() -> (Provided, Scratch) {
    let scratch = scratch();
    (start(fast_options(scratch.path().join("data"))).await, scratch)
}

fn pool(server: &Provided, configure: impl FnOnce(&mut PoolOptions)) -> PgPool {
    let mut options = PoolOptions::new("some-service");
    configure(&mut options);
    connect_pool(server.url(), &options).unwrap()
}

fn migrator(migrations: &[(i64, &'static str)]) -> Migrator {
    let migration = |(version, sql): &(i64, &'static str)| {
        let no_tx = sql.starts_with("-- no-transaction");
        Migration::new(*version, "test".into(), MigrationType::Simple, sql.into_sql_str(), no_tx)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

const FIRST: (i64, &str) = (1, "CREATE EXTENSION vector; CREATE TABLE t (id int PRIMARY KEY)");
const SECOND: (i64, &str) = (2, "-- no-transaction\nCREATE INDEX CONCURRENTLY i ON t (id)");

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    let (server, _scratch) = server().await;
    let ours = migrator(&[FIRST, SECOND]);
    let pool = pool(&server, |_| ());
    assert!(!migrations_current(&pool, &ours, TABLE).await.unwrap());
    let replica = || migrate(server.url(), &ours, TABLE);
    let all = tokio::join!(replica(), replica(), replica(), replica(), replica(), replica());
    for outcome in [all.0, all.1, all.2, all.3, all.4, all.5] {
        outcome.unwrap();
    }
    assert!(migrations_current(&pool, &ours, TABLE).await.unwrap());
    // Another service in the same database has its own table.
    let theirs = migrator(&[(1, "CREATE TABLE theirs (id int)")]);
    assert!(!migrations_current(&pool, &theirs, "_their_migrations").await.unwrap());
    migrate(server.url(), &theirs, "_their_migrations").await.unwrap();
    assert!(migrations_current(&pool, &theirs, "_their_migrations").await.unwrap());
}

#[tokio::test]
async fn a_database_that_is_newer_or_different_is_refused_in_words() {
    let (server, _scratch) = server().await;
    migrate(server.url(), &migrator(&[FIRST, SECOND]), TABLE).await.unwrap();
    let older = migrator(&[FIRST]);
    let error = migrate(server.url(), &older, TABLE).await.unwrap_err();
    assert!(matches!(error, MigrateError::DatabaseNewer { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("run the newer version"), "{error}");
    // A replica of before the update that runs already goes on serving.
    let pool = pool(&server, |_| ());
    assert!(migrations_current(&pool, &older, TABLE).await.unwrap());
    let edited = migrator(&[(1, "CREATE TABLE edited ()"), SECOND]);
    let error = migrate(server.url(), &edited, TABLE).await.unwrap_err();
    assert!(matches!(error, MigrateError::Diverged { version: 1, .. }), "{error}");
    assert!(!migrations_current(&pool, &edited, TABLE).await.unwrap());
    let removed = migrator(&[FIRST, (3, "SELECT 1")]);
    let error = migrate(server.url(), &removed, TABLE).await.unwrap_err();
    assert!(matches!(error, MigrateError::Diverged { version: 2, .. }), "{error}");
}

#[tokio::test]
async fn a_failed_migration_is_rolled_back_and_does_not_block_the_next_try() {
    let (server, _scratch) = server().await;
    let broken = migrator(&[FIRST, (2, "CREATE TABLE half (id int); SELECT 1 / 0")]);
    let error = migrate(server.url(), &broken, TABLE).await.unwrap_err();
    assert!(matches!(error, MigrateError::Failed { version: 2, .. }), "{error}");
    let pool = pool(&server, |_| ());
    assert!(!migrations_current(&pool, &broken, TABLE).await.unwrap());
    let fixed = migrator(&[FIRST, (2, "CREATE TABLE half (id int)")]);
    migrate(server.url(), &fixed, TABLE).await.unwrap();
    assert!(migrations_current(&pool, &fixed, TABLE).await.unwrap());
}

#[tokio::test]
async fn nobody_waits_behind_a_migration_that_has_to_wait() {
    let (server, _scratch) = server().await;
    migrate(server.url(), &migrator(&[FIRST]), TABLE).await.unwrap();
    let pool = pool(&server, |_| ());
    let mut long = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *long).await.unwrap();
    let wider = migrator(&[FIRST, (2, "ALTER TABLE t ADD COLUMN name text")]);
    let migrating = migrate(server.url(), &wider, TABLE);
    let writing = async {
        let mut patient = pool.acquire().await.unwrap();
        sqlx::query("SET lock_timeout = '1s'").execute(&mut *patient).await.unwrap();
        let asked = "SELECT count(*) FROM pg_stat_activity
                     WHERE application_name = 'synap-migrate' AND wait_event_type = 'Lock'";
        let mut id = 1;
        // While it waits for its lock, and when it does not.
        for waits in [1_i64, 0, 1, 0] {
            loop {
                id += 1;
                let insert = sqlx::query("INSERT INTO t VALUES ($1)").bind(id);
                insert.execute(&mut *patient).await.unwrap();
                let now: i64 = sqlx::query_scalar(asked).fetch_one(&mut *patient).await.unwrap();
                if now == waits {
                    break;
                }
            }
        }
        long.commit().await.unwrap();
    };
    let (migrated, ()) = tokio::join!(migrating, writing);
    migrated.unwrap();
    assert!(migrations_current(&pool, &wider, TABLE).await.unwrap());
}

#[tokio::test]
async fn an_index_that_was_left_half_built_is_built_anew() {
    let (server, _scratch) = server().await;
    migrate(server.url(), &migrator(&[FIRST]), TABLE).await.unwrap();
    let pool = pool(&server, |_| ());
    let left = "CREATE INDEX i ON t (id); UPDATE pg_index SET indisvalid = false
                WHERE indexrelid = 'i'::regclass";
    sqlx::raw_sql(left).execute(&pool).await.unwrap();
    let ours = migrator(&[FIRST, SECOND]);
    migrate(server.url(), &ours, TABLE).await.unwrap();
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass";
    assert!(sqlx::query_scalar::<_, bool>(valid).fetch_one(&pool).await.unwrap());
}

#[tokio::test]
async fn a_pool_has_its_name_its_statement_timeout_and_a_limited_wait() {
    let (server, _scratch) = server().await;
    let pool = pool(&server, |options| {
        options.max_connections = 1;
        options.acquire_timeout = Duration::from_millis(200);
        options.statement_timeout = Some(Duration::from_millis(100));
    });
    let name: String = sqlx::query_scalar("SELECT current_setting('application_name')")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(name, "some-service");
    let error = sqlx::query("SELECT pg_sleep(60)").execute(&pool).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "57014");
    assert!(!is_transient(&error));
    let held = pool.acquire().await.unwrap();
    let error = pool.acquire().await.unwrap_err();
    assert!(matches!(error, sqlx::Error::PoolTimedOut) && is_transient(&error), "{error}");
    drop(held);
}

#[tokio::test]
async fn errors_say_whether_to_try_again_and_which_rule_spoke() {
    let (server, _scratch) = server().await;
    let pool = pool(&server, |options| {
        options.acquire_timeout = Duration::from_secs(2);
    });
    sqlx::raw_sql("CREATE TABLE t (id int CONSTRAINT t_identity PRIMARY KEY)")
        .execute(&pool)
        .await
        .unwrap();
    let insert = || sqlx::query("INSERT INTO t VALUES (1)").execute(&pool);
    insert().await.unwrap();
    let error = insert().await.unwrap_err();
    assert_eq!(constraint_name(&error), Some("t_identity"));
    assert!(!is_transient(&error));

    let serializable = async || {
        let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
        sqlx::query("SELECT count(*) FROM t").execute(&mut *transaction).await?;
        Ok::<_, sqlx::Error>(transaction)
    };
    let (mut one, mut two) = (serializable().await.unwrap(), serializable().await.unwrap());
    sqlx::query("INSERT INTO t VALUES (2)").execute(&mut *one).await.unwrap();
    one.commit().await.unwrap();
    let outcome = match sqlx::query("INSERT INTO t VALUES (3)").execute(&mut *two).await {
        Ok(_) => two.commit().await,
        Err(error) => Err(error),
    };
    // Each read what the other wrote without seeing it: no order of the two explains that.
    let error = outcome.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40001");
    assert!(is_transient(&error));

    let mut victim = pool.acquire().await.unwrap();
    let pid: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *victim).await.unwrap();
    sqlx::query("SELECT pg_terminate_backend($1, 5000)").bind(pid).execute(&pool).await.unwrap();
    let error = sqlx::query("SELECT 1").execute(&mut *victim).await.unwrap_err();
    assert!(is_transient(&error), "{error}");
}

/// Drops the future of BEGIN after a number of polls, or when it has finished.
async fn abandon_begin(pool: &PgPool, polls: usize) {
    let mut connection = pool.acquire().await.unwrap();
    let mut begin = std::pin::pin!(connection.begin());
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 || begin.as_mut().poll(cx).map(Result::unwrap).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_comes_back_inside_a_transaction_is_not_used_again() {
    let (server, _scratch) = server().await;
    let pool = pool(&server, |options| options.max_connections = 1);
    sqlx::raw_sql("CREATE TABLE t (id int)").execute(&pool).await.unwrap();
    let mut written = 0;
    for polls in 0..8 {
        abandon_begin(&pool, polls).await;
        sqlx::query("INSERT INTO t VALUES (1)").execute(&pool).await.unwrap();
        written += 1;
        // Seen from outside: what is only in an open transaction does not count.
        let mut witness = connect(server.url()).await;
        let seen: i64 =
            sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut witness).await.unwrap();
        assert_eq!(seen, written, "dropped after {polls} polls");
    }
    // One that has failed is no better.
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await.unwrap();
    sqlx::raw_sql("SELECT 1 / 0").execute(&mut *connection).await.unwrap_err();
    drop(connection);
    sqlx::query("INSERT INTO t VALUES (1)").execute(&pool).await.unwrap();
    // And a connection that is fine is kept.
    let pid = || sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(&pool);
    let before = pid().await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO t VALUES (2)").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    assert_eq!(pid().await.unwrap(), before);
}

#[tokio::test]
async fn a_pool_finds_its_server_again_after_a_crash() {
    let (server, _scratch) = server().await;
    let pool = pool(&server, |options| {
        options.max_connections = 3;
        options.acquire_timeout = Duration::from_secs(1);
    });
    let ask = || sqlx::query("SELECT 1").execute(&pool);
    let (one, two) = tokio::join!(ask(), ask());
    one.unwrap();
    two.unwrap();
    server.kill().await;
    let error = ask().await.unwrap_err();
    assert!(is_transient(&error), "{error}");
    server.restart().await.unwrap();
    // Each connection of before may fail once, and only with an error that invites another try.
    let mut failures = 0;
    while let Err(error) = ask().await {
        assert!(is_transient(&error), "{error}");
        failures += 1;
        assert!(failures <= 3, "{error}");
    }
    connect(server.url()).await;
}
