//! Closed-loop load: each of N workers does one thing after the other.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Barrier, task::JoinSet};

/// One operation under way.
pub(super) type Done = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Connections are made and statements prepared before anything counts.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);
/// Slices that each side's time is cut into: the two take turns, so that a machine whose speed
/// drifts does not favour one of them.
pub(super) const SLICES: u32 = 5;

/// Latencies of everything that was done, and how long it took in all.
#[derive(Debug, Default)]
pub(super) struct Measured {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Measured {
    /// What somebody else has timed.
    pub(super) fn of(latencies: Vec<Duration>, elapsed: Duration) -> Self {
        Self { latencies, elapsed }
    }

    /// How long it took in all.
    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed
    }

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

/// Runs the system and its floor in turns, each for `time`.
pub(super) async fn in_turns<S, F>(
    workers: usize,
    time: Duration,
    system: S,
    floor: F,
) -> anyhow::Result<(Measured, Measured)>
where
    S: Fn(usize) -> Done + Clone + Send + Sync + 'static,
    F: Fn(usize) -> Done + Clone + Send + Sync + 'static,
{
    run(workers, WARM_UP, system.clone()).await?;
    run(workers, WARM_UP, floor.clone()).await?;
    let (mut of_system, mut of_floor) = (Measured::default(), Measured::default());
    for _ in 0..SLICES {
        of_system.add(run(workers, time / SLICES, system.clone()).await?);
        of_floor.add(run(workers, time / SLICES, floor.clone()).await?);
    }
    Ok((of_system, of_floor))
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
