//! What an operator asks of the entities of all users.

use std::collections::BTreeSet;

use synap_proto::entity::{self as pb, storage_service_client::StorageServiceClient};
use synap_rpc::RpcError;

use crate::support::{assert_invalid, edit_request, id, service, update_commit};

#[tokio::test]
async fn an_audit_sees_the_entities_of_all_users_once_each() {
    let (_database, running) = service(&[]).await;
    let mut written = BTreeSet::new();
    for user in ["ada", "bob", "ada", "a/b c", "bob"] {
        let (_, entity) = running.api.write(user).await;
        written.insert((entity.id, entity.user_id));
    }
    let client = StorageServiceClient::new(running.api.0.clone());
    let page = async |limit, after_id: &str| {
        let request = pb::ListAllEntitiesRequest { limit, after_id: after_id.to_owned() };
        let answer = client.clone().list_all_entities(request).await.map_err(RpcError::from)?;
        Ok::<_, RpcError>(answer.into_inner().entities)
    };
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let entities = page(2, &after).await.unwrap();
        let Some(last) = entities.last() else { break };
        after = last.id.clone();
        listed.extend(entities.into_iter().map(|entity| (entity.id, entity.user_id)));
    }
    assert_eq!(listed, written.iter().cloned().collect::<Vec<_>>());
    assert_invalid(page(0, "").await, "limit");
    assert_invalid(page(1_001, "").await, "limit");
    assert_invalid(page(1, "x").await, "after_id");

    let heads = async |ids: Vec<String>| {
        let request = pb::BatchGetEntityHeadsRequest { ids };
        let answer = client.clone().batch_get_entity_heads(request).await;
        answer.map(|answer| answer.into_inner().heads).map_err(RpcError::from)
    };
    let asked = written.iter().map(|(id, _)| id.clone()).chain([id()]).collect();
    let found = heads(asked).await.unwrap();
    assert!(found.iter().all(|head| head.r#type == "note" && head.version == 1), "{found:?}");
    let found: BTreeSet<_> = found.into_iter().map(|head| (head.id, head.user_id)).collect();
    assert_eq!(found, written);
    assert_invalid(heads(vec![id(), "x".to_owned()]).await, "ids[1]");
}

#[tokio::test]
async fn history_ends_below_an_event_that_is_on_its_way() {
    let (database, running) = service(&[]).await;
    let (api, note) = (&running.api, id());
    sqlx::query(
        "INSERT INTO entities (id, user_id, type, title, version, created_at, updated_at)
         VALUES ($1::uuid, 'ada', 'note', 'of V0.2', 7, now(), now())",
    )
    .bind(&note)
    .execute(&database.pool)
    .await
    .unwrap();
    let version = async || {
        let request = pb::BatchGetEntityHeadsRequest { ids: vec![note.clone()] };
        let mut client = StorageServiceClient::new(running.api.0.clone());
        client.batch_get_entity_heads(request).await.unwrap().into_inner().heads[0].version
    };
    assert_eq!(version().await, 7);
    let edit = edit_request(pb::OperationKind::Update, "ada", &note, "md");
    let started = api.started(edit).await;
    assert_eq!(api.commit(update_commit(&started, "a change")).await.unwrap().version, 8);
    // Its event will ask for a stream that is at 7, or for none.
    assert_eq!(version().await, 7);
    api.finish(vec![started.operation.unwrap()]).await.unwrap();
    assert_eq!(version().await, 8);
}
