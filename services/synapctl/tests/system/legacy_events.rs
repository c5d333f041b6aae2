//! `synapctl migrate events` on a database of V0.2 that is in use, while its processes are killed.
//!
//! 5,000 old events; `SYNAP_TEST_EVENTS=500000` makes it as many as a real installation has.

use std::{
    process::{Output, Stdio},
    sync::Arc,
};

use serde_json::Value;
use synap_testkit::{
    postgres::TestServer,
    v02::{Generated, V02},
};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::support::{LONG, Name, System, within};

/// Everything in the old tables, and in ours.
const FINGERPRINT: &str = "
    SELECT md5(string_agg(md5(line), ',' ORDER BY md5(line))) FROM (
        SELECT e::text AS line FROM events e UNION ALL SELECT e::text FROM events_v2 e
        UNION ALL SELECT e::text FROM event_store.events e
        UNION ALL SELECT e::text FROM event_store.legacy_migration e
        UNION ALL SELECT e::text FROM event_store.legacy_streams e
        UNION ALL SELECT e::text FROM event_store.legacy_quarantine e) AS lines";

/// Rows of which something is not as it must be.
const CHECKS: [(&str, &str); 5] = [
    (
        "lost",
        "SELECT count(*) FROM events v
         WHERE NOT EXISTS (SELECT FROM event_store.events e WHERE e.event_id = v.id
                           AND e.occurred_at = v.timestamp AND e.user_id = v.user_id
                           AND e.event_type = v.type)
           AND NOT EXISTS (SELECT FROM event_store.legacy_quarantine q
                           WHERE q.event_id = v.id AND q.data = to_jsonb(v))",
    ),
    (
        "lost of events_v2",
        "SELECT count(*) FROM events_v2 v
         WHERE NOT EXISTS (SELECT FROM event_store.events e WHERE e.event_id = v.id
                           AND e.occurred_at = v.timestamp AND e.aggregate_id = v.aggregate_id)
           AND NOT EXISTS (SELECT FROM event_store.legacy_quarantine q
                           WHERE q.event_id = v.id AND q.data = to_jsonb(v))",
    ),
    ("twice", "SELECT count(*) - count(DISTINCT event_id) FROM event_store.events"),
    (
        "versions missing or twice",
        "SELECT count(*) FROM (
             SELECT FROM event_store.events e
             JOIN event_store.streams s USING (aggregate_type, aggregate_id)
             GROUP BY e.aggregate_type, e.aggregate_id
             HAVING max(e.version) - min(e.version) + 1 <> count(DISTINCT e.version)
                 OR count(DISTINCT e.version) <> count(*) OR max(e.version) <> max(s.version)) AS s",
    ),
    (
        // Of two who change one note at once, the first to begin need not be the first to commit.
        "history out of the order of time",
        "SELECT count(*) FROM (
             SELECT occurred_at < lag(occurred_at) OVER (PARTITION BY aggregate_type, aggregate_id
                                                         ORDER BY version) AS back
             FROM event_store.events WHERE metadata ? 'legacy') AS o WHERE back",
    ),
];

fn rows() -> u32 {
    std::env::var("SYNAP_TEST_EVENTS").map_or(5_000, |rows| rows.parse().unwrap())
}

struct Old {
    system: System,
    made: Generated,
}

impl Old {
    async fn start() -> Self {
        let nothing = async |_| Ok::<_, String>(());
        let database = TestServer::shared().await.database("empty", nothing).await;
        let wanted = V02 { entities: 1_000, events: rows(), early_v03: true, ..V02::default() };
        let made = wanted.generate(&database.pool).await;
        let mut system = System::of(database);
        system.start_all(None).await;
        Self { system, made }
    }

