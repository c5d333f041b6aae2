//! Step 1: the intent.

use std::{collections::HashMap, fmt, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use synap_proto::field::Violation;
use synap_types::{BlobKey, EntityType, IdGenerator};
use uuid::Uuid;

use super::{
    database::{BatchConnection, Database, Job, OneByOne, no_role},
    rows,
};
use crate::{
    config::ProtocolArgs,
    domain::{Attempt, Begun, Committed, Found, Intent, Kind, OperationId, Phase, Started},
    error::Error,
};

/// A first attempt at each operation that nobody has begun: a transaction of its own, for users who
/// may be many (migration 0015).
const BEGIN: &str = "
    SELECT user_id, request_id, occurred_at, phase
    FROM synap_begin_operations($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

/// The operation as somebody has begun it.
macro_rules! find {
    ($lock:literal) => {
        concat!(
            "SELECT user_id, request_id, kind, state, epoch, attempt_id, fingerprint, entity_type,
                    entity_id, blob_key, event_id, occurred_at, entity_version, event_type,
                    event_data::text, adopts, draft::text,
                    (SELECT phase FROM storage_phase WHERE only_row) AS phase,
                    extract(epoch FROM lease_until - clock_timestamp())::float8 AS lease_left
             FROM write_operations
             WHERE user_id = $1 AND request_id = $2 ",
            $lock
        )
    };
}
const LOOK_AT: &str = find!("");
/// Held until we know what to do about it.
const FIND: &str = find!("FOR UPDATE");

/// The next attempt. The event keeps its id and time; the key is fresh, and so is the entity of a
/// create, so that whatever the last attempt still does cannot touch them.
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
    /// `None` where no body is written.
    key: Option<BlobKey>,
    event_id: Uuid,
}

impl Beginner {
    /// Begins a batch of different operations.
    pub(super) async fn begin_all(&self, jobs: Vec<Job<Intent>>) -> Vec<Result<Begun, Error>> {
        let connection = match self.database.batch().await {
            Ok(connection) => connection,
            Err(error) => return jobs.iter().map(|_| Err(error.clone())).collect(),
        };
        let batch = Job::run_all(jobs);
        let mut fresh = match self.insert_all(connection, &batch).await {
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
                None => one_by_one.run(self.begin_again(&intent)).await,
            });
        }
        answers
    }

    async fn insert_all(
        &self,
        mut connection: BatchConnection,
        batch: &[Intent],
    ) -> Result<HashMap<OperationId, Started>, Error> {
        let fresh = self.insert(&mut connection, batch).await?;
        connection.keep();
        Ok(fresh)
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
            plans.push(self.plan(intent, intent.new_id)?);
        }
        let column =
            |value: fn(&Intent) -> &str| batch.iter().map(|i| value(i)).collect::<Vec<_>>();
        let fingerprints: Vec<&[u8]> =
            batch.iter().map(|i| i.fingerprint.as_bytes().as_slice()).collect();
        let lease = |intent: &&Intent| self.times.lease(intent.lease).as_secs_f64();
        let key = |plan: &Plan| plan.key.as_ref().map(ToString::to_string);
        let rows = sqlx::query(BEGIN)
            .bind(column(|i| i.operation.user.as_str()))
            .bind(batch.iter().map(|i| i.operation.request).collect::<Vec<_>>())
            .bind(column(|i| i.kind.name()))
            .bind(batch.iter().map(|i| i.attempt_id).collect::<Vec<_>>())
            .bind(batch.iter().map(lease).collect::<Vec<_>>())
            .bind(fingerprints)
            .bind(column(|i| i.entity_type.as_str()))
            .bind(column(|i| i.kind.extension().unwrap_or_default()))
            .bind(plans.iter().map(|p| p.entity_id).collect::<Vec<_>>())
            .bind(plans.iter().map(key).collect::<Vec<_>>())
            .bind(plans.iter().map(|p| p.event_id).collect::<Vec<_>>())
            .bind(batch.iter().map(|i| i.draft.as_deref()).collect::<Vec<_>>())
            .fetch_all(connection)
            .await
            .map_err(no_role)?;

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
            let phase = phase.of(&intent.entity_type);
            let lease = self.times.lease(intent.lease);
            let started = Started { attempt, entity_id, key, event_id, occurred_at, phase, lease };
            Some((intent.operation.clone(), started))
        });
        Ok(started.collect())
    }

    /// Somebody has begun this operation before: the same caller again, or one that is gone.
    async fn begin_again(&self, intent: &Intent) -> Result<Begun, Error> {
        let mut transaction = self.database.for_user(&intent.operation.user).await?;
        let begun = loop {
            if let Some(begun) = self.continue_begun(&mut transaction, intent).await? {
                break begun;
            }
            // Forgotten since we looked, or the batch failed before it was written. If somebody is
            // faster once more, there is something to be found.
            let mut fresh = self.insert(&mut transaction, std::slice::from_ref(intent)).await?;
            if let Some(started) = fresh.remove(&intent.operation) {
                break Begun::Started(started);
            }
        };
        transaction.commit().await?;
        Ok(begun)
    }

    /// `None` if nobody has begun this operation.
    async fn continue_begun(
        &self,
        connection: &mut PgConnection,
        intent: &Intent,
    ) -> Result<Option<Begun>, Error> {
        let OperationId { user, request } = &intent.operation;
        let found = sqlx::query(FIND)
            .bind(user.as_str())
            .bind(request)
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = found else { return Ok(None) };
        if row.try_get::<Vec<u8>, _>("fingerprint")? != intent.fingerprint.as_bytes() {
            return Err(Error::RequestIdReused);
        }
        let begun = match row.try_get("state")? {
            "COMMITTED" | "DONE" => committed(connection, &row).await?,
            "PENDING" if row.try_get::<Uuid, _>("attempt_id")? == intent.attempt_id => {
                Begun::Started(started(&intent.operation, &row)?)
            }
            "PENDING" if row.try_get::<f64, _>("lease_left")? > 0.0 => {
                Begun::InProgress { retry_after: rows::lease(row.try_get("lease_left")?) }
            }
            _ => Begun::Started(self.take_over(connection, intent, &row).await?),
        };
        Ok(Some(begun))
    }

    async fn take_over(
        &self,
        connection: &mut PgConnection,
        intent: &Intent,
        row: &PgRow,
    ) -> Result<Started, Error> {
        let old_key: Option<&str> = row.try_get("blob_key")?;
        rows::give_up_key(connection, old_key, self.times.blob_settle_secs).await?;
        // Never the caller's: what it names may be that of an attempt that was given up.
        let plan = self.plan(intent, None)?;
        let lease = self.times.lease(intent.lease);
        let epoch = sqlx::query_scalar(TAKE_OVER)
            .bind(intent.operation.user.as_str())
            .bind(intent.operation.request)
            .bind(intent.attempt_id)
            .bind(plan.entity_id)
            .bind(plan.key.as_ref().map(BlobKey::as_str))
            .bind(lease.as_secs_f64())
            .fetch_one(connection)
            .await?;
        Ok(Started {
            attempt: Attempt { operation: intent.operation.clone(), epoch },
            entity_id: plan.entity_id,
            key: plan.key,
            event_id: row.try_get("event_id")?,
            occurred_at: row.try_get("occurred_at")?,
            phase: rows::phase(row)?.of(&intent.entity_type),
            lease,
        })
    }

    /// `new_id` names what is new; without it a fresh id does.
    fn plan(&self, intent: &Intent, new_id: Option<Uuid>) -> Result<Plan, Error> {
        let event_id = self.ids.next_id();
        let new_id = new_id.unwrap_or_else(|| self.ids.next_id());
        let entity_id = intent.kind.entity_id().unwrap_or(new_id);
        let (user, entity_type) = (&intent.operation.user, &intent.entity_type);
        let key = intent.kind.extension().map(|extension| match intent.kind {
            Kind::Create { .. } => {
                BlobKey::build(user, entity_type, &entity_id.to_string(), extension)
            }
            _ => BlobKey::revision(user, entity_type, entity_id, new_id, extension),
        });
        let key = key.transpose().map_err(|why| Violation::new("extension", why))?;
        Ok(Plan { entity_id, key, event_id })
    }

    /// What became of an operation, for those who did not begin it. `None` if it was given up, or
    /// nobody knows it.
    pub(super) async fn look_at(&self, operation: &OperationId) -> Result<Option<Found>, Error> {
        let mut transaction = self.database.for_user(&operation.user).await?;
        let found = sqlx::query(LOOK_AT)
            .bind(operation.user.as_str())
            .bind(operation.request)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = found else { return Ok(None) };
        let begun = match row.try_get("state")? {
            "PENDING" => Begun::Started(started(operation, &row)?),
            "COMMITTED" | "DONE" => committed(&mut transaction, &row).await?,
            _ => return Ok(None),
        };
        Ok(Some(Found { begun, draft: row.try_get("draft")? }))
    }
}

/// The answer that was given then, and the event while it is pending.
async fn committed(connection: &mut PgConnection, row: &PgRow) -> Result<Begun, Error> {
    let entity = rows::answer(connection, row).await?;
    let pending_event = rows::pending_event(row)?;
    Ok(Begun::Committed(Box::new(Committed { entity, pending_event })))
}

/// The newest attempt, as it was written down.
fn started(operation: &OperationId, row: &PgRow) -> Result<Started, Error> {
    let corrupt = |why: &dyn fmt::Display| rows::corrupt("write_operations", why);
    let key: Option<String> = row.try_get("blob_key")?;
    let entity_type = EntityType::parse(row.try_get::<&str, _>("entity_type")?);
    let entity_type = entity_type.map_err(|why| corrupt(&why))?;
    Ok(Started {
        attempt: Attempt { operation: operation.clone(), epoch: row.try_get("epoch")? },
        entity_id: row.try_get("entity_id")?,
        key: key.map(BlobKey::parse).transpose().map_err(|why| corrupt(&why))?,
        event_id: row.try_get("event_id")?,
        occurred_at: row.try_get("occurred_at")?,
        phase: rows::phase(row)?.of(&entity_type),
        lease: rows::lease(row.try_get("lease_left")?),
    })
}
