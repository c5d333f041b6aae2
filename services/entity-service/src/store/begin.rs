//! Step 1: the intent.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};
use synap_types::{BlobKey, IdGenerator, UserId};
use uuid::Uuid;

use super::{
    database::{Database, Job, OneByOne},
    rows,
};
use crate::{
    config::ProtocolArgs,
    domain::{Attempt, Begun, Committed, Intent, OperationId, Phase, Started},
    error::Error,
};

/// A first attempt at each operation that nobody has begun: one round trip for the whole batch.
/// Elements are taken by their place: `unnest` of so many arrays costs more than the INSERT.
const BEGIN: &str = "
    INSERT INTO write_operations
        (user_id, request_id, kind, state, epoch, attempt_id, lease_until, fingerprint,
         entity_type, extension, entity_id, blob_key, event_id, occurred_at)
    SELECT ($2::text[])[n], ($3::uuid[])[n], 'create', 'PENDING', 1, ($4::uuid[])[n],
           clock_timestamp() + make_interval(secs => $1), ($5::bytea[])[n],
           ($6::text[])[n], ($7::text[])[n], ($8::uuid[])[n], ($9::text[])[n], ($10::uuid[])[n],
           clock_timestamp()
    FROM generate_series(1, cardinality($3::uuid[])) AS n
    ON CONFLICT (user_id, request_id) DO NOTHING
    RETURNING user_id, request_id, occurred_at,
        (SELECT phase FROM storage_phase WHERE only_row) AS phase";

/// The operation that somebody has begun before, held until we know what to do about it.
const FIND: &str = "
    SELECT user_id, request_id, state, epoch, attempt_id, fingerprint, entity_type, entity_id,
           blob_key, event_id, occurred_at, entity_version, event_type, event_data::text,
           (SELECT phase FROM storage_phase WHERE only_row) AS phase,
           extract(epoch FROM lease_until - clock_timestamp())::float8 AS lease_left
    FROM write_operations
    WHERE user_id = $1 AND request_id = $2
    FOR UPDATE";

/// The next attempt. The event keeps its id and time; entity and key are fresh, so that whatever
/// the last attempt still does cannot touch them.
const TAKE_OVER: &str = "
    UPDATE write_operations
    SET state = 'PENDING', epoch = epoch + 1, attempt_id = $3, entity_id = $4, blob_key = $5,
        lease_until = clock_timestamp() + make_interval(secs => $6),
        updated_at = clock_timestamp()
    WHERE user_id = $1 AND request_id = $2
    RETURNING epoch";

#[derive(Clone)]
pub(super) struct Beginner {
    pub(super) database: Database,
    pub(super) times: ProtocolArgs,
    pub(super) ids: Arc<dyn IdGenerator>,
}

/// What is decided for an attempt before it is written down.
struct Plan {
    entity_id: Uuid,
    key: BlobKey,
    event_id: Uuid,
}

