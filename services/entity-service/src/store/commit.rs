//! Step 3: the pivot of a create.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};
use synap_proto::field::Violation;
use uuid::Uuid;

use super::{
    database::{BatchTransaction, Database, Job, OneByOne},
    rows,
};
use crate::{
    config::ProtocolArgs,
    domain::{Attempt, Change, Entity, OperationId},
    error::Error,
};

/// One statement is the transaction: each operation whose newest attempt this is becomes COMMITTED,
/// and only those get their rows. An operation that is not in the answer has written nothing.
/// A row can only name the key that its attempt was given: no row ever points at another's blob.
///
/// Elements are taken by their place: `unnest` of so many arrays costs more than an INSERT.
/// The state is a parameter so that no plan reads the index of all open operations instead of
/// asking for these by their primary key.
const PIVOT: &str = "
    WITH input AS (
        SELECT ($2::text[])[n] AS user_id, ($3::uuid[])[n] AS request_id, ($4::int8[])[n] AS epoch,
               ($5::text[])[n] AS phase, ($6::text[])[n] AS title, ($7::text[])[n] AS preview,
               ($8::text[])[n] AS tags, ($9::text[])[n] AS file_url, ($10::text[])[n] AS file_path,
               ($11::int8[])[n] AS file_size, ($12::text[])[n] AS file_type,
               ($13::text[])[n] AS checksum, ($14::text[])[n] AS content_block,
               ($15::text[])[n] AS event_type, ($16::text[])[n] AS event_data,
               ($18::text[])[n] AS file_name, ($20::text[])[n] AS search_text
        FROM unnest($19::int4[]) AS n
    ),
    pivot AS (
        UPDATE write_operations o
        SET state = 'COMMITTED', committed_epoch = o.epoch, entity_version = 1,
            event_type = i.event_type, event_data = i.event_data::json,
            lease_until = clock_timestamp() + make_interval(secs => $1),
            updated_at = clock_timestamp()
        FROM input i
        WHERE o.user_id = i.user_id AND o.request_id = i.request_id
          AND o.epoch = i.epoch AND o.state = $17 AND o.kind = 'create'
          AND (i.file_path IS NULL OR i.file_path = o.blob_key)
          AND i.phase = CASE o.entity_type WHEN 'file' THEN 'object_only'
                        ELSE (SELECT phase FROM storage_phase WHERE only_row) END
        RETURNING o.user_id, o.request_id, o.entity_id, o.entity_type, o.occurred_at, i.title,
            i.preview, ARRAY(SELECT jsonb_array_elements_text(i.tags::jsonb)) AS tags,
            i.file_url, i.file_path, i.file_size, i.file_type, i.checksum, i.file_name,
            i.content_block, i.search_text
    ),
    entity AS (
        INSERT INTO entities (id, user_id, type, title, preview, tags, version, created_at,
                              updated_at, file_url, file_path, file_size, file_type, checksum,
                              file_name)
        SELECT entity_id, user_id, entity_type, title, preview, tags, 1, occurred_at,
               occurred_at, file_url, file_path, file_size, file_type, checksum, file_name
        FROM pivot
    ),
    revision AS (
        INSERT INTO entity_revisions (entity_id, version, user_id, title, preview, tags, file_url,
                                      file_path, file_size, file_type, checksum, file_name,
                                      created_at)
        SELECT entity_id, 1, user_id, title, preview, tags, file_url, file_path, file_size,
               file_type, checksum, file_name, occurred_at
        FROM pivot
    ),
    block AS (
        INSERT INTO content_blocks (entity_id, user_id, content, content_type, mime_type, size_bytes,
                                    checksum, uploaded_at, last_modified_at)
        SELECT entity_id, user_id, content_block, 'markdown', 'text/markdown',
               octet_length(content_block), checksum, occurred_at, occurred_at
        FROM pivot WHERE content_block IS NOT NULL
    ),
    search AS (
        INSERT INTO entity_search (entity_id, user_id, document)
        SELECT entity_id, user_id, synap_search_document(user_id, title, search_text, tags,
                                       (SELECT synap_search_language($21)))
        FROM pivot WHERE search_text IS NOT NULL
    )
    SELECT user_id, request_id, entity_id, entity_type, occurred_at FROM pivot";

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
        let users = jobs.iter().map(|job| &job.work().attempt.operation.user);
        let transaction = match self.database.pivot_for_users(users).await {
            Ok(transaction) => transaction,
            Err(error) => return jobs.iter().map(|_| Err(error.clone())).collect(),
        };
        let batch = Job::run_all(jobs);
        let mut written = match self.write_all(transaction, &batch).await {
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
        let mut transaction = self.database.pivot_for_user(&change.attempt.operation.user).await?;
        let mut written = self.write(&mut transaction, std::slice::from_ref(&change)).await?;
        match written.remove(&change.attempt.operation) {
            Some(written) => {
                transaction.commit().await?;
                Ok(written_entity(change, written))
            }
            None => explain(&mut transaction, &change).await,
        }
    }

    async fn write_all(
        &self,
        mut transaction: BatchTransaction,
        batch: &[Change],
    ) -> Result<HashMap<OperationId, Written>, Error> {
        let written = self.write(&mut transaction, batch).await?;
        transaction.commit().await?;
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
            .bind(self.times.event_lease_secs)
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
            .bind(text(|c| c.create.content_block.as_deref()))
            .bind(text(|c| Some(&c.event.event_type)))
            .bind(text(|c| Some(&c.event.data)))
            .bind("PENDING")
            .bind(file(|f| f.name.as_deref()))
            .bind((1..).zip(&batch).map(|(place, _)| place).collect::<Vec<i32>>())
            .bind(text(|c| c.create.search_text.as_deref()))
            .bind(&*self.language)
            .fetch_all(connection)
            .await?;

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
