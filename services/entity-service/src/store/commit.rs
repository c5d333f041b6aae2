//! Step 3: the pivot of a create.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};
use synap_proto::field::Violation;
use uuid::Uuid;

use super::{
    database::{BatchConnection, Database, Job, OneByOne, PHASE_LOCK, no_role},
    rows,
};
use crate::{
    config::ProtocolArgs,
    domain::{Attempt, Change, Entity, OperationId},
    error::Error,
};

/// The statement is the transaction, for users who may be many (migration 0019): each operation whose
/// newest attempt this is becomes COMMITTED, and only those get their rows. An operation that is not
/// in the answer has written nothing.
const PIVOT: &str = "
    SELECT user_id, request_id, entity_id, entity_type, occurred_at
    FROM synap_commit_creates($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                              $17, $18, $19, $20, $21, $22)";

/// What stands in the way of a commit that did nothing.
const FIND: &str = "
    SELECT user_id, kind, state, epoch, committed_epoch, entity_id, entity_type, entity_version,
           blob_key, occurred_at
    FROM write_operations
    WHERE user_id = $1 AND request_id = $2";

/// A body of more bytes gets a statement of its own: a batch's parameters stay far from
/// PostgreSQL's limit of 1 GiB a message, and nobody waits for somebody else's upload.
const GROUPED_BYTES: usize = 256 * 1024;

#[derive(Clone)]
pub(super) struct Committer {
    pub(super) database: Database,
    pub(super) times: ProtocolArgs,
    /// The text search configuration of new documents.
    pub(super) language: Arc<str>,
}

struct Written {
    entity_id: Uuid,
    entity_type: String,
    occurred_at: DateTime<Utc>,
}

impl Committer {
    /// Commits a batch of different operations.
    pub(super) async fn commit_all(&self, jobs: Vec<Job<Change>>) -> Vec<Result<Entity, Error>> {
        let connection = match self.database.batch().await {
            Ok(connection) => connection,
            Err(error) => return jobs.iter().map(|_| Err(error.clone())).collect(),
        };
        let batch = Job::run_all(jobs);
        let mut written = match self.write_all(connection, &batch).await {
            Ok(written) => written,
            Err(error) if error.is_database_away() => {
                return batch.iter().map(|_| Err(error.clone())).collect();
            }
            // One change that the database refuses must not fail the others: each is tried alone.
            Err(_) => HashMap::new(),
        };
        let mut answers = Vec::with_capacity(batch.len());
        let mut one_by_one = OneByOne::new();
        for change in batch {
            answers.push(match written.remove(&change.attempt.operation) {
                Some(written) => Ok(written_entity(change, written)),
                None => one_by_one.run(self.commit_alone(change)).await,
            });
        }
        answers
    }

    /// Commits one operation, whatever its size.
    pub(super) async fn commit_alone(&self, change: Change) -> Result<Entity, Error> {
        let batch = std::slice::from_ref(&change);
        let mut written = self.write_all(self.database.batch().await?, batch).await?;
        if let Some(written) = written.remove(&change.attempt.operation) {
            return Ok(written_entity(change, written));
        }
        let user = &change.attempt.operation.user;
        explain(&mut *self.database.for_user(user).await?, &change).await
    }

