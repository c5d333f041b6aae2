//! What recovery is handed out, when, and to how many.

use std::collections::BTreeSet;

use futures::future::join_all;
use sqlx::{AssertSqlSafe, PgPool};
use synap_proto::entity as pb;

use crate::support::{
    EVENT_DATA, assert_fenced, commit_request, deletions, execute, expire_leases, id, operation,
    rows, service,
};

/// Operations of the user `ada` whose leases ran out.
async fn insert_expired(pool: &PgPool, state: &str, count: u32) {
    let committed = if state == "COMMITTED" {
        "1, 1, 'entity.created', '{}'"
    } else {
        "NULL, NULL, NULL, NULL"
    };
    let insert = format!(
        "INSERT INTO write_operations
            (user_id, request_id, kind, state, epoch, attempt_id, lease_until, fingerprint,
             entity_type, extension, entity_id, blob_key, event_id, occurred_at, committed_epoch,
             entity_version, event_type, event_data)
         SELECT 'ada', gen_random_uuid(), 'create', '{state}', 1, gen_random_uuid(),
                now() - interval '1 s', decode(repeat('07', 32), 'hex'), 'note', 'md',
                gen_random_uuid(), 'users/ada/notes/{state}-' || n || '.md', gen_random_uuid(),
                now(), {committed}
         FROM generate_series(1, {count}) AS n"
    );
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_pending_operation_whose_lease_ran_out_is_given_up() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let expired = api.start("ada", &id()).await;
    expire_leases(pool).await;
    let live = api.start("ada", &id()).await;

    let claimed = api.claim(10).await.unwrap();
    assert_eq!((claimed.aborted, claimed.pending_events.len()), (1, 0));
    let row = operation(pool, expired.operation.as_ref()).await;
    assert_eq!((row.state.as_str(), row.epoch), ("ABORTED", 2));
    assert_eq!(deletions(pool).await, [expired.key.as_str()]);
    assert_eq!(operation(pool, live.operation.as_ref()).await.state, "PENDING");
    assert_fenced(api.commit(commit_request(&expired, "slow")).await);
    assert_eq!(rows(pool).await.entities, 0);

    // Whoever asks again gets a new attempt, and the key is not put into the queue twice.
    let attempt = expired.operation.unwrap();
    let second = api.start("ada", &attempt.request_id).await;
    assert_eq!(second.operation.as_ref().unwrap().epoch, 3);
    assert_ne!(second.key, expired.key);
    assert_eq!(deletions(pool).await, [expired.key]);
    api.commit(commit_request(&second, "body")).await.unwrap();
}

#[tokio::test]
async fn a_committed_event_is_handed_out_at_longer_and_longer_intervals() {
    let (database, running) = service(&["--event-lease-secs", "50"]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (started, entity) = api.write("ada").await;
    let mut attempt = started.operation.clone().unwrap();
    let lease = operation(pool, Some(&attempt)).await.lease;
    assert!((lease - 50.0).abs() < 1.0, "{lease}");
    for times in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0] {
        expire_leases(pool).await;
        attempt.epoch += 1;
        let event = pb::PendingEvent {
            operation: Some(attempt.clone()),
            event_id: started.event_id.clone(),
            entity_type: "note".to_owned(),
            entity_id: entity.id.clone(),
            version: 1,
            occur_time: started.occur_time,
            event: Some(pb::EventDraft {
                r#type: "entity.created".to_owned(),
                data: EVENT_DATA.to_owned(),
            }),
            adopts: false,
        };
        let claimed = pb::ClaimOperationsResponse { pending_events: vec![event], aborted: 0 };
        assert_eq!(api.claim(10).await.unwrap(), claimed);
        // Under a new lease.
        assert_eq!(api.claim(10).await.unwrap(), pb::ClaimOperationsResponse::default());
        let lease = operation(pool, Some(&attempt)).await.lease;
        assert!((lease - 50.0 * times).abs() < 1.0, "{lease} after {times}");
    }
    // Whatever the epoch is by now: an appended event is appended.
    api.finish(vec![started.operation.unwrap()]).await.unwrap();
    assert_eq!(operation(pool, Some(&attempt)).await.state, "DONE");
    assert_eq!(deletions(pool).await, [""; 0]);
}

