//! Databases of V0.2 and early V0.3 that are taken over in place.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgPool, Row as _};
use synap_proto::reason;
use synap_testkit::{postgres::TestDatabase, v02};
use tonic::Code;

use crate::{
    migrations::schema,
    support::{Running, assert_refused, commit_request, empty_database, execute, id, migrate},
};

/// The tables that are V0.2's and not this service's.
const NOT_OURS: [&str; 6] =
    ["events", "events_v2", "relations", "task_details", "tags", "entity_tags"];

async fn legacy_database(early_v03: bool) -> TestDatabase {
    let database = empty_database().await;
    execute(&database.pool, v02::TABLES).await;
    execute(&database.pool, v02::ONE_OF_EACH).await;
    if early_v03 {
        execute(&database.pool, v02::EARLY_V03_TABLES).await;
        execute(&database.pool, v02::EARLY_V03_ONE_OF_EACH).await;
    }
    database
}

/// For each table, the columns it has.
async fn columns(pool: &PgPool) -> BTreeMap<String, Vec<String>> {
    let rows = sqlx::query(
        "SELECT table_name::text, array_agg(column_name::text ORDER BY ordinal_position) AS columns
         FROM information_schema.columns WHERE table_schema = 'public' GROUP BY 1",
    );
    let rows = rows.fetch_all(pool).await.unwrap();
    rows.iter().map(|row| (row.get("table_name"), row.get("columns"))).collect()
}

/// For each row of each table, a checksum of those columns.
async fn checksums(
    pool: &PgPool,
    columns: &BTreeMap<String, Vec<String>>,
) -> BTreeMap<String, Vec<String>> {
    let mut sums = BTreeMap::new();
    for (table, columns) in columns {
        let query = format!(
            "SELECT md5(t::text) AS sum FROM (SELECT {} FROM {table}) AS t ORDER BY sum",
            columns.join(", ")
        );
        let rows = sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(pool).await.unwrap();
        sums.insert(table.clone(), rows);
    }
    sums
}

/// The lines of a schema that speak of one of those tables.
fn of_tables(schema: &[String], tables: &[&str]) -> Vec<String> {
    let speaks = |line: &&String| {
        tables.iter().any(|table| {
            line.contains(&format!(" public.{table} "))
                || ["column", "constraint", "policy"].iter().any(|kind| {
                    let rest = line.strip_prefix(&format!("{kind} {table}"));
                    rest.is_some_and(|rest| rest.starts_with([' ', '.']))
                })
        })
    };
    schema.iter().filter(speaks).cloned().collect()
}

