//! What a statement can see and do that forgets whose rows it is about.

use sqlx::PgConnection;
use synap_postgres::{PoolOptions, connect_pool};
use synap_testkit::postgres::{TestDatabase, TestServer};

use super::*;
use crate::service::{MIGRATION_TABLE, MIGRATOR};

/// All tables with rows of users, each with the rows of Ada, Bob and Eve: one, two and three. The
/// blocks of Eve are as V0.2 wrote them.
const ROWS: &str = "
    INSERT INTO entities (id, user_id, type, title)
    SELECT gen_random_uuid(), u, 'note', 'x'
    FROM (VALUES ('ada', 1), ('bob', 2), ('eve', 3)) AS users (u, rows), generate_series(1, rows);
    INSERT INTO entity_revisions (entity_id, version, user_id, tags, created_at)
    SELECT id, 1, user_id, '{}', now() FROM entities;
    INSERT INTO entity_vectors (entity_id, user_id, entity_type)
    SELECT id, user_id, type FROM entities;
    INSERT INTO content_blocks (entity_id, user_id, content)
    SELECT id, CASE WHEN user_id <> 'eve' THEN user_id END, 'body' FROM entities;
    INSERT INTO write_operations
        (user_id, request_id, kind, state, epoch, attempt_id, lease_until, fingerprint,
         entity_type, extension, entity_id, event_id, occurred_at)
    SELECT user_id, gen_random_uuid(), 'create', 'PENDING', 1, gen_random_uuid(), now(),
           decode(repeat('07', 32), 'hex'), 'note', 'md', id, gen_random_uuid(), now()
    FROM entities";

const COUNT: &str = "
    SELECT ARRAY[(SELECT count(*) FROM entities), (SELECT count(*) FROM entity_revisions),
                 (SELECT count(*) FROM entity_vectors), (SELECT count(*) FROM content_blocks),
                 (SELECT count(*) FROM write_operations)]";

/// A database with those rows, and one connection that every transaction shares.
async fn rows_of_three() -> (TestDatabase, Database) {
    let migrate =
        async |url: String| synap_postgres::migrate(&url, &MIGRATOR, MIGRATION_TABLE).await;
    let database = TestServer::shared().await.database("walls", migrate).await;
    sqlx::raw_sql(ROWS).execute(&database.pool).await.unwrap();
    let options = PoolOptions { max_connections: 1, ..PoolOptions::new("walls") };
    let pool = connect_pool(&database.url, &options).unwrap();
    (database, Database::new(pool, 2))
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

/// A transaction as the functions of batches have it.
async fn batch(wall: &Database, users: &[UserId]) -> UserTransaction {
    let mut transaction = wall.begin_across_users().await.unwrap();
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let prelude = sqlx::query("SELECT synap_become($1)").bind(users);
    prelude.execute(&mut *transaction).await.unwrap();
    transaction
}

async fn counts(connection: &mut PgConnection) -> Vec<i64> {
    sqlx::query_scalar(COUNT).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn a_query_that_forgets_its_filter_sees_the_rows_of_its_users() {
    let (database, wall) = rows_of_three().await;
    for _ in 0..2 {
        for (id, rows) in [("ada", 1), ("bob", 2), ("eve", 3), ("Ada", 0), ("a{d}a,\"", 0)] {
            let mut transaction = wall.for_user(&user(id)).await.unwrap();
            assert_eq!(counts(&mut transaction).await, [rows; 5], "{id}");
        }
        let two = [user("ada"), user("eve"), user("nobody,\"{}")];
        let mut transaction = batch(&wall, &two).await;
        assert_eq!(counts(&mut transaction).await, [4; 5]);
        drop(transaction);
        let mut transaction = batch(&wall, &[]).await;
        assert_eq!(counts(&mut transaction).await, [0; 5]);
    }
    assert_eq!(counts(&mut database.pool.acquire().await.unwrap()).await, [6; 5]);
}

#[tokio::test]
async fn without_the_prelude_nothing_is_seen_whoever_had_the_connection_before() {
    let (_database, wall) = rows_of_three().await;
    for before in [None, Some("ada")] {
        if let Some(before) = before {
            wall.for_user(&user(before)).await.unwrap().commit().await.unwrap();
            batch(&wall, &[user(before)]).await.commit().await.unwrap();
        }
        let mut transaction = wall.begin_across_users().await.unwrap();
        sqlx::query("SET LOCAL ROLE synap_entity").execute(&mut *transaction).await.unwrap();
        assert_eq!(counts(&mut transaction).await, [0; 5], "{before:?}");
    }
}

#[tokio::test]
async fn nothing_of_another_user_can_be_written() {
    let (database, wall) = rows_of_three().await;
    let refused = [
        "INSERT INTO entities (id, user_id, type) VALUES (gen_random_uuid(), 'bob', 'note')",
        "INSERT INTO content_blocks (entity_id, user_id) SELECT gen_random_uuid(), 'bob'",
        "INSERT INTO content_blocks (entity_id) SELECT gen_random_uuid()",
        "INSERT INTO entity_revisions (entity_id, version, user_id, tags, created_at)
         SELECT id, 2, 'bob', '{}', now() FROM entities",
        "UPDATE entities SET user_id = 'bob'",
        "UPDATE content_blocks SET user_id = 'bob'",
        "UPDATE entity_vectors SET user_id = 'bob'",
        "UPDATE write_operations SET user_id = 'bob'",
        // What is done across users is the owner's.
        "DELETE FROM write_operations",
        "DELETE FROM blob_gc",
        "SELECT * FROM blob_gc",
        "UPDATE storage_phase SET phase = 'legacy'",
    ];
    for statement in refused {
        let mut transaction = wall.for_user(&user("ada")).await.unwrap();
        let answer = sqlx::query(statement).execute(&mut *transaction).await.unwrap_err();
        let code = answer.as_database_error().unwrap().code();
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {answer}");
    }
    // These reach what can be seen, and no more.
    let mut transaction = wall.for_user(&user("ada")).await.unwrap();
    for statement in [
        "UPDATE entities SET title = 'ada was here'",
        "UPDATE content_blocks SET content = 'ada was here'",
        "UPDATE write_operations SET epoch = 7",
        "DELETE FROM entity_vectors",
        "DELETE FROM entity_revisions",
        "DELETE FROM content_blocks",
        "DELETE FROM entities",
    ] {
        let done = sqlx::query(statement).execute(&mut *transaction).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{statement}");
    }
    transaction.commit().await.unwrap();
    let mut owner = database.pool.acquire().await.unwrap();
    assert_eq!(counts(&mut owner).await, [5, 5, 5, 5, 6]);
}

/// Whoever leaves in the middle has done nothing, and the connection is as good as new.
#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back() {
    let (_database, wall) = rows_of_three().await;
    let mut transaction = wall.for_user(&user("ada")).await.unwrap();
    sqlx::query("DELETE FROM entities").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    let mut owner = wall.across_users().await.unwrap();
    assert_eq!(counts(&mut owner).await, [6; 5]);
    let role: String =
        sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut *owner).await.unwrap();
    assert_ne!(role, "synap_entity");
}
