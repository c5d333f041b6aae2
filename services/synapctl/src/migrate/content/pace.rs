//! How fast at most.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// So much a second, evenly: objects or bytes.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    /// When the next may begin.
    next: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: per_second.into(), next: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn, and takes so much.
    pub(crate) async fn take(&self, amount: usize) {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 bytes")]
        let time = Duration::from_secs_f64(amount as f64 / self.per_second);
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn + time;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}
