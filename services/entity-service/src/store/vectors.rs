//! Vectors, and searches by them.

use std::collections::HashSet;

use pgvector::Vector;
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use synap_types::UserId;
use uuid::Uuid;

use super::{Store, rows};
use crate::{
    domain::{Hit, VectorSearch, Vectors},
    error::Error,
};

/// One writer at a time for the vectors of an entity. Not a lock of the entity's row: building an
/// index entry takes milliseconds, and the writers of the entity must not wait for it.
const LOCK: &str = "
    SELECT pg_advisory_xact_lock(hashtextextended('entity_vectors ' || $1::text, 0))";

const ENTITY_TYPE: &str = "
    SELECT type FROM entities WHERE id = $1 AND (user_id = $2 AND deleted_at IS NULL) IS TRUE";

const DELETE: &str = "
    DELETE FROM entity_vectors
    WHERE entity_id = $1 AND user_id = $2 AND ($3 IS NULL OR embedding_model = $3)";

const INSERT: &str = "
    INSERT INTO entity_vectors (entity_id, user_id, entity_type, embedding_model, chunk, embedding)
    SELECT $1, $2, $3, $4, ($5::int4[])[n], ($6::vector[])[n]
    FROM generate_series(1, cardinality($5::int4[])) AS n";

/// More than the limit need not be counted.
const COUNT: &str = "
    SELECT count(*) FROM (SELECT FROM entity_vectors WHERE user_id = $1 AND embedding_model = $2
                          LIMIT $3) AS few";

/// Every vector of the user is compared: no index can order by a sum. Whether its entity counts is
/// asked from the nearest on, until there are enough.
const EXACT: &str = "
    SELECT v.entity_id, v.distance
    FROM (SELECT entity_id, (embedding <=> $3) + 0 AS distance FROM entity_vectors
          WHERE user_id = $1 AND embedding_model = $2 AND embedding IS NOT NULL
          ORDER BY distance) AS v
    JOIN entities e ON e.id = v.entity_id
    WHERE (e.user_id = $1 AND e.type = $4 AND e.deleted_at IS NULL) IS TRUE
    ORDER BY v.distance
    LIMIT $5";

/// The index hands out vectors of all users, the nearest first, and goes on until enough of them
/// are this user's.
const NEAREST: &str = "
    SELECT v.entity_id, v.embedding <=> $3 AS distance
    FROM entity_vectors v JOIN entities e ON e.id = v.entity_id
    WHERE v.user_id = $1 AND v.embedding_model = $2
      AND (e.user_id = $1 AND e.type = $4 AND e.deleted_at IS NULL) IS TRUE
    ORDER BY v.embedding <=> $3
    LIMIT $5";

/// For the transaction only: a connection serves others afterwards. The scan ends when enough is
/// found; its own limit would let a user who owns little of the index go short.
const ITERATE: &str = "
    SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true),
           set_config('hnsw.ef_search', $1, true),
           set_config('hnsw.max_scan_tuples', '2147483647', true),
           set_config('hnsw.scan_mem_multiplier', '32', true),
           set_config('enable_sort', 'off', true)";

const ENTITIES: &str = "
    SELECT id, user_id, type, title, preview, tags, file_url, file_path, file_size, file_type,
           checksum, file_name, version, created_at, updated_at, deleted_at
    FROM entities WHERE id = ANY ($1) AND (user_id = $2) IS TRUE";

/// Vectors that are looked at for one entity that is returned: what comes out of the index is almost
/// in order, and the best are picked from a few more; and an entity may have several.
const SPARE: i64 = 4;
/// And so many times as many, where those were of too few entities.
const MORE: i64 = 8;

