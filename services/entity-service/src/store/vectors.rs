//! Vectors, and searches by them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pgvector::Vector;
use sqlx::{
    PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use synap_types::UserId;
use uuid::Uuid;

use super::{Store, database::no_role, rows};
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

/// Compares all vectors of a user who has few: a transaction of its own (migration 0018).
const FEW: &str = "
    SELECT distance, id, user_id, type, title, preview, tags, file_url, file_path, file_size,
           file_type, checksum, file_name, version, created_at, updated_at, deleted_at
    FROM synap_search_few_vectors($1, $2, $3, $4, $5, $6)";

/// The index hands out vectors of all users, the nearest first, and goes on until enough of them
/// are this user's.
const NEAREST: &str = "
    SELECT v.embedding <=> $3 AS distance, e.id, e.user_id, e.type, e.title, e.preview, e.tags,
           e.file_url, e.file_path, e.file_size, e.file_type, e.checksum, e.file_name, e.version,
           e.created_at, e.updated_at, e.deleted_at
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
        let question = Question { embedding: Vector::from(search.embedding.clone()), search };
        let owned = (question.search.user.clone(), question.search.model.clone());
        if !self.many_vectors.has(&owned) {
            let few = i64::from(self.search.exact_vectors);
            let mut connection = self.database.batch().await?;
            let compared = question.compare_all(&mut connection, few).await?;
            connection.keep();
            if let Some(hits) = compared {
                return Ok(hits);
            }
            self.many_vectors.note(owned);
        }

        let mut transaction = self.database.for_user(&question.search.user).await?;
        let ef_search = self.search.ef_search.to_string();
        sqlx::query(ITERATE).bind(ef_search).execute(&mut *transaction).await?;
        let nearest = question.ask_index(&mut transaction).await?;
        transaction.commit().await?;
        if nearest.len() >= question.wanted() {
            return Ok(nearest);
        }
        let mut connection = self.database.batch().await?;
        let compared = question.compare_all(&mut connection, i64::MAX - 1).await?;
        connection.keep();
        Ok(compared.unwrap_or_default())
    }
}

/// Who has too many vectors of a model to compare them all, as of a moment ago: to count them takes
/// as long as a quarter of the search. Whoever is here wrongly is only served by the index.
#[derive(Debug, Clone, Default)]
pub(super) struct ManyVectors(Arc<Mutex<HashMap<(UserId, String), Instant>>>);

impl ManyVectors {
    /// How long it is believed.
    const BELIEVED: Duration = Duration::from_mins(5);
    /// Entries; then all are forgotten.
    const MOST: usize = 10_000;

    fn has(&self, owned: &(UserId, String)) -> bool {
        self.lock().get(owned).is_some_and(|since| since.elapsed() < Self::BELIEVED)
    }

    fn note(&self, owned: (UserId, String)) {
        let mut many = self.lock();
        if many.len() >= Self::MOST {
            many.clear();
        }
        many.insert(owned, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(UserId, String), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The nearest entities; `None` if the user has more than `few` vectors.
    async fn compare_all(
        &self,
        connection: &mut PgConnection,
        few: i64,
    ) -> Result<Option<Vec<Hit>>, Error> {
        let mut vectors = self.first();
        loop {
            let rows = self.ask(FEW, vectors).bind(few).fetch_all(&mut *connection).await;
            let rows = rows.map_err(no_role)?;
            if let [only] = rows.as_slice()
                && only.try_get::<Option<f64>, _>("distance")?.is_none()
            {
                return Ok(None);
            }
            if let Some(hits) = self.enough(&rows, vectors)? {
                return Ok(Some(hits));
            }
            vectors = vectors.saturating_mul(MORE);
        }
    }

    /// What the index says are the nearest entities.
    async fn ask_index(&self, connection: &mut PgConnection) -> Result<Vec<Hit>, Error> {
        let mut vectors = self.first();
        loop {
            let rows = self.ask(NEAREST, vectors).fetch_all(&mut *connection).await?;
            if let Some(hits) = self.enough(&rows, vectors)? {
                return Ok(hits);
            }
            vectors = vectors.saturating_mul(MORE);
        }
    }

    fn first(&self) -> i64 {
        self.search.limit.saturating_mul(SPARE)
    }

    fn ask(&self, statement: &'static str, vectors: i64) -> Query<'_, Postgres, PgArguments> {
        sqlx::query(statement)
            .bind(self.search.user.as_str())
            .bind(&self.search.model)
            .bind(&self.embedding)
            .bind(self.search.entity_type.as_str())
            .bind(vectors)
    }

    /// Each entity once, with its nearest vector; `None` where more than these `vectors` must be
    /// looked at to have as many as were asked for.
    fn enough(&self, rows: &[PgRow], vectors: i64) -> Result<Option<Vec<Hit>>, Error> {
        let mut found: Vec<(Uuid, f64, &PgRow)> = Vec::with_capacity(rows.len());
        for row in rows {
            found.push((row.try_get("id")?, row.try_get("distance")?, row));
        }
        found.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let mut seen = HashSet::new();
        found.retain(|(id, ..)| seen.insert(*id));
        let exhausted = i64::try_from(rows.len()).is_ok_and(|count| count < vectors);
        if !exhausted && found.len() < self.wanted() {
            return Ok(None);
        }
        found.truncate(self.wanted());
        let mut hits = Vec::with_capacity(found.len());
        for (_, distance, row) in found {
            #[expect(clippy::cast_possible_truncation, reason = "a similarity needs no f64")]
            let score = (1.0 - distance) as f32;
            hits.push(Hit { entity: rows::entity(row)?, score });
        }
        Ok(Some(hits))
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
