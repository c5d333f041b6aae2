//! `bench events`.

mod append;
mod archive;
mod delivery;
mod history;
mod range;

use std::time::Duration;

use clap::Args;
use sqlx::PgPool;
use synap_postgres::PoolOptions;

use super::{
    load::{self, Done},
    report::{self, Subject},
    system::BenchSystem,
};
use crate::cli::Exit;

/// Connections of the floor: more do not make it faster.
const CONNECTIONS: u32 = 32;
/// Upkeep of a million events takes longer than a call has by default.
const PATIENCE: Duration = Duration::from_mins(10);

/// Appends through event-service, one by one and in batches of 100, against INSERT and COPY into a
/// table with the same columns, a primary key and one index; delivery to a subscriber against LISTEN;
/// reads of the partitioned table against one table with the same rows and indexes; and what the
/// archive makes of them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo run --release -- bench events --events 1000000")]
pub struct EventsArgs {
    /// How many callers at once; a line for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32, 64])]
    concurrency: Vec<usize>,
    /// Events of 60 days that are read and archived; 0 leaves that out.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Seconds that each side is measured for each line.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the benchmark.
pub(super) async fn bench(args: EventsArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.concurrency.iter().all(|n| (1..=1024).contains(n)) && args.seconds > 0,
        "--concurrency is 1 to 1024, --seconds at least 1"
    );
    let system = BenchSystem::start().await?;
    let options = PoolOptions {
        max_connections: CONNECTIONS,
        by_key: true,
        statement_timeout: None,
        ..PoolOptions::new("bench")
    };
    let bench =
        Bench { pool: synap_postgres::connect_pool(system.database.url(), &options)?, args };
    append::bench(&bench, &system).await?;
    delivery::bench(&bench, &system).await?;
    if bench.args.events > 0 {
        let streams = history::make(&bench.pool, &system, bench.args.events).await?;
        range::bench(&bench, &streams).await?;
        archive::bench(&system, bench.args.json).await?;
    }
    bench.pool.close().await;
    system.stop().await?;
    Ok(Exit::Well)
}

struct Bench {
    pool: PgPool,
    args: EventsArgs,
}

impl Bench {
    /// Measures both sides at one concurrency.
    async fn measure<S, F>(
        &self,
        (operation, concurrency): (&'static str, usize),
        rows: Option<usize>,
        system: S,
        floor: F,
    ) -> anyhow::Result<()>
    where
        S: Fn(usize) -> Done + Clone + Send + Sync + 'static,
        F: Fn(usize) -> Done + Clone + Send + Sync + 'static,
    {
        let time = Duration::from_secs(self.args.seconds);
        let (system, floor) = load::in_turns(concurrency, time, system, floor).await?;
        report::Line::new(concurrency, system.into(), floor.into())
            .about(Subject { store: "postgres", operation, bytes: 0, rows }, Vec::new())
            .print(self.args.json)
    }
}
