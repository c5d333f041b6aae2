//! `synap.event.v1.EventAdminService`: validates, calls the upkeep, maps.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use synap_proto::{
    event::{
        ApplyRetentionRequest, ApplyRetentionResponse, ArchiveEventsRequest, ArchiveEventsResponse,
        CompareLegacyEventsRequest, CompareLegacyEventsResponse, GetArchiveStatusRequest,
        GetArchiveStatusResponse, GetLegacyMigrationRequest, GetLegacyMigrationResponse,
        KeepReason, KeptEvents, ListQuarantinedEventsRequest, ListQuarantinedEventsResponse,
        MakePartitionsRequest, MakePartitionsResponse, MigrateLegacyEventsRequest,
        MigrateLegacyEventsResponse, RebuildRollupsRequest, RebuildRollupsResponse,
        RetireLegacyEventsRequest, RetireLegacyEventsResponse,
        event_admin_service_server::EventAdminService,
    },
    field::{self, Checked, Violation},
};
use tokio::sync::mpsc;
use tonic::{Request, Response};

use super::{activity, legacy as convert};
use crate::{
    archive::Archived,
    config::MIN_RETENTION_DAYS,
    error::{Answer, Failure, Streamed},
    legacy::Legacy,
    store::{Staying, UpkeepError, Why},
    upkeep::Upkeep,
};

pub(crate) struct EventAdminApi {
    upkeep: Upkeep,
    legacy: Legacy,
}

impl EventAdminApi {
    pub(crate) fn new(upkeep: Upkeep, legacy: Legacy) -> Self {
        Self { upkeep, legacy }
    }

    /// Does work to its end, also if the caller leaves: what is half done would wait for the lease to
    /// expire.
    async fn to_its_end<T: Send + 'static>(
        work: impl Future<Output = Result<T, UpkeepError>> + Send + 'static,
    ) -> Result<T, Failure> {
        tokio::spawn(work).await.map_err(UpkeepError::from).flatten().map_err(Failure::from)
    }
}

#[tonic::async_trait]
impl EventAdminService for EventAdminApi {
    type RebuildRollupsStream = Streamed<RebuildRollupsResponse>;

