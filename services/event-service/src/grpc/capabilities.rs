//! GetCapabilities.

use synap_proto::{
    event::{Engine, GetCapabilitiesResponse, Partitioning},
    field,
};

use crate::{
    store::{DatabaseError, Store},
    upkeep::Upkeep,
};

pub(super) async fn tell(
    upkeep: &Upkeep,
    store: &Store,
) -> Result<GetCapabilitiesResponse, DatabaseError> {
    let admin = &upkeep.admin;
    let engine = admin.engine().await?;
    let segments = admin.segments(&engine).await?;
    let default_partition_rows = admin.outside(&engine).await?;
    let holder = store.horizon_holder().await?;
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let (kind, partitioning) = (
        match (&engine.timescaledb, engine.is_community) {
            (None, _) => Engine::Plain,
            (Some(_), false) => Engine::TimescaledbApache,
            (Some(_), true) => Engine::TimescaledbCommunity,
        },
        if engine.is_hypertable { Partitioning::Hypertable } else { Partitioning::Partitions },
    );
    Ok(GetCapabilitiesResponse {
        engine: kind.into(),
        partitioning: partitioning.into(),
        partitions: count(segments.len()),
        partitions_ahead: count(segments.iter().filter(|it| it.is_ahead).count()),
        oldest_partition_time: segments.first().map(|it| field::timestamp(it.begins_at)),
        default_partition_rows,
        archive: upkeep.archive.is_configured(),
        native_compression: engine.is_community && engine.is_hypertable,
        rollups: true,
        horizon_age: holder.age.and_then(|age| age.try_into().ok()),
        horizon_pid: holder.pid,
        horizon_database: holder.database.unwrap_or_default(),
        postgres_version: engine.postgres,
        timescaledb_version: engine.timescaledb.unwrap_or_default(),
    })
}
