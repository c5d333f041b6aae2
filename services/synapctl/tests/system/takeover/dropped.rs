//! The end of content_blocks, and its way back.

use std::path::Path;

use synap_proto::gateway::SearchNotesRequest;
use synap_testkit::postgres::TestServer;
use synap_types::Checksum;
use tokio::process::Command;

use super::{
    start,
    users::{Book, check, some_notes},
};
use crate::support::{Armed, Name, System, eventually};

/// Restores a backup as its manifest says, with the psql of the server, and tells the rows' hash.
async fn restored(system: &System, directory: &Path) -> Checksum {
    let nothing = async |_| Ok::<_, String>(());
    let empty = TestServer::shared().await.database("empty", nothing).await;
    let bin: String = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
        .fetch_one(&system.database.pool)
        .await
        .unwrap();
    let restore = format!(
        "zcat \"$0\"/*.sql.gz | '{bin}/psql' -v ON_ERROR_STOP=1 --no-psqlrc --quiet \"$1\""
    );
    let output = Command::new("sh")
        .args(["-c", &restore, directory.to_str().unwrap(), &empty.url])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    hash(&empty.pool, "content_blocks").await
}

async fn hash(pool: &sqlx::PgPool, table: &str) -> Checksum {
    let rows = format!(
        "SELECT coalesce(string_agg(b::text, E'\\n' ORDER BY entity_id), '') FROM {table} AS b"
    );
    let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(pool).await.unwrap();
    Checksum::of(rows.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_comes_back_from_its_backup() {
    let mut system = System::start().await;
    system.execute(ODD_ROWS).await;
    let book = some_notes(&system).await;
    let directory = tempfile::tempdir().unwrap();
    let backup = directory.path().join("backup");
    let drop = ["drop-legacy", "--part-mib", "1", "--backup", backup.to_str().unwrap()];
    assert!(system.refused(&drop).await.contains("is written in dual_write"));
    for phase in ["object_primary", "object_only"] {
        system.must(&["cutover", "--to", phase]).await;
    }
    let before = system.fingerprint("content_blocks").await;
    system.must(&["drop-legacy", "--dry-run"]).await;
    assert_eq!(system.fingerprint("content_blocks").await, before);
    assert!(!backup.exists());
    let rows = hash(&system.database.pool, "content_blocks").await;

    // Killed in the middle, each of them.
    let mut killed = start(&mut system.takeover(&drop));
    eventually("a part is there", || async { backup.join("100-rows-000001.sql.gz").exists() })
        .await;
    killed.kill().await.unwrap();
    if system.phase().await == "legacy_dropped" {
        system.must(&["restore-legacy"]).await;
    }
    system.kill(Name::Entity).await;
    for place in ["takeover.step.before", "takeover.step.effect"] {
        system.spawn(Name::Entity, Some(Armed(place.to_owned(), "kill")));
        system.ready(Name::Entity).await;
        let mut going_on = start(&mut system.takeover(&drop));
        system.died(Name::Entity).await;
        system.spawn(Name::Entity, None);
        assert!(going_on.wait().await.unwrap().success());
        assert_eq!(system.phase().await, "legacy_dropped");
        if place == "takeover.step.before" {
            system.must(&["restore-legacy"]).await;
            system.kill(Name::Entity).await;
        }
    }
    assert_eq!(hash(&system.database.pool, "content_blocks_retired").await, rows);
    assert_eq!(restored(&system, &backup).await, rows);
    system.must(&["restore-legacy"]).await;
    assert_eq!(hash(&system.database.pool, "content_blocks").await, rows);
    let outcome = system.must(&drop).await;
    assert_eq!(outcome[outcome.len() - 2]["rewritten"], 0, "{outcome:#?}");

    // A damaged file is found when it is read back, and written again before anything is dropped.
    let part = backup.join("100-rows-000001.sql.gz");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let (code, lines) = system.run(&drop).await;
    assert_eq!((code, &lines[0]["rewritten"]), (1, &1.into()), "{lines:#?}");
    assert!(lines[1]["problem"].as_str().unwrap().contains("less than 30 days"), "{lines:#?}");
    system.execute("UPDATE legacy_content SET renamed_at = now() - interval '31 days'").await;
    let before = system.fingerprint("content_blocks_retired").await;
    system.must(&[&drop[..], &["--dry-run"]].concat()).await;
    assert_eq!(system.fingerprint("content_blocks_retired").await, before);
    // It dies with the table dropped, and nobody told.
    system.kill(Name::Entity).await;
    system.spawn(Name::Entity, Some(Armed("takeover.step.effect".to_owned(), "kill")));
    let mut dropping = start(&mut system.takeover(&drop));
    system.died(Name::Entity).await;
    system.spawn(Name::Entity, None);
    assert!(dropping.wait().await.unwrap().success());
    system.must(&drop).await;

    without_the_table(&system, &book).await;

    let restore = ["restore-legacy", "--backup", backup.to_str().unwrap()];
    assert!(system.refused(&["restore-legacy"]).await.contains("--backup"));
    system.must(&[&restore[..], &["--dry-run"]].concat()).await;
    let mut killed = start(&mut system.takeover(&restore));
    let imported = "SELECT to_regclass('content_blocks_restored') IS NOT NULL";
    eventually("something is imported", || async {
        sqlx::query_scalar(imported).fetch_one(&system.database.pool).await.unwrap()
    })
    .await;
    killed.kill().await.unwrap();
    let mut going_on = start(&mut system.takeover(&restore));
    system.kill(Name::Entity).await;
    system.spawn(Name::Entity, None);
    assert!(going_on.wait().await.unwrap().success());
    assert_eq!(system.phase().await, "object_only");
    assert_eq!(hash(&system.database.pool, "content_blocks").await, rows);
    for phase in ["object_primary", "dual_write"] {
        system.must(&["rollback"]).await;
        assert_eq!(system.phase().await, phase);
        check(&system, &book).await;
    }
    // The row without an entity's blob is V0.2's, and as it was.
    assert_eq!(lacking_ours(&system).await, 0);
}

async fn lacking_ours(system: &System) -> i64 {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM entities e LEFT JOIN content_blocks b ON b.entity_id = e.id
         WHERE e.file_path IS NOT NULL AND b.checksum IS DISTINCT FROM e.checksum",
    );
    count.fetch_one(&system.database.pool).await.unwrap()
}

/// What COPY must write in a way of its own: every column, tabs, backslashes, ends of lines, text that
/// looks like an end, and none.
const ODD_ROWS: &str = r"
    INSERT INTO entities (id, user_id, type, title)
    SELECT gen_random_uuid(), 'odd\user', 'note', 'odd' FROM generate_series(1, 4);
    INSERT INTO entity_search (entity_id, user_id, document)
    SELECT id, user_id, '' FROM entities WHERE title = 'odd';
    INSERT INTO content_blocks (entity_id, content, storage_path, mime_type)
    SELECT id, CASE WHEN row_number() OVER () % 2 = 0 THEN '' END,
           E'a\tb\\N\n\\.\n\r\b\f\v', E'\\.' FROM entities WHERE title = 'odd'";

async fn without_the_table(system: &System, book: &Book) {
    let client = system.client("user-0");
    let (note, _) = client.create("a zebra after content_blocks", "").await.unwrap();
    client.rewrite(&note.id, "an okapi after content_blocks").await.unwrap();
    let request = SearchNotesRequest { query: "okapi".to_owned(), ..SearchNotesRequest::default() };
    assert_eq!(client.search(request).await.unwrap().results.len(), 1);
    let (gone, _) = client.create("soon deleted", "").await.unwrap();
    client.delete(&gone.id, "", "").await.unwrap();
    client.undelete(&gone.id, "", "").await.unwrap();
    client.delete(&gone.id, "", "").await.unwrap();
    book.lock().unwrap().extend([
        ((0, note.id), Some("an okapi after content_blocks".to_owned())),
        ((0, gone.id), None),
    ]);
    check(system, book).await;
}
