//! `bench migrate`.

mod floor;
mod rows;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::{io::AsyncReadExt as _, process::Command};

use self::{floor::Floor, rows::Rows};
use super::{
    corpus, process,
    processes::Processes,
    report::{self, Line, Memory, Side, Subject},
    stores::StoreKind,
};
use crate::cli::Exit;

/// The services that bodies go through.
const IN_THE_WAY: [&str; 2] = ["content-service", "entity-service"];
/// V0.2's script took so many rows, one after the other, and then rested so long.
const V02_ROWS: u32 = 100;
const V02_PAUSE: Duration = Duration::from_secs(5);
/// What a large installation has.
const TEN_TB: f64 = 10e12;

/// `synapctl migrate content` over rows of V0.2 with real text, against the floor: one process, no gRPC,
/// the same rows read from the same PostgreSQL, PUT, GET and SHA-256 straight to the same kind of store,
/// as many at once; nothing is written to the database. Then V0.2's own pace: its work for one row is
/// measured, its pause of 5 s after every 100 rows is added to that. Services and command are processes
/// of their own, and what each holds at most is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo run --release -- bench migrate\n  cargo run --release -- bench migrate --store s3\n\
                  An S3 server to try it with:\n  cargo run --release -p synap-testkit --example s3-server"
)]
pub struct MigrateArgs {
    /// Rows of a round.
    #[arg(long, default_value_t = 20_000)]
    rows: usize,
    /// How often each side migrates them, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many uploads at once; a line for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    concurrency: Vec<usize>,
    /// Where blobs are kept.
    #[arg(long, value_enum, default_value_t = StoreKind::Local)]
    store: StoreKind,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the benchmark. Linux only: it reads `/proc`.
pub(super) async fn bench(args: MigrateArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.concurrency.iter().all(|n| (1..=512).contains(n)) && args.rows > 0 && args.rounds > 0,
        "--concurrency is 1 to 512, --rows and --rounds at least 1"
    );
    let texts = corpus::notes()?;
    let processes = Processes::start(args.store).await?;
    let rows = Rows::connect(&processes, &texts, args.rows)?;
    let floor = Floor::open(&rows, args.store, processes.directory.path())?;
    report::print_head(args.json);
    let mut best = 0.0_f64;
    for &concurrency in &args.concurrency {
        let (mut of_system, mut of_floor, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        let mut peak = 0.0_f64;
        for _ in 0..args.rounds {
            rows.fill().await?;
            of_floor.push(floor.migrate(concurrency).await?);
            let watched = processes.watch(&IN_THE_WAY)?;
            let (time, peak_mib) = command(&processes, concurrency, args.rows).await?;
            memory = watched.peaks(memory)?;
            peak = peak.max(peak_mib);
            of_system.push(time);
        }
        memory.push(Memory { process: "synapctl", before_mib: 0.0, peak_mib: peak });
        let system = side(of_system, args.rows);
        best = best.max(system.throughput);
        let subject = Subject {
            store: args.store.name(),
            operation: "migrate",
            bytes: rows.mean_bytes(),
            rows: Some(args.rows),
        };
        Line::new(concurrency, system, side(of_floor, args.rows))
            .about(subject, memory)
            .print(args.json)?;
    }
    rows.fill().await?;
    let pace = Pace::of(best, floor.one_by_one().await?, rows.mean_bytes());
    pace.print(args.json)?;
    processes.stop().await;
    Ok(Exit::Well)
}

/// Bodies a second over all rounds; the times are those of rounds.
fn side(mut times: Vec<Duration>, rows: usize) -> Side {
    times.sort_unstable();
    let ms = |at: usize| times[at.min(times.len() - 1)].as_secs_f64() * 1e3;
    let total: Duration = times.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 rows")]
    let throughput = (rows * times.len()) as f64 / total.as_secs_f64();
    Side { throughput, p50_ms: ms(times.len() / 2), p99_ms: ms(times.len()) }
}

/// The command as an operator runs it: how long it took, and what it held at most, in MiB.
async fn command(
    processes: &Processes,
    concurrency: usize,
    rows: usize,
) -> anyhow::Result<(Duration, f64)> {
    let url = |name| anyhow::Ok(format!("http://{}", processes.address(name)?));
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["migrate", "content", "--output", "json"])
        .args(["--concurrency", &concurrency.to_string()])
        .args(["--content-url", &url("content-service")?, "--entity-url", &url("entity-service")?])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("synapctl has died")?;
    let mut stdout = child.stdout.take().context("no standard output")?;
    let mut said = String::new();
    let mut peak_mib = 0.0_f64;
    let reading = stdout.read_to_string(&mut said);
    tokio::pin!(reading);
    loop {
        tokio::select! {
            read = &mut reading => {
                read?;
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                // It may have ended by now.
                peak_mib = process::memory(pid).map_or(peak_mib, |memory| memory.peak_mib);
            }
        }
    }
    let status = child.wait().await?;
    let time = begun.elapsed();
    let summary: serde_json::Value = serde_json::from_str(said.lines().last().unwrap_or_default())
        .with_context(|| format!("synapctl said {said:?}"))?;
    let migrated = summary["outcomes"]["migrated"].as_u64().and_then(|n| usize::try_from(n).ok());
    anyhow::ensure!(
        status.success() && migrated == Some(rows),
        "of {rows} bodies not all were migrated: {summary}"
    );
    Ok((time, peak_mib))
}

/// What the figures come to.
#[derive(Debug, Serialize)]
struct Pace {
    /// Bodies a second.
    bodies_per_second: f64,
    bodies_per_second_and_core: f64,
    cores: usize,
    /// V0.2's script, with its pauses; of those it is computed, not measured.
    v02_bodies_per_second: f64,
    times_v02: f64,
    /// Of bodies as large as these.
    ten_tb_hours: f64,
    v02_ten_tb_days: f64,
}

impl Pace {
    fn of(bodies_per_second: f64, one: Duration, mean_bytes: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let v02 = f64::from(V02_ROWS) / (one * V02_ROWS + V02_PAUSE).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (of_cores, bodies) = (cores as f64, TEN_TB / mean_bytes.max(1) as f64);
        Self {
            bodies_per_second,
            bodies_per_second_and_core: bodies_per_second / of_cores,
            cores,
            v02_bodies_per_second: v02,
            times_v02: bodies_per_second / v02,
            ten_tb_hours: bodies / bodies_per_second / 3600.0,
            v02_ten_tb_days: bodies / v02 / 86_400.0,
        }
    }

    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { bodies_per_second, bodies_per_second_and_core, cores, .. } = self;
        println!(
            "{bodies_per_second:.0} bodies/s, {bodies_per_second_and_core:.0} a core of {cores}"
        );
        println!(
            "V0.2: {:.1} bodies/s with its pauses (computed); this is {:.0} x",
            self.v02_bodies_per_second, self.times_v02
        );
        println!(
            "10 TB of such bodies: {:.0} hours; V0.2: {:.0} days",
            self.ten_tb_hours, self.v02_ten_tb_days
        );
        Ok(())
    }
}
