//! `synapctl adopt` and `synapctl cost` on a database of V0.2.

use std::process::Stdio;

use serde_json::Value;
use synap_testkit::{postgres::TestServer, v02::V02};
use tokio::process::Command;

use crate::support::{Name, System, eventually};

/// Every column, index, constraint, policy and trigger, and the rows of what is taken over.
const FINGERPRINT: &str = "
    SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (
        SELECT a::text AS line FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')
        UNION ALL SELECT c::text FROM pg_constraint c WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT p::text FROM pg_policy p UNION ALL SELECT t::text FROM pg_trigger t
        UNION ALL SELECT e::text FROM entities e UNION ALL SELECT b::text FROM content_blocks b)
    AS lines";

struct Old {
    system: System,
}

impl Old {
    async fn new() -> Self {
        let nothing = async |_| Ok::<_, String>(());
        let database = TestServer::shared().await.database("empty", nothing).await;
        let wanted = V02 { entities: 100, events: 100, early_v03: true, ..V02::default() };
        wanted.generate(&database.pool).await;
        let mut system = System::of(database);
        system.environment.push(("AUTO_ADOPT", "false".to_owned()));
        Self { system }
    }

    fn synapctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapctl"));
        let url = |name| format!("http://{}", self.system.address(name));
        command
            .args(args)
            .env("CONTENT_URL", url(Name::Content))
            .env("ENTITY_URL", url(Name::Entity))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Exit code, lines, and what it says beside them.
    async fn run(&self, args: &[&str]) -> (i32, Vec<Value>, String) {
        let all = [args, &["--output", "json"]].concat();
        let output = self.synapctl(&all).output().await.unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code().unwrap(), lines, String::from_utf8(output.stderr).unwrap())
    }

    async fn fingerprint(&self) -> String {
        sqlx::query_scalar(FINGERPRINT).fetch_one(&self.system.database.pool).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_v02_is_adopted_and_its_notes_go_on() {
    let mut old = Old::new().await;
    let before = old.fingerprint().await;
    old.system.spawn(Name::Entity, None);
    let (code, lines, said) = old.run(&["adopt", "--dry-run"]).await;
    assert_eq!((code, lines.len(), &lines[0]["state"]), (0, 1, &"legacy".into()), "{said}");
    assert_eq!(lines[0]["steps"].as_array().unwrap().len(), 2, "{lines:?}");
    let (code, costs, said) = old.run(&["cost"]).await;
    assert_eq!(code, 0, "{said}");
    let usd = |month: &str| costs[0][month]["postgres_usd"].as_f64().unwrap();
    assert!(usd("after") > 0.0 && usd("after") < usd("now"), "{costs:?}");
    // content-service is not there.
    let (code, lines, said) = old.run(&["adopt", "--phase", "dual_write"]).await;
    assert!((code, lines.len()) == (3, 0) && said.contains("nothing was changed"), "{said}");
    assert_eq!(old.fingerprint().await, before);
    let (code, _, said) = old.run(&["status"]).await;
    assert!(code == 1 && said.contains("synapctl adopt"), "{said}");

    for name in [Name::Content, Name::Event, Name::Gateway] {
        old.system.spawn(name, None);
    }
    old.system.ready(Name::Content).await;
    // It waits for a lock, so it can be killed, and its service too.
    let mut long = old.system.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE entities IN ROW EXCLUSIVE MODE").execute(&mut *long).await.unwrap();
    let mut killed = old.synapctl(&["adopt"]).spawn().unwrap();
    let adopting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
                                   AND database = (SELECT oid FROM pg_database
                                                   WHERE datname = current_database()))";
    let pool = old.system.database.pool.clone();
    let begun = || async { sqlx::query_scalar(adopting).fetch_one(&pool).await.unwrap() };
    eventually("it has begun", begun).await;
    killed.kill().await.unwrap();
    let waiting = old.synapctl(&["adopt", "--phase", "dual_write"]).spawn().unwrap();
    eventually("it has begun again", begun).await;
    old.system.kill(Name::Entity).await;
    old.system.spawn(Name::Entity, None);
    long.rollback().await.unwrap();
    let output = waiting.wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8(output.stderr).unwrap());
    assert!(said.contains("adopted; the storage phase is dual_write"), "{said}");

    for name in Name::ALL {
        old.system.ready(name).await;
    }
    // Repeated, it does nothing, and does not go back.
    let (code, lines, _) = old.run(&["adopt"]).await;
    assert_eq!((code, &lines[0]["state"]), (0, &"adopted".into()));
    assert_eq!(lines[lines.len() - 1]["phase"], "dual_write");
    let note: (String, String) = sqlx::query_as(
        "SELECT e.id::text, content FROM entities e JOIN content_blocks b ON b.entity_id = e.id
         WHERE e.user_id = 'local-user' AND type = 'note' AND deleted_at IS NULL AND file_path IS NULL
           AND octet_length(content) BETWEEN 1 AND 100000 LIMIT 1",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let client = old.system.client("local-user");
    assert_eq!(client.get(&note.0).await.unwrap().content, note.1);
    client.rewrite(&note.0, "written after the adoption").await.unwrap();
}
