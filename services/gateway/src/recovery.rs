//! What happens to a write whose gateway died. Every replica runs this: entity-service hands out
//! what is due under leases of the database's clock, so that any number of workers can run, and any
//! of them die.
//!
//! - An operation that was begun and not committed in time is given up by entity-service itself; a
//!   later epoch fences its writer, and its key comes back here as a blob to delete.
//! - An operation that was committed goes forward: its event is appended, then it is finished.
//! - An entity that was deleted longer ago than the retention is purged, by an operation like any
//!   other: replicas that find it at once run one and the same.
//! - A blob that no row names is deleted, and once more when its writer can no longer be uploading.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use synap_rpc::deadline;
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{EntityEvent, OperationId, Purgeable},
    error::Error,
    saga::Saga,
    service::Readiness,
};

/// Things taken at once. Smaller than what a lease has time for.
const BATCH: i32 = 100;
/// Events appended at once.
const APPENDS: usize = 8;
/// Entities purged at once, and how long one may take: then the next look tries again.
const PURGES: usize = 4;
const PURGE_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked at start whether there is anybody to recover with.
const START_POLL: Duration = Duration::from_millis(200);

/// Finishes or undoes what a crash left behind.
pub(crate) struct Recovery {
    pub(crate) saga: Saga,
    pub(crate) ready: Readiness,
    /// Pause between two looks after something was found.
    pub(crate) interval: Duration,
    /// The pause grows to this while there is nothing to do.
    pub(crate) max_interval: Duration,
}

impl Recovery {
    /// Looks again and again until `stop` is cancelled; what is under way is brought to its end.
    pub(crate) async fn run(self, stop: CancellationToken) {
        // At start the services may be away, or still migrating.
        while !self.ready.check().await {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(START_POLL) => {}
            }
        }
        let mut pause = self.interval;
        loop {
            let found = match self.look().await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "recovery could not look; it will again");
                    true
                }
            };
            pause = if found { self.interval } else { (pause * 2).min(self.max_interval) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes everything that is due. Returns whether there was anything.
    async fn look(&self) -> Result<bool, Error> {
        let mut found = false;
        loop {
            let (events, aborted) = self.saga.entity.claim(BATCH).await?;
            let taken = events.len() + usize::try_from(aborted).unwrap_or_default();
            if taken == 0 {
                break;
            }
            found = true;
            let appended = self.append_all(events).await;
            tracing::info!(aborted, appended = appended.len(), "recovered operations");
            self.saga.entity.finish(&appended).await?;
            if taken < BATCH.unsigned_abs() as usize {
                break;
            }
        }
        found |= self.purge_some().await?;
        loop {
            let keys = self.saga.entity.claim_deletions(BATCH).await?;
            if keys.is_empty() {
                return Ok(found);
            }
            found = true;
            tracing::info!(blobs = keys.len(), "deleting blobs that were given up");
            self.saga.content.delete(keys.clone()).await?;
            self.saga.entity.complete_deletions(keys).await?;
        }
    }

    /// Purges some of what is due; the rest waits for the next look, as what could not be purged does.
    /// Returns whether there was anything.
    async fn purge_some(&self) -> Result<bool, Error> {
        let due = self.saga.entity.purgeable(BATCH).await?;
        let found = !due.is_empty();
        let purged = stream::iter(due)
            .map(|entity| self.purge(entity))
            .buffer_unordered(PURGES)
            .filter(|purged| std::future::ready(*purged))
            .count()
            .await;
        if purged > 0 {
            tracing::info!(entities = purged, "purged what was deleted long ago");
        }
        Ok(found)
    }

    /// Whether it is gone.
    async fn purge(&self, entity: Purgeable) -> bool {
        let id = entity.id;
        let purged = deadline::within(PURGE_LIMIT, self.saga.purge(entity)).await;
        match purged.map_err(Error::from).flatten() {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, entity_id = %id, "a purge failed; it stays for now");
                false
            }
        }
    }

    /// Appends events, and says whose are now in the event store. The others keep their lease, and
    /// are handed out again later and later.
    async fn append_all(&self, events: Vec<(OperationId, EntityEvent)>) -> Vec<OperationId> {
        stream::iter(events)
            .map(|(operation, event)| async move {
                match self.saga.event.append(&event).await {
                    Ok(()) => Some(operation),
                    Err(error) => {
                        tracing::warn!(step = "append", %error, event_id = %event.event_id, "event pending");
                        None
                    }
                }
            })
            .buffer_unordered(APPENDS)
            .filter_map(|operation| async { operation })
            .collect()
            .await
    }
}
