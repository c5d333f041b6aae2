//! The write protocol (DESIGN section 5, docs/write-protocol.md).
//!
//! A write has five steps, and the third is the pivot: before it a write can only be undone or
//! taken over, after it it can only go forward.
//!
//! 1. **Begin** (entity-service): the intent is written down, with the entity's id, the key of its
//!    body, and the id and time of its event. Whoever repeats the request finds it.
//! 2. **Put** (content-service): the body, under a key that was never used.
//! 3. **Commit** (entity-service): one transaction makes the note true, unless the attempt was
//!    taken over.
//! 4. **Append** (event-service): the event, idempotent by its id.
//! 5. **Finish** (entity-service): the operation is done; later, and many at once.
//!
//! The caller is answered after step 4. If the event store does not answer in time, the answer is
//! still success, with `event_pending`: the outcome was decided at step 3, and recovery appends.

mod create_note;
mod finisher;

use std::{sync::Arc, time::Duration};

use synap_rpc::deadline;
use synap_types::IdGenerator;

pub use create_note::Created;
pub(crate) use finisher::Finisher;

use crate::{
    clients::{Attempt, ContentClient, EntityClient, EventClient, NoteEvent, OperationId},
    error::Error,
};

/// Time kept back for the answer itself when the event store is slow.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// Time for giving up an attempt, after the request's own deadline if need be.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(2);
/// How often somebody else's attempt is asked about, at first and at most.
const FIRST_POLL: Duration = Duration::from_millis(10);
const LAST_POLL: Duration = Duration::from_millis(250);

/// Runs writes across the three services.
#[derive(Clone)]
pub(crate) struct Saga {
    pub(crate) content: ContentClient,
    pub(crate) entity: EntityClient,
    pub(crate) event: EventClient,
    pub(crate) finisher: Finisher,
    pub(crate) ids: Arc<dyn IdGenerator>,
    pub(crate) append_timeout: Duration,
}

impl Saga {
    /// Steps 4 and 5. Returns whether the event is still pending: after the pivot nothing is an
    /// error any more.
    async fn roll_forward(&self, operation: &OperationId, event: &NoteEvent) -> bool {
        synap_failpoint::hit("gateway.append.before").await;
        let left = deadline::remaining().map(|left| left.saturating_sub(ANSWER_MARGIN));
        let limit = left.map_or(self.append_timeout, |left| left.min(self.append_timeout));
        let appended = deadline::within(limit, self.event.append(event)).await;
        synap_failpoint::hit("gateway.append.after").await;
        match appended {
            Ok(Ok(())) => {
                self.finisher.finish(operation.clone());
                false
            }
            Ok(Err(error)) => {
                tracing::warn!(step = "append", %error, event_id = %event.event_id, "event pending");
                true
            }
            Err(_) => {
                tracing::warn!(step = "append", ?limit, event_id = %event.event_id, "event pending");
                true
            }
        }
    }

    /// Undoes an attempt that failed before its pivot. `false` if it has been committed after all:
    /// the reply was lost. If nobody can be told, its lease runs out and recovery does it.
    async fn give_up(&self, attempt: &Attempt) -> bool {
        let aborted = tokio::time::timeout(GIVE_UP_LIMIT, self.entity.abort(attempt)).await;
        match aborted {
            Ok(Ok(aborted)) => aborted,
            Ok(Err(error)) => {
                tracing::warn!(step = "abort", %error, "left to recovery");
                true
            }
            Err(_) => {
                tracing::warn!(step = "abort", limit = ?GIVE_UP_LIMIT, "left to recovery");
                true
            }
        }
    }

    /// Waits a little for somebody else's attempt, if there is time.
    async fn wait(poll: &mut Duration, retry_after: Duration) -> Result<(), Error> {
        if deadline::remaining().is_some_and(|left| left < *poll + ANSWER_MARGIN) {
            return Err(Error::InProgress { retry_after });
        }
        tokio::time::sleep(*poll).await;
        *poll = (*poll * 2).min(LAST_POLL);
        Ok(())
    }
}
