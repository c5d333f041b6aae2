//! Callers who share a transaction share nothing else.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use synap_entity_service::{
    domain::{Attempt, Begun, Change, EntityDraft, EventDraft, Intent, Kind, OperationId, Phase},
    error::Error,
    store::Store,
};
use synap_postgres::connect_pool;
use synap_proto::entity::{self as pb, begin_operation_response::Outcome};
use synap_testkit::postgres::TestDatabase;
use synap_types::{Checksum, EntityType, IdGenerator as _, SystemIds, UserId};

use crate::support::{
    Rows, Running, assert_same_attempt, begin_request, commit_request, config, database, execute,
    id, operation, rows, service, set_phase,
};

/// A store in this very runtime: while the test does not wait, no batch begins.
fn store(database: &TestDatabase) -> Store {
    let config = config(&database.url, &[]);
    let pool = connect_pool(&database.url, &config.pool_options()).unwrap();
    Store::new(pool, config.protocol, config.search, Arc::new(SystemIds))
}

fn intent() -> Intent {
    Intent {
        operation: OperationId {
            user: UserId::parse("ada").unwrap(),
            request: SystemIds.next_id(),
        },
        attempt_id: SystemIds.next_id(),
        new_id: None,
        fingerprint: Checksum::of(b"request"),
        entity_type: EntityType::note(),
        kind: Kind::Create { extension: "md".to_owned() },
        lease: None,
        draft: None,
        words: None,
    }
}

fn change(attempt: Attempt, title: &str) -> Change {
    Change {
        attempt,
        phase: Phase::Legacy,
        create: EntityDraft {
            title: Some(title.to_owned()),
            preview: String::new(),
            tags: Vec::new(),
            file: None,
            content_block: Some("body".to_owned()),
            search_text: Some("body".to_owned()),
        },
        event: EventDraft { event_type: "entity.created".to_owned(), data: "{}".to_owned() },
        document: None,
    }
}