    async fn rebuild_rollups(
        &self,
        request: Request<RebuildRollupsRequest>,
    ) -> Answer<Self::RebuildRollupsStream> {
        let RebuildRollupsRequest { start_date, end_date, dry_run } = request.into_inner();
        let (start, end) = activity::days(&start_date, &end_date).map_err(Failure::from)?;
        let deleted = self.upkeep.admin.deleted_before().await.map_err(Failure::from)?;
        if let Some(deleted) = deleted.map(|time| time.date_naive()).filter(|day| start < *day) {
            let why = format!("must be {deleted} or later: events before it are deleted");
            return Err(Failure::from(Violation::new("start_date", why)).into());
        }
        let upkeep = self.upkeep.clone();
        let days = stream::iter(start.iter_days().take_while(move |day| *day <= end));
        let answers = days.then(move |day| {
            let upkeep = upkeep.clone();
            async move {
                let compared = upkeep.compare_day(day, !dry_run).await.map_err(Failure::from)?;
                Ok(RebuildRollupsResponse {
                    date: day.to_string(),
                    events: compared.events,
                    counted: compared.counted,
                    differences: compared.differences,
                })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn make_partitions(
        &self,
        _request: Request<MakePartitionsRequest>,
    ) -> Answer<MakePartitionsResponse> {
        let upkeep = self.upkeep.clone();
        let now = Self::to_its_end(async move { upkeep.make_partitions().await }).await?;
        Ok(MakePartitionsResponse { partitions: now.made, default_partition_rows: now.outside }
            .into())
    }

    type ArchiveEventsStream = Streamed<ArchiveEventsResponse>;

    async fn archive_events(
        &self,
        request: Request<ArchiveEventsRequest>,
    ) -> Answer<Self::ArchiveEventsStream> {
        let ArchiveEventsRequest { dry_run, older_than_days } = request.into_inner();
        let days = days(older_than_days, 0).map_err(Failure::from)?;
        let upkeep = self.upkeep.clone();
        // One answer a week of the past.
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let tell = |archived| drop(sender.send(Ok(archived)));
            if let Err(error) = upkeep.archive(dry_run, days, tell).await {
                drop(sender.send(Err(error)));
            }
        });
        let answers = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|answer| (answer, receiver))
        });
        let answers = answers.map_ok(Into::into).map_err(|error| Failure::from(error).into());
        Ok(Response::new(answers.boxed()))
    }

    async fn apply_retention(
        &self,
        request: Request<ApplyRetentionRequest>,
    ) -> Answer<ApplyRetentionResponse> {
        let ApplyRetentionRequest { dry_run, older_than_days } = request.into_inner();
        let days = days(older_than_days, MIN_RETENTION_DAYS).map_err(Failure::from)?;
        let upkeep = self.upkeep.clone();
        let expired = Self::to_its_end(async move { upkeep.retain(dry_run, days).await }).await?;
        Ok(ApplyRetentionResponse {
            before_time: Some(field::timestamp(expired.before)),
            files: expired.files,
            archived_events: expired.archived_events,
            partitions: expired.partitions,
            live_events: expired.live_events,
            kept: expired.kept.into_iter().map(Into::into).collect(),
        }
        .into())
    }

    async fn get_archive_status(
        &self,
        _request: Request<GetArchiveStatusRequest>,
    ) -> Answer<GetArchiveStatusResponse> {
        let status = self.upkeep.admin.archive_status().await.map_err(Failure::from)?;
        let deleted = self.upkeep.admin.deleted_before().await.map_err(Failure::from)?;
        Ok(GetArchiveStatusResponse {
            files: status.files,
            events: status.events,
            bytes: status.bytes,
            table_bytes: status.table_bytes,
            oldest_time: status.oldest.map(field::timestamp),
            newest_time: status.newest.map(field::timestamp),
            discarded: status.discarded,
            deleted_before_time: deleted.map(field::timestamp),
        }
        .into())
    }

    async fn get_legacy_migration(
        &self,
        _: Request<GetLegacyMigrationRequest>,
    ) -> Answer<GetLegacyMigrationResponse> {
        let migration = self.legacy.migration().await.map_err(Failure::from)?;
        Ok(GetLegacyMigrationResponse { migration: Some(migration.into()) }.into())
    }

    async fn migrate_legacy_events(
        &self,
        request: Request<MigrateLegacyEventsRequest>,
    ) -> Answer<MigrateLegacyEventsResponse> {
        synap_failpoint::hit("legacy.before").await;
        let batch = convert::batch(request.into_inner()).map_err(Failure::from)?;
        let answer = self.legacy.batch(batch).await.map_err(Failure::from)?;
        synap_failpoint::hit("legacy.effect").await;
        let migration = self.legacy.migration().await.map_err(Failure::from)?;
        Ok(convert::answer(answer, migration).into())
    }

    type CompareLegacyEventsStream = Streamed<CompareLegacyEventsResponse>;

    async fn compare_legacy_events(
        &self,
        _: Request<CompareLegacyEventsRequest>,
    ) -> Answer<Self::CompareLegacyEventsStream> {
        let days = self.legacy.compare().await.map_err(Failure::from)?;
        let answers = days.map_ok(Into::into).map_err(|error| Failure::from(error).into());
        Ok(Response::new(answers.boxed()))
    }

    type ListQuarantinedEventsStream = Streamed<ListQuarantinedEventsResponse>;

    async fn list_quarantined_events(
        &self,
        request: Request<ListQuarantinedEventsRequest>,
    ) -> Answer<Self::ListQuarantinedEventsStream> {
        let rows = self.legacy.quarantined(request.into_inner().reason);
        let answers = rows.map_ok(Into::into).map_err(|error| Failure::from(error).into());
        Ok(Response::new(answers.boxed()))
    }

    async fn retire_legacy_events(
        &self,
        request: Request<RetireLegacyEventsRequest>,
    ) -> Answer<RetireLegacyEventsResponse> {
        let request = request.into_inner();
        let step = convert::step(&request).map_err(Failure::from)?;
        self.legacy.retire(step, request.min_days, request.dry_run).await.map_err(Failure::from)?;
        let migration = self.legacy.migration().await.map_err(Failure::from)?;
        Ok(RetireLegacyEventsResponse { migration: Some(migration.into()) }.into())
    }
}

/// Days that were asked for.
fn days(value: Option<i32>, least: u32) -> Checked<Option<u32>> {
    let checked =
        |days| field::within("older_than_days", i64::from(days), i64::from(least), 36_600);
    Ok(value.map(checked).transpose()?.and_then(|days| u32::try_from(days).ok()))
}

impl From<Staying> for KeptEvents {
    fn from(Staying { table, events, why }: Staying) -> Self {
        let (reason, consumer) = match why {
            Why::Awaited(consumer) => (KeepReason::Awaited, consumer),
            Why::NotFinal => (KeepReason::NotFinal, String::new()),
            Why::Recent => (KeepReason::Recent, String::new()),
            Why::Changed => (KeepReason::Changed, String::new()),
        };
        Self { partition: table, events, reason: reason.into(), consumer }
    }
}

impl From<Archived> for ArchiveEventsResponse {
    fn from(archived: Archived) -> Self {
        let kept = archived.kept().map(Into::into);
        let (key, bytes) = archived.file.unwrap_or_default();
        Self {
            partition: archived.segment.table,
            begin_time: Some(field::timestamp(archived.segment.begins_at)),
            end_time: Some(field::timestamp(archived.segment.ends_at)),
            events: archived.events,
            table_bytes: archived.table_bytes,
            archived: archived.is_done,
            kept,
            key,
            bytes,
        }
    }
}
