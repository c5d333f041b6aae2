//! `bench idle`: how soon each service is ready, and what it holds while it does nothing.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use synap_auth::Secret;
use synap_postgres::ProvideOptions;
use synap_rpc::Channel;
use tokio::time::Instant;

use super::{process, system::migrate};
use crate::{
    cli::Exit,
    up::{Plan, StartedAlone},
};

/// What a service has done at its start is over after this.
const SETTLE: Duration = Duration::from_secs(3);

/// Start time and idle memory of each service, as a process of its own on a migrated database.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo run --release -- bench idle")]
pub struct IdleArgs {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    service: &'static str,
    /// From the start of the process until it says that it is ready.
    start_ms: f64,
    /// Resident set, three seconds later.
    idle_mib: f64,
}

/// Runs the benchmark. Linux only: it reads `/proc`.
pub(super) async fn bench(args: IdleArgs) -> anyhow::Result<Exit> {
    let directory = tempfile::tempdir()?;
    let options = ProvideOptions::new(directory.path().join("postgres"));
    let database = synap_postgres::provide(options, |line| eprintln!("{line}")).await?;
    migrate(database.url()).await?;
    let secret = Secret::new("a secret of a benchmark that nobody else uses");
    let plan = Plan::on_free_ports(directory.path(), database.url(), &secret)?;

    let mut started: Vec<(StartedAlone, f64)> = Vec::new();
    for start in plan.starts()? {
        let begun = Instant::now();
        let service = start()?;
        let channel = Channel::connect(service.name, &format!("http://{}", service.address))?;
        while !channel.is_ready().await {
            anyhow::ensure!(begun.elapsed() < SETTLE * 10, "{} is not ready", service.name);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        started.push((service, begun.elapsed().as_secs_f64() * 1e3));
    }
    tokio::time::sleep(SETTLE).await;
    for (service, start_ms) in &started {
        let idle_mib = process::memory(service.pid()?)?.now_mib;
        let line = Line { service: service.name, start_ms: *start_ms, idle_mib };
        if args.json {
            println!("{}", serde_json::to_string(&line)?);
        } else {
            println!("{:<16} ready in {start_ms:>5.0} ms, idle {idle_mib:>5.1} MiB", line.service);
        }
    }
    drop(started);
    database.stop().await;
    Ok(Exit::Well)
}