async fn begin_many(store: &Store, count: usize) -> Vec<Attempt> {
    let begun = join_all((0..count).map(|_| store.begin(intent()))).await;
    begun
        .into_iter()
        .map(|begun| match begun.unwrap() {
            Begun::Started(started) => started.attempt,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// How many transactions wrote the rows of a table.
async fn transactions(database: &TestDatabase) -> i64 {
    sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM entities")
        .fetch_one(&database.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_writes_at_once_are_all_there() {
    let (database, running) = service(&[]).await;
    let write = async |number: u32| {
        let user = format!("user-{}", number % 7);
        let started = running.api.start(&user, &id()).await;
        let body = format!("body of {number}");
        let entity = running.api.commit(commit_request(&started, &body)).await.unwrap();
        let read = running.api.get(&user, &entity.id).await.unwrap();
        assert_eq!(read.entity.as_ref(), Some(&entity));
        (entity.id, body)
    };
    let written: BTreeSet<_> = join_all((0..200).map(write)).await.into_iter().collect();
    let stored: Vec<(String, String)> =
        sqlx::query_as("SELECT entity_id::text, content FROM content_blocks")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), written);
    let expected = Rows {
        entities: 200,
        content_blocks: 200,
        entity_revisions: 200,
        write_operations: 200,
        blob_gc: 0,
    };
    assert_eq!(rows(&database.pool).await, expected);
}

#[tokio::test]
async fn callers_who_wait_together_share_one_transaction() {
    let database = database().await;
    set_phase(&database.pool, "legacy").await;
    let store = store(&database);
    let attempts = begin_many(&store, 64).await;
    let committed = join_all(attempts.into_iter().map(|a| store.commit(change(a, "title")))).await;
    assert!(committed.iter().all(Result::is_ok), "{committed:?}");
    assert_eq!(transactions(&database).await, 1);
}

#[tokio::test]
async fn a_commit_that_the_database_refuses_fails_alone() {
    let database = database().await;
    set_phase(&database.pool, "legacy").await;
    let poison = "ALTER TABLE entities ADD CONSTRAINT no_poison CHECK (title <> 'poison')";
    execute(&database.pool, poison).await;
    let store = store(&database);
    let attempts = begin_many(&store, 64).await;
    let title = |number| if number == 20 { "poison" } else { "title" };
    let commits =
        attempts.iter().enumerate().map(|(n, a)| store.commit(change(a.clone(), title(n))));
    for (number, outcome) in join_all(commits).await.into_iter().enumerate() {
        if number == 20 {
            let error = outcome.unwrap_err();
            assert!(matches!(&error, Error::Database(_)), "{error:?}");
            assert!(!error.is_database_away());
        } else {
            outcome.unwrap();
        }
    }
    let rows = rows(&database.pool).await;
    assert_eq!((rows.entities, rows.content_blocks, rows.entity_revisions), (63, 63, 63));
    let poisoned = pb::OperationRef {
        user_id: attempts[20].operation.user.to_string(),
        request_id: attempts[20].operation.request.to_string(),
        epoch: 1,
    };
    assert_eq!(operation(&database.pool, Some(&poisoned)).await.state, "PENDING");
    // And its writer may try something else.
    store.commit(change(attempts[20].clone(), "title")).await.unwrap();
}

#[tokio::test]
async fn a_begin_that_the_database_refuses_fails_alone() {
    let database = database().await;
    let poison = "ALTER TABLE write_operations ADD CHECK (extension <> 'poison')";
    execute(&database.pool, poison).await;
    let store = store(&database);
    let extension = |number| if number == 20 { "poison" } else { "md" };
    let kind = |number| Kind::Create { extension: extension(number).to_owned() };
    let begins = (0..64).map(|n| store.begin(Intent { kind: kind(n), ..intent() }));
    let begun = join_all(begins).await;
    for (number, outcome) in begun.into_iter().enumerate() {
        assert_eq!(outcome.is_ok(), number != 20, "{outcome:?}");
    }
    assert_eq!(rows(&database.pool).await.write_operations, 63);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_begins_with_one_request_id_one_is_started() {
    let (database, running) = service(&[]).await;
    // Another replica on the same database.
    let other = Running::start(&database.url, &[]).await.ready().await;
    let request = id();
    let begins = (0..64).map(|number| {
        let api = if number % 2 == 0 { &running.api } else { &other.api };
        api.begin(begin_request("ada", &request))
    });
    let begun: Vec<Outcome> = join_all(begins).await.into_iter().map(Result::unwrap).collect();
    let count = |is: fn(&Outcome) -> bool| begun.iter().filter(|outcome| is(outcome)).count();
    assert_eq!(count(|outcome| matches!(outcome, Outcome::Started(_))), 1);
    assert_eq!(count(|outcome| matches!(outcome, Outcome::InProgress(_))), 63);
    assert_eq!(rows(&database.pool).await.write_operations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_get_the_same_writes_do_not_stand_in_each_others_way() {
    let (database, running) = service(&[]).await;
    let other = Running::start(&database.url, &[]).await.ready().await;
    let requests: Vec<_> = (0..64).map(|_| begin_request("ada", &id())).collect();
    for _ in 0..3 {
        // One gateway's order is the other's backwards.
        let there = requests.iter().map(|request| running.api.begin(request.clone()));
        let back = requests.iter().rev().map(|request| other.api.begin(request.clone()));
        let (there, mut back) = tokio::join!(join_all(there), join_all(back));
        back.reverse();
        for (one, same) in there.into_iter().zip(back) {
            // One attempt, seen twice.
            let (Outcome::Started(one), Outcome::Started(same)) = (one.unwrap(), same.unwrap())
            else {
                panic!("not started");
            };
            assert_same_attempt(&one, &same);
        }
    }
    assert_eq!(rows(&database.pool).await.write_operations, 64);
}
