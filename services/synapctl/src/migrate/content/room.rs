//! What is under way, within bounds of memory, and the leases of it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use synap_proto::entity::RenewClaimsRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Services;

/// Bytes of bodies in memory, in KiB; a larger body waits until it is alone.
const MEMORY_KIB: u32 = 32 * 1024;
/// How long a lease is taken for until the service has said so.
const LEASE: Duration = Duration::from_secs(3);

/// What is under way, and how much of it fits.
pub(crate) struct Room {
    places: u32,
    place: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    state: Mutex<Inside>,
    closed: CancellationToken,
}

/// A body's place and memory.
pub(super) struct Place {
    _place: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Inside {
    /// Claimed, and not at an end.
    claimed: HashSet<String>,
    /// Changed while they were under way.
    again: Vec<String>,
}

impl Room {
    pub(crate) fn new(batch_size: i32) -> Self {
        // While one batch is under way and one is ending, the next one comes in.
        let places = 3 * u32::try_from(batch_size).unwrap_or(1).max(22);
        Self {
            places,
            place: Arc::new(Semaphore::new(places as usize)),
            memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)),
            state: Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    /// A body is at its end.
    pub(super) fn leave(&self, id: &str, again: bool) {
        let mut state = self.state();
        state.claimed.remove(id);
        if again {
            state.again.push(id.to_owned());
        }
    }

    /// Nothing new comes in.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until nothing is under way.
    pub(super) async fn empty(&self) {
        drop(self.place.acquire_many(self.places).await);
    }

    /// Waits for a place for a body.
    pub(super) async fn enter(&self, bytes: i64) -> Option<Place> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(MEMORY_KIB).min(MEMORY_KIB);
        let place = Arc::clone(&self.place).acquire_owned().await.ok()?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(kib).await.ok()?;
        Some(Place { _place: place, _memory: memory })
    }

    /// These are claimed: until they leave, their leases are held.
    pub(super) fn claimed(&self, ids: &[String]) {
        self.state().claimed.extend(ids.iter().cloned());
    }

    /// Takes what is to be asked for again.
    pub(super) fn again(&self) -> Vec<String> {
        std::mem::take(&mut self.state().again)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    fn state(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the ends of the leases of what is under way away, for ever.
pub(super) async fn hold_leases(services: Arc<Services>, room: Arc<Room>, claimant_id: String) {
    let mut lease = LEASE;
    loop {
        let all: Vec<String> = room.state().claimed.iter().cloned().collect();
        for ids in all.chunks(1_000).chain(all.is_empty().then_some(&[][..])) {
            let entity_ids = ids.to_vec();
            let request = RenewClaimsRequest { claimant_id: claimant_id.clone(), entity_ids };
            // If it fails, others may take over what they then find done.
            if let Ok(answer) = services.entity.clone().renew_claims(request).await {
                let told = answer.into_inner().lease.and_then(|lease| lease.try_into().ok());
                lease = told.unwrap_or(lease);
            }
        }
        tokio::time::sleep(lease / 3).await;
    }
}
