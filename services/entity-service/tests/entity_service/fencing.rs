//! A writer that was taken over can never commit.

use synap_proto::entity::{self as pb, begin_operation_response::Outcome};

use crate::support::{
    Api, assert_fenced, begin_request, commit_request, deletions, id, operation, rows, service,
    until,
};

/// Begins again until the lease of the attempt before has run out.
async fn take_over(api: &Api, request: &str) -> pb::OperationStarted {
    let second = std::cell::RefCell::new(None);
    until("the lease to run out", async || {
        match api.begin(begin_request("ada", request)).await.unwrap() {
            Outcome::Started(started) => *second.borrow_mut() = Some(started),
            Outcome::InProgress(_) => {}
            Outcome::Committed(other) => panic!("{other:?}"),
        }
        second.borrow().is_some()
    })
    .await;
    second.into_inner().unwrap()
}

#[tokio::test]
async fn a_fenced_commit_leaves_nothing_behind() {
    let (database, running) = service(&["--operation-lease-secs", "0.3"]).await;
    let (api, pool) = (&running.api, &database.pool);
    let request = id();
    let slow = api.start("ada", &request).await;
    let second = take_over(api, &request).await;

    assert_eq!(second.operation.as_ref().unwrap().epoch, 2);
    assert_ne!(second.entity_id, slow.entity_id);
    assert_ne!(second.key, slow.key);
    assert_eq!((&second.event_id, second.occur_time), (&slow.event_id, slow.occur_time));
    assert_eq!(deletions(pool).await, [slow.key.as_str()]);

    let before = rows(pool).await;
    assert_fenced(api.commit(commit_request(&slow, "slow")).await);
    // Not even with the newer attempt's key in its hands.
    let mut stolen = commit_request(&slow, "slow");
    stolen.create.as_mut().unwrap().file.as_mut().unwrap().path.clone_from(&second.key);
    assert_fenced(api.commit(stolen).await);
    assert_eq!(rows(pool).await, before);
    assert_eq!((before.entities, before.content_blocks, before.entity_revisions), (0, 0, 0));
    assert_eq!(operation(pool, slow.operation.as_ref()).await.state, "PENDING");

    let entity = api.commit(commit_request(&second, "body")).await.unwrap();
    assert_eq!(entity.id, second.entity_id);
    let after = rows(pool).await;
    assert_fenced(api.commit(commit_request(&slow, "slow")).await);
    api.finish(vec![second.operation.unwrap()]).await.unwrap();
    assert_fenced(api.commit(commit_request(&slow, "slow")).await);
    assert_eq!(rows(pool).await, after);
    assert_eq!(after.entities, 1);
}

#[tokio::test]
async fn an_attempt_whose_lease_ran_out_may_commit_while_nobody_took_it_over() {
    let (_database, running) = service(&["--operation-lease-secs", "0.001"]).await;
    let started = running.api.start("ada", &id()).await;
    running.api.commit(commit_request(&started, "body")).await.unwrap();
}

#[tokio::test]
async fn commit_and_take_over_race_and_one_of_them_wins() {
    let (database, running) = service(&["--operation-lease-secs", "0.001"]).await;
    let api = &running.api;
    for _ in 0..50 {
        let request = id();
        let slow = api.start("ada", &request).await;
        let commit = commit_request(&slow, "slow");
        let (committed, begun) =
            tokio::join!(api.commit(commit), api.begin(begin_request("ada", &request)));
        match begun.unwrap() {
            Outcome::Started(second) => {
                assert_fenced(committed);
                api.commit(commit_request(&second, "body")).await.unwrap();
            }
            Outcome::Committed(answer) => assert_eq!(answer.entity, committed.ok()),
            // The lease still ran.
            Outcome::InProgress(_) => assert_eq!(committed.unwrap().id, slow.entity_id),
        }
    }
    let rows = rows(&database.pool).await;
    assert_eq!((rows.entities, rows.entity_revisions, rows.write_operations), (50, 50, 50));
}

#[tokio::test]
async fn a_commit_of_an_operation_that_nobody_knows_is_fenced() {
    let (database, running) = service(&[]).await;
    let mut started = running.api.start("ada", &id()).await;
    started.operation.as_mut().unwrap().request_id = id();
    assert_fenced(running.api.commit(commit_request(&started, "body")).await);
    assert_eq!(rows(&database.pool).await.entities, 0);
}