impl Beginner {
    /// Begins a batch of different operations.
    pub(super) async fn begin_all(&self, jobs: Vec<Job<Intent>>) -> Vec<Result<Begun, Error>> {
        let mut connection = match self.database.acquire().await {
            Ok(connection) => connection,
            Err(error) => return jobs.iter().map(|_| Err(error.clone())).collect(),
        };
        let batch = Job::run_all(jobs);
        let mut fresh = match self.insert(&mut connection, &batch).await {
            Ok(fresh) => fresh,
            Err(error) if error.is_database_away() => {
                return batch.iter().map(|_| Err(error.clone())).collect();
            }
            // One intent that the database refuses must not fail the others.
            Err(_) => HashMap::new(),
        };
        let mut answers = Vec::with_capacity(batch.len());
        let mut one_by_one = OneByOne::new();
        for intent in batch {
            answers.push(match fresh.remove(&intent.operation) {
                Some(started) => Ok(Begun::Started(started)),
                None => one_by_one.run(self.begin_again(&mut connection, &intent)).await,
            });
        }
        answers
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        batch: &[Intent],
    ) -> Result<HashMap<OperationId, Started>, Error> {
        // In one order for all replicas, so that two batches cannot wait for each other.
        let mut batch: Vec<&Intent> = batch.iter().collect();
        batch.sort_unstable_by(|a, b| rows::lock_order(&a.operation, &b.operation));
        let mut plans = Vec::with_capacity(batch.len());
        for intent in &batch {
            plans.push(self.plan(intent)?);
        }
        let column =
            |value: fn(&Intent) -> &str| batch.iter().map(|i| value(i)).collect::<Vec<_>>();
        let fingerprints: Vec<&[u8]> =
            batch.iter().map(|i| i.fingerprint.as_bytes().as_slice()).collect();
        let rows = sqlx::query(BEGIN)
            .bind(self.times.operation_lease_secs)
            .bind(column(|i| i.operation.user.as_str()))
            .bind(batch.iter().map(|i| i.operation.request).collect::<Vec<_>>())
            .bind(batch.iter().map(|i| i.attempt_id).collect::<Vec<_>>())
            .bind(fingerprints)
            .bind(column(|i| i.entity_type.as_str()))
            .bind(column(|i| i.extension.as_str()))
            .bind(plans.iter().map(|p| p.entity_id).collect::<Vec<_>>())
            .bind(plans.iter().map(|p| p.key.as_str()).collect::<Vec<_>>())
            .bind(plans.iter().map(|p| p.event_id).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;

        let mut inserted: HashMap<(String, Uuid), (DateTime<Utc>, Phase)> = HashMap::new();
        for row in rows {
            let id = (row.try_get("user_id")?, row.try_get("request_id")?);
            inserted.insert(id, (row.try_get("occurred_at")?, rows::phase(&row)?));
        }
        let started = batch.iter().zip(plans).filter_map(|(intent, plan)| {
            let id = (intent.operation.user.as_str().to_owned(), intent.operation.request);
            let (occurred_at, phase) = inserted.remove(&id)?;
            let attempt = Attempt { operation: intent.operation.clone(), epoch: 1 };
            let Plan { entity_id, key, event_id } = plan;
            let started = Started { attempt, entity_id, key, event_id, occurred_at, phase };
            Some((intent.operation.clone(), started))
        });
        Ok(started.collect())
    }

    /// Somebody has begun this operation before: the same caller again, or one that is gone.
    async fn begin_again(
        &self,
        connection: &mut PgConnection,
        intent: &Intent,
    ) -> Result<Begun, Error> {
        loop {
            if let Some(begun) = self.continue_begun(connection, intent).await? {
                return Ok(begun);
            }
            // Forgotten since we looked, or the batch failed before it was written. If somebody is
            // faster once more, there is something to be found.
            let mut fresh = self.insert(connection, std::slice::from_ref(intent)).await?;
            if let Some(started) = fresh.remove(&intent.operation) {
                return Ok(Begun::Started(started));
            }
        }
    }

    /// `None` if nobody has begun this operation.
    async fn continue_begun(
        &self,
        connection: &mut PgConnection,
        intent: &Intent,
    ) -> Result<Option<Begun>, Error> {
        let OperationId { user, request } = &intent.operation;
        let mut transaction = connection.begin().await?;
        let found = sqlx::query(FIND)
            .bind(user.as_str())
            .bind(request)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = found else {
            transaction.rollback().await?;
            return Ok(None);
        };
        if row.try_get::<Vec<u8>, _>("fingerprint")? != intent.fingerprint.as_bytes() {
            return Err(Error::RequestIdReused);
        }
        let begun = match row.try_get("state")? {
            "COMMITTED" | "DONE" => {
                let entity = rows::answer(&mut transaction, &row).await?;
                let pending_event = rows::pending_event(&row)?;
                Begun::Committed(Box::new(Committed { entity, pending_event }))
            }
            "PENDING" if row.try_get::<Uuid, _>("attempt_id")? == intent.attempt_id => {
                Begun::Started(started(intent, &row)?)
            }
            "PENDING" if row.try_get::<f64, _>("lease_left")? > 0.0 => {
                let left = row.try_get::<f64, _>("lease_left")?;
                Begun::InProgress { retry_after: Duration::from_secs_f64(left) }
            }
            _ => Begun::Started(self.take_over(&mut transaction, intent, &row).await?),
        };
        transaction.commit().await?;
        Ok(Some(begun))
    }

    async fn take_over(
        &self,
        connection: &mut PgConnection,
        intent: &Intent,
        row: &PgRow,
    ) -> Result<Started, Error> {
        let old_key: &str = row.try_get("blob_key")?;
        rows::give_up_key(connection, old_key, self.times.blob_settle_secs).await?;
        let plan = self.plan(intent)?;
        let epoch = sqlx::query_scalar(TAKE_OVER)
            .bind(intent.operation.user.as_str())
            .bind(intent.operation.request)
            .bind(intent.attempt_id)
            .bind(plan.entity_id)
            .bind(plan.key.as_str())
            .bind(self.times.operation_lease_secs)
            .fetch_one(connection)
            .await?;
        Ok(Started {
            attempt: Attempt { operation: intent.operation.clone(), epoch },
            entity_id: plan.entity_id,
            key: plan.key,
            event_id: row.try_get("event_id")?,
            occurred_at: row.try_get("occurred_at")?,
            phase: rows::phase(row)?,
        })
    }

    fn plan(&self, intent: &Intent) -> Result<Plan, Error> {
        let entity_id = self.ids.next_id();
        let user: &UserId = &intent.operation.user;
        let key =
            BlobKey::build(user, &intent.entity_type, &entity_id.to_string(), &intent.extension)
                .map_err(|why| synap_proto::field::Violation::new("extension", why))?;
        Ok(Plan { entity_id, key, event_id: self.ids.next_id() })
    }
}

/// The attempt as it was written down: the reply to its begin was lost.
fn started(intent: &Intent, row: &PgRow) -> Result<Started, Error> {
    let key: String = row.try_get("blob_key")?;
    Ok(Started {
        attempt: Attempt { operation: intent.operation.clone(), epoch: row.try_get("epoch")? },
        entity_id: row.try_get("entity_id")?,
        key: BlobKey::parse(key).map_err(|why| rows::corrupt("write_operations", why))?,
        event_id: row.try_get("event_id")?,
        occurred_at: row.try_get("occurred_at")?,
        phase: rows::phase(row)?,
    })
}