#[tokio::test]
async fn a_claim_hands_out_no_more_than_asked_for_oldest_first() {
    let (database, running) = service(&[]).await;
    insert_expired(&database.pool, "COMMITTED", 5).await;
    let (oldest, _) = running.api.write("ada").await;
    execute(
        &database.pool,
        "UPDATE write_operations SET lease_until = now() - interval '1 h'
         WHERE lease_until > now()",
    )
    .await;
    let claimed = running.api.claim(1).await.unwrap();
    assert_eq!(claimed.pending_events.len(), 1);
    assert_eq!(claimed.pending_events[0].event_id, oldest.event_id);
    assert_eq!(running.api.claim(3).await.unwrap().pending_events.len(), 3);
    assert_eq!(running.api.claim(3).await.unwrap().pending_events.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_workers_get_each_operation_once() {
    let (database, running) = service(&[]).await;
    insert_expired(&database.pool, "COMMITTED", 500).await;
    insert_expired(&database.pool, "PENDING", 200).await;
    let worker = async || {
        let (mut events, mut aborted) = (Vec::new(), 0);
        loop {
            let claimed = running.api.claim(20).await.unwrap();
            if claimed == pb::ClaimOperationsResponse::default() {
                return (events, aborted);
            }
            aborted += claimed.aborted;
            events.extend(claimed.pending_events.into_iter().map(|event| event.event_id));
        }
    };
    let claimed = join_all((0..16).map(|_| worker())).await;
    let aborted: i32 = claimed.iter().map(|(_, aborted)| aborted).sum();
    let events: Vec<_> = claimed.into_iter().flat_map(|(events, _)| events).collect();
    assert_eq!((events.len(), aborted), (500, 200));
    assert_eq!(events.into_iter().collect::<BTreeSet<_>>().len(), 500);
    assert_eq!(deletions(&database.pool).await.len(), 200);
}

#[tokio::test]
async fn a_blob_is_forgotten_only_after_a_deletion_that_no_upload_can_outlive() {
    let (database, running) = service(&["--blob-settle-secs", "3600"]).await;
    let (api, pool) = (&running.api, &database.pool);
    let started = api.start("ada", &id()).await;
    api.abort(started.operation).await.unwrap();
    let key = vec![started.key];
    let none: [&str; 0] = [];

    assert_eq!(api.status().await.unwrap().blob_deletions, 1);
    assert_eq!(api.claim_deletions(10).await.unwrap(), key);
    assert_eq!(api.claim_deletions(10).await.unwrap(), none, "it is under a lease");
    api.complete_deletions(key.clone()).await.unwrap();
    assert_eq!(deletions(pool).await, key, "its writer may still be uploading");
    let waits: bool =
        sqlx::query_scalar("SELECT not_before = settled_at AND settled_at > now() FROM blob_gc")
            .fetch_one(pool)
            .await
            .unwrap();
    assert!(waits);
    assert_eq!(api.claim_deletions(10).await.unwrap(), none);

    // A worker that dies loses its lease.
    let due = "UPDATE blob_gc SET not_before = now()";
    execute(pool, due).await;
    assert_eq!(api.claim_deletions(10).await.unwrap(), key);
    // Taken before the upload must have ended, reported after it: still not the last.
    execute(pool, "UPDATE blob_gc SET settled_at = now() - interval '1 s'").await;
    api.complete_deletions(key.clone()).await.unwrap();
    assert_eq!(deletions(pool).await, key);
    assert_eq!(api.claim_deletions(10).await.unwrap(), key);
    assert_eq!(deletions(pool).await, key, "handed out is not deleted");
    api.complete_deletions(key.clone()).await.unwrap();
    assert_eq!(deletions(pool).await, none);
    assert_eq!(api.status().await.unwrap().blob_deletions, 0);
    // Nothing to do, twice.
    api.complete_deletions(key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_workers_get_each_blob_once_and_forget_it() {
    let (database, running) = service(&[]).await;
    execute(
        &database.pool,
        "INSERT INTO blob_gc (key, not_before, settled_at)
         SELECT 'users/ada/notes/' || n || '.md', now(), now() FROM generate_series(1, 500) AS n",
    )
    .await;
    let worker = async || {
        let mut taken = Vec::new();
        loop {
            let keys = running.api.claim_deletions(20).await.unwrap();
            if keys.is_empty() {
                return taken;
            }
            assert!(keys.len() <= 20);
            taken.extend(keys.iter().cloned());
            running.api.complete_deletions(keys).await.unwrap();
        }
    };
    let taken = join_all((0..16).map(|_| worker())).await.concat();
    assert_eq!(taken.len(), 500);
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>().len(), 500);
    assert_eq!(rows(&database.pool).await.blob_gc, 0);
}
