//! Calls that outlast the restart of a service.

use std::time::Duration;

use synap_rpc::RpcError;
use tokio::time::Instant;
use tonic::{Code, Status};

/// A service that is started again may be away for so long.
pub(crate) const AWAY_LIMIT: Duration = Duration::from_mins(1);
/// How often it is asked whether it is back.
pub(crate) const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// Calls again while the service is away: only for calls that may be repeated.
///
/// # Errors
/// What the service answers, or that it stayed away.
pub(crate) async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, RpcError>
where
    F: Future<Output = Result<T, Status>>,
{
    let begun = Instant::now();
    loop {
        match call().await.map_err(RpcError::from) {
            Err(error) if error.code == Code::Unavailable && begun.elapsed() < AWAY_LIMIT => {
                tokio::time::sleep(AWAY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