impl Store {
    /// Replaces the vectors of an entity by one model.
    ///
    /// # Errors
    /// [`Error::EntityNotFound`] if there is no such entity of the user.
    #[tracing::instrument(name = "db.vectors.upsert", skip_all, err(level = "debug"))]
    pub async fn upsert_vectors(&self, vectors: Vectors) -> Result<(), Error> {
        let Vectors { user, entity_id, model, chunks } = vectors;
        let mut transaction = self.database.for_user(&user).await?;
        sqlx::query(LOCK).bind(entity_id).execute(&mut *transaction).await?;
        let entity_type: Option<String> = sqlx::query_scalar(ENTITY_TYPE)
            .bind(entity_id)
            .bind(user.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        let entity_type = entity_type.ok_or(Error::EntityNotFound)?;
        delete(&mut transaction, &user, entity_id, Some(&model)).await?;
        let (numbers, embeddings): (Vec<i32>, Vec<Vector>) =
            chunks.into_iter().map(|chunk| (chunk.number, Vector::from(chunk.embedding))).unzip();
        sqlx::query(INSERT)
            .bind(entity_id)
            .bind(user.as_str())
            .bind(entity_type)
            .bind(model)
            .bind(numbers)
            .bind(embeddings)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Deletes the vectors of an entity, all or those of one model, and tells how many.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.vectors.delete", skip_all, err(level = "debug"))]
    pub async fn delete_vectors(
        &self,
        user: &UserId,
        entity_id: Uuid,
        model: Option<&str>,
    ) -> Result<u64, Error> {
        let mut transaction = self.database.for_user(user).await?;
        sqlx::query(LOCK).bind(entity_id).execute(&mut *transaction).await?;
        let deleted = delete(&mut transaction, user, entity_id, model).await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    /// Searches the entities of one user by meaning, the nearest first; the score is the cosine
    /// similarity of the entity's nearest vector. There are as many hits as were asked for, unless
    /// the user has fewer.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.vectors.search", skip_all, err(level = "debug"))]
    pub async fn search_vectors(&self, search: VectorSearch) -> Result<Vec<Hit>, Error> {
        let mut transaction = self.database.for_user(&search.user).await?;
        let few = i64::from(self.search.exact_vectors);
        let vectors: i64 = sqlx::query_scalar(COUNT)
            .bind(search.user.as_str())
            .bind(&search.model)
            .bind(few + 1)
            .fetch_one(&mut *transaction)
            .await?;
        let question = Question { embedding: Vector::from(search.embedding.clone()), search };
        let mut nearest = Vec::new();
        if vectors > few {
            let ef_search = self.search.ef_search.to_string();
            sqlx::query(ITERATE).bind(ef_search).execute(&mut *transaction).await?;
            nearest = question.nearest(&mut transaction, NEAREST).await?;
        }
        if nearest.len() < question.wanted() {
            nearest = question.nearest(&mut transaction, EXACT).await?;
        }
        question.hits(&mut transaction, nearest).await
    }
}

struct Question {
    search: VectorSearch,
    embedding: Vector,
}

impl Question {
    fn wanted(&self) -> usize {
        usize::try_from(self.search.limit).unwrap_or(usize::MAX)
    }

    /// The nearest entities, each with its nearest vector's distance.
    async fn nearest(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
    ) -> Result<Vec<(Uuid, f64)>, Error> {
        let mut vectors = self.search.limit.saturating_mul(SPARE);
        loop {
            let rows = sqlx::query(statement)
                .bind(self.search.user.as_str())
                .bind(&self.search.model)
                .bind(&self.embedding)
                .bind(self.search.entity_type.as_str())
                .bind(vectors)
                .fetch_all(&mut *connection)
                .await?;
            let read = |row: &PgRow| Ok((row.try_get("entity_id")?, row.try_get("distance")?));
            let mut found = rows.iter().map(read).collect::<Result<Vec<(Uuid, f64)>, Error>>()?;
            found.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
            let mut seen = HashSet::new();
            found.retain(|(id, _)| seen.insert(*id));
            let exhausted = i64::try_from(rows.len()).is_ok_and(|count| count < vectors);
            if exhausted || found.len() >= self.wanted() {
                found.truncate(self.wanted());
                return Ok(found);
            }
            vectors = vectors.saturating_mul(MORE);
        }
    }

    async fn hits(
        &self,
        connection: &mut PgConnection,
        nearest: Vec<(Uuid, f64)>,
    ) -> Result<Vec<Hit>, Error> {
        let ids: Vec<Uuid> = nearest.iter().map(|(id, _)| *id).collect();
        let rows = sqlx::query(ENTITIES)
            .bind(ids)
            .bind(self.search.user.as_str())
            .fetch_all(connection)
            .await?;
        let mut entities = rows.iter().map(rows::entity).collect::<Result<Vec<_>, _>>()?;
        let mut take = |(id, distance): (Uuid, f64)| {
            let at = entities.iter().position(|entity| entity.id == id)?;
            #[expect(clippy::cast_possible_truncation, reason = "a similarity needs no f64")]
            Some(Hit { entity: entities.swap_remove(at), score: (1.0 - distance) as f32 })
        };
        Ok(nearest.into_iter().filter_map(&mut take).collect())
    }
}

async fn delete(
    connection: &mut PgConnection,
    user: &UserId,
    entity_id: Uuid,
    model: Option<&str>,
) -> Result<u64, Error> {
    let deleted = sqlx::query(DELETE)
        .bind(entity_id)
        .bind(user.as_str())
        .bind(model)
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected())
}
