//! The language of a search, and whose rows it can see.

use std::sync::Arc;

use sqlx::{Connection as _, PgConnection, PgPool};
use synap_entity_service::store::Store;
use synap_postgres::connect_pool;
use synap_proto::entity::{self as pb, entity_service_client::EntityServiceClient};
use synap_types::SystemIds;
use uuid::Uuid;

use crate::support::{
    Api, Running, commit_request, config, database, execute, id, service, set_phase, until,
};

impl Api {
    async fn written(&self, user: &str, body: &str) -> String {
        let started = self.start(user, &id()).await;
        self.commit(commit_request(&started, body)).await.unwrap().id
    }

    async fn found(&self, user: &str, query: &str) -> Vec<String> {
        let request = pb::SearchEntitiesRequest {
            user_id: user.to_owned(),
            entity_type: "note".to_owned(),
            query: query.to_owned(),
            limit: 100,
            after: None,
        };
        let mut client = EntityServiceClient::new(self.0.clone());
        let hits = client.search_entities(request).await.unwrap().into_inner().hits;
        hits.into_iter().map(|hit| hit.entity.unwrap().id).collect()
    }
}

#[tokio::test]
async fn words_are_found_in_the_forms_of_the_configured_language() {
    for (language, written, found, not_found) in [
        ("english", "two ships", &["ship", "shipping"][..], &["Schiff"][..]),
        ("german", "zwei Häuser", &["Haus", "hausen"], &["house"]),
        // Nobody speaks it: words as they are, and no word is too common to be found.
        ("klingon", "the two ships", &["ships", "the"], &["ship"]),
    ] {
        let (_database, running) = service(&["--search-language", language]).await;
        let note = running.api.written("ada", written).await;
        for query in found {
            assert_eq!(running.api.found("ada", query).await, [note.as_str()], "{query}");
        }
        for query in not_found {
            assert_eq!(running.api.found("ada", query).await, [""; 0], "{query}");
        }
    }
}

/// Documents hold stems: "running" is "run", "theory" is "theori", and "the" is nothing.
#[tokio::test]
async fn a_beginning_finds_what_has_a_form_that_begins_so() {
    let (_database, running) = service(&[]).await;
    let note =
        running.api.written("ada", "Running the organization: onyx, theory, don't be happy").await;
    let other = running.api.written("ada", "An onion's orchestra, a rune, Häuser").await;
    for (query, expected) in [
        ("run*", &[&note, &other][..]),
        ("runn* RUNNIN* running*", &[&note]),
        ("ony*", &[&note]),
        ("the*", &[&note]),
        ("theor* theory*", &[&note]),
        ("organi* organiza* organization* organizations*", &[&note]),
        ("hap* happ* happi* happy* happine*", &[&note]),
        ("oni* rune* häus*", &[&other]),
        ("org* -onyx*", &[]),
        ("or* -runn*", &[&other]),
        ("x*y or onio* the -theor* or the", &[&other]),
        ("the or an or ony*", &[&note]),
        ("runway*", &[]),
        ("\"run*\"", &[&note]),
    ] {
        let mut found = running.api.found("ada", query).await;
        let mut expected: Vec<_> = expected.iter().map(|id| (*id).clone()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{query}");
    }
}

/// A change of title and tags keeps the words of a body that is in no table.
#[tokio::test]
async fn a_document_can_get_another_title_and_keep_its_body() {
    let (database, running) = service(&[]).await;
    let note = running.api.written("ada", "a lighthouse by the sea").await;
    execute(
        &database.pool,
        "UPDATE entity_search
         SET document = synap_search_retitled(document, user_id, 'Harbours', '{towers}', 'english')",
    )
    .await;
    for query in ["lighthouse sea", "harbour tower", "\"lighthouse by the sea\""] {
        assert_eq!(running.api.found("ada", query).await, [note.as_str()], "{query}");
    }
    assert_eq!(running.api.found("ada", "title").await, [""; 0]);
}

/// It runs as the owner of the tables: it must not serve whoever has not said who asks.
#[tokio::test]
async fn the_search_function_sees_the_rows_of_the_transactions_user_only() {
    let (database, running) = service(&[]).await;
    running.api.written("ada", "sea").await;
    running.api.written("bob", "sea").await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    for (user, expected) in [("ada", 1), ("bob", 1), ("carol", 0), ("", 0)] {
        let mut transaction = connection.begin().await.unwrap();
        sqlx::query(
            "SELECT set_config('role', 'synap_entity', true),
                    set_config('app.current_user_id', $1, true)",
        )
        .bind(user)
        .execute(&mut *transaction)
        .await
        .unwrap();
        let found: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM synap_search('''sea''', 'english', 'note', 10, NULL, NULL, 10)",
        )
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
        assert_eq!(found, expected, "{user:?}");
    }
    connection.close().await.unwrap();
}

