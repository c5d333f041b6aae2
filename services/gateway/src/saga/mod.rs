//! The write protocol (docs/write-protocol.md).
//!
//! A write has five steps, and the third is the pivot: before it a write can only be undone or
//! taken over, after it it can only go forward.
//!
//! 1. **Begin** (entity-service): the intent is written down, with the entity's id, the key of its
//!    body, and the id and time of its event. Whoever repeats the request finds it.
//! 2. **Put** (content-service): the body, under a key that was never used. A small body is on its
//!    way while step 1 is; only its end, which makes it visible, waits for step 1.
//! 3. **Commit** (entity-service): one transaction makes the write true, unless the attempt was
//!    taken over.
//! 4. **Append** (event-service): the event, idempotent by its id. Where few writes are under way that
//!    of a new note is done while steps 2 and 3 are; only its commit, which makes it visible, waits for
//!    step 3.
//! 5. **Finish** (entity-service): the operation is done; later, and many at once.
//!
//! The caller is answered after step 4. If the event store does not answer in time, the answer is
//! still success, with `event_pending`: the outcome was decided at step 3, and recovery appends.

mod bodiless;
mod create_note;
mod direct_upload;
mod finisher;
mod lease;
mod note_body;
mod repair_note;
mod update_note;
mod upload_file;

use std::{sync::Arc, time::Duration};

use synap_rpc::deadline;
use synap_types::IdGenerator;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub(crate) use bodiless::Target;
pub(crate) use direct_upload::UploadUrl;
pub(crate) use finisher::Finisher;
pub(crate) use repair_note::BadBlob;

use crate::{
    clients::{
        Attempt, Begun, BodyAhead, Change, Committed, ContentClient, EntityClient, EntityEvent,
        EventAhead, EventClient, Intent, OperationId, What,
    },
    domain::{Body, Entity},
    error::Error,
};

/// Time kept back for the answer itself when the event store is slow.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// Time for giving up an attempt, after the request's own deadline if need be.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(2);
/// An event is appended ahead while no more attempts than this are under way: it takes a commit of its
/// own, and many are better off with one that they share.
const FEW: usize = 2;
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
    /// A token for each attempt.
    pub(crate) under_way: TaskTracker,
}

/// What one kind of write does between its begin and its pivot.
trait Write: Send {
    /// Step 2: brings about everything that the pivot makes true, and says what that is. Called
    /// once for each attempt.
    fn prepare(
        &mut self,
        saga: &Saga,
        attempt: &Attempt,
        ahead: Option<BodyAhead>,
    ) -> impl Future<Output = Result<Change, Error>> + Send;

    /// A body that may be on its way while step 1 is: a first attempt finds it in `ahead`, unless it
    /// is too large. Others send theirs in `prepare`.
    fn body(&self) -> Option<&Body> {
        None
    }

    /// The event that the pivot will ask for, where that is known as soon as step 1 is done: it may be
    /// on its way while steps 2 and 3 are.
    fn event(&self, _: &Attempt) -> Option<EntityEvent> {
        None
    }
}

/// A write that is durable.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// The entity as it was written.
    pub(crate) entity: Entity,
    /// Whether its event is still to be appended.
    pub(crate) event_pending: bool,
    /// Whether another call did it, and this is its answer.
    pub(crate) replayed: bool,
}

impl Saga {
    /// A write from its first step to its last. A repeat of the same operation gets the first
    /// answer.
    async fn run(&self, intent: &Intent, write: &mut impl Write) -> Result<Written, Error> {
        let mut poll = FIRST_POLL;
        // Both for the first attempt only: any other has a key that we do not know beforehand.
        let mut new_id = Some(self.ids.next_id());
        let mut ahead = new_id
            .and_then(|id| intent.key(id))
            .zip(write.body())
            .and_then(|(key, body)| self.content.send_ahead(key, body));
        loop {
            // 1 Begin
            synap_failpoint::hit("gateway.begin.before").await;
            let begun = self.entity.begin(intent, self.ids.next_id(), new_id.take()).await?;
            synap_failpoint::hit("gateway.begin.after").await;
            let ahead = ahead.take();
            match begun {
                Begun::Started(attempt) => match self.attempt(&attempt, write, ahead).await {
                    Ok(written) => return Ok(written),
                    // Taken over: the operation itself knows what became of it.
                    Err(error) if error.is_fenced() => {}
                    // Bodies go somewhere else by now: the caller need not know.
                    Err(error) if error.is_phase_changed() => {
                        self.give_up(&attempt).await;
                    }
                    Err(error) => {
                        if self.give_up(&attempt).await {
                            return Err(error);
                        }
                    }
                },
                Begun::Committed(committed) => {
                    drop(ahead);
                    return Ok(self.replay(&intent.operation, *committed).await);
                }
                Begun::InProgress { retry_after } => {
                    drop(ahead);
                    Self::wait(&mut poll, retry_after).await?;
                }
            }
        }
    }

