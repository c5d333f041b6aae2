//! One subscriber: it takes steps of its own until it is at the end of the feed, and then hears from
//! the tailer. It is asked for one message after the other, so a client that does not read costs
//! nothing but its place; if that falls out of the tailer's ring, the subscriber takes steps again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, timeout_at},
};

use super::{
    DatabaseError,
    tailer::{Tailer, Tick},
};
use crate::domain::{Filter, Place, StoredEvent};

/// What a subscriber gets.
pub(crate) enum Message {
    Event(Arc<StoredEvent>),
    Heartbeat { place: Place, caught_up: bool, horizon_age: Duration },
}

/// A subscriber.
pub(crate) struct Subscription {
    tailer: Arc<Tailer>,
    ticks: Receiver<Tick>,
    filter: Filter,
    /// Everything up to here was given, or is pending.
    place: Place,
    pending: VecDeque<Arc<StoredEvent>>,
    /// Whether there may be events that neither this nor the ring has.
    is_behind: bool,
    heartbeat: Duration,
    /// When the next heartbeat comes.
    due: Instant,
}

impl Subscription {
    pub(super) fn new(
        tailer: &Arc<Tailer>,
        place: Place,
        filter: Filter,
        heartbeat: Duration,
    ) -> Self {
        Self {
            tailer: Arc::clone(tailer),
            // Before the first step: what comes after it is in the ring.
            ticks: tailer.join(),
            filter,
            place,
            pending: VecDeque::new(),
            is_behind: true,
            heartbeat,
            due: Instant::now(),
        }
    }

    /// The next message, when there is one. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Message, DatabaseError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Message::Event(event));
            }
            let now = Instant::now();
            if now >= self.due && (!self.is_behind || now >= self.due + self.heartbeat) {
                self.due = now + self.heartbeat;
                return Ok(Message::Heartbeat {
                    place: self.place,
                    caught_up: !self.is_behind,
                    horizon_age: self.tailer.horizon().age,
                });
            }
            if self.is_behind {
                let step = self.tailer.database.step(self.place, &self.filter).await?;
                self.pending.extend(step.events);
                self.place = step.end;
                self.is_behind = !step.is_at_horizon;
                continue;
            }
            match timeout_at(self.due, self.ticks.recv()).await {
                Err(_) => {}
                // From before the last step, or right after it.
                Ok(Ok(Tick::Moved(moved))) if moved.after <= self.place => {
                    let wanted = |event: &&Arc<StoredEvent>| {
                        event.place() > self.place && self.filter.allows(event)
                    };
                    self.pending.extend(moved.events.iter().filter(wanted).cloned());
                    self.place = self.place.max(moved.end);
                }
                // The tailer has begun further on, or was too fast.
                Ok(Ok(Tick::Moved(_)) | Err(RecvError::Lagged(_) | RecvError::Closed)) => {
                    self.is_behind = true;
                }
                Ok(Ok(Tick::Failed(error))) => return Err(error),
            }
        }
    }
}
