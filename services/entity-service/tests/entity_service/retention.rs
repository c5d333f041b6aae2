//! What is forgotten of old operations, and what never.

use std::sync::Arc;

use synap_entity_service::store::Store;
use synap_postgres::connect_pool;
use synap_types::SystemIds;

use crate::support::{
    assert_fenced, assert_invalid, commit_request, config, deletions, execute, id, rows, service,
};

fn store(url: &str) -> Store {
    let config = config(url, &["--operation-retention-days", "7"]);
    let pool = connect_pool(url, &config.pool_options()).unwrap();
    Store::new(pool, config.protocol, config.search, Arc::new(SystemIds))
}

#[tokio::test]
async fn only_ended_operations_whose_blob_is_gone_are_forgotten() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let store = store(&database.url);

    let done = api.write("ada").await.0.operation.unwrap();
    api.finish(vec![done]).await.unwrap();
    let aborted = api.start("ada", &id()).await;
    api.abort(aborted.operation.clone()).await.unwrap();
    let pending = api.start("ada", &id()).await;
    let (committed, _) = api.write("ada").await;
    assert_eq!(store.forget_operations(100).await.unwrap(), 0, "too young");

    execute(pool, "UPDATE write_operations SET updated_at = now() - interval '8 days'").await;
    let young = api.write("ada").await.0.operation.unwrap();
    api.finish(vec![young]).await.unwrap();
    assert_eq!(store.forget_operations(100).await.unwrap(), 1, "the old one that is done");
    assert_eq!(deletions(pool).await, [aborted.key]);
    execute(pool, "DELETE FROM blob_gc").await;
    assert_eq!(store.forget_operations(100).await.unwrap(), 1, "its blob is gone now");
    assert_eq!(store.forget_operations(100).await.unwrap(), 0);

    let left: Vec<(String, i64)> = sqlx::query_as(
        "SELECT state, count(*) FROM write_operations GROUP BY state ORDER BY state",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let expected = [("COMMITTED", 1), ("DONE", 1), ("PENDING", 1)];
    assert_eq!(left, expected.map(|(state, count)| (state.to_owned(), count)));
    // What is still under way is unharmed, and what was forgotten stays fenced.
    api.commit(commit_request(&pending, "body")).await.unwrap();
    api.commit(commit_request(&committed, "body")).await.unwrap();
    let mut forgotten = aborted.operation.unwrap();
    forgotten.epoch = 1;
    let mut late = commit_request(&pending, "late");
    late.operation = Some(forgotten);
    assert_fenced(api.commit(late).await);
    assert_eq!(rows(pool).await.entities, 4);
}

#[tokio::test]
async fn a_forgotten_request_id_can_be_used_anew_and_its_old_writer_still_cannot_commit() {
    let (database, running) = service(&[]).await;
    let api = &running.api;
    let request = id();
    let old = api.start("ada", &request).await;
    execute(&database.pool, "DELETE FROM write_operations").await;
    let new = api.start("ada", &request).await;
    assert_eq!(new.operation, old.operation, "counted anew");
    // The key tells them apart.
    let refused = api.commit(commit_request(&old, "old")).await;
    assert_invalid(refused, "create.file.path");
    let entity = api.commit(commit_request(&new, "new")).await.unwrap();
    assert_eq!(entity.id, new.entity_id);
}

#[tokio::test]
async fn old_operations_are_forgotten_in_small_steps() {
    let (database, _running) = service(&[]).await;
    execute(
        &database.pool,
        "INSERT INTO write_operations
            (user_id, request_id, kind, state, epoch, attempt_id, lease_until, fingerprint,
             entity_type, extension, entity_id, blob_key, event_id, occurred_at, updated_at)
         SELECT 'ada', gen_random_uuid(), 'create', 'ABORTED', 1, gen_random_uuid(), now(),
                decode(repeat('07', 32), 'hex'), 'note', 'md', gen_random_uuid(), n::text,
                gen_random_uuid(), now(), now() - interval '1 year'
         FROM generate_series(1, 250) AS n",
    )
    .await;
    let store = store(&database.url);
    // Two replicas at once never count a row twice.
    let (one, two) = tokio::join!(store.forget_operations(100), store.forget_operations(100));
    let step = one.unwrap() + two.unwrap();
    assert_eq!(step, 200);
    assert_eq!(store.forget_operations(100).await.unwrap(), 50);
}
