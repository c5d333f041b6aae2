//! synap.entity.v1.TakeoverService

use synap_proto::{
    entity::{self as pb, takeover_service_server::TakeoverService},
    field::{self, Checked, Violation},
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::convert::phase;
use crate::{
    domain::{BodyToCopy, ContentBlock, Finding, LegacyTable, Phase, TableState, TableStep},
    error::Error,
    store::Store,
};

/// Bodies of one call at most.
const MAX_BLOCKS: usize = 1000;
/// Days that a renamed table can be asked to have been renamed for.
const MAX_DAYS: i32 = 36_500;

/// The way from content_blocks to the object store and back.
pub(crate) struct Takeover {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl TakeoverService for Takeover {
    async fn check_phase(
        &self,
        request: Request<pb::CheckPhaseRequest>,
    ) -> Result<Response<pb::CheckPhaseResponse>, Status> {
        let request = request.into_inner();
        let to = entered(request.to()).map_err(Error::from)?;
        let after = after(&request.after_id).map_err(Error::from)?;
        let mut conditions = Vec::new();
        if after.is_none() {
            conditions = self.store.check_installation(to).await?;
        }
        let page = self.store.check_entities(to, after.unwrap_or_default()).await?;
        conditions.extend(page.found);
        Ok(Response::new(pb::CheckPhaseResponse {
            conditions: conditions.into_iter().map(Into::into).collect(),
            seen: page.seen,
            next_after_id: text(page.last),
            total: page.total,
        }))
    }

    async fn list_bodies_to_copy_back(
        &self,
        request: Request<pb::ListBodiesToCopyBackRequest>,
    ) -> Result<Response<pb::ListBodiesToCopyBackResponse>, Status> {
        let after = after(&request.into_inner().after_id).map_err(Error::from)?;
        let page = self.store.bodies_to_copy_back(after.unwrap_or_default()).await?;
        Ok(Response::new(pb::ListBodiesToCopyBackResponse {
            bodies: page.found.bodies.into_iter().map(Into::into).collect(),
            unknown_ids: page.found.unknown.iter().map(Uuid::to_string).collect(),
            seen: page.seen,
            next_after_id: text(page.last),
            total: page.total,
        }))
    }

    async fn put_content_blocks(
        &self,
        request: Request<pb::PutContentBlocksRequest>,
    ) -> Result<Response<pb::PutContentBlocksResponse>, Status> {
        let blocks = blocks(request.into_inner().blocks).map_err(Error::from)?;
        let written = self.store.put_content_blocks(blocks).await?.cast_signed();
        Ok(Response::new(pb::PutContentBlocksResponse { written }))
    }

    async fn get_legacy_table(
        &self,
        _: Request<pb::GetLegacyTableRequest>,
    ) -> Result<Response<pb::GetLegacyTableResponse>, Status> {
        Ok(Response::new(self.store.legacy_table().await?.into()))
    }

    async fn export_content_blocks(
        &self,
        request: Request<pb::ExportContentBlocksRequest>,
    ) -> Result<Response<pb::ExportContentBlocksResponse>, Status> {
        let pb::ExportContentBlocksRequest { after_id, until_id } = request.into_inner();
        let after = after(&after_id).map_err(Error::from)?;
        let until = field::optional_uuid("until_id", &until_id).map_err(Error::from)?;
        let chunk = self.store.export_rows(after, until).await?;
        let last_id = text(chunk.last);
        let (data, rows) = (chunk.data.into(), chunk.rows);
        Ok(Response::new(pb::ExportContentBlocksResponse { data, rows, last_id }))
    }

    async fn hash_content_blocks(
        &self,
        request: Request<pb::HashContentBlocksRequest>,
    ) -> Result<Response<pb::HashContentBlocksResponse>, Status> {
        let pb::HashContentBlocksRequest { after_id, last_id } = request.into_inner();
        let (after, last) = range(&after_id, &last_id).map_err(Error::from)?;
        let hash = self.store.hash_rows(after, last).await?;
        let sha256 = hash.sha256.as_bytes().to_vec().into();
        Ok(Response::new(pb::HashContentBlocksResponse { rows: hash.rows, sha256 }))
    }

    async fn import_content_blocks(
        &self,
        request: Request<pb::ImportContentBlocksRequest>,
    ) -> Result<Response<pb::ImportContentBlocksResponse>, Status> {
        let pb::ImportContentBlocksRequest { after_id, last_id, data } = request.into_inner();
        let (after, last) = range(&after_id, &last_id).map_err(Error::from)?;
        let rows = self.store.import_rows(after, last, data).await?.cast_signed();
        Ok(Response::new(pb::ImportContentBlocksResponse { rows }))
    }

    async fn change_legacy_table(
        &self,
        request: Request<pb::ChangeLegacyTableRequest>,
    ) -> Result<Response<pb::ChangeLegacyTableResponse>, Status> {
        let request = request.into_inner();
        let dry_run = request.dry_run;
        let step = TableStep::try_from(request).map_err(Error::from)?;
        if !dry_run {
            synap_failpoint::hit("takeover.step.before").await;
        }
        let purged_rows = self.store.change_table(step, dry_run).await?.cast_signed();
        if !dry_run {
            synap_failpoint::hit("takeover.step.effect").await;
        }
        Ok(Response::new(pb::ChangeLegacyTableResponse { purged_rows }))
    }
}

fn text(id: Option<Uuid>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

fn after(text: &str) -> Checked<Option<Uuid>> {
    field::optional_uuid("after_id", text)
}

fn range(after_id: &str, last_id: &str) -> Checked<(Option<Uuid>, Uuid)> {
    Ok((after(after_id)?, field::uuid("last_id", last_id)?))
}

/// A phase that is entered by changing it; the others by what is done to the table.
fn entered(message: pb::StoragePhase) -> Checked<Phase> {
    match phase("to", message)? {
        to @ (Phase::DualWrite | Phase::ObjectPrimary | Phase::ObjectOnly) => Ok(to),
        Phase::Legacy | Phase::LegacyDropped => {
            Err(Violation::new("to", "must be dual_write, object_primary or object_only"))
        }
    }
}

fn blocks(messages: Vec<pb::ContentBlock>) -> Checked<Vec<ContentBlock>> {
    field::length("blocks", &messages, 0, MAX_BLOCKS)?;
    let block = |(index, message): (usize, pb::ContentBlock)| {
        let name = |field| format!("blocks[{index}].{field}");
        let id = field::uuid(&name("entity_id"), &message.entity_id)?;
        if message.content.contains('\0') {
            return Err(Violation::new(name("content"), "must not have the character U+0000"));
        }
        Ok(ContentBlock { id, key: message.key, content: message.content })
    };
    messages.into_iter().enumerate().map(block).collect()
}

impl TryFrom<pb::ChangeLegacyTableRequest> for TableStep {
    type Error = Violation;

    fn try_from(message: pb::ChangeLegacyTableRequest) -> Checked<Self> {
        match message.step() {
            pb::LegacyTableStep::Unspecified => Err(Violation::new("step", "is required")),
            pb::LegacyTableStep::Rename => {
                let is_object = serde_json::from_str::<serde_json::Value>(&message.backup)
                    .is_ok_and(|value| value.is_object());
                if !is_object {
                    return Err(Violation::new("backup", "must be a JSON object"));
                }
                Ok(Self::Rename { backup: message.backup })
            }
            pb::LegacyTableStep::Drop => {
                let min_days = field::within("min_days", message.min_days, 0, MAX_DAYS)?;
                Ok(Self::Drop { min_days })
            }
            pb::LegacyTableStep::Restore => Ok(Self::Restore),
        }
    }
}

impl From<Finding> for pb::Condition {
    fn from(finding: Finding) -> Self {
        Self {
            name: finding.condition.name().to_owned(),
            number: finding.number,
            entity_ids: finding.ids.iter().map(Uuid::to_string).collect(),
            advice: finding.condition.advice().to_owned(),
        }
    }
}

impl From<BodyToCopy> for pb::BodyToCopyBack {
    fn from(body: BodyToCopy) -> Self {
        let BodyToCopy { id, key, size, checksum } = body;
        Self { entity_id: id.to_string(), key, size, checksum }
    }
}

impl From<LegacyTable> for pb::GetLegacyTableResponse {
    fn from(table: LegacyTable) -> Self {
        let state = match table.state {
            TableState::Present => pb::LegacyTableState::Present,
            TableState::Renamed => pb::LegacyTableState::Renamed,
            TableState::Dropped => pb::LegacyTableState::Dropped,
        };
        Self {
            state: state.into(),
            rows: table.rows,
            bytes: table.bytes,
            rename_time: table.renamed_at.map(field::timestamp),
            columns: table.shape.columns,
            definition: table.shape.definition,
            finish: table.shape.finish,
            attach: table.shape.attach,
            server_version: table.server_version,
            backup: table.backup.unwrap_or_default(),
            installation_id: table.installation.to_string(),
        }
    }
}
