//! The heartbeat of work that may take longer than its attempt's lease.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Saga;
use crate::{clients::Attempt, error::Error};

/// The shortest pause between two extensions, however little is left.
const SHORTEST: Duration = Duration::from_millis(50);

impl Saga {
    /// Works on an attempt for as long as it takes, and extends the attempt's lease after every
    /// third of it. The work is stopped where the attempt was taken over: it could not commit.
    pub(super) async fn hold<T>(
        &self,
        attempt: &Attempt,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        tokio::pin!(work);
        let heartbeat = async {
            let mut end = Instant::now() + attempt.lease;
            loop {
                let left = end.saturating_duration_since(Instant::now());
                sleep((left / 3).max(SHORTEST)).await;
                match self.entity.extend(attempt, None).await {
                    Ok(lease) => end = Instant::now() + lease,
                    Err(error) if error.is_fenced() => return error,
                    // Asked again; a lease that runs out is not yet a lost attempt.
                    Err(error) => tracing::warn!(%error, "a lease could not be extended"),
                }
            }
        };
        tokio::select! {
            biased;
            outcome = &mut work => outcome,
            fenced = heartbeat => Err(fenced),
        }
    }
}
