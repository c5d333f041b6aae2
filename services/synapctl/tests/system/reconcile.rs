//! `synapctl reconcile`: what no row names is found and moved aside, and nothing else is touched.

use std::{collections::BTreeSet, time::Duration};

use synap_testkit::{
    faults::{Fault, Faults},
    s3::S3Server,
};

use crate::support::{
    System,
    verifying::{DAY, Damage, notes},
};

const PURGE: [&str; 3] = ["reconcile", "--purge", "--older-than"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strays_are_moved_aside_and_back_and_nothing_else_is_touched() {
    let system = System::start().await;
    let notes = system.write_notes(notes()).await;
    system.client("ada").rewrite(&notes[60].0, "A second revision.").await.unwrap();
    system.settled().await;
    let damage = Damage::of(&system, &notes).await;
    // Young, or not ours, or old and known.
    system.put_stray("users/ada/notes/young.md", Duration::from_mins(24 * 60 - 1));
    system.put_stray("backups/2026.tar", 9 * DAY);
    system.put_stray("users/ada/a name", 9 * DAY);
    system.make_older(&notes[70].1, 9 * DAY);
    system.make_older(&notes[60].1, 9 * DAY);

    let before = system.everything().await;
    let said = system.ask(&["reconcile"]).await;
    assert_eq!(said.code, 1);
    assert_eq!(said.found("unknown"), damage.strays);
    assert_eq!(said.found("missing"), damage.deleted);
    assert_eq!(said.found("size_differs"), damage.truncated);
    let foreign = ["backups", "backups/2026.tar", "users/ada/a name"].map(str::to_owned);
    assert!(said.found("foreign").is_subset(&foreign.into()), "{:?}", said.found("foreign"));
    assert_eq!((&said.total["young"], &said.total["unknown"]), (&1.into(), &10.into()));
    assert_eq!(said.total["objects"], notes.len() + 1 - 10 + 11, "{}", said.total);
    assert_eq!(said.counts().len(), 4);
    assert_eq!(system.everything().await, before, "an audit changes nothing");

    let said = system.ask(&["reconcile", "--quarantine", "--max-moves", "4"]).await;
    assert_eq!((said.found("unknown").len(), said.found("quarantined").len()), (10, 4));
    let said = system.ask(&["reconcile", "--quarantine"]).await;
    assert_eq!((said.found("unknown").len(), said.found("quarantined").len()), (6, 6));
    let aside = system.everything().await.1;
    for (key, bytes) in &before.1 {
        let is_stray = damage.strays.contains(key);
        let place = if is_stray { format!("quarantine/{key}") } else { key.clone() };
        assert_eq!(aside.get(&place), Some(bytes), "{key}");
    }
    assert_eq!(aside.len(), before.1.len());
    let said = system.ask(&["reconcile"]).await;
    assert_eq!((said.found("unknown").len(), &said.total["in_quarantine"]), (0, &10.into()));

    // Back, one and then all.
    let one = damage.strays.first().unwrap();
    let said = system.ask(&["reconcile", "--restore", "--key", one]).await;
    assert_eq!((said.code, said.found("restored")), (0, BTreeSet::from([one.clone()])));
    assert_eq!(system.ask(&["reconcile", "--restore", "--key", one]).await.code, 0);
    let said = system.ask(&["reconcile", "--restore"]).await;
    assert_eq!(said.found("restored").len(), 9);
    assert_eq!(system.everything().await, before);
    assert_eq!(
        system.ask(&["reconcile", "--restore", "--key", "users/ada/notes/z.md"]).await.code,
        1
    );

    // Aside again, and gone for good; but for what a row has come to name.
    let moved = system.ask(&["reconcile", "--quarantine"]).await.total["moved"].clone();
    assert_eq!(moved, 0, "what has just come back is too young");
    for key in &damage.strays {
        system.make_older(key, 3 * DAY);
    }
    assert_eq!(system.ask(&["reconcile", "--quarantine"]).await.total["moved"], 10);
    let named = "INSERT INTO blob_gc VALUES ($1, now() + interval '1 day', now())";
    sqlx::query(named).bind(one).execute(&system.database.pool).await.unwrap();
    let before = system.everything().await;
    assert_eq!(system.ask(&[&PURGE[..], &["30d", "--yes"]].concat()).await.total["done"], 0);
    let said = system.ask(&[&PURGE[..], &["0s"]].concat()).await;
    assert_eq!((said.found("would_purge").len(), said.found("left")), (9, [one.clone()].into()));
    assert_eq!(system.everything().await, before, "without --yes nothing is deleted");
    let said = system.ask(&[&PURGE[..], &["0s", "--yes"]].concat()).await;
    assert_eq!((said.code, said.found("purged").len()), (1, 9));
    let left = system.everything().await.1;
    let left: Vec<_> = left.keys().filter(|key| key.starts_with("quarantine/")).collect();
    assert_eq!(left, [&format!("quarantine/{one}")]);
    assert_eq!(system.ask(&["reconcile", "--min-age", "23h"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_moved_after_a_listing_that_failed_or_by_the_wrong_database() {
    let server = S3Server::start().await.unwrap();
    let faults = Faults::before(&server).await.unwrap();
    let mut system = System::new().await;
    system.use_s3_behind(server, faults.endpoint());
    system.start_all(None).await;
    system.write_notes(3).await;
    for n in 0..1_010 {
        system.put_stray(&format!("users/x/notes/{n}.md"), 3 * DAY);
    }
    let before = system.everything().await;
    // The second page does not come.
    faults.rule(|call| {
        call.query
            .contains("continuation-token")
            .then_some(Fault::Status { code: 500, retry_after: None })
    });
    let said = system.ask(&["reconcile", "--quarantine"]).await;
    assert_eq!(said.code, 3);
    let why = said.total.as_str().unwrap();
    assert!(why.contains("the store was not listed to its end; nothing was moved"), "{why}");
    assert!(faults.injected() > 0);
    faults.none();
    assert_eq!(system.everything().await, before);

    let said = system.ask(&["reconcile", "--quarantine"]).await;
    assert_eq!(said.code, 3);
    let why = said.total.as_str().unwrap();
    assert!(why.contains("of 1013 objects no row names 1010"), "{why}");
    assert_eq!(system.everything().await, before);
}
