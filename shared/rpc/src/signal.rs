//! When to stop.

use tokio_util::sync::CancellationToken;

/// A token that is cancelled by SIGTERM (Kubernetes) or SIGINT (Ctrl-C). A second one ends the
/// process at once.
#[must_use]
pub fn stop_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        signalled().await;
        token.cancel();
        signalled().await;
        std::process::exit(130);
    });
    stop
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "SIGTERM cannot be awaited");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
