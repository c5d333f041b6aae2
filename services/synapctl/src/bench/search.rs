//! `bench search`.

mod tables;
mod vectors;
pub(super) mod words;

use std::{sync::Arc, time::Duration};

use clap::Args;
use sqlx::PgPool;
use synap_postgres::PoolOptions;

use super::{
    load::{self, Done},
    report::{self, Subject},
    system::BenchSystem,
};
use crate::cli::Exit;

/// Searches by words over real text, and by vectors of users of very different size, against the
/// same SQL run directly; how many of the nearest a search finds; and what it is worth that vectors
/// have a table of their own.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  cargo run --release -- bench search --notes 20000 --vectors 100000"
)]
pub struct SearchArgs {
    /// Notes of real text that are searched by words.
    #[arg(long, default_value_t = 20_000)]
    notes: usize,
    /// Vectors in all, of 50 users.
    #[arg(long, default_value_t = 100_000)]
    vectors: usize,
    /// Rows of the two tables that are compared.
    #[arg(long, default_value_t = 20_000)]
    rows: usize,
    /// How many callers at once; a line for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    concurrency: Vec<usize>,
    /// Seconds that each side is measured for each line.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the benchmark.
pub(super) async fn bench(args: SearchArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.concurrency.iter().all(|n| (1..=1024).contains(n)) && args.seconds > 0,
        "--concurrency is 1 to 1024, --seconds at least 1"
    );
    let system = BenchSystem::start().await?;
    let bench = Bench { pool: direct(&system)?, args };
    if bench.args.notes > 0 {
        words::bench(&bench, &system).await?;
    }
    if bench.args.vectors > 0 {
        vectors::bench(&bench, &system).await?;
    }
    if bench.args.rows > 0 {
        tables::bench(&bench).await?;
    }
    bench.pool.close().await;
    system.stop().await?;
    Ok(Exit::Well)
}

/// The database, opened directly, with the settings that entity-service has.
fn direct(system: &BenchSystem) -> anyhow::Result<PgPool> {
    let options = PoolOptions {
        by_key: true,
        statement_timeout: None,
        idle_in_transaction_timeout: None,
        ..PoolOptions::new("bench")
    };
    Ok(synap_postgres::connect_pool(system.database.url(), &options)?)
}

struct Bench {
    pool: PgPool,
    args: SearchArgs,
}

impl Bench {
    /// Measures both sides at each concurrency.
    async fn measure<S, F>(
        &self,
        operation: &'static str,
        rows: usize,
        system: S,
        floor: F,
    ) -> anyhow::Result<()>
    where
        S: Fn(usize) -> Done + Clone + Send + Sync + 'static,
        F: Fn(usize) -> Done + Clone + Send + Sync + 'static,
    {
        let subject = Subject { store: "postgres", operation, bytes: 0, rows: Some(rows) };
        let time = Duration::from_secs(self.args.seconds);
        for &concurrency in &self.args.concurrency {
            let (system, floor) =
                load::in_turns(concurrency, time, system.clone(), floor.clone()).await?;
            report::Line::new(concurrency, system.into(), floor.into())
                .about(subject.clone(), Vec::new())
                .print(self.args.json)?;
        }
        Ok(())
    }
}

/// Takes turns among the things that are asked for.
#[derive(Clone)]
pub(super) struct Turns<T>(Arc<(Vec<T>, std::sync::atomic::AtomicUsize)>);

impl<T: Clone> Turns<T> {
    pub(super) fn new(all: Vec<T>) -> Self {
        Self(Arc::new((all, 0.into())))
    }

    pub(super) fn next(&self) -> T {
        let turn = self.0.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.0[turn % self.0.0.len()].clone()
    }
}