/// Index definitions without their names.
async fn unnamed_indexes(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT regexp_replace(regexp_replace(indexdef, 'INDEX \\S+ ', 'INDEX '),
                               ' NULLS LAST| WITH \\(.*\\)', '')
         FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn nothing_is_lost_or_changed(early_v03: bool) {
    let database = legacy_database(early_v03).await;
    let pool = &database.pool;
    let old_columns = columns(pool).await;
    let old_rows = checksums(pool, &old_columns).await;
    assert_eq!(old_rows["entities"].len(), 11);
    let old_schema = schema(pool).await;

    migrate(database.url.clone()).await.unwrap();
    assert_eq!(checksums(pool, &old_columns).await, old_rows);
    let new_schema = schema(pool).await;
    let size = "column entities.file_size bigint f ".to_owned();
    assert!(new_schema.contains(&size), "{new_schema:#?}");
    for line in &old_schema {
        let widened = line.starts_with("column entities.file_size integer")
            // A vector for each model and chunk, where there was one an entity.
            || line.contains("entity_vectors_pkey")
            || line == "constraint entity_vectors PRIMARY KEY (entity_id)";
        assert!(widened || new_schema.contains(line), "{line} is gone");
    }
    assert!(!of_tables(&old_schema, &NOT_OURS).is_empty());
    assert_eq!(of_tables(&new_schema, &NOT_OURS), of_tables(&old_schema, &NOT_OURS));
    let policies = |schema: &[String], table: &str| {
        let (prefix, ours) =
            (format!("policy {table} "), format!("policy {table} entity_service_"));
        let theirs = |line: &&String| line.starts_with(&prefix) && !line.starts_with(&ours);
        schema.iter().filter(theirs).cloned().collect::<Vec<_>>()
    };
    let taken_over: &[&str] = if early_v03 {
        &["entities", "content_blocks", "entity_vectors"]
    } else {
        &["entities", "content_blocks"]
    };
    for table in taken_over {
        assert_eq!(policies(&new_schema, table), policies(&old_schema, table), "{table}");
    }

    let indexes = unnamed_indexes(pool).await;
    let mut once = indexes.clone();
    once.dedup();
    assert_eq!(indexes, once, "an index is there twice");
    let hnsw = indexes.iter().filter(|line| line.contains("hnsw")).count();
    assert_eq!(hnsw, 2, "{indexes:#?}");
    let triggers: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_trigger
         WHERE NOT tgisinternal AND tgrelid = 'entity_vectors'::regclass",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(triggers, 1);
    let phase: String =
        sqlx::query_scalar("SELECT phase FROM storage_phase").fetch_one(pool).await.unwrap();
    assert_eq!(phase, "legacy");

    migrate(database.url.clone()).await.unwrap();
    assert_eq!(schema(pool).await, new_schema);
}

#[tokio::test]
async fn nothing_of_v02_is_lost_or_changed() {
    nothing_is_lost_or_changed(false).await;
}

#[tokio::test]
async fn nothing_of_early_v03_is_lost_or_changed() {
    nothing_is_lost_or_changed(true).await;
}

#[tokio::test]
async fn an_installation_without_any_content_block_is_an_adopted_one_too() {
    let database = legacy_database(true).await;
    execute(&database.pool, "DELETE FROM content_blocks").await;
    migrate(database.url.clone()).await.unwrap();
    let phase: String = sqlx::query_scalar("SELECT phase FROM storage_phase")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(phase, "legacy");
}

#[tokio::test]
async fn notes_of_the_old_tables_can_be_read() {
    for early_v03 in [false, true] {
        let database = legacy_database(early_v03).await;
        let running = Running::start(&database.url, &[]).await.ready().await;
        let large = "0123456789abcdef".repeat(327_680);
        let old_id = |number: u32| format!("00000000-0000-4000-8000-{number:012}");
        for (number, user, body) in [
            (1, "local-user", Some("# Plain")),
            (
                2,
                "auth0|5f7c8ec7c33c6c004bbafe82",
                Some("\u{202e} Grüße 👋🏽 a\u{301} \u{1} \u{feff}"),
            ),
            (3, "ada@example.org", None),
            (4, "a/b c", None),
            (5, "Jürgen Ω", Some("")),
            (6, "local-user", Some(&*large)),
            (8, "local-user", Some("<p>HTML</p>")),
            (9, "local-user", None),
            (10, "local-user", Some("Do it")),
            // Its object may be missing or older: the phase is `legacy`.
            (11, "local-user", Some("The newer text")),
        ] {
            let read = running.api.get(user, &old_id(number)).await.unwrap();
            assert!(read.content_block.as_deref() == body, "body of {number}");
            let entity = read.entity.unwrap();
            assert_eq!((entity.id, entity.user_id), (old_id(number), user.to_owned()));
            assert_eq!(entity.version, if number == 2 { 7 } else { 1 });
            let created = entity.create_time.unwrap();
            assert_eq!(created.nanos, if number == 1 { 678_901_000 } else { 0 });
            assert_eq!(entity.tags, [""; 0]);
            let has_file = early_v03 && [2, 11].contains(&number);
            assert_eq!(entity.file.is_some(), has_file, "{number}");
        }
        let deleted = running.api.get("local-user", &old_id(7)).await;
        assert_refused(deleted, Code::NotFound, reason::NOT_FOUND);
        let anothers = running.api.get("local-user", &old_id(3)).await;
        assert_refused(anothers, Code::NotFound, reason::NOT_FOUND);

        // Notes go on as V0.2 wrote them.
        let started = running.api.start("local-user", &id()).await;
        let entity = running.api.commit(commit_request(&started, "new")).await.unwrap();
        assert_eq!(entity.file, None);
        let read = running.api.get("local-user", &entity.id).await.unwrap();
        assert_eq!(read.content_block.as_deref(), Some("new"));
    }
}
