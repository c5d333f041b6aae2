//! Closed-loop load: each of N workers does one thing after the other.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Barrier, task::JoinSet};

/// Latencies of everything that was done, and how long it took in all.
#[derive(Debug, Default)]
pub(super) struct Measured {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Measured {
    /// Adds another slice of the same load.
    pub(super) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.elapsed += other.elapsed;
    }

    /// Operations a second.
    pub(super) fn throughput(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 operations")]
        let count = self.latencies.len() as f64;
        count / self.elapsed.as_secs_f64()
    }

    /// The latency that `percent` of the operations stay within, in milliseconds.
    pub(super) fn percentile_ms(&mut self, percent: usize) -> f64 {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() * percent / 100).min(last);
        self.latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Runs `operation` on `workers` tasks for a time. The first failure ends the benchmark: a figure
/// that counts failures is none.
pub(super) async fn run<F>(
    workers: usize,
    time: Duration,
    operation: impl Fn(usize) -> F + Send + Sync + 'static,
) -> anyhow::Result<Measured>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let operation = Arc::new(operation);
    let start = Arc::new(Barrier::new(workers + 1));
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let (operation, start) = (Arc::clone(&operation), Arc::clone(&start));
        tasks.spawn(async move {
            start.wait().await;
            let end = Instant::now() + time;
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                operation(worker).await?;
                latencies.push(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    start.wait().await;
    let begun = Instant::now();
    let mut measured = Measured::default();
    while let Some(ended) = tasks.join_next().await {
        measured.latencies.extend(ended??);
    }
    measured.elapsed = begun.elapsed();
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let latencies = (1..=100).rev().map(Duration::from_millis).collect();
        let mut measured = Measured { latencies, elapsed: Duration::from_secs(2) };
        assert!((measured.percentile_ms(50) - 51.0).abs() < 1e-9);
        assert!((measured.percentile_ms(99) - 100.0).abs() < 1e-9);
        assert!((measured.throughput() - 50.0).abs() < 1e-9);
    }
}