    /// Steps 2 to 5 of an attempt that is ours.
    async fn attempt(
        &self,
        attempt: &Attempt,
        write: &mut impl Write,
        ahead: Option<BodyAhead>,
    ) -> Result<Written, Error> {
        let _under_way = self.under_way.token();
        // 4 Append, all of it but its commit
        let few = self.under_way.len() <= FEW;
        let event = few.then(|| write.event(attempt)).flatten();
        let event_ahead = event.and_then(|event| self.event.send_ahead(event));

        // 2 Put
        let change = write.prepare(self, attempt, ahead).await?;

        // 3 Commit: the pivot
        synap_failpoint::hit("gateway.commit.before").await;
        let (entity, adopts) = self.entity.commit(attempt, &change).await?;
        synap_failpoint::hit("gateway.commit.after").await;
        if let What::Repair { .. } = change.what {
            return Ok(Written { entity, event_pending: false, replayed: false });
        }

        // 4 Append, or the end of it; 5 Finish
        let event = EntityEvent {
            event_id: attempt.event_id,
            user_id: entity.user_id.clone(),
            entity_type: entity.entity_type.clone(),
            entity_id: attempt.entity_id,
            version: entity.version.into(),
            event_type: change.event_type.to_owned(),
            occurred_at: attempt.occurred_at,
            data: change.event_data,
            adopts,
        };
        let event_pending = self.roll_forward(&attempt.operation, &event, event_ahead).await;
        Ok(Written { entity, event_pending, replayed: false })
    }

    /// The answer of a write that has happened before; its event is appended if it may be missing.
    async fn replay(&self, operation: &OperationId, committed: Committed) -> Written {
        let event_pending = match &committed.pending_event {
            Some(event) => self.roll_forward(operation, event, None).await,
            None => false,
        };
        Written { entity: committed.entity, event_pending, replayed: true }
    }

    /// Steps 4 and 5. Returns whether the event is still pending: after the pivot nothing is an
    /// error any more.
    async fn roll_forward(
        &self,
        operation: &OperationId,
        event: &EntityEvent,
        ahead: Option<EventAhead>,
    ) -> bool {
        synap_failpoint::hit("gateway.append.before").await;
        let left = deadline::remaining().map(|left| left.saturating_sub(ANSWER_MARGIN));
        let limit = left.map_or(self.append_timeout, |left| left.min(self.append_timeout));
        let appended = deadline::within(limit, self.append_in_order(event, ahead)).await;
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

    /// Step 4, or only its end where it is on its way. The event of the version before may still be on
    /// its way, too: its writer came to the pivot first, and not yet here.
    async fn append_in_order(
        &self,
        event: &EntityEvent,
        ahead: Option<EventAhead>,
    ) -> Result<(), Error> {
        if let Some(ahead) = ahead
            && ahead.commit(event).await
        {
            return Ok(());
        }
        let mut poll = FIRST_POLL;
        loop {
            let error = match self.event.append(event).await {
                Err(error) if error.is_out_of_order() => error,
                outcome => return outcome,
            };
            if Self::wait(&mut poll, Duration::ZERO).await.is_err() {
                return Err(error);
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

/// A write that has begun is carried to its end, even if its caller hangs up: the end of a body that
/// breaks off is that nothing is left of it. It ends after `limit`, however patient its caller is.
pub(crate) async fn carry_out(
    limit: Duration,
    write: impl Future<Output = Result<Written, Error>> + Send + 'static,
) -> Result<Written, Error> {
    let limit = deadline::remaining().unwrap_or_default().min(limit);
    let write = tokio::spawn(deadline::within(limit, write).in_current_span());
    write.await.map_err(|_| Error::contract("gateway", "the write ended early"))??
}
