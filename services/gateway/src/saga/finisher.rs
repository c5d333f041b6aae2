//! Step 5, off the path of the answer: operations whose event is appended are finished together.

use std::time::Duration;

use tokio::{sync::mpsc, task::JoinHandle};

use crate::clients::{EntityClient, OperationId};

/// Operations that wait to be finished; more are left to recovery.
const QUEUE: usize = 8192;
/// Operations finished by one call at most: entity-service's limit.
const BATCH: usize = 1000;
/// Pause between two calls, in which operations gather. Far below the lease after which recovery
/// would append the event again.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes operations to finish. Cheap to clone; the task ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Finisher {
    queue: mpsc::Sender<OperationId>,
}

impl Finisher {
    /// A finisher and its task, to be awaited after the last clone is dropped.
    pub(crate) fn start(entity: EntityClient) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue }, tokio::spawn(run(entity, waiting)))
    }

    /// The operation's event is appended.
    pub(crate) fn finish(&self, operation: OperationId) {
        // A full queue loses nothing: the operation stays COMMITTED, and recovery finishes it.
        let _ = self.queue.try_send(operation);
    }
}

async fn run(entity: EntityClient, mut waiting: mpsc::Receiver<OperationId>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        synap_failpoint::hit("gateway.finish.before").await;
        if let Err(error) = entity.finish(&batch).await {
            tracing::warn!(step = "finish", %error, operations = batch.len(), "left to recovery");
        }
        synap_failpoint::hit("gateway.finish.after").await;
        batch.clear();
        if !waiting.is_closed() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
