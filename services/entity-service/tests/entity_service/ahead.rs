//! Search documents that are made before their pivot.

use sqlx::PgPool;
use synap_proto::entity as pb;

use crate::support::{assert_invalid, begin_request, commit_request, id, service};

/// What text search and the text form of a document treat in ways of their own.
const BODY: &str =
    r"It's a 'quoted' back\slash, an e-mail a.b@example.org, C:\notes, 'né:1A' — ünï 数据";

fn words(body: &str) -> pb::Words {
    pb::Words {
        title: "A title".to_owned(),
        tags: vec!["one".to_owned(), "two".to_owned()],
        text: body.to_owned(),
    }
}

fn with_words(words: pb::Words) -> pb::BeginOperationRequest {
    pb::BeginOperationRequest { words: Some(words), ..begin_request("ada", &id()) }
}

async fn document(pool: &PgPool, entity: &str) -> String {
    sqlx::query_scalar("SELECT document::text FROM entity_search WHERE entity_id = $1::uuid")
        .bind(entity)
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_document_made_ahead_is_the_one_that_a_pivot_makes() {
    let (database, running) = service(&[]).await;
    let api = &running.api;
    let plain = api.start("ada", &id()).await;
    let plain = api.commit(commit_request(&plain, BODY)).await.unwrap();
    let expected = document(&database.pool, &plain.id).await;
    for said in [BODY, "something else"] {
        let begun = api.started(with_words(words(said))).await;
        let entity = api.commit(commit_request(&begun, BODY)).await.unwrap();
        assert_eq!(document(&database.pool, &entity.id).await, expected);
    }
}

#[tokio::test]
async fn words_have_limits() {
    let (_database, running) = service(&[]).await;
    for (words, field) in [
        (words(&"x".repeat(16 * 1024 + 1)), "words.text"),
        (words("a\0b"), "words.text"),
        (pb::Words { title: "x".repeat(5000), ..words("") }, "words.title"),
        (pb::Words { tags: vec![String::new(); 200], ..words("") }, "words.tags"),
    ] {
        assert_invalid(running.api.begin(with_words(words)).await, field);
    }
}
