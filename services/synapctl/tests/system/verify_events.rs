//! `synapctl verify --events`.

use std::{collections::BTreeSet, process::Stdio};

use serde_json::Value;
use synap_proto::gateway::Note;
use tokio::process::Command;

use crate::support::{Name, System, notes::seen};

async fn verify(system: &System) -> (Option<i32>, Vec<Value>) {
    let url = |name| format!("http://{}", system.address(name));
    let output = Command::new(env!("CARGO_BIN_EXE_synapctl"))
        .args(["verify", "--events", "--output", "json"])
        .args(["--event-url", &url(Name::Event), "--entity-url", &url(Name::Entity)])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines)
}

#[tokio::test]
async fn entities_that_are_not_what_their_events_say_are_named() {
    let system = System::start().await;
    let (ada, bob) = (system.client("ada"), system.client("bob"));
    let mut ids = Vec::new();
    for (client, number) in [(&ada, 0), (&bob, 1), (&ada, 2), (&ada, 3), (&bob, 4), (&bob, 5)] {
        let (note, _) = client.create(&format!("note {number}"), "").await.unwrap();
        let change = Note { title: format!("title {number}"), ..seen(&note) };
        client.update(change, &["title"], "").await.unwrap();
        ids.push(note.id);
    }
    ada.rewrite(&ids[0], "rewritten").await.unwrap();
    ada.delete(&ids[2], "", "").await.unwrap();
    bob.delete(&ids[4], "", "").await.unwrap();
    bob.undelete(&ids[4], "", "").await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO entities (id, user_id, type, title)
         VALUES ('0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60', 'ada', 'note', 'Of V0.2')",
    )
    .execute(&system.database.pool)
    .await
    .unwrap();
    let (code, lines) = verify(&system).await;
    assert_eq!(code, Some(0), "{lines:?}");
    let [total] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&total["entities"], &total["without_events"]), (&7.into(), &1.into()), "{total}");
    assert_eq!(total["events"], 16);

    let changes = [
        (0, "title", "UPDATE entities SET title = 'x' WHERE id = $1::uuid"),
        (1, "tags", "UPDATE entities SET tags = '{x}' WHERE id = $1::uuid"),
        (3, "file", "UPDATE entities SET file_size = 1 WHERE id = $1::uuid"),
        (2, "deleted", "UPDATE entities SET deleted_at = NULL WHERE id = $1::uuid"),
        (
            5,
            "version",
            "DELETE FROM event_store.events WHERE aggregate_id = $1::uuid AND version > 1",
        ),
        (
            4,
            "versions",
            "DELETE FROM event_store.events WHERE aggregate_id = $1::uuid AND version = 2",
        ),
    ];
    for (note, _, sql) in changes {
        sqlx::query(sql).bind(&ids[note]).execute(&system.database.pool).await.unwrap();
    }
    let (code, lines) = verify(&system).await;
    assert_eq!(code, Some(1));
    let (total, differences) = lines.split_last().unwrap();
    assert_eq!(total["differ"], 6, "{lines:?}");
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let found: BTreeSet<_> =
        differences.iter().map(|line| (text(line, "entity_id"), text(line, "field"))).collect();
    for (note, field, _) in changes {
        assert!(found.contains(&(ids[note].clone(), field.to_owned())), "{field}: {found:?}");
    }
}
