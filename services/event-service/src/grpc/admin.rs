//! `synap.event.v1.EventAdminService`: validates, calls the store, maps.

use futures::{StreamExt as _, stream};
use synap_proto::event::{
    RebuildRollupsRequest, RebuildRollupsResponse, event_admin_service_server::EventAdminService,
};
use tonic::{Request, Response};

use super::activity;
use crate::{
    error::{Answer, Failure, Streamed},
    store::Admin,
};

pub(crate) struct EventAdminApi {
    admin: Admin,
}

impl EventAdminApi {
    pub(crate) fn new(admin: Admin) -> Self {
        Self { admin }
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
        let admin = self.admin.clone();
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
}
