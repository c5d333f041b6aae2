//! All services in this process, with real gRPC between them.

use tokio_util::sync::CancellationToken;

use super::{Plan, System};
use crate::run::AnyService;

pub(super) async fn start(plan: Plan, stop: CancellationToken) -> anyhow::Result<System> {
    let mut addresses = plan.addresses;
    let bind =
        async |told: super::plan::Told| AnyService::bind(told.service, &told.all_flags()).await;

    let content = bind(plan.content()).await?;
    let entity = bind(plan.entity()).await?;
    addresses.content = content.grpc_addr()?;
    let event = bind(plan.event(&addresses)).await?;
    addresses.blobs = content.http_addr()?.unwrap_or(addresses.blobs);
    addresses.entity = entity.grpc_addr()?;
    addresses.event = event.grpc_addr()?;
    let gateway = bind(plan.gateway(&addresses)).await?;
    addresses.gateway = gateway.grpc_addr()?;
    addresses.http = gateway.http_addr()?.unwrap_or(addresses.http);

    // The gateway stops first: while it drains, it needs the others.
    let gateway_stopped = CancellationToken::new();
    let mut system = System::new(addresses, stop.clone());
    for service in [content, entity, event] {
        system.spawn(service.run(gateway_stopped.clone()));
    }
    system.spawn(async move {
        let _gateway_stopped = gateway_stopped.drop_guard();
        gateway.run(stop).await
    });
    Ok(system)
}
