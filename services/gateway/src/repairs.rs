//! Blobs that a reader could not read and has found elsewhere are repaired, off the path of the
//! answer.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use opentelemetry::{KeyValue, metrics::Counter};
use synap_rpc::deadline;
use synap_types::UserId;
use tokio::{sync::mpsc, task::JoinHandle};
use uuid::Uuid;

use crate::{
    domain::Body,
    error::Error,
    read_body::{self, Unreadable, read_body},
    saga::{BadBlob, Saga},
};

/// Notes that wait for their repair; more are left to their next reader.
const QUEUE: usize = 1024;
/// Repairs at once. Each holds one body.
const AT_ONCE: usize = 4;
/// A repair ends after this.
const LIMIT: Duration = Duration::from_mins(1);

/// What the readers found, and what became of it.
struct Metrics {
    fallbacks: Counter<u64>,
    repairs: Counter<u64>,
}

/// Takes notes whose blob could not be read. Cheap to clone; the task ends when the last clone is
/// gone.
#[derive(Clone)]
pub(crate) struct Repairs {
    queue: mpsc::Sender<Suspect>,
    metrics: Arc<Metrics>,
}

/// A note whose blob may be missing or damaged. Holds no body: somebody may break many blobs.
struct Suspect {
    user: UserId,
    id: Uuid,
}

impl Repairs {
    /// The queue and its task, to be awaited after the last clone is dropped.
    pub(crate) fn start(saga: Saga) -> (Self, JoinHandle<()>) {
        let meter = synap_telemetry::metrics::meter();
        let counter = |name, unit, what| {
            meter.u64_counter(name).with_unit(unit).with_description(what).build()
        };
        let metrics = Arc::new(Metrics {
            fallbacks: counter(
                "synap.note.fallbacks",
                "{read}",
                "Bodies that were read in content_blocks because their blob could not be",
            ),
            repairs: counter("synap.note.repairs", "{repair}", "Blobs that were looked at again"),
        });
        let (queue, waiting) = mpsc::channel(QUEUE);
        let repairing = tokio::spawn(repair_all(saga, waiting, Arc::clone(&metrics)));
        (Self { queue, metrics }, repairing)
    }

    /// A body was read in content_blocks.
    pub(crate) fn fell_back(&self, user: &UserId, id: Uuid, why: Unreadable) {
        self.metrics.fallbacks.add(1, &[KeyValue::new("reason", why.name())]);
        tracing::warn!(entity_id = %id, reason = why.name(), "a body was read in content_blocks");
        let suspect = Suspect { user: user.clone(), id };
        if self.queue.try_send(suspect).is_err() {
            self.metrics.repairs.add(1, &[KeyValue::new("outcome", "dropped")]);
        }
    }
}

async fn repair_all(saga: Saga, waiting: mpsc::Receiver<Suspect>, metrics: Arc<Metrics>) {
    let repair_one = |suspect: Suspect| {
        let (saga, metrics) = (&saga, &metrics);
        async move {
            let id = suspect.id;
            let outcome = match deadline::within(LIMIT, repair(saga, suspect)).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => {
                    tracing::warn!(%error, entity_id = %id, "left to the next reader");
                    "failed"
                }
                Err(_) => "failed",
            };
            metrics.repairs.add(1, &[KeyValue::new("outcome", outcome)]);
        }
    };
    let waiting = stream::unfold(waiting, async |mut waiting| {
        waiting.recv().await.map(|suspect| (suspect, waiting))
    });
    waiting.for_each_concurrent(AT_ONCE, repair_one).await;
}

/// Looks at the blob once more, and puts its body back where that is needed and can be done.
async fn repair(saga: &Saga, suspect: Suspect) -> Result<&'static str, Error> {
    let Suspect { user, id } = suspect;
    let found = saga.entity.entity_beside_blob(&user, "note", id).await?;
    let Some((entity, block)) = found else { return Ok("gone") };
    let Some(file) = &entity.file else { return Ok("gone") };
    let Err(why) = read_body(&saga.content, file).await else {
        // It has been repaired, or was never broken: the store was away.
        return Ok("sound");
    };
    let body = block.filter(|block| read_body::check(file, block.as_bytes()).is_ok());
    let Some(body) = body.filter(|_| why != Unreadable::Unreachable) else {
        return Err(why.of(&entity));
    };
    let blob = BadBlob { user, id, version: entity.version, key: file.path.clone() };
    saga.repair_note(blob, Body::new(body)).await?;
    tracing::warn!(entity_id = %id, reason = why.name(), "a blob was repaired");
    Ok("repaired")
}
