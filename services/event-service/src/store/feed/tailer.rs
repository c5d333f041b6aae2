//! Steps along the end of the feed, once for all subscribers of this process.
//!
//! It runs while there are subscribers. An append of this process wakes it; those of others it finds
//! by looking: every 5 ms while something happens, ever more seldom when nothing does, and once a
//! second at least. NOTIFY would tell of all of them, and its lock would make every commit of the
//! database wait for the one before.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::metrics::Gauge;
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep, timeout},
};

use super::{Database, DatabaseError, Horizon, Standstill, Step};
use crate::domain::{Filter, Place, StoredEvent};

/// Steps that a subscriber may be behind before it has to look for itself. Each holds some
/// MiB at most, see `PAGE_BYTES`.
const RING: usize = 32;
/// Between two steps at least: events that come at once are read at once.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two steps while something happens.
const BRISK: Duration = Duration::from_millis(5);
/// Between two steps at most, and how often it is told that nothing happened.
const IDLE: Duration = Duration::from_secs(1);
/// Where nothing has happened for a while, this part of it is waited before the next step.
const PATIENCE: u32 = 64;

/// A transaction that is older than this is worth a warning.
const LONG: Duration = Duration::from_secs(30);

/// What all subscribers hear.
#[derive(Clone)]
pub(super) enum Tick {
    Moved(Arc<Moved>),
    Failed(DatabaseError),
}

/// All events between two places.
pub(super) struct Moved {
    pub(super) after: Place,
    pub(super) events: Vec<Arc<StoredEvent>>,
    pub(super) end: Place,
}

/// The one who follows the feed.
pub(crate) struct Tailer {
    pub(super) database: Database,
    ring: broadcast::Sender<Tick>,
    appended: Notify,
    horizon: Mutex<Horizon>,
    /// Whether a task runs.
    is_running: Mutex<bool>,
    age: Gauge<f64>,
}

impl Tailer {
    pub(in crate::store) fn new(database: Database) -> Arc<Self> {
        let age = synap_telemetry::metrics::meter()
            .f64_gauge("synap.event.horizon.age")
            .with_unit("s")
            .with_description("How long the oldest transaction has kept back the feed")
            .build();
        Arc::new(Self {
            database,
            ring: broadcast::Sender::new(RING),
            appended: Notify::new(),
            horizon: Mutex::default(),
            is_running: Mutex::default(),
            age,
        })
    }

    /// Events have been committed.
    pub(in crate::store) fn appended(&self) {
        self.appended.notify_one();
    }

    /// The horizon as it was seen last; at most some seconds ago while there are subscribers.
    pub(in crate::store) fn horizon(&self) -> Horizon {
        lock(&self.horizon).clone()
    }

    /// What happens from now on, and a task that looks for it.
    pub(super) fn join(self: &Arc<Self>) -> broadcast::Receiver<Tick> {
        let mut is_running = lock(&self.is_running);
        let ticks = self.ring.subscribe();
        if !*is_running {
            *is_running = true;
            tokio::spawn(Arc::clone(self).tail());
        }
        ticks
    }

    async fn tail(self: Arc<Self>) {
        let mut standstill = Standstill::default();
        let mut at: Option<Place> = None;
        let (mut happened, mut told) = (Instant::now(), None::<Instant>);
        // Where the last step that was told ended: those between it and this one had no events.
        let mut told_to: Option<Place> = None;
        while !self.is_deserted() {
            let is_due = told.is_none_or(|told| told.elapsed() >= IDLE);
            match self.step(at, is_due, &mut standstill).await {
                Ok((after, step)) => {
                    at = Some(step.end);
                    let is_at_horizon = step.is_at_horizon;
                    if !step.events.is_empty() {
                        happened = Instant::now();
                    }
                    if is_due || !step.events.is_empty() {
                        let Step { events, end, .. } = step;
                        let after = told_to.replace(end).unwrap_or(after);
                        // An error is that nobody listens.
                        let _ = self.ring.send(Tick::Moved(Arc::new(Moved { after, events, end })));
                        told = Some(Instant::now());
                    }
                    if !is_at_horizon {
                        continue;
                    }
                }
                Err(error) => {
                    self.database.cluster.forget();
                    let _ = self.ring.send(Tick::Failed(error));
                    sleep(IDLE).await;
                }
            }
            sleep(PAUSE).await;
            let pause = (happened.elapsed() / PATIENCE).clamp(BRISK, IDLE);
            if timeout(pause, self.appended.notified()).await.is_ok() {
                // If a transaction that is older still runs, its end is what is waited for.
                happened = Instant::now();
            }
        }
    }

    /// One step, which the first time only finds out where the end is.
    async fn step(
        &self,
        at: Option<Place>,
        is_due: bool,
        standstill: &mut Standstill,
    ) -> Result<(Place, Step), DatabaseError> {
        let mut after = at;
        if is_due || at.is_none() {
            let (place, held) = self.database.horizon().await?;
            let horizon = standstill.horizon(place, held);
            self.age.record(horizon.age.as_secs_f64(), &[]);
            if horizon.age >= LONG {
                tracing::warn!(
                    age_ms = u64::try_from(horizon.age.as_millis()).unwrap_or(u64::MAX),
                    pid = horizon.pid,
                    database = horizon.database,
                    "an old transaction keeps back the feed of events"
                );
            }
            *lock(&self.horizon) = horizon;
            after = after.or(Some(place));
        }
        let after = after.unwrap_or(Place::BEGINNING);
        Ok((after, self.database.step(after, &Filter::default()).await?))
    }

    /// Whether nobody listens any more; then the task ends, and the next who comes starts another.
    fn is_deserted(&self) -> bool {
        let mut is_running = lock(&self.is_running);
        *is_running = self.ring.receiver_count() > 0;
        !*is_running
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here leaves what it guards half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
