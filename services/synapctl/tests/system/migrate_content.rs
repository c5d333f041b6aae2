//! `synapctl migrate content` on a database of V0.2 that is in use, while its processes are killed.
//!
//! 300 entities and four kills; `SYNAP_TEST_ENTITIES=200000` makes it as many as a real installation
//! has, and twenty kills.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::Value;
use synap_proto::entity::StoragePhase::{DualWrite, Legacy};
use synap_testkit::{
    faults::{Fault, Faults},
    postgres::TestServer,
    s3::S3Server,
    v02::{Generated, V02},
};
use synap_types::{BlobKey, Checksum};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::support::{Client, LONG, Name, System, process, within};

/// Everything that a migration could change.
const FINGERPRINT: &str = "
    SELECT md5(string_agg(md5(line), ',' ORDER BY md5(line))) FROM (
        SELECT e::text AS line FROM entities e UNION ALL SELECT b::text FROM content_blocks b
        UNION ALL SELECT v::text FROM entity_vectors v UNION ALL SELECT c::text FROM file_checks c
        UNION ALL SELECT m::text FROM content_migrations m
        UNION ALL SELECT g::text FROM blob_gc g) AS lines";

fn entities() -> u32 {
    std::env::var("SYNAP_TEST_ENTITIES").map_or(300, |number| number.parse().unwrap())
}

struct Old {
    system: System,
    made: Generated,
    /// Before the store, where there is one.
    faults: Faults,
}

/// What a run of the command said.
struct Said {
    code: i32,
    lines: Vec<Value>,
}

impl Said {
    fn summary(&self) -> &Value {
        self.lines.last().unwrap()
    }

    fn outcome(&self, name: &str) -> u64 {
        self.summary()["outcomes"][name].as_u64().unwrap_or_default()
    }

    fn outcomes(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.summary()["outcomes"].clone()).unwrap()
    }
}

impl Old {
    /// An installation that has just been taken over, on S3.
    async fn start(entities: u32) -> Self {
        let nothing = async |_| Ok::<_, String>(());
        let database = TestServer::shared().await.database("empty", nothing).await;
        let wanted = V02 { entities, events: 10, early_v03: true, ..V02::default() };
        let made = wanted.generate(&database.pool).await;
        let server = S3Server::start().await.unwrap();
        let faults = Faults::before(&server).await.unwrap();
        let mut system = System::of(database);
        system.use_s3_behind(server, faults.endpoint());
        system.start_all(None).await;
        system.change_phase(Legacy, DualWrite).await;
        let old = Self { system, made, faults };
        for (kind, text) in [("stored", None), ("edited_since", Some("An older text."))] {
            old.store(kind, text).await;
        }
        old
    }

