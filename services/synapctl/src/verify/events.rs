//! `synapctl verify --events`.

use std::{fmt, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use synap_proto::{
    entity::{
        Entity, GetEntityRequest, ListAllEntitiesRequest,
        entity_service_client::EntityServiceClient, storage_service_client::StorageServiceClient,
    },
    event::{Event, ReadStreamRequest, event_service_client::EventServiceClient},
};
use synap_rpc::{Channel, RpcError, retry};
use tonic::Code;

use super::{
    VerifyArgs,
    replay::{Replayed, Unlike},
};
use crate::{
    cli::Exit,
    output::{Lines, Progress},
};

/// Entities of a page.
const PAGE: i32 = 500;
/// Events of one call.
const EVENTS: i32 = 10_000;
/// An entity is written before its event: what differs is looked at again after so long.
const SETTLE: Duration = Duration::from_secs(2);
/// No more of what differs is looked at again.
const LOOKED_AT_AGAIN: usize = 10_000;

pub(super) async fn verify(args: &VerifyArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let entity = args.urls.entity.connect()?;
    let stores = Stores {
        all: StorageServiceClient::new(entity.clone()),
        entity: EntityServiceClient::new(entity),
        event: EventServiceClient::new(args.event.connect()?),
    };
    let mut total = Total::default();
    let mut again = Vec::new();
    let mut progress = Progress::new();
    let mut after_id = String::new();
    loop {
        let page = stores.page(after_id).await?;
        let Some(last) = page.last() else { break };
        after_id = last.id.clone();
        let checks = stream::iter(page).map(|entity| stores.check(entity));
        let mut checks = checks.buffer_unordered(args.concurrency.into());
        while let Some(check) = checks.try_next().await? {
            total.entities += 1;
            total.events += check.events;
            total.without_events += i64::from(check.events == 0);
            if check.unlike.is_empty() {
                continue;
            }
            if again.len() < LOOKED_AT_AGAIN {
                again.push(check.entity);
            } else {
                total.differ(&check, &mut lines)?;
            }
        }
        progress.show("entities", total.entities, total.entities, total.entities);
    }
    if !again.is_empty() {
        tokio::time::sleep(SETTLE).await;
    }
    progress.clear();
    for entity in again {
        if let Some(entity) = stores.get(&entity).await? {
            let check = stores.check(entity).await?;
            total.differ(&check, &mut lines)?;
        }
    }
    lines.print(&total)?;
    Ok(if total.differ == 0 { Exit::Well } else { Exit::Findings })
}

struct Stores {
    all: StorageServiceClient<Channel>,
    entity: EntityServiceClient<Channel>,
    event: EventServiceClient<Channel>,
}

/// An entity beside its events.
struct Check {
    entity: Entity,
    events: i64,
    unlike: Vec<Unlike>,
}

impl Stores {
    async fn page(&self, after_id: String) -> Result<Vec<Entity>, RpcError> {
        retry(|| async {
            let request = ListAllEntitiesRequest { limit: PAGE, after_id: after_id.clone() };
            Ok(self.all.clone().list_all_entities(request).await?.into_inner().entities)
        })
        .await
    }

    /// As it is by now; `None` if it is gone, or deleted, which is its right.
    async fn get(&self, entity: &Entity) -> Result<Option<Entity>, RpcError> {
        let found = retry(|| async {
            let request = GetEntityRequest {
                user_id: entity.user_id.clone(),
                id: entity.id.clone(),
                ..GetEntityRequest::default()
            };
            Ok(self.entity.clone().get_entity(request).await?.into_inner().entity)
        });
        match found.await {
            // One that was deleted all the time is what it was.
            Err(error) if error.code == Code::NotFound && entity.delete_time.is_some() => {
                Ok(Some(entity.clone()))
            }
            Err(error) if error.code == Code::NotFound => Ok(None),
            found => found,
        }
    }

    async fn check(&self, entity: Entity) -> Result<Check, RpcError> {
        let (mut replayed, mut events, mut from) = (Replayed::default(), 0, 0);
        loop {
            let page = self.events(&entity, from).await?;
            for event in &page {
                replayed.apply(event);
                events += 1;
                // 0 would begin again: what is at version 0 is of V0.2, and tells nothing.
                from = if event.version == -1 { 1 } else { event.version + 1 };
            }
            if page.len() < usize::try_from(EVENTS).unwrap_or(usize::MAX) {
                break;
            }
        }
        let unlike = if replayed.has_events() { replayed.compare(&entity) } else { Vec::new() };
        Ok(Check { entity, events, unlike })
    }

    async fn events(&self, entity: &Entity, from_version: i64) -> Result<Vec<Event>, RpcError> {
        retry(|| async {
            let request = ReadStreamRequest {
                user_id: entity.user_id.clone(),
                aggregate_type: entity.r#type.clone(),
                aggregate_id: entity.id.clone(),
                from_version,
                limit: EVENTS,
                backwards: false,
            };
            let answers = self.event.clone().read_stream(request).await?.into_inner();
            let events = answers.try_filter_map(async |answer| Ok(answer.event));
            events.try_collect().await.map_err(RpcError::from)
        })
        .await
    }
}

/// An entity that is not what its events make of it.
#[derive(Debug, Serialize)]
struct Difference<'a> {
    entity_id: &'a str,
    user_id: &'a str,
    field: &'static str,
    entity: &'a str,
    events: &'a str,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entity_id, user_id, field, entity, events } = self;
        write!(f, "{entity_id} of {user_id}: {field} is {entity:?}, its events say {events:?}")
    }
}

#[derive(Debug, Default, Serialize)]
struct Total {
    entities: i64,
    events: i64,
    /// Which V0.2 has made, and nobody has changed since.
    without_events: i64,
    differ: i64,
}

impl Total {
    fn differ(&mut self, check: &Check, lines: &mut Lines) -> anyhow::Result<()> {
        self.differ += i64::from(!check.unlike.is_empty());
        for Unlike { field, entity, events } in &check.unlike {
            lines.print(&Difference {
                entity_id: &check.entity.id,
                user_id: &check.entity.user_id,
                field,
                entity,
                events,
            })?;
        }
        Ok(())
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entities, events, without_events, differ } = self;
        write!(
            f,
            "{entities} entities, {events} events; {without_events} have none; {differ} differ from \
             what their events say"
        )
    }
}
