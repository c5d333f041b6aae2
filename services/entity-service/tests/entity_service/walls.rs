//! One user never sees or touches what is another's.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use synap_proto::{
    entity::{self as pb, begin_operation_response::Outcome},
    reason,
};
use tonic::Code;

use crate::support::{
    assert_fenced, assert_invalid, assert_refused, begin_request, commit_request, deletions, id,
    operation, rows, service,
};

fn as_bob(operation: Option<&pb::OperationRef>) -> pb::OperationRef {
    pb::OperationRef { user_id: "bob".to_owned(), ..operation.unwrap().clone() }
}

#[tokio::test]
async fn another_users_entity_is_not_found() {
    let (_database, running) = service(&[]).await;
    let (_, entity) = running.api.write("ada").await;
    for other in ["bob", "Ada", "ada ", "ad", "%"] {
        let refused = running.api.get(other, &entity.id).await;
        assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
    }
    running.api.get("ada", &entity.id).await.unwrap();
}

#[tokio::test]
async fn another_users_operation_cannot_be_touched() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let pending = api.start("ada", &id()).await;
    let (committed, _) = api.write("ada").await;
    let before = rows(pool).await;

    for target in [&pending, &committed] {
        let own = operation(pool, target.operation.as_ref()).await;
        let stolen = as_bob(target.operation.as_ref());
        let commit = pb::CommitOperationRequest {
            operation: Some(stolen.clone()),
            ..commit_request(target, "bob's")
        };
        assert_fenced(api.commit(commit).await);
        api.abort(Some(stolen.clone())).await.unwrap();
        api.finish(vec![stolen]).await.unwrap();
        assert_eq!(operation(pool, target.operation.as_ref()).await, own);
    }
    assert_eq!(rows(pool).await, before);

    // The same request id is another operation, with ids and a key of its own.
    let request = &committed.operation.as_ref().unwrap().request_id;
    let Outcome::Started(bobs) = api.begin(begin_request("bob", request)).await.unwrap() else {
        panic!("bob was told about ada's operation");
    };
    assert!(bobs.key.starts_with("users/bob/"), "{}", bobs.key);
    assert_ne!(bobs.entity_id, committed.entity_id);
}

/// A fault in the gateway must not make a row point at another's blob.
#[tokio::test]
async fn a_commit_can_only_name_the_key_of_its_attempt() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (adas, _) = api.write("ada").await;
    let (bobs_other, _) = api.write("bob").await;
    let started = api.start("bob", &id()).await;
    let before = rows(pool).await;
    for foreign in [
        adas.key,
        bobs_other.key,
        format!("{}x", started.key),
        started.key.replace("bob", "ada"),
        started.key.replace("notes", "pages"),
    ] {
        let mut commit = commit_request(&started, "body");
        commit.create.as_mut().unwrap().file.as_mut().unwrap().path = foreign;
        assert_invalid(api.commit(commit).await, "create.file.path");
    }
    assert_eq!(rows(pool).await, before);
    assert_eq!(operation(pool, started.operation.as_ref()).await.state, "PENDING");
    assert_eq!(deletions(pool).await, [""; 0]);
    api.commit(commit_request(&started, "body")).await.unwrap();
}

#[tokio::test]
async fn a_role_that_does_not_own_the_tables_sees_the_rows_of_one_user() {
    let (database, running) = service(&[]).await;
    running.api.write("ada").await;
    running.api.write("bob").await;
    running.api.write("bob").await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    // Roles are the server's, not the database's.
    let role = format!("reader_{}", id().replace('-', "_"));
    let make = format!(
        "CREATE ROLE {role};
         GRANT SELECT ON entities, content_blocks, entity_vectors TO {role};
         SET ROLE {role};"
    );
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut connection).await.unwrap();
    for (user, expected) in [("ada", 1), ("bob", 2), ("", 0)] {
        sqlx::query("SELECT set_config('app.current_user_id', $1, false)")
            .bind(user)
            .execute(&mut connection)
            .await
            .unwrap();
        let counts: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM entities), (SELECT count(*) FROM content_blocks)",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert_eq!(counts, (expected, expected), "{user:?}");
    }
    let clean = format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(clean)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