    /// Objects that early V0.3 wrote.
    async fn store(&self, kind: &str, text: Option<&str>) {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT file_path, content FROM entities JOIN content_blocks ON entity_id = id
             WHERE id = ANY ($1)",
        )
        .bind(self.made.entities(kind))
        .fetch_all(&self.system.database.pool)
        .await
        .unwrap();
        for (path, content) in rows {
            let path = self.system.objects().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.unwrap_or(&content)).unwrap();
        }
    }

    /// How many early V0.3 rows of a kind name a key that the store takes.
    async fn with_key(&self, kind: &str) -> usize {
        let paths: Vec<String> =
            sqlx::query_scalar("SELECT file_path FROM entities WHERE id = ANY ($1)")
                .bind(self.made.entities(kind))
                .fetch_all(&self.system.database.pool)
                .await
                .unwrap();
        paths.into_iter().filter(|path| BlobKey::parse(path.as_str()).is_ok()).count()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapctl"));
        let url = |name| format!("http://{}", self.system.address(name));
        command
            .args(["migrate", "content"])
            .args(args)
            .env("CONTENT_URL", url(Name::Content))
            .env("ENTITY_URL", url(Name::Entity))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Said {
        let all = [args, &["--output", "json"]].concat();
        said(self.command(&all).output().await.unwrap())
    }

    async fn count(&self, query: &'static str) -> u64 {
        let count: i64 =
            sqlx::query_scalar(query).fetch_one(&self.system.database.pool).await.unwrap();
        u64::try_from(count).unwrap()
    }

    async fn migrated(&self) -> u64 {
        self.count("SELECT count(*) FROM file_checks").await
    }

    /// Waits until so many more bodies are migrated.
    async fn progress(&self, step: u64) {
        let enough = self.migrated().await + step;
        within(LONG, "the migration goes on", || async { self.migrated().await >= enough }).await;
    }

    async fn fingerprint(&self) -> (String, BTreeMap<String, Vec<u8>>) {
        let rows = sqlx::query_scalar(FINGERPRINT).fetch_one(&self.system.database.pool);
        (rows.await.unwrap(), self.system.blobs())
    }
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (lines, errors) = (text(output.stdout), text(output.stderr));
    let code = output.status.code().unwrap_or_else(|| panic!("{errors}"));
    assert_ne!(code, 2, "{errors}");
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Said { code, lines }
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// An entity that has a text.
struct Row {
    id: String,
    content: String,
    path: String,
    checksum: String,
    verified: bool,
}

synap_postgres::from_row!(Row { id, content, path, checksum, verified });

/// What one user has written: of each note the text that was acknowledged last, and those after it that
/// were not.
type Written = BTreeMap<String, Vec<String>>;

/// Changes notes of V0.2, writes new ones, and deletes some of both.
async fn write_on(client: Client, notes: Vec<String>, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::new();
    for (number, id) in notes.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("Text {number} of a user who writes all the while.");
        let changed = client.rewrite(id, &text).await;
        let texts = written.entry(id.clone()).or_default();
        if changed.is_ok() {
            texts.clear();
        }
        texts.push(text.clone());
        if let Ok((note, _)) = client.create(&text, "").await {
            if number % 3 == 0 {
                // A service that is down may say that it did not happen.
                let _ = client.delete(&note.id, "", "").await;
            }
            written.insert(note.id, vec![text]);
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_the_migration_loses_nothing_and_uploads_nothing_twice() {
    let mut old = Old::start(entities()).await;
    let expected = old.looks_before_it_leaps().await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for user in ["local-user", "a/b c"] {
        let notes: Vec<String> = sqlx::query_scalar(
            "SELECT e.id::text FROM entities e JOIN content_blocks b ON b.entity_id = e.id
             WHERE e.user_id = $1 AND type = 'note' AND deleted_at IS NULL
               AND octet_length(content) BETWEEN 1 AND 100000 ORDER BY e.id DESC LIMIT 5",
        )
        .bind(user)
        .fetch_all(&old.system.database.pool)
        .await
        .unwrap();
        writers.push(tokio::spawn(write_on(old.system.client(user), notes, Arc::clone(&stop))));
    }
    let kills = if entities() < 10_000 { 4 } else { 20 };
    // Slow enough to be killed in the middle, and each time that so many more are done.
    let rate = (entities() / kills).max(50).to_string();
    let more = u64::from(entities() / (4 * kills));
    for round in 0..kills {
        let mut command = start(&mut old.command(&["--batch-size", "20", "--rate", &rate]));
        old.progress(more).await;
        let service = match round % 3 {
            0 => None,
            1 => Some(Name::Entity),
            _ => Some(Name::Content),
        };
        if let Some(name) = service {
            old.system.kill(name).await;
            old.system.spawn(name, None);
            old.system.ready(name).await;
            // The command waits for it, and goes on.
            old.progress(more).await;
            assert_eq!(command.try_wait().unwrap(), None);
        }
        command.kill().await.unwrap();
    }
    let last = old.run(&[]).await;
    stop.store(true, Ordering::Relaxed);
    let mut written = Written::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    assert_eq!(last.code, 1, "what is elsewhere needs a person: {:?}", last.lines);
    assert_eq!(last.summary()["done"], Value::Bool(true));
    for (outcome, number) in &expected {
        if outcome.starts_with("skipped") {
            assert_eq!(last.outcome(outcome), *number, "{outcome}");
        }
    }
    assert_eq!(last.outcomes().keys().find(|name| name.starts_with("failed")), None);

    old.system.settled().await;
    old.everything_is_where_it_belongs(&written).await;
    old.little_was_uploaded_twice(&written, kills as usize);
    let again = old.run(&[]).await;
    let well = ["already_migrated", "skipped_elsewhere", "skipped_empty", "skipped_missing_row"];
    assert_eq!(again.outcomes().keys().collect::<Vec<_>>(), well);
    assert_eq!(again.summary()["objects"], 0);
}

impl Old {
    /// A dry run says what there is, and changes nothing.
    async fn looks_before_it_leaps(&self) -> BTreeMap<String, u64> {
        let before = self.fingerprint().await;
        let dry = self.run(&["--dry-run"]).await;
        assert_eq!(self.fingerprint().await, before);
        let number = |kind| self.made.entities(kind).len() as u64;
        let stored = self.with_key("stored").await as u64;
        let skipped = [
            ("skipped_elsewhere", number("elsewhere")),
            ("skipped_empty", number("null_content") + number("empty_content")),
            ("skipped_missing_row", number("no_block")),
        ];
        let special = [("already_migrated", stored), ("migrated_as_markdown", number("html"))];
        let others: u64 = skipped.iter().chain(&special).map(|(_, number)| number).sum();
        let plain = ("migrated", u64::from(entities()) - others);
        let expected: BTreeMap<_, _> = skipped
            .into_iter()
            .chain(special)
            .chain([plain])
            .map(|(name, number)| (name.to_owned(), number))
            .collect();
        assert_eq!((dry.code, dry.outcomes()), (1, expected.clone()));
        // Each that needs a person is named.
        assert_eq!(dry.lines.len() as u64, number("elsewhere") + 1);
        expected
    }

    /// Blocks, objects and rows say the same, and it is what users were told.
    async fn everything_is_where_it_belongs(&self, written: &Written) {
        let pool = &self.system.database.pool;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT e.id::text, b.content, coalesce(e.file_path, '') AS path,
                    coalesce(e.checksum, '') AS checksum, c.file_verified_at IS NOT NULL AS verified
             FROM entities e JOIN content_blocks b ON b.entity_id = e.id
             LEFT JOIN file_checks c ON c.entity_id = e.id AND c.key = e.file_path
             WHERE b.content <> ''",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let blobs = self.system.blobs();
        for Row { id, content, path, checksum, verified } in rows {
            let blob = blobs.get(&path).unwrap_or_else(|| panic!("{id}: no object at {path:?}"));
            assert!(blob == content.as_bytes(), "{id}: the object is not the text");
            assert_eq!(checksum, Checksum::of(blob).to_string(), "{id}");
            match written.get(&id) {
                Some(texts) => assert!(texts.contains(&content), "{id}: {content:?} of {texts:?}"),
                None => assert!(verified, "{id} was not read back"),
            }
        }
        let named: BTreeSet<String> = sqlx::query_scalar(
            "SELECT file_path FROM entities WHERE file_path IS NOT NULL
             UNION SELECT file_path FROM entity_revisions WHERE file_path IS NOT NULL",
        )
        .fetch_all(pool)
        .await
        .unwrap()
        .into_iter()
        .collect();
        // What V0.2 named otherwise, nobody deletes.
        let is_orphan =
            |key: &&String| BlobKey::parse(key.as_str()).is_ok() && !named.contains(*key);
        let orphans: Vec<_> = blobs.keys().filter(is_orphan).collect();
        assert!(orphans.is_empty(), "{orphans:?}");
        let left = self.count("SELECT count(*) FROM content_migrations").await;
        assert_eq!(left, 0, "claims are left");
        let vectors = self.count(
            "SELECT count(*) FROM content_blocks b JOIN entity_vectors v USING (entity_id)
             WHERE b.embedding IS NOT NULL",
        );
        let embeddings = "SELECT count(*) FROM content_blocks WHERE embedding IS NOT NULL";
        assert_eq!(vectors.await, self.count(embeddings).await);
    }

    /// Of what nobody has changed meanwhile.
    fn little_was_uploaded_twice(&self, written: &Written, kills: usize) {
        let mut puts = BTreeMap::<Uuid, u32>::new();
        for call in self.faults.calls().iter().filter(|call| call.is_write()) {
            let mut folders = call.path.rsplit('/').skip(1);
            let id = folders.next().and_then(|folder| folder.parse::<Uuid>().ok());
            if let Some(id) = id.filter(|id| !written.contains_key(&id.to_string())) {
                *puts.entry(id).or_default() += 1;
            }
        }
        let twice = puts.values().filter(|count| **count > 1).count();
        println!("{} objects uploaded, {twice} of them twice", puts.len());
        // A kill may come between an upload and the news of it.
        assert!(twice <= puts.len() / 100 + kills, "{twice} of {}", puts.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_says_no_for_a_while_only_takes_longer() {
    let old = Old::start(100).await;
    // As many as it begins with, and as many again when those come back.
    let mut refusals = [429, 503].repeat(8).into_iter();
    old.faults.rule(move |call| {
        let code = call.is_write().then(|| refusals.next()).flatten()?;
        Some(Fault::Status { code, retry_after: Some(1) })
    });
    let said = old.run(&[]).await;
    assert_eq!(old.faults.injected(), 16);
    assert_eq!(said.summary()["done"], Value::Bool(true));
    assert_eq!(said.outcomes().keys().find(|name| name.starts_with("failed")), None);
    assert_eq!(said.lines.len(), 1 + old.made.entities("elsewhere").len(), "{:?}", said.lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stopped_goes_on_and_what_failed_is_tried_again() {
    let old = Old::start(100).await;
    let pool = &old.system.database.pool;
    let broken = "UPDATE entities SET type = 'Mind Map' WHERE id = $1";
    let plain = old.made.entities("plain");
    sqlx::query(broken).bind(plain[0]).execute(pool).await.unwrap();

    let limited = old.run(&["--limit", "7", "--batch-size", "3", "--verify", "head"]).await;
    let objects = |said: &Said| said.summary()["objects"].as_u64().unwrap();
    assert_eq!((limited.summary()["done"].clone(), objects(&limited)), (Value::Bool(false), 7));

    let args = ["--rate", "10", "--output", "json"];
    let mut slow = old.command(&args);
    let slow = slow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    old.progress(1).await;
    assert!(process::signal(slow.id().unwrap(), "INT"));
    let stopped = said(slow.wait_with_output().await.unwrap());
    assert_eq!((stopped.code, &stopped.summary()["done"]), (3, &Value::Bool(false)));

    let (one, two) = tokio::join!(old.run(&["--verify", "none"]), old.run(&["--verify", "none"]));
    for run in [&one, &two] {
        assert_eq!((run.code, run.outcome("failed:entity_type")), (1, 1), "{:?}", run.lines);
        assert_eq!(run.summary()["done"], Value::Bool(true));
    }
    let puts = old.faults.calls().iter().filter(|call| call.is_write()).count() as u64;
    let all: u64 = [&limited, &stopped, &one, &two].map(objects).iter().sum();
    assert_eq!(puts, all, "each was uploaded once");

    sqlx::query("UPDATE entities SET type = 'note' WHERE id = $1")
        .bind(plain[0])
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(old.run(&[]).await.outcome("failed:entity_type"), 1);
    let again = old.run(&["--retry-failed"]).await;
    assert_eq!((again.outcome("migrated"), objects(&again)), (1, 1), "{:?}", again.lines);
    old.system.change_phase(DualWrite, Legacy).await;
    let refused = old.command(&[]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("dual_write"), "{why}");
}
