//! How many requests may be in flight: additive increase, multiplicative decrease, as in TCP.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use object_store::client::{HttpError, HttpErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest wait for a place. Requests are signed before they wait, and S3 takes no signature of
/// more than 15 minutes ago.
const PATIENCE: Duration = Duration::from_mins(1);

/// Bounds the requests in flight.
#[derive(Debug)]
pub(super) struct Limit {
    /// As many permits as there may be requests, but for those in `State::owed`.
    places: Arc<Semaphore>,
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// At least 1.
    limit: usize,
    in_flight: usize,
    /// Places that were taken away while requests held them; they go when those requests end.
    owed: usize,
    /// Good answers since the limit changed.
    good: usize,
    /// Counts decreases. A request that was sent before the last one knows nothing of it.
    epoch: u64,
}

/// A place among the requests in flight. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    limit: Arc<Limit>,
    permit: Option<OwnedSemaphorePermit>,
    epoch: u64,
}

/// Nobody was served for [`PATIENCE`].
#[derive(Debug, thiserror::Error)]
#[error("too many requests to S3 are waiting")]
struct Crowded;

impl Limit {
    /// Begins at the most: a store that was never heard to complain is not made to wait.
    pub(super) fn new(max: usize) -> Arc<Self> {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            places: Arc::new(Semaphore::new(max)),
            max,
            state: Mutex::new(State { limit: max, in_flight: 0, owed: 0, good: 0, epoch: 0 }),
        })
    }

    /// Waits for a place, in order.
    pub(super) async fn enter(self: &Arc<Self>) -> Result<Place, HttpError> {
        let permit = Arc::clone(&self.places).acquire_owned();
        let permit = tokio::time::timeout(PATIENCE, permit).await;
        // Never sent: as if there had been no connection. The semaphore is never closed.
        let Ok(Ok(permit)) = permit else {
            return Err(HttpError::new(HttpErrorKind::Connect, Crowded));
        };
        let mut state = self.state();
        state.in_flight += 1;
        let epoch = state.epoch;
        drop(state);
        Ok(Place { limit: Arc::clone(self), permit: Some(permit), epoch })
    }

    /// The limit now, and the requests in flight.
    pub(super) fn now(&self) -> (usize, usize) {
        let state = self.state();
        (state.limit, state.in_flight)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// S3 answered. A whole round of good answers makes one more place.
    pub(super) fn answered(self) {
        let mut state = self.limit.state();
        state.good += 1;
        if state.good >= state.limit && state.limit < self.limit.max {
            state.good = 0;
            state.limit += 1;
            if state.owed > 0 {
                state.owed -= 1;
            } else {
                self.limit.places.add_permits(1);
            }
        }
    }

    /// S3 asked for less. Of all requests that were in flight together one answer counts.
    pub(super) fn throttled(self) {
        let mut state = self.limit.state();
        if self.epoch < state.epoch {
            return;
        }
        state.epoch += 1;
        state.good = 0;
        let fewer = (state.limit / 2).max(1);
        let taken = state.limit - fewer;
        state.limit = fewer;
        // This place is among those that are held.
        state.owed += taken - self.limit.places.forget_permits(taken);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.limit.state();
        state.in_flight -= 1;
        if state.owed > 0 {
            state.owed -= 1;
            if let Some(permit) = self.permit.take() {
                permit.forget();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn enter(limit: &Arc<Limit>, count: usize) -> Vec<Place> {
        let mut places = Vec::new();
        for _ in 0..count {
            places.push(limit.enter().await.unwrap());
        }
        places
    }

    fn free(limit: &Limit) -> usize {
        limit.places.available_permits()
    }

    #[tokio::test]
    async fn a_complaint_halves_and_a_round_of_answers_adds_one() {
        let limit = Limit::new(8);
        let mut places = enter(&limit, 8).await;
        places.pop().unwrap().throttled();
        assert_eq!(limit.now(), (4, 7));
        // Sent before: the same complaint once more.
        places.pop().unwrap().throttled();
        assert_eq!(limit.now(), (4, 6));
        assert_eq!(free(&limit), 0);
        drop(places);
        assert_eq!((limit.now(), free(&limit)), ((4, 0), 4));

        for _ in 0..4 {
            limit.enter().await.unwrap().answered();
        }
        assert_eq!((limit.now(), free(&limit)), ((5, 0), 5));
        for _ in 0..1000 {
            limit.enter().await.unwrap().answered();
        }
        assert_eq!((limit.now(), free(&limit)), ((8, 0), 8));
    }

    #[tokio::test]
    async fn one_place_is_always_left() {
        let limit = Limit::new(3);
        for _ in 0..5 {
            limit.enter().await.unwrap().throttled();
        }
        assert_eq!((limit.now(), free(&limit)), ((1, 0), 1));
    }

    #[tokio::test]
    async fn places_that_are_owed_can_be_granted_again() {
        let limit = Limit::new(4);
        let mut places = enter(&limit, 4).await;
        places.pop().unwrap().throttled();
        assert_eq!(limit.now(), (2, 3));
        places.pop().unwrap().answered();
        places.pop().unwrap().answered();
        assert_eq!(limit.now(), (3, 1));
        drop(places);
        assert_eq!(free(&limit), 3);
    }
}
