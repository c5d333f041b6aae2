//! `synap.event.v1.EventAdminService`: validates, calls the store, maps.

use futures::{StreamExt as _, stream};
use synap_proto::event::{
    MakePartitionsRequest, MakePartitionsResponse, RebuildRollupsRequest, RebuildRollupsResponse,
    event_admin_service_server::EventAdminService,
};
use tonic::{Request, Response};

use super::activity;
use crate::{
    error::{Answer, Failure, Streamed},
    store::UpkeepError,
    upkeep::Upkeep,
};

pub(crate) struct EventAdminApi {
    upkeep: Upkeep,
}

impl EventAdminApi {
    pub(crate) fn new(upkeep: Upkeep) -> Self {
        Self { upkeep }
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
        let admin = self.upkeep.admin.clone();
        let answers =
            stream::iter(start.iter_days().take_while(move |day| *day <= end)).then(move |day| {
                let admin = admin.clone();
                async move {
                    let compared = admin.compare_day(day, !dry_run).await.map_err(Failure::from)?;
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
        // To its end, also if the caller leaves: what is half done would wait for the lease to expire.
        let making = tokio::spawn(async move { upkeep.make_partitions().await });
        let now = making.await.map_err(UpkeepError::from).flatten().map_err(Failure::from)?;
        Ok(MakePartitionsResponse { partitions: now.made, default_partition_rows: now.outside }
            .into())
    }
}