    async fn write_all(
        &self,
        mut connection: BatchConnection,
        batch: &[Change],
    ) -> Result<HashMap<OperationId, Written>, Error> {
        let written = self.write(&mut connection, batch).await?;
        connection.keep();
        Ok(written)
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        batch: &[Change],
    ) -> Result<HashMap<OperationId, Written>, Error> {
        // In one order for all replicas, so that two batches cannot wait for each other.
        let mut batch: Vec<&Change> = batch.iter().collect();
        batch.sort_unstable_by(|a, b| rows::lock_order(&a.attempt.operation, &b.attempt.operation));
        let text = |value: fn(&Change) -> Option<&str>| {
            batch.iter().map(|change| value(change)).collect::<Vec<_>>()
        };
        let file = |value: fn(&crate::domain::File) -> Option<&str>| {
            batch.iter().map(|c| c.create.file.as_ref().and_then(value)).collect::<Vec<_>>()
        };
        let tags: Vec<String> = batch
            .iter()
            .map(|c| serde_json::Value::from(c.create.tags.as_slice()).to_string())
            .collect();
        let sizes: Vec<Option<i64>> =
            batch.iter().map(|c| c.create.file.as_ref().map(|file| file.size)).collect();
        let rows = sqlx::query(PIVOT)
            .bind(PHASE_LOCK)
            .bind(self.times.event_lease_secs)
            .bind(&*self.language)
            .bind((1..).zip(&batch).map(|(place, _)| place).collect::<Vec<i32>>())
            .bind(text(|c| Some(c.attempt.operation.user.as_str())))
            .bind(batch.iter().map(|c| c.attempt.operation.request).collect::<Vec<_>>())
            .bind(batch.iter().map(|c| c.attempt.epoch).collect::<Vec<_>>())
            .bind(text(|c| Some(c.phase.name())))
            .bind(text(|c| c.create.title.as_deref()))
            .bind(text(|c| Some(&c.create.preview)))
            .bind(tags)
            .bind(file(|f| f.url.as_deref()))
            .bind(file(|f| Some(&f.path)))
            .bind(sizes)
            .bind(file(|f| Some(&f.file_type)))
            .bind(file(|f| Some(&f.checksum)))
            .bind(file(|f| f.name.as_deref()))
            .bind(text(|c| c.create.content_block.as_deref()))
            .bind(text(|c| c.create.search_text.as_deref()))
            .bind(text(|c| Some(&c.event.event_type)))
            .bind(text(|c| Some(&c.event.data)))
            .bind(text(|c| c.document.as_deref()))
            .fetch_all(connection)
            .await
            .map_err(no_role)?;

        let mut by_id = HashMap::new();
        for row in rows {
            let id: (String, Uuid) = (row.try_get("user_id")?, row.try_get("request_id")?);
            let written = Written {
                entity_id: row.try_get("entity_id")?,
                entity_type: row.try_get("entity_type")?,
                occurred_at: row.try_get("occurred_at")?,
            };
            by_id.insert(id, written);
        }
        let of = |change: &&Change| {
            let Attempt { operation, .. } = &change.attempt;
            let id = (operation.user.as_str().to_owned(), operation.request);
            Some((operation.clone(), by_id.remove(&id)?))
        };
        Ok(batch.iter().filter_map(of).collect())
    }
}

/// Nothing was written: because it had been before, or because it must not be.
async fn explain(connection: &mut PgConnection, change: &Change) -> Result<Entity, Error> {
    let Attempt { operation, epoch } = &change.attempt;
    let row = sqlx::query(FIND)
        .bind(operation.user.as_str())
        .bind(operation.request)
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(Error::Fenced)?;
    if row.try_get::<Option<i64>, _>("committed_epoch")? == Some(*epoch) {
        // The reply to the first commit was lost.
        return rows::answer(connection, &row).await;
    }
    if row.try_get::<&str, _>("state")? != "PENDING" || row.try_get::<i64, _>("epoch")? != *epoch {
        return Err(Error::Fenced);
    }
    if row.try_get::<&str, _>("kind")? != "create" {
        return Err(Violation::new("create", "is not what the operation was begun for").into());
    }
    let key: &str = row.try_get("blob_key")?;
    if change.create.file.as_ref().is_some_and(|file| file.path != key) {
        return Err(Violation::new("create.file.path", "must be the key of the attempt").into());
    }
    Err(Error::PhaseChanged)
}

impl Change {
    /// Whether it may share a statement with others.
    pub(super) fn is_small(&self) -> bool {
        self.create.content_block.as_ref().is_none_or(|body| body.len() <= GROUPED_BYTES)
    }
}

fn written_entity(change: Change, written: Written) -> Entity {
    let draft = change.create;
    Entity {
        id: written.entity_id,
        user_id: change.attempt.operation.user.as_str().to_owned(),
        entity_type: written.entity_type,
        title: draft.title,
        preview: Some(draft.preview),
        tags: draft.tags,
        file: draft.file,
        version: 1,
        created_at: written.occurred_at,
        updated_at: written.occurred_at,
        deleted_at: None,
    }
}
