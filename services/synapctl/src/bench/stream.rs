//! `bench stream`.

mod body;
mod paths;

use std::time::Duration;

use self::{
    body::Body,
    paths::{Beside, Direct, Gateway},
};
use super::{
    processes::Processes,
    report::{self, Line, Side, Subject},
    stores::StoreKind,
    system::bearer,
};
use crate::cli::Exit;
use clap::Args;

/// The services that bytes flow through.
const IN_THE_WAY: [&str; 2] = ["gateway", "content-service"];

/// One large file up and down: through the gateway, by signed URL, and with object_store straight
/// to the same backend. Every service is a process of its own, and what gateway and content-service
/// hold at most is told. Throughput is MiB a second, the times are those of whole files.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo run --release -- bench stream\n  cargo run --release -- bench stream --store s3\n\
                  An S3 server to try it with:\n  cargo run --release -p synap-testkit --example s3-server"
)]
pub struct StreamArgs {
    /// GiB of the file; parts of one are allowed.
    #[arg(long, default_value_t = 1.0)]
    gib: f64,
    /// Where blobs are kept.
    #[arg(long, value_enum, default_value_t = StoreKind::Local)]
    store: StoreKind,
    /// How often each way is taken, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Times of each way.
#[derive(Default)]
struct Times {
    upload: Vec<Duration>,
    upload_url: Vec<Duration>,
    complete: Vec<Duration>,
    upload_direct: Vec<Duration>,
    download: Vec<Duration>,
    download_url: Vec<Duration>,
    /// The file that a URL was made for, straight from the store.
    download_same: Vec<Duration>,
    download_direct: Vec<Duration>,
}

/// Runs the benchmark. Linux only: it reads `/proc`.
pub(super) async fn bench(args: StreamArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!((0.001..=4.9).contains(&args.gib) && args.rounds > 0, "--gib is 0.001 to 4.9");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let body = Body::new((args.gib * 1024.0 * 1024.0 * 1024.0) as u64);
    let system = Processes::start(args.store).await?;
    let gateway = Gateway::connect(system.address("gateway")?, bearer(&system.secret)?)?;
    let direct = Direct { store: args.store.open(&system.directory.path().join("floor"))? };
    let beside = Beside::open(args.store, &system.directory.path().join("blobs"))?;

    let mut times = Times::default();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let watched = system.watch(&IN_THE_WAY)?;
        let (id, time) = gateway.upload(&body).await?;
        times.upload.push(time);
        up = watched.peaks(up)?;
        let watched = system.watch(&IN_THE_WAY)?;
        times.download.push(gateway.download(&id, &body).await?);
        down = watched.peaks(down)?;
        gateway.delete(&id).await?;

        let (id, time, completing) = gateway.upload_by_url(&body).await?;
        times.upload_url.push(time);
        times.complete.push(completing);
        let path = paths::of_file(&id)?;
        // Each is the first to read it every other time: what the system still has to write of it
        // slows that one down.
        if round % 2 == 0 {
            times.download_url.push(gateway.download_by_url(&id, &body).await?);
            times.download_same.push(beside.download(&path, &body).await?);
        } else {
            times.download_same.push(beside.download(&path, &body).await?);
            times.download_url.push(gateway.download_by_url(&id, &body).await?);
        }
        gateway.delete(&id).await?;

        let (path, time) = direct.upload(&body).await?;
        times.upload_direct.push(time);
        times.download_direct.push(direct.download(&path, &body).await?);
        direct.delete(&path).await?;
    }

    report::print_title(
        args.json,
        &format!("{} GiB, {}; throughput in MiB", args.gib, args.store.name()),
    );
    let bytes = body.size();
    for (operation, of_system, of_floor, memory) in [
        ("upload", times.upload, &times.upload_direct, up),
        ("download", times.download, &times.download_direct, down),
        ("upload_url", times.upload_url, &times.upload_direct, Vec::new()),
        ("download_url", times.download_url, &times.download_same, Vec::new()),
    ] {
        if !args.json {
            println!("{operation}");
        }
        let subject = Subject { store: args.store.name(), operation, bytes, rows: None };
        Line::new(1, side(bytes, of_system), side(bytes, of_floor.clone()))
            .about(subject, memory)
            .print(args.json)?;
    }
    if !args.json {
        let complete = side(bytes, times.complete);
        println!("CompleteUpload, which reads the file again: {:.0} ms", complete.p50_ms);
    }
    system.stop().await;
    Ok(Exit::Well)
}

fn side(bytes: u64, mut times: Vec<Duration>) -> Side {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64();
    let slowest = times.last().copied().unwrap_or_default().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 bytes")]
    let mib = bytes as f64 / (1024.0 * 1024.0);
    Side { throughput: mib / median, p50_ms: median * 1e3, p99_ms: slowest * 1e3 }
}
