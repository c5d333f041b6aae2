//! `synapctl verify`: what is not as rows say is found, and nothing else.

use std::collections::BTreeMap;

use synap_proto::entity::StoragePhase::{DualWrite, ObjectOnly, ObjectPrimary};

use crate::support::{
    System,
    verifying::{Damage, notes},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_exactly_what_is_damaged() {
    let system = System::start().await;
    let notes = system.write_notes(notes()).await;
    let count = notes.len();
    let sound = system.ask(&["verify"]).await;
    assert_eq!((sound.code, sound.counts()), (0, BTreeMap::new()), "{}", sound.total);
    assert_eq!(
        (&sound.total["looked"], &sound.total["content_compared"]),
        (&count.into(), &count.into())
    );
    assert_eq!(sound.total["all"]["checksum_matches"], count);
    assert_eq!(
        sound.total["lacking"],
        serde_json::json!(["the phase is dual_write, not object_only"])
    );
    // What was found sound is recorded: the same command goes on from there.
    assert_eq!(system.ask(&["verify"]).await.total["looked"], 0);
    assert_eq!(system.ask(&["verify", "--since", "1h"]).await.total["looked"], 0);
    assert_eq!(system.ask(&["verify", "--since", "0s"]).await.total["looked"], count);
    let sample = system.ask(&["verify", "--sample", "50%"]).await.total;
    let looked = sample["looked"].as_i64().unwrap();
    assert!((looked - i64::try_from(count / 2).unwrap()).abs() < 60, "{looked}");
    let expected = 100.0 * (1.0 - 0.05_f64.powf(1.0 / f64::from(i32::try_from(looked).unwrap())));
    let at_most = sample["sampled"]["at_most_percent"].as_f64().unwrap();
    assert!((at_most - expected).abs() < 1e-6, "{at_most} for {expected}");

    let damage = Damage::of(&system, &notes).await;
    let before = system.everything().await;
    for args in [&["verify", "--all", "--concurrency", "3"][..], &["verify"]] {
        let said = system.ask(args).await;
        assert_eq!(said.code, 1);
        assert_eq!(said.found("missing"), damage.deleted);
        assert_eq!(said.found("size_differs"), damage.truncated);
        assert_eq!(said.found("checksum_differs"), damage.flipped);
        assert_eq!(said.found("content_differs"), damage.edited);
        assert_eq!(said.findings.len(), 40);
        assert!(said.findings.iter().all(|one| one["user_id"].is_string() && one["key"] != ""));
        let looked = if args.len() > 1 { count } else { 30 };
        assert_eq!(said.total["looked"], looked);
        let all = &said.total["all"];
        assert_eq!(
            (&all["objects_exist"], &all["objects_missing"]),
            (&(count - 10).into(), &10.into())
        );
        assert_eq!(
            (&all["checksum_matches"], &all["not_looked_at"]),
            (&(count - 30).into(), &0.into())
        );
        assert_eq!(said.total["safe_to_drop"], false);
    }
    // Asking is not reading.
    let head = system.ask(&["verify", "--level", "head", "--all"]).await;
    assert_eq!(
        (head.found("missing"), head.found("size_differs")),
        (damage.deleted, damage.truncated)
    );
    assert_eq!(head.counts().len(), 3, "{:?}", head.counts());
    assert_eq!(head.total["all"]["checksum_matches"], count - 30);
    assert_eq!(system.everything().await, before);
    assert_eq!(system.ask(&["verify", "--all", "--since", "1h"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_safe_to_drop_content_blocks_only_when_nothing_is_lacking() {
    let system = System::start().await;
    let notes = system.write_notes(60).await;
    let ada = system.client("ada");
    // Whoever writes meanwhile is no finding.
    let writing = async {
        for n in 0..3 {
            for (id, _) in notes.iter().step_by(3) {
                ada.rewrite(id, &format!("Another text, {n}")).await.unwrap();
            }
        }
    };
    let verifying = async {
        for _ in 0..3 {
            let said = system.ask(&["verify", "--all"]).await;
            assert_eq!((said.code, said.counts()), (0, BTreeMap::new()), "{}", said.total);
        }
    };
    tokio::join!(writing, verifying);
    system.change_phase(DualWrite, ObjectPrimary).await;
    system.change_phase(ObjectPrimary, ObjectOnly).await;
    system.settled().await;
    assert_eq!(system.ask(&["verify"]).await.total["safe_to_drop"], true);
    let note = ada.create("A text that nobody has read yet.", "").await.unwrap().0;
    let head = system.ask(&["verify", "--level", "head"]).await.total;
    let unread = serde_json::json!(["1 objects were not read since they were written"]);
    assert_eq!((&head["safe_to_drop"], &head["lacking"]), (&false.into(), &unread));
    let said = system.ask(&["verify"]).await.total;
    assert_eq!((&said["looked"], &said["safe_to_drop"]), (&1.into(), &true.into()));
    let insert = "INSERT INTO entities (id, user_id, type)
                  VALUES ('00000000-0000-4000-8000-000000000001', 'ada', 'note');
                  INSERT INTO content_blocks (entity_id, content)
                  VALUES ('00000000-0000-4000-8000-000000000001', 'Of V0.2')";
    sqlx::raw_sql(insert).execute(&system.database.pool).await.unwrap();
    let said = system.ask(&["verify"]).await;
    assert_eq!(said.found("no_file").len(), 1);
    assert_eq!((said.code, &said.total["safe_to_drop"]), (1, &false.into()));
    std::fs::remove_file(system.objects().join(note.file_path)).unwrap();
    let lacking = system.ask(&["verify", "--all"]).await.total["lacking"].clone();
    let expected =
        serde_json::json!(["1 entities have a text and no file", "1 objects are missing"]);
    assert_eq!(lacking, expected);
}
