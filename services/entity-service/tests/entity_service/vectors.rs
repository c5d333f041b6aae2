//! Vectors: every search finds what is nearest, whichever way it goes, and only the user's own.

use synap_proto::{
    entity::{self as pb, entity_service_client::EntityServiceClient},
    reason,
};
use synap_rpc::RpcError;
use tonic::Code;

use crate::support::{Answer, Api, assert_invalid, assert_refused, execute, id, service};

const MODEL: &str = "text-embedding-3-small";

impl Api {
    async fn upsert(
        &self,
        user: &str,
        entity: &str,
        model: &str,
        vectors: &[Vec<f32>],
    ) -> Answer<()> {
        let vectors = (0..)
            .zip(vectors)
            .map(|(chunk, embedding)| pb::EntityVector { chunk, embedding: embedding.clone() });
        let request = pb::UpsertVectorsRequest {
            user_id: user.to_owned(),
            entity_id: entity.to_owned(),
            embedding_model: model.to_owned(),
            vectors: vectors.collect(),
        };
        let mut client = EntityServiceClient::new(self.0.clone());
        client.upsert_vectors(request).await.map_err(RpcError::from)?;
        Ok(())
    }

    async fn nearest(
        &self,
        user: &str,
        embedding: Vec<f32>,
        limit: i32,
    ) -> Answer<Vec<(String, f32)>> {
        let request = pb::SearchVectorsRequest {
            user_id: user.to_owned(),
            entity_type: "note".to_owned(),
            embedding_model: MODEL.to_owned(),
            embedding,
            limit,
        };
        let mut client = EntityServiceClient::new(self.0.clone());
        let hits = client.search_vectors(request).await.map_err(RpcError::from)?.into_inner().hits;
        Ok(hits.into_iter().map(|hit| (hit.entity.unwrap().id, hit.score)).collect())
    }

    async fn delete_vectors(&self, user: &str, entity: &str, model: &str) -> Answer<i64> {
        let request = pb::DeleteVectorsRequest {
            user_id: user.to_owned(),
            entity_id: entity.to_owned(),
            embedding_model: model.to_owned(),
        };
        let mut client = EntityServiceClient::new(self.0.clone());
        Ok(client.delete_vectors(request).await.map_err(RpcError::from)?.into_inner().deleted)
    }

    /// A new note with vectors.
    async fn note(&self, user: &str, vectors: &[Vec<f32>]) -> String {
        let (_, entity) = self.write(user).await;
        self.upsert(user, &entity.id, MODEL, vectors).await.unwrap();
        entity.id
    }
}

/// A direction between two axes.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn towards(degrees: usize) -> Vec<f32> {
    let mut vector = vec![0.0; 1536];
    let angle = (degrees as f32).to_radians();
    (vector[0], vector[1]) = (angle.cos(), angle.sin());
    vector
}

fn ids(found: &[(String, f32)]) -> Vec<&str> {
    found.iter().map(|(id, _)| id.as_str()).collect()
}

async fn finds_the_nearest(way: &[&str]) {
    let (database, running) = service(way).await;
    let api = &running.api;
    let near = api.note("ada", &[towards(10)]).await;
    // Its second part is the nearest of all.
    let parts = api.note("ada", &[towards(80), towards(5), towards(60)]).await;
    let far = api.note("ada", &[towards(70)]).await;
    let deleted = api.note("ada", &[towards(1)]).await;
    api.note("bob", &[towards(0)]).await;
    sqlx::query("UPDATE entities SET deleted_at = now() WHERE id = $1::uuid")
        .bind(&deleted)
        .execute(&database.pool)
        .await
        .unwrap();
    let found = api.nearest("ada", towards(0), 10).await.unwrap();
    assert_eq!(ids(&found), [&*parts, &*near, &*far]);
    assert!((found[0].1 - 5.0_f32.to_radians().cos()).abs() < 1e-3, "{found:?}");
    assert_eq!(ids(&api.nearest("ada", towards(0), 1).await.unwrap()), [&*parts]);

    // Other models do not meet, and a new set takes the place of the old one.
    api.upsert("ada", &far, "another", &[towards(0)]).await.unwrap();
    assert_eq!(ids(&api.nearest("ada", towards(0), 1).await.unwrap()), [&*parts]);
    api.upsert("ada", &parts, MODEL, &[towards(90)]).await.unwrap();
    let found = api.nearest("ada", towards(0), 10).await.unwrap();
    assert_eq!(ids(&found), [&*near, &*far, &*parts]);

    assert_eq!(api.delete_vectors("bob", &far, "").await.unwrap(), 0);
    assert_eq!(api.delete_vectors("ada", &far, "another").await.unwrap(), 1);
    assert_eq!(api.delete_vectors("ada", &far, "").await.unwrap(), 1);
    assert_eq!(ids(&api.nearest("ada", towards(0), 10).await.unwrap()), [&*near, &*parts]);
}

