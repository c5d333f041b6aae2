//! `synapctl cutover`, `rollback`, `drop-legacy` and `restore-legacy` on a system in use.
//!
//! 40 notes of up to 24 KiB; `SYNAP_TEST_NOTES=2000` makes more of them.

mod dropped;
mod users;

use std::{
    collections::BTreeMap,
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::process::{Child, Command};

use self::users::{Users, check, some_notes};
use crate::support::{Name, System, eventually};

impl System {
    fn takeover(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapctl"));
        let url = |name| format!("http://{}", self.address(name));
        command
            .args(args)
            .args(["--output", "json"])
            .env("CONTENT_URL", url(Name::Content))
            .env("ENTITY_URL", url(Name::Entity))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The exit code and what was printed.
    async fn run(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let Output { status, stdout, stderr } = self.takeover(args).output().await.unwrap();
        let said = String::from_utf8(stderr).unwrap();
        let code = status.code().unwrap_or_else(|| panic!("{args:?}: {said}"));
        assert!(code < 2, "{args:?} ended with {code}: {said}");
        let lines = String::from_utf8(stdout).unwrap();
        (code, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// A command that does what it is told.
    async fn must(&self, args: &[&str]) -> Vec<Value> {
        let (code, lines) = self.run(args).await;
        assert_eq!(code, 0, "{args:?}: {lines:#?}");
        lines
    }

    /// A command that refuses, and the reason.
    async fn refused(&self, args: &[&str]) -> String {
        let (code, lines) = self.run(args).await;
        assert_eq!(code, 1, "{args:?}: {lines:#?}");
        lines.last().unwrap()["problem"].as_str().unwrap().to_owned()
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.database.pool).await.unwrap();
    }

    async fn phase(&self) -> String {
        let phase = sqlx::query_scalar("SELECT phase FROM storage_phase");
        phase.fetch_one(&self.database.pool).await.unwrap()
    }

    /// Everything that these commands could change.
    async fn fingerprint(&self, table: &str) -> (String, BTreeMap<String, Vec<u8>>) {
        let rows = format!(
            "SELECT md5(concat((SELECT string_agg(b::text, ',' ORDER BY entity_id) FROM {table} b),
                               (SELECT string_agg(e::text, ',' ORDER BY id) FROM entities e),
                               (SELECT l::text FROM legacy_content l),
                               (SELECT s::text FROM storage_phase s)))"
        );
        let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(rows));
        (rows.fetch_one(&self.database.pool).await.unwrap(), self.blobs())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cutover_is_refused_for_each_damage_and_says_why() {
    let mut system = System::start().await;
    let book = some_notes(&system).await;
    let to = |phase: &'static str| ["cutover", "--to", phase];
    let why = system.refused(&to("object_only")).await;
    assert!(why.contains("object_primary, object_only"), "{why}");
    assert!(system.refused(&["rollback", "--to", "object_only"]).await.contains("legacy is next"));
    for (damage, repair, name) in [
        (
            "CREATE TABLE kept AS SELECT id, file_path FROM entities ORDER BY id LIMIT 1;
             UPDATE entities SET file_path = NULL WHERE id = (SELECT id FROM kept)",
            "UPDATE entities e SET file_path = k.file_path FROM kept k WHERE k.id = e.id;
             DROP TABLE kept",
            "text_without_file",
        ),
        (
            "INSERT INTO file_checks (entity_id, key, level, outcome)
             SELECT id, file_path, 'checksum', 'checksum_differs' FROM entities LIMIT 1",
            "DELETE FROM file_checks",
            "file_unsound",
        ),
        (
            "UPDATE content_blocks SET content = content || 'x'
             WHERE entity_id = (SELECT id FROM entities LIMIT 1)",
            "UPDATE content_blocks SET content = left(content, -1)
             WHERE entity_id = (SELECT id FROM entities LIMIT 1)",
            "content_differs",
        ),
    ] {
        system.execute(damage).await;
        let before = system.fingerprint("content_blocks").await;
        let (code, lines) = system.run(&to("object_primary")).await;
        assert_eq!(code, 1);
        let failing: Vec<_> = lines.iter().filter(|line| line["holds"] == false).collect();
        assert_eq!(failing.len(), 1, "{lines:#?}");
        assert_eq!((&failing[0]["condition"], &failing[0]["number"]), (&name.into(), &1.into()));
        assert_eq!(failing[0]["entity_ids"].as_array().unwrap().len(), 1);
        assert!(failing[0]["advice"].as_str().unwrap().contains("synapctl"), "{failing:?}");
        assert_eq!(system.fingerprint("content_blocks").await, before);
        system.execute(repair).await;
    }
    let before = system.fingerprint("content_blocks").await;
    system.must(&[&to("object_primary")[..], &["--rehearse"]].concat()).await;
    system.must(&["rollback", "--rehearse"]).await;
    assert_eq!(system.fingerprint("content_blocks").await, before, "a rehearsal changes nothing");
    system.kill(Name::Content).await;
    let (code, lines) = system.run(&to("object_primary")).await;
    assert_eq!((code, &lines[0]["condition"]), (1, &"store_reachable".into()), "{lines:#?}");
    system.spawn(Name::Content, None);
    system.ready(Name::Content).await;
    system.must(&to("object_primary")).await;
    system.must(&to("object_primary")).await;
    assert!(system.refused(&to("dual_write")).await.contains("rollback"));
    system.must(&to("object_only")).await;
    assert!(system.refused(&to("legacy_dropped")).await.contains("drop-legacy"));
    check(&system, &book).await;
}

/// From one end to the other and back, while users write; synapctl and entity-service die in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_phase_and_the_way_back_lose_nothing_while_users_write() {
    let mut system = System::start().await;
    let users = Users::start(&system);
    users.go_on().await;
    for phase in ["object_primary", "object_only"] {
        system.must(&["cutover", "--to", phase]).await;
        assert_eq!(system.phase().await, phase);
        users.check(&system).await;
    }
    // Some that content_blocks know in an older form, and some that they do not know.
    let before = lacking(&system).await;
    assert!(before > 0);
    let mut killed = start(&mut system.takeover(&["rollback"]));
    eventually("some are copied", || async { lacking(&system).await != before }).await;
    killed.kill().await.unwrap();
    let mut going_on = start(&mut system.takeover(&["rollback", "--to", "object_primary"]));
    system.kill(Name::Entity).await;
    system.spawn(Name::Entity, None);
    let status = going_on.wait().await.unwrap();
    assert!(status.success(), "{status:?}");
    assert_eq!(system.phase().await, "object_primary");
    users.check(&system).await;
    for phase in ["dual_write", "legacy"] {
        system.must(&["rollback"]).await;
        assert_eq!(system.phase().await, phase);
        users.check(&system).await;
    }
    let book = users.end().await;
    system.settled().await;
    check(&system, &book).await;
    // In content_blocks alone, too: nothing older is read where they are what is read.
    system.must(&["cutover", "--to", "dual_write"]).await;
    check(&system, &book).await;
    assert!(system.refused(&["cutover", "--to", "object_primary"]).await.contains("text_without"));
}

/// Notes whose block is not their body.
async fn lacking(system: &System) -> i64 {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM entities e LEFT JOIN content_blocks b ON b.entity_id = e.id
         WHERE b.checksum IS DISTINCT FROM e.checksum",
    );
    count.fetch_one(&system.database.pool).await.unwrap()
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
