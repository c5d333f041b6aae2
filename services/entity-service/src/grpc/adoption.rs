//! synap.entity.v1.AdoptionService, and the door that the other services have until it has done its
//! work.

use std::pin::Pin;

use synap_proto::entity::{
    self as pb, AdoptDatabaseRequest, AdoptDatabaseResponse, GetStatisticsRequest,
    GetStatisticsResponse, InspectDatabaseRequest, InspectDatabaseResponse, StoragePhase,
    adoption_service_server::AdoptionService,
};
use synap_rpc::RpcError;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    domain::{Amount, DatabaseState, Inspection, Oddity, Statistics, Step, StepProgress, Table},
    error::Error,
    store::Adoption,
};

/// What a caller has not read yet; more is not told, but for the end.
const UNREAD: usize = 256;

const SERVICE: &str = "/synap.entity.v1.AdoptionService/";

/// Takes over a database.
pub(crate) struct Adoptions {
    pub(crate) adoption: Adoption,
}

#[tonic::async_trait]
impl AdoptionService for Adoptions {
    async fn inspect_database(
        &self,
        _: Request<InspectDatabaseRequest>,
    ) -> Result<Response<InspectDatabaseResponse>, Status> {
        Ok(Response::new(self.adoption.inspect().await?.into()))
    }

    type AdoptDatabaseStream =
        Pin<Box<dyn Stream<Item = Result<AdoptDatabaseResponse, Status>> + Send>>;

    async fn adopt_database(
        &self,
        _: Request<AdoptDatabaseRequest>,
    ) -> Result<Response<Self::AdoptDatabaseStream>, Status> {
        let (sender, updates) = mpsc::channel(UNREAD);
        let adoption = self.adoption.clone();
        tokio::spawn(async move {
            let tell = |progress: StepProgress| {
                // A caller who is slow misses some of it.
                let _ = sender.try_send(Ok(progress));
            };
            let outcome = tokio::select! {
                outcome = adoption.adopt(&tell) => outcome,
                () = sender.closed() => return,
            };
            if let Err(error) = outcome {
                // If nobody listens any more, nobody needs to hear it.
                let _ = sender.send(Err(error)).await;
            }
        });
        let updates = ReceiverStream::new(updates);
        let messages =
            updates.map(|update: Result<_, Error>| Ok(AdoptDatabaseResponse::from(update?)));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn get_statistics(
        &self,
        _: Request<GetStatisticsRequest>,
    ) -> Result<Response<GetStatisticsResponse>, Status> {
        Ok(Response::new(self.adoption.statistics().await?.into()))
    }
}

/// Why a call is refused: while the database is V0.2's there is nothing to do but to adopt it.
pub(crate) fn refused_until_adopted(path: &str, adoption: &Adoption) -> Option<RpcError> {
    let is_refused = adoption.is_missing() && !path.starts_with(SERVICE);
    is_refused.then(|| Error::NotAdopted.into())
}

impl From<Inspection> for InspectDatabaseResponse {
    fn from(found: Inspection) -> Self {
        let phase = found.phase.map_or(StoragePhase::Unspecified, StoragePhase::from);
        Self {
            state: pb::DatabaseState::from(found.state).into(),
            server_version: found.server,
            vector_version: found.vector.unwrap_or_default(),
            timescaledb_version: found.timescaledb.unwrap_or_default(),
            role: found.role,
            database_bytes: found.bytes,
            tables: found.tables.into_iter().map(Into::into).collect(),
            oddities: found.oddities.into_iter().map(Into::into).collect(),
            blockers: found.blockers,
            steps: found.steps.into_iter().map(Into::into).collect(),
            phase: phase.into(),
        }
    }
}

impl From<DatabaseState> for pb::DatabaseState {
    fn from(state: DatabaseState) -> Self {
        match state {
            DatabaseState::Empty => Self::Empty,
            DatabaseState::Legacy => Self::Legacy,
            DatabaseState::Migrating => Self::Migrating,
            DatabaseState::Adopted => Self::Adopted,
        }
    }
}

impl From<Amount> for pb::Amount {
    fn from(amount: Amount) -> Self {
        Self { value: amount.value, about: amount.about }
    }
}

impl From<Table> for pb::DatabaseTable {
    fn from(table: Table) -> Self {
        Self {
            name: table.name,
            rows: Some(table.rows.into()),
            bytes: table.bytes,
            row_security: table.row_security,
            policies: table.policies,
            owned: table.owned,
        }
    }
}

impl From<Oddity> for pb::DatabaseOddity {
    fn from(oddity: Oddity) -> Self {
        Self {
            name: oddity.name.to_owned(),
            description: oddity.description.to_owned(),
            count: Some(oddity.count.into()),
        }
    }
}

impl From<Step> for pb::AdoptionStep {
    fn from(step: Step) -> Self {
        Self { name: step.name.to_owned(), description: step.description }
    }
}

impl From<StepProgress> for AdoptDatabaseResponse {
    fn from(progress: StepProgress) -> Self {
        Self {
            step: Some(progress.step.into()),
            done: progress.done,
            total: progress.total,
            waiting_for: progress.waiting_for.unwrap_or_default(),
            finished: progress.finished,
        }
    }
}

impl From<Statistics> for GetStatisticsResponse {
    fn from(found: Statistics) -> Self {
        Self {
            database_bytes: found.database_bytes,
            content_blocks_bytes: found.content_blocks_bytes,
            vectors_bytes: found.vectors_bytes,
            entities: Some(found.entities.into()),
            recent_entities: Some(found.recent_entities.into()),
            block_bodies: Some(found.block_bodies.into()),
            block_body_bytes: Some(found.block_body_bytes.into()),
            block_embeddings: Some(found.block_embeddings.into()),
            objects: Some(found.objects.into()),
            object_bytes: Some(found.object_bytes.into()),
            unmigrated: Some(found.unmigrated.into()),
            unmigrated_bytes: Some(found.unmigrated_bytes.into()),
            vectors: Some(found.vectors.into()),
        }
    }
}