#[tokio::test]
async fn comparing_all_vectors_finds_the_nearest() {
    finds_the_nearest(&[]).await;
}

#[tokio::test]
async fn the_index_finds_the_nearest() {
    finds_the_nearest(&["--exact-vectors", "0"]).await;
}

/// A filter after the index's scan would leave too few of a user who owns little of it.
#[tokio::test]
async fn a_user_among_many_never_gets_too_few() {
    let (database, running) = service(&["--exact-vectors", "0", "--vector-ef-search", "10"]).await;
    for degrees in 0..12 {
        running.api.note("ada", &[towards(60 + degrees)]).await;
    }
    execute(
        &database.pool,
        "WITH other AS (
             INSERT INTO entities (id, user_id, type)
             SELECT gen_random_uuid(), 'bob', 'note' FROM generate_series(1, 2000)
             RETURNING id
         )
         INSERT INTO entity_vectors (entity_id, user_id, entity_type, embedding)
         SELECT id, 'bob', 'note',
                ('[' || cos(a) || ',' || sin(a) || repeat(',0', 1534) || ']')::vector
         FROM other, LATERAL (SELECT random() / 2 + 0 * extract(epoch FROM now())) AS r (a)",
    )
    .await;
    let found = running.api.nearest("ada", towards(0), 10).await.unwrap();
    assert_eq!(found.len(), 10);
    assert!(found.is_sorted_by(|a, b| a.1 >= b.1), "{found:?}");
}

#[tokio::test]
async fn what_is_no_vector_is_refused_and_says_why() {
    let (_database, running) = service(&[]).await;
    let api = &running.api;
    let note = api.note("ada", &[towards(0)]).await;
    let long = "x".repeat(101);
    let mut nan = towards(0);
    nan[7] = f32::NAN;
    for (model, vectors, field) in [
        (MODEL, vec![], "vectors"),
        (MODEL, vec![vec![1.0; 3]], "vectors[0].embedding"),
        (MODEL, vec![towards(0), nan], "vectors[1].embedding"),
        (MODEL, vec![vec![0.0; 1536]], "vectors[0].embedding"),
        // Longer than pgvector can count.
        (MODEL, vec![vec![1e30; 1536]], "vectors[0].embedding"),
        (MODEL, vec![vec![f32::MAX; 1537]], "vectors[0].embedding"),
        ("", vec![towards(0)], "embedding_model"),
        (&long, vec![towards(0)], "embedding_model"),
    ] {
        assert_invalid(api.upsert("ada", &note, model, &vectors).await, field);
    }
    for (user, entity) in [("bob", note.as_str()), ("ada", &id())] {
        let refused = api.upsert(user, entity, MODEL, &[towards(0)]).await;
        assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
    }
    assert_invalid(api.nearest("ada", towards(0), 0).await, "limit");
    assert_invalid(api.nearest("ada", vec![], 1).await, "embedding");
    assert_eq!(api.nearest("ada", towards(0), 5).await.unwrap().len(), 1);
}
