//! `bench create-note`.

use std::time::Duration;

use clap::Args;

use super::{floor::Floor, load, report, system::BenchSystem};
use crate::cli::Exit;

/// CreateNote through the gateway, as `up` runs it, against the floor: one process, no gRPC, the
/// same PostgreSQL and the same store with fsync: PUT, one transaction that inserts the entity and
/// its content block, one INSERT of an event.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  cargo run --release -- bench create-note --concurrency 1,16,64 --seconds 10"
)]
pub struct CreateNoteArgs {
    /// How many callers at once; a line for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    concurrency: Vec<usize>,
    /// Seconds that each side is measured at each concurrency.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of a note's body.
    #[arg(long, default_value_t = 2048)]
    bytes: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the benchmark.
pub(super) async fn bench(args: CreateNoteArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.concurrency.iter().all(|n| (1..=1024).contains(n)) && args.seconds > 0,
        "--concurrency is 1 to 1024, --seconds at least 1"
    );
    let system = BenchSystem::start().await?;
    let floor = Floor::start(&system.database, system.directory.path()).await?;
    let body = text(args.bytes);
    let time = Duration::from_secs(args.seconds);

    report::print_head(args.json);
    for &concurrency in &args.concurrency {
        let system_does = system.create_note(concurrency, &body)?;
        let floor_does = floor.create_note(&body);
        let (system, floor) = load::in_turns(concurrency, time, system_does, floor_does).await?;
        report::Line::new(concurrency, system.into(), floor.into()).print(args.json)?;
    }
    drop(floor);
    system.stop().await?;
    Ok(Exit::Well)
}

/// Text of a size: words, so that nothing in it is special.
fn text(bytes: usize) -> String {
    let words = "A note is written down so that it can be forgotten until it is needed. ";
    words.chars().cycle().take(bytes.max(1)).collect()
}