/// As V0.2 left them: nothing is there to be searched in.
const OLDER: &str = "
    INSERT INTO entities (id, user_id, type, title)
    SELECT gen_random_uuid(), 'ada', 'note', 'old harbour' FROM generate_series(1, 250);
    INSERT INTO content_blocks (entity_id, content)
    SELECT id, 'a lighthouse ' || repeat('日本 ', 30000) || 'ending' FROM entities LIMIT 20;
    INSERT INTO entities (id, user_id, type, title)
    VALUES (gen_random_uuid(), 'ada', 'file', 'old harbour'),
           (gen_random_uuid(), 'bob', 'note',
            'harbour' || (SELECT string_agg(' ' || n, '') FROM generate_series(1, 200000) AS n))";

async fn documents(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM entity_search").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn what_is_older_than_documents_gets_them() {
    let database = database().await;
    execute(&database.pool, OLDER).await;
    let running = Running::start(&database.url, &[]).await.ready().await;
    until("documents of all", async || documents(&database.pool).await == 251).await;
    for (user, query, count) in [
        ("ada", "harbours", 100),
        ("ada", "lighthouses", 20),
        ("ada", "ending", 0),
        ("bob", "harbour", 1),
    ] {
        assert_eq!(running.api.found(user, query).await.len(), count, "{user} {query}");
    }
}

/// The first document is refused: a sequence counts what a transaction takes back.
const REFUSED_ONCE: &str = "
    CREATE SEQUENCE documents;
    CREATE FUNCTION refuse_the_first() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('documents') = 1 THEN RAISE 'refused'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse_the_first BEFORE INSERT ON entity_search
    FOR EACH ROW EXECUTE FUNCTION refuse_the_first()";

#[tokio::test]
async fn documents_that_could_not_be_written_are_written_soon() {
    let database = database().await;
    execute(&database.pool, OLDER).await;
    execute(&database.pool, REFUSED_ONCE).await;
    let mut holder = database.pool.begin().await.unwrap();
    let hold = "SELECT FROM entities WHERE user_id = 'bob' FOR UPDATE";
    sqlx::query(hold).execute(&mut *holder).await.unwrap();
    let _running = Running::start(&database.url, &[]).await.ready().await;
    until("documents of all but one", async || documents(&database.pool).await == 250).await;
    holder.rollback().await.unwrap();
    until("documents of all", async || documents(&database.pool).await == 251).await;
}

#[tokio::test]
async fn a_walk_for_documents_leaves_alone_what_is_being_written() {
    let database = database().await;
    execute(&database.pool, OLDER).await;
    let config = config(&database.url, &[]);
    let pool = connect_pool(&database.url, &config.pool_options()).unwrap();
    let store = Store::new(pool, config.protocol, config.search, Arc::new(SystemIds));
    let walk = async || {
        let (mut last, mut filled) = (Some(Uuid::nil()), 0);
        while let Some(after) = last {
            let walked = store.fill_documents(after, 100).await.unwrap();
            (last, filled) = (walked.last, filled + walked.filled);
        }
        filled
    };
    let mut writer = database.pool.begin().await.unwrap();
    let retitled = "UPDATE entities SET title = 'tower' WHERE user_id = 'bob'";
    sqlx::query(retitled).execute(&mut *writer).await.unwrap();
    assert_eq!(walk().await, 250);
    writer.commit().await.unwrap();
    assert_eq!(walk().await, 1);
    assert_eq!(walk().await, 0);

    // In a phase whose bodies are elsewhere nobody knows what to write.
    execute(&database.pool, "TRUNCATE entity_search").await;
    set_phase(&database.pool, "object_only").await;
    assert_eq!(walk().await, 0);
    assert_eq!(documents(&database.pool).await, 0);
}
