//! Migrations on databases of our own; legacy.rs has those that we take over.

use futures::future::join_all;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use synap_entity_service::{MIGRATION_TABLE, MIGRATOR};
use synap_testkit::{migrations::assert_compiled_in, postgres::TestServer};
use url::Url;

use crate::support::{
    Running, begin_request, commit_request, database, empty_database, execute, id, migrate, rows,
    service,
};

/// Everything that makes up the schema, one line each.
pub(crate) async fn schema(pool: &PgPool) -> Vec<String> {
    let rows = sqlx::query(
        "SELECT format('column %s.%s %s %s %s', attrelid::regclass, attname,
                       format_type(atttypid, atttypmod), attnotnull,
                       (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                        WHERE adrelid = attrelid AND adnum = attnum)) AS line
         FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
           AND NOT attisdropped
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL SELECT format('constraint %s %s', conrelid::regclass, pg_get_constraintdef(oid))
         FROM pg_constraint WHERE connamespace = 'public'::regnamespace
         UNION ALL SELECT format('policy %s %s %s %s', tablename, policyname, qual, with_check)
         FROM pg_policies
         UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
         ORDER BY line",
    );
    rows.fetch_all(pool).await.unwrap().iter().map(|row| row.get("line")).collect()
}

/// Which also says that their checksums are those that are in every database.
#[tokio::test]
async fn all_files_are_compiled_in_as_they_are() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/entity");
    assert_compiled_in(&MIGRATOR, folder).await;
}

#[tokio::test]
async fn an_empty_database_gets_everything_and_a_second_run_changes_nothing() {
    let database = empty_database().await;
    migrate(database.url.clone()).await.unwrap();
    let first = schema(&database.pool).await;
    for table in [
        "entities",
        "content_blocks",
        "entity_vectors",
        "write_operations",
        "blob_gc",
        "storage_phase",
    ] {
        assert!(first.iter().any(|line| line.starts_with(&format!("column {table}."))), "{table}");
    }
    assert!(first.contains(&"column entities.file_size bigint f ".to_owned()), "{first:#?}");
    let phase: String = sqlx::query_scalar("SELECT phase FROM storage_phase")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(phase, "dual_write");
    migrate(database.url.clone()).await.unwrap();
    assert_eq!(schema(&database.pool).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_replicas_that_start_at_once_migrate_once() {
    let database = empty_database().await;
    let replicas = join_all((0..8).map(|_| Running::start(&database.url, &[]))).await;
    let mut replicas = join_all(replicas.into_iter().map(Running::ready)).await;
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _entity_migrations WHERE success")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(usize::try_from(applied).unwrap(), MIGRATOR.iter().count());
    for replica in &replicas {
        replica.api.write("ada").await;
    }
    assert_eq!(rows(&database.pool).await.entities, 8);
    for replica in replicas.drain(..) {
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_service_that_does_not_migrate_is_ready_once_somebody_else_did() {
    let database = empty_database().await;
    let running = Running::start(&database.url, &["--auto-migrate", "false"]).await;
    let early = running.api.begin(begin_request("ada", &id())).await.unwrap_err();
    assert_eq!(early.reason, synap_proto::reason::DATABASE_UNAVAILABLE, "{early:?}");
    assert!(!running.api.0.is_ready().await);
    migrate(database.url.clone()).await.unwrap();
    let running = running.ready().await;
    running.api.write("ada").await;
}

/// During a rolling update the older replicas serve on. A prepared statement that asks for `*`
/// would fail from then on: "cached plan must not change result type".
#[tokio::test]
async fn a_later_migration_may_add_columns_under_a_running_service() {
    let (database, running) = service(&["--database-connections", "1"]).await;
    let round = async || {
        let (started, entity) = running.api.write("ada").await;
        let attempt = started.operation.clone().unwrap();
        running.api.begin(begin_request("ada", &attempt.request_id)).await.unwrap();
        running.api.commit(commit_request(&started, "body")).await.unwrap();
        running.api.get("ada", &entity.id).await.unwrap();
        running.api.claim(10).await.unwrap();
        running.api.claim_deletions(10).await.unwrap();
        running.api.status().await.unwrap();
        running.api.abort(running.api.start("ada", &id()).await.operation).await.unwrap();
        running.api.finish(vec![attempt]).await.unwrap();
    };
    round().await;
    execute(
        &database.pool,
        "ALTER TABLE write_operations ADD COLUMN later int;
         ALTER TABLE entities ADD COLUMN later int;
         ALTER TABLE entity_revisions ADD COLUMN later int;
         ALTER TABLE blob_gc ADD COLUMN later int;
         ALTER TABLE storage_phase ADD COLUMN later int;",
    )
    .await;
    round().await;
}

#[tokio::test]
async fn what_is_applied_is_recorded_in_a_table_of_our_own() {
    let database = database().await;
    let current =
        synap_postgres::migrations_current(&database.pool, &MIGRATOR, MIGRATION_TABLE).await;
    assert!(current.unwrap());
    let shared: Option<String> = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(shared, None);
}

/// A role belongs to the whole server, and the lock of a migration to its database.
#[tokio::test]
async fn databases_of_one_server_can_be_migrated_at_once() {
    let server = TestServer::start_private().await;
    let nothing = async |_| Ok::<_, String>(());
    let databases = join_all((0..4).map(|_| server.database("roles", nothing))).await;
    for outcome in join_all(databases.iter().map(|one| migrate(one.url.clone()))).await {
        outcome.unwrap();
    }
}

/// Whoever may not make roles is told what to run by hand, and that is all it takes: the service
/// works as a user without any privilege of a superuser's.
#[tokio::test]
async fn a_user_who_may_not_make_the_role_is_told_what_to_run() {
    // The role is there already: other tests' databases are on the same server.
    drop(database().await);
    let database = empty_database().await;
    let name = format!("owner \"{}\"", id());
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    let superuser = async |statements: String| {
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&database.pool).await.unwrap();
    };
    superuser(format!(
        "CREATE EXTENSION vector;
         CREATE ROLE {quoted} LOGIN PASSWORD 'secret';
         ALTER SCHEMA public OWNER TO {quoted}"
    ))
    .await;
    let mut url = Url::parse(&database.url).unwrap();
    url.set_username(&name).unwrap();
    url.set_password(Some("secret")).unwrap();

    let refused = migrate(url.to_string()).await.unwrap_err().to_string();
    let grant = format!("GRANT synap_entity TO {quoted};");
    assert!(refused.contains(&grant), "{refused}");
    superuser(grant).await;
    let running = Running::start(url.as_str(), &[]).await.ready().await;
    let (_, entity) = running.api.write("ada").await;
    running.api.get("ada", &entity.id).await.unwrap();
    running.stop().await;
    superuser(format!("DROP OWNED BY {quoted} CASCADE; DROP ROLE {quoted}")).await;
}
