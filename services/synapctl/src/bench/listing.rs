//! `bench listing`.

use std::{fs::File, path::Path as Directory, time::Duration};

use anyhow::Context as _;
use clap::Args;
use futures::TryStreamExt as _;
use synap_auth::Secret;
use synap_proto::content::{ListBlobsRequest, content_service_client::ContentServiceClient};
use synap_rpc::Channel;
use synap_types::{IdGenerator as _, SystemIds};
use tokio::time::Instant;

use super::{
    process,
    report::{self, Memory, Side, Subject},
    stores::StoreKind,
};
use crate::{
    cli::Exit,
    up::{Plan, StartedAlone},
};

/// Keys below one user.
const KEYS_OF_A_USER: usize = 1000;
/// How long content-service may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long one listing may take.
const LIST_LIMIT: Duration = Duration::from_mins(30);

/// ListBlobs of a local directory with many keys, through content-service as a process of its own,
/// against object_store's listing of the same directory, in no order. Throughput is keys a second,
/// the times are those of whole listings; the memory is content-service's.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo run --release -- bench listing --keys 1000000")]
pub struct ListingArgs {
    /// Keys in the directory, in thousands of one user each.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Listings of each side, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the benchmark.
pub(super) async fn bench(args: ListingArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(args.keys > 0 && args.rounds > 0, "--keys and --rounds are at least 1");
    let directory = tempfile::Builder::new().prefix(".synap-bench-").tempdir_in(".")?;
    let blobs = directory.path().join("blobs");
    let (keys, root) = (args.keys, blobs.clone());
    tokio::task::spawn_blocking(move || make_tree(&root, keys)).await??;

    let content = start_content(directory.path()).await?;
    let channel = Channel::connect(content.name, &format!("http://{}", content.address))?;
    let floor = StoreKind::Local.open(&blobs)?;
    let before_mib = process::memory(content.pid()?)?.now_mib;
    let (mut of_system, mut of_floor) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let begun = Instant::now();
        let listed = list(channel.clone()).await?;
        of_system.push(begun.elapsed());
        anyhow::ensure!(listed == keys, "content-service lists {listed} of {keys} keys");

        let begun = Instant::now();
        let listed = floor.list(None).try_fold(0_usize, async |count, _| Ok(count + 1)).await?;
        of_floor.push(begun.elapsed());
        anyhow::ensure!(listed == keys, "object_store lists {listed} of {keys} keys");
    }
    let memory = Memory {
        process: content.name,
        before_mib,
        peak_mib: process::memory(content.pid()?)?.peak_mib,
    };
    let subject = Subject { store: "local", operation: "list", bytes: 0, rows: None };
    report::print_title(args.json, &format!("listing of {keys} keys, local; throughput in keys"));
    report::Line::new(1, side(keys, of_system), side(keys, of_floor))
        .about(subject, vec![memory])
        .print(args.json)?;
    Ok(Exit::Well)
}

async fn start_content(data_dir: &Directory) -> anyhow::Result<StartedAlone> {
    let secret = Secret::new("a secret of a benchmark that nobody else uses");
    let plan = Plan::on_free_ports(data_dir, "postgres://nowhere/none", &secret)?;
    let start = plan.with_blob_store("local").starts()?.next().context("no content-service")?;
    let content = start()?;
    let channel = Channel::connect(content.name, &format!("http://{}", content.address))?;
    let begun = Instant::now();
    while !channel.is_ready().await {
        anyhow::ensure!(begun.elapsed() < START_LIMIT, "content-service is not ready");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(content)
}

async fn list(channel: Channel) -> anyhow::Result<usize> {
    let mut request = tonic::Request::new(ListBlobsRequest::default());
    request.set_timeout(LIST_LIMIT);
    let mut pages = ContentServiceClient::new(channel).list_blobs(request).await?.into_inner();
    let (mut listed, mut last) = (0, String::new());
    while let Some(page) = pages.message().await? {
        listed += page.blobs.len();
        for blob in page.blobs {
            anyhow::ensure!(last < blob.key, "{} comes after {last}", blob.key);
            last = blob.key;
        }
    }
    Ok(listed)
}

fn side(keys: usize, mut times: Vec<Duration>) -> Side {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64();
    let slowest = times.last().copied().unwrap_or_default().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 keys")]
    let keys = keys as f64;
    Side { throughput: keys / median, p50_ms: median * 1e3, p99_ms: slowest * 1e3 }
}

/// Empty blobs, where the local store would have put them.
fn make_tree(root: &Directory, keys: usize) -> anyhow::Result<()> {
    for (user, first) in (0..keys).step_by(KEYS_OF_A_USER).enumerate() {
        let notes = root.join(format!("users/user-{user}/notes"));
        std::fs::create_dir_all(&notes)?;
        for _ in first..keys.min(first + KEYS_OF_A_USER) {
            File::create(notes.join(format!("{}.md", SystemIds.next_id())))?;
        }
    }
    Ok(())
}