    fn synapctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapctl"));
        let url = |name| format!("http://{}", self.system.address(name));
        command
            .args(args)
            .env("EVENT_URL", url(Name::Event))
            .env("ENTITY_URL", url(Name::Entity))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let all = [args, &["--output", "json"]].concat();
        let Output { status, stdout, stderr } = self.synapctl(&all).output().await.unwrap();
        let said = String::from_utf8(stderr).unwrap();
        let code = status.code().unwrap_or_else(|| panic!("{args:?}: {said}"));
        assert!(code < 2, "{args:?} ended with {code}: {said}");
        let lines = String::from_utf8(stdout).unwrap();
        (code, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// Waits until some more rows are done: so many that the kills come along half of the way.
    async fn progress(&self) {
        let migrated = async || -> i64 {
            let count = "SELECT count(*) FROM event_store.events WHERE metadata ? 'legacy'";
            sqlx::query_scalar(count).fetch_one(&self.system.database.pool).await.unwrap()
        };
        let enough = migrated().await + i64::from(rows() / 16);
        within(LONG, "the migration goes on", || async { migrated().await >= enough }).await;
    }

    async fn fingerprint(&self) -> String {
        sqlx::query_scalar(FINGERPRINT).fetch_one(&self.system.database.pool).await.unwrap()
    }

    /// Users who write new notes, and change those of V0.2, until told to stop.
    fn write(&self, stop: &CancellationToken) -> tokio::task::JoinHandle<u32> {
        let (writer, stop) = (self.system.client("local-user"), stop.clone());
        let pool = self.system.database.pool.clone();
        tokio::spawn(async move {
            let notes: Vec<String> = sqlx::query_scalar(
                "SELECT e.id::text FROM entities e JOIN content_blocks b ON b.entity_id = e.id
                 WHERE e.user_id = 'local-user' AND type = 'note' AND deleted_at IS NULL
                   AND octet_length(content) BETWEEN 1 AND 100000 ORDER BY e.id",
            )
            .fetch_all(&pool)
            .await
            .unwrap();
            let mut written = 0;
            for id in notes.iter().cycle() {
                if stop.is_cancelled() {
                    break;
                }
                // A service that is down fails some of them: what was acknowledged counts.
                let changed = writer.rewrite(id, &format!("version {written}")).await;
                let created = writer.create(&format!("note {written}"), "").await;
                written += u32::from(changed.is_ok()) + u32::from(created.is_ok());
            }
            written
        })
    }
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_the_migration_loses_and_repeats_nothing() {
    let mut old = Old::start().await;
    let before = old.fingerprint().await;
    let (code, dry) = old.run(&["migrate", "events", "--dry-run"]).await;
    assert_eq!((code, &dry[0]["dry_run"]), (1, &Value::Bool(true)), "{dry:?}");
    assert_eq!(old.fingerprint().await, before);

    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..2).map(|_| old.write(&stop)).collect();
    let migrate = ["migrate", "events", "--batch-size", "100", "--rate"];
    // Slow enough to be killed in the middle.
    let rate = (rows() / 2).to_string();
    for round in 0..5 {
        let mut command = start(&mut old.synapctl(&[&migrate[..], &[&rate]].concat()));
        old.progress().await;
        if round % 2 == 0 {
            command.kill().await.unwrap();
        } else {
            old.system.kill(Name::Event).await;
            old.system.spawn(Name::Event, None);
            // The command waits for it, and goes on.
            old.system.ready(Name::Event).await;
            old.progress().await;
            assert_eq!(command.try_wait().unwrap(), None);
            command.kill().await.unwrap();
        }
    }
    let (code, summary) = old.run(&["migrate", "events"]).await;
    stop.cancel();
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    old.system.settled().await;
    assert_eq!((code, &summary[0]["done"]), (1, &Value::Bool(true)));
    for (what, query) in CHECKS {
        let rows: i64 =
            sqlx::query_scalar(query).fetch_one(&old.system.database.pool).await.unwrap();
        assert_eq!(rows, 0, "{what}");
    }
    // What was written meanwhile was in both stores already.
    let (dry, done) = (&dry[0]["outcomes"], &summary[0]["outcomes"]);
    for (outcome, rows) in dry.as_object().unwrap() {
        if outcome != "already_migrated" {
            assert_eq!(&done[outcome], rows, "{outcome}: {done}");
        }
    }
    assert_eq!(done["left"], Value::Null);
    let plain = old.made.events("plain").len();
    assert!(done["migrated"].as_u64() >= u64::try_from(plain).ok(), "{done}");
    old.ends_well().await;
}

impl Old {
    /// From the comparison to the drop.
    async fn ends_well(&self) {
        let (code, refused) = self.run(&["events", "drop-legacy"]).await;
        assert!(code == 1 && refused[0]["refused"].is_string(), "{refused:?}");
        let (code, days) = self.run(&["migrate", "events", "--verify"]).await;
        assert_eq!((code, &days[days.len() - 1]["days_that_differ"]), (0, &Value::from(0)));
        let (code, kept) = self.run(&["events", "quarantine", "--reason", "source"]).await;
        assert_eq!((code, kept.len()), (1, self.made.events("odd_source").len()));
        assert_eq!(kept[0]["row"]["source"], "chat");

        let step = async |args: &[&str]| {
            let (code, lines) = self.run(args).await;
            (code, lines[0]["step"].as_str().unwrap().to_owned())
        };
        let drop = ["events", "drop-legacy"];
        let before = self.fingerprint().await;
        assert_eq!(step(&[drop[0], drop[1], "--dry-run"]).await, (0, "renamed".to_owned()));
        assert_eq!(self.fingerprint().await, before);
        let ada = Arc::new(self.system.client("ada"));
        assert_eq!(step(&drop).await, (0, "renamed".to_owned()));
        ada.create("after the dual write", "").await.unwrap();
        assert_eq!(step(&["events", "restore-legacy"]).await, (0, "restored".to_owned()));
        let (code, _) = self.run(&["migrate", "events", "--verify"]).await;
        assert_eq!(code, 0);
        assert_eq!(step(&drop).await, (0, "renamed".to_owned()));
        assert_eq!(step(&drop).await, (1, "dropped".to_owned()));
        let now = [drop[0], drop[1], "--now", "--yes-i-have-a-backup"];
        assert_eq!(step(&now).await, (0, "dropped".to_owned()));
        let (_, event_pending) = ada.create("after V0.2", "").await.unwrap();
        assert!(!event_pending);
        // History is read with what came after it.
        let note: String = sqlx::query_scalar(
            "SELECT aggregate_id::text FROM event_store.events
             WHERE user_id = 'local-user' AND aggregate_type = 'note'
             GROUP BY 1 HAVING min(version) < 1 AND max(version) > 4 LIMIT 1",
        )
        .fetch_one(&self.system.database.pool)
        .await
        .unwrap();
        let client = self.system.client("local-user");
        let whole = client.history(&note, 0).await.unwrap();
        assert!(whole[0].version < 1, "{whole:?}");
        assert_eq!(client.history(&note, 1).await.unwrap(), whole);
    }
}
