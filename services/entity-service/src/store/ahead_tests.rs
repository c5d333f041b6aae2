use synap_postgres::{PoolOptions, connect_pool};
use synap_testkit::postgres::{TestDatabase, TestServer};
use synap_types::{IdGenerator as _, SystemIds, UserId};

use super::*;
use crate::{
    domain::{Attempt, EntityDraft, EventDraft, Phase},
    service::{MIGRATION_TABLE, MIGRATOR},
};

async fn documents() -> (TestDatabase, Documents) {
    let migrate =
        async |url: String| synap_postgres::migrate(&url, &MIGRATOR, MIGRATION_TABLE).await;
    let database = TestServer::shared().await.database("walls", migrate).await;
    let pool = connect_pool(&database.url, &PoolOptions::new("ahead")).unwrap();
    (database, Documents::new(Database::new(pool, 0), "english".into()))
}

fn operation() -> OperationId {
    OperationId { user: UserId::parse("ada").unwrap(), request: SystemIds.next_id() }
}

fn words(text: &str) -> Words {
    Words { title: Some("Ships".to_owned()), tags: vec!["sea".to_owned()], text: text.to_owned() }
}

fn change(operation: &OperationId, text: &str) -> Change {
    Change {
        attempt: Attempt { operation: operation.clone(), epoch: 1 },
        phase: Phase::DualWrite,
        create: EntityDraft {
            title: Some("Ships".to_owned()),
            preview: String::new(),
            tags: vec!["sea".to_owned()],
            file: None,
            content_block: Some(text.to_owned()),
            search_text: Some(text.to_owned()),
        },
        event: EventDraft { event_type: "entity.created".to_owned(), data: "{}".to_owned() },
        document: None,
    }
}

#[tokio::test]
async fn a_commit_takes_the_document_of_its_words_once() {
    let (_database, documents) = documents().await;
    let begun = operation();
    documents.make(&begun, words("running"));
    assert_eq!(documents.take(&change(&operation(), "running")).await, None);
    let document = documents.take(&change(&begun, "running")).await.unwrap();
    assert!(document.contains("'run':") && document.contains("'ship':1A"), "{document}");
    assert_eq!(documents.take(&change(&begun, "running")).await, None);
}

#[tokio::test]
async fn a_commit_of_other_words_takes_nothing() {
    let (_database, documents) = documents().await;
    let begun = operation();
    documents.make(&begun, words("running"));
    assert_eq!(documents.take(&change(&begun, "walking")).await, None);
}

#[tokio::test]
async fn where_there_is_no_room_none_is_made() {
    let (_database, documents) = documents().await;
    let begun: Vec<_> = (0..=ROOM).map(|_| operation()).collect();
    for operation in &begun {
        documents.make(operation, words("running"));
    }
    assert_eq!(documents.take(&change(&begun[ROOM], "running")).await, None);
    documents.take(&change(&begun[0], "running")).await.unwrap();
    documents.make(&begun[ROOM], words("running"));
    documents.take(&change(&begun[ROOM], "running")).await.unwrap();
}
