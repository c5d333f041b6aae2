//! Whether the store can be worked with, asked seldom enough to cost nothing.

use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};

use crate::store::BlobStore;

/// How long a good answer holds. Each look at R2 is a billed request: every 10 s they come to
/// about a tenth of a dollar a month.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// How long a bad answer holds: short, because somebody is waiting for a better one.
const BAD_FOR: Duration = Duration::from_secs(1);

/// Remembers the last look at the store.
pub(crate) struct Readiness {
    store: BlobStore,
    last: Mutex<Option<Look>>,
}

#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    good: bool,
}

impl Readiness {
    pub(crate) fn of(store: BlobStore) -> Self {
        Self { store, last: Mutex::new(None) }
    }

    /// Whether the store answers, and can be written to as far as a look can tell.
    pub(crate) async fn now(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some(look) = *last {
            let holds = match look.good {
                // To look into the local file system is free.
                true if self.store.is_remote() => GOOD_FOR,
                true => Duration::ZERO,
                false => BAD_FOR,
            };
            if look.at.elapsed() < holds {
                return look.good;
            }
        }
        let outcome = self.store.probe().await;
        if let Err(error) = &outcome
            && last.is_none_or(|look| look.good)
        {
            tracing::warn!(reason = error.cause(), "the object store cannot be used");
        }
        let good = outcome.is_ok();
        let at = Instant::now();
        *last = Some(Look { at, good });
        good
    }
}
