//! How rows become what the domain speaks of; shared by the use cases.

use std::{cmp::Ordering, time::Duration};

use sqlx::{PgConnection, Row as _, postgres::PgRow};
use synap_types::UserId;
use uuid::Uuid;

use super::revisions;
use crate::{
    domain::{Attempt, Entity, EventDraft, File, OperationId, PendingEvent, Phase},
    error::Error,
};

/// A key that no row will ever name: deleted now, and again when its writer can no longer be
/// uploading.
const GIVE_UP_KEY: &str = "
    INSERT INTO blob_gc (key, not_before, settled_at)
    VALUES ($1, clock_timestamp(), clock_timestamp() + make_interval(secs => $2))
    ON CONFLICT (key) DO NOTHING";

const NEWEST: &str = "SELECT * FROM entities WHERE id = $1 AND (user_id = $2) IS TRUE";

/// Gives up the key of an attempt, if it had one.
pub(super) async fn give_up_key(
    connection: &mut PgConnection,
    key: Option<&str>,
    settle_secs: f64,
) -> Result<(), Error> {
    let Some(key) = key else { return Ok(()) };
    sqlx::query(GIVE_UP_KEY).bind(key).bind(settle_secs).execute(connection).await?;
    Ok(())
}

/// What a committed operation is answered with: the entity as it wrote it, or as it is by now where
/// that revision is not kept any more (AIP-155). Of a purge nothing else is left.
pub(super) async fn answer(
    connection: &mut PgConnection,
    operation: &PgRow,
) -> Result<Entity, Error> {
    let id: Uuid = operation.try_get("entity_id")?;
    let user: &str = operation.try_get("user_id")?;
    let version: i32 = operation.try_get("entity_version")?;
    if operation.try_get::<&str, _>("kind")? == "purge" {
        let occurred_at = operation.try_get("occurred_at")?;
        return Ok(Entity {
            id,
            user_id: user.to_owned(),
            entity_type: operation.try_get("entity_type")?,
            title: None,
            preview: None,
            tags: Vec::new(),
            file: None,
            version,
            created_at: occurred_at,
            updated_at: occurred_at,
            deleted_at: Some(occurred_at),
        });
    }
    if let Some(entity) = revisions::at(connection, user, id, version).await? {
        return Ok(entity);
    }
    let newest = sqlx::query(NEWEST).bind(id).bind(user).fetch_optional(connection).await?;
    entity(&newest.ok_or(Error::EntityNotFound)?)
}

pub(super) fn entity(row: &PgRow) -> Result<Entity, Error> {
    let path: Option<String> = row.try_get("file_path")?;
    let file = match path {
        None => None,
        Some(path) => Some(File {
            url: row.try_get("file_url")?,
            path,
            // Early V0.3 may have left these out; readers find out from the blob.
            size: row.try_get::<Option<i64>, _>("file_size")?.unwrap_or_default(),
            file_type: row.try_get::<Option<String>, _>("file_type")?.unwrap_or_default(),
            checksum: row.try_get::<Option<String>, _>("checksum")?.unwrap_or_default(),
            name: row.try_get("file_name")?,
        }),
    };
    Ok(Entity {
        id: row.try_get("id")?,
        user_id: row.try_get("user_id")?,
        entity_type: row.try_get("type")?,
        title: row.try_get("title")?,
        preview: row.try_get("preview")?,
        tags: row.try_get("tags")?,
        file,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        deleted_at: row.try_get("deleted_at")?,
    })
}

/// The event of a committed operation; `None` once it is done.
pub(super) fn pending_event(row: &PgRow) -> Result<Option<PendingEvent>, Error> {
    if row.try_get::<&str, _>("state")? != "COMMITTED" {
        return Ok(None);
    }
    let user: String = row.try_get("user_id")?;
    let user = UserId::parse(user).map_err(|why| corrupt("write_operations", why))?;
    let operation = OperationId { user, request: row.try_get("request_id")? };
    Ok(Some(PendingEvent {
        attempt: Attempt { operation, epoch: row.try_get("epoch")? },
        event_id: row.try_get("event_id")?,
        entity_type: row.try_get("entity_type")?,
        entity_id: row.try_get("entity_id")?,
        version: row.try_get("entity_version")?,
        occurred_at: row.try_get("occurred_at")?,
        event: EventDraft {
            event_type: row.try_get("event_type")?,
            data: row.try_get("event_data")?,
        },
        adopts: row.try_get("adopts")?,
    }))
}

/// What is left of a lease, in seconds of the database's clock.
pub(super) fn lease(left: f64) -> Duration {
    Duration::try_from_secs_f64(left).unwrap_or_default()
}

/// Rows are locked in this order by whoever locks several.
pub(super) fn lock_order(a: &OperationId, b: &OperationId) -> Ordering {
    (&a.user, a.request).cmp(&(&b.user, b.request))
}

pub(super) fn phase(row: &PgRow) -> Result<Phase, Error> {
    let name: &str = row.try_get("phase")?;
    Phase::by_name(name).ok_or_else(|| corrupt("storage_phase", name))
}

pub(super) fn corrupt(table: &'static str, what: impl std::fmt::Display) -> Error {
    Error::CorruptRow { table, what: what.to_string() }
}
