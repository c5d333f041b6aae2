//! From a database of V0.2 to an installation without content_blocks, with every command that an
//! operator runs on the way, while users write and everything is killed in turn.
//!
//! 300 entities and 6 users; `SYNAP_TEST_ENTITIES=200000` makes it as many as a real installation
//! has, and 20 users.

mod book;
mod check;
mod kills;
mod users;

use std::path::Path;

use serde_json::Value;
use synap_testkit::{
    postgres::TestServer,
    v02::{Generated, V02},
};

use self::{
    kills::{ALL, LONG, Progress, Said, Victim},
    users::Users,
};
use crate::support::{Name, System, eventually, full_size, within};

/// What entity-service has not written a search document for.
const UNSEARCHABLE: &str = "
    SELECT count(*) FROM entities e
    WHERE type <> 'file' AND NOT EXISTS (SELECT FROM entity_search s WHERE s.entity_id = e.id)";

struct Journey {
    system: System,
    server: TestServer,
    made: Generated,
    /// From the adoption on.
    users: Option<Users>,
    entities: u32,
    kills: usize,
    /// Commands that gave up and were run again.
    again: usize,
}

fn entities() -> u32 {
    std::env::var("SYNAP_TEST_ENTITIES").map_or(300, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_installation_of_v02_loses_nothing_on_its_way() {
    let mut journey = Journey::of(V02 {
        entities: entities(),
        events: entities().max(1_000),
        early_v03: true,
        ..V02::default()
    })
    .await;
    journey.adopt().await;
    journey.migrate().await;
    journey.cut_over().await;
    journey.go_back_and_forth().await;
    journey.drop_legacy().await;
    journey.check().await;
}

use Victim::{Postgres, Service, Synapctl};

impl Journey {
    async fn of(wanted: V02) -> Self {
        let server = TestServer::start_private().await;
        let nothing = async |_| Ok::<_, String>(());
        let database = server.database("empty", nothing).await;
        let made = wanted.generate(&database.pool).await;
        let mut system = System::of(database);
        system.environment.push(("AUTO_ADOPT", "false".to_owned()));
        if wanted.early_v03 {
            early_objects(&system, &made).await;
        }
        Self { system, server, made, users: None, entities: wanted.entities, kills: 0, again: 0 }
    }

    /// Who is killed beside a command that is short where there is little to do.
    fn some(&self, few: &[Victim]) -> Vec<Victim> {
        match self.entities {
            ..5_000 => few[..full_size(1, few.len())].to_vec(),
            _ => ALL.to_vec(),
        }
    }

    /// Runs a command that must find nothing wrong.
    async fn must(&mut self, args: &[&str], victims: &[Victim]) -> Said {
        let mut said = self.run(args, None, victims).await;
        if said.code == 1 && !victims.is_empty() {
            // It may have found somebody away.
            for name in Name::ALL {
                self.system.ready(name).await;
            }
            // Whoever writes them was away, too.
            within(LONG, "search documents", || async {
                self.system.number(UNSEARCHABLE).await == 0
            })
            .await;
            said = self.run(args, None, &[]).await;
        }
        assert_eq!(said.code, 0, "{args:?}: {:#?}", said.lines);
        said
    }

    async fn adopt(&mut self) {
        for name in Name::ALL {
            self.system.spawn(name, None);
        }
        let victims = self.some(&[Synapctl, Service(Name::Entity), Postgres]);
        let relations = Progress::of("SELECT count(*) FROM pg_class", 20);
        let said = self.run(&["adopt"], Some(relations), &victims).await;
        assert_eq!(said.code, 0, "{:#?}", said.lines);
        for name in Name::ALL {
            self.system.ready(name).await;
        }
        let users = if self.entities < 5_000 { 6 } else { 20 };
        self.users = Some(Users::start(&self.system, users).await);
    }

    async fn migrate(&mut self) {
        let victims = self.some(&[Synapctl, Service(Name::Entity)]);
        self.must(&["cutover", "--to", "dual_write"], &victims).await;
        // Somebody looks, or a monitor does, before anything is migrated.
        let said = self.run(&["verify"], None, &[]).await;
        assert_eq!(said.code, 1, "{:#?}", said.lines);
        self.read_what_was_edited().await;
        let entities = i64::from(self.entities);
        let checked = Progress::of("SELECT count(*) FROM file_checks", entities * 3 / 4);
        // Slow enough to be killed in the middle.
        let rate = (entities / 4).to_string();
        let content = ["migrate", "content", "--batch-size", "20", "--rate", &rate];
        let said = self.run(&content, Some(checked), &ALL).await;
        // What V0.2 had elsewhere needs a person.
        let elsewhere = |line: &Value| line["outcome"] == "skipped_elsewhere";
        let (_, notables) = said.lines.split_last().unwrap();
        assert!(said.code == 1 && notables.iter().all(elsewhere), "{:#?}", said.lines);
        let copied = Progress::of("SELECT count(*) FROM event_store.events", entities);
        let victims = self.some(&[Synapctl, Service(Name::Event), Postgres]);
        let said =
            self.run(&["migrate", "events", "--batch-size", "100"], Some(copied), &victims).await;
        assert_eq!(said.code, 1, "what cannot be migrated needs a person: {:#?}", said.lines);
    }

    /// Before they are migrated, too, a text counts and not the older object that its row names.
    async fn read_what_was_edited(&self) {
        const TEXT: &str = "SELECT e.user_id, b.content FROM entities e JOIN content_blocks b
                            ON b.entity_id = e.id
                            WHERE e.id = $1 AND type = 'note' AND deleted_at IS NULL";
        for id in self.made.entities("edited_since").iter().take(10) {
            let text = async || -> Option<(String, String)> {
                let text = sqlx::query_as(TEXT).bind(id);
                text.fetch_optional(&self.system.database.pool).await.unwrap()
            };
            while let Some((user, content)) = text().await {
                let answer = self.system.client(&user).get(&id.to_string()).await;
                // It may be changed just now.
                if text().await.is_some_and(|(_, now)| now == content) {
                    assert_eq!(answer.unwrap().content, content, "{id}");
                    break;
                }
            }
        }
    }

    async fn cut_over(&mut self) {
        let victims = self.some(&[Service(Name::Content), Synapctl]);
        self.must(&["verify", "--all"], &victims).await;
        let victims = self.some(&[Service(Name::Gateway), Service(Name::Entity)]);
        self.must(&["cutover", "--to", "object_primary"], &victims).await;
        let victims = self.some(&[Postgres, Synapctl]);
        self.must(&["cutover", "--to", "object_only"], &victims).await;
    }

    async fn go_back_and_forth(&mut self) {
        let victims = self.some(&[Synapctl, Service(Name::Content), Service(Name::Entity)]);
        self.must(&["rollback", "--to", "object_primary"], &victims).await;
        let victims = self.some(&[Postgres]);
        self.must(&["rollback", "--to", "dual_write"], &victims).await;
        for phase in ["object_primary", "object_only"] {
            self.must(&["cutover", "--to", phase], &[]).await;
        }
    }

    async fn drop_legacy(&mut self) {
        let backup = self.system.directory.path().join("backup");
        let drop = ["drop-legacy", "--backup", backup.to_str().unwrap()];
        let victims = self.some(&[Synapctl, Service(Name::Entity), Postgres]);
        self.must(&drop, &victims).await;
        let now = ["drop-legacy", "--now", "--yes-i-have-a-backup"];
        let victims = self.some(&[Service(Name::Event), Synapctl]);
        self.must(&now, &victims).await;
    }

    async fn check(mut self) {
        let users = self.users.take().unwrap();
        users.go_on().await;
        let acknowledged = users.acknowledged();
        let book = users.end().await;
        eventually("recovery has nothing left to do", || async {
            self.system.retry_deletions().await;
            self.system.settled_now().await
        })
        .await;
        let said = self.run(&["reconcile"], None, &[]).await;
        // What early V0.3 put where the store takes no key is nobody's to touch.
        let (total, foreign) = said.lines.split_last().unwrap();
        assert!(foreign.iter().all(|line| line["what"] == "foreign"), "{foreign:#?}");
        assert_eq!((&total["missing"], &total["unknown"]), (&0.into(), &0.into()));
        self.must(&["verify", "--all"], &[]).await;
        println!(
            "{} entities, {} acknowledged writes, {} kills, {} commands run again",
            book.entries.len(),
            acknowledged,
            self.kills,
            self.again
        );
        self.system.check_book(book, self.made.entities("never_written")).await;
    }
}

/// Objects that early V0.3 wrote, where it named them.
async fn early_objects(system: &System, made: &Generated) {
    for (kind, older) in [("stored", None), ("edited_since", Some("An older text."))] {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT file_path, content FROM entities JOIN content_blocks ON entity_id = id
             WHERE id = ANY ($1)",
        )
        .bind(made.entities(kind))
        .fetch_all(&system.database.pool)
        .await
        .unwrap();
        for (path, content) in rows {
            write(&system.objects().join(path), older.unwrap_or(&content));
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
