//! `bench blobs`.

use std::{
    path::Path as Directory,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path};
use synap_proto::content::{
    GetBlobRequest, PutBlobRequest, PutBlobSpec, content_service_client::ContentServiceClient,
};
use synap_rpc::{CHUNK_BYTES, Channel};
use synap_types::{Checksum, IdGenerator as _, SystemIds};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    load::{self, Done},
    report::{self, Subject},
    stores::StoreKind,
    system::CALLERS_PER_CONNECTION,
};
use crate::{
    cli::Exit,
    run::{AnyService, ServiceName},
};

/// Blobs that are read from, one after the other.
const READ_FROM: usize = 64;

/// PUT and GET through content-service, as the gateway calls it, against the same backend used
/// directly: object_store, in the process of the benchmark. Both PUT with If-None-Match; only
/// content-service hashes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo run --release -- bench blobs\n  cargo run --release -- bench blobs --store s3\n\
                  An S3 server to try it with:\n  cargo run --release -p synap-testkit --example s3-server"
)]
pub struct BlobsArgs {
    /// Where blobs are kept.
    #[arg(long, value_enum, default_value_t = StoreKind::Local)]
    store: StoreKind,
    /// KiB of a blob; a table for each.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 64, 1024])]
    kib: Vec<usize>,
    /// How many callers at once; a line for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    concurrency: Vec<usize>,
    /// Seconds that each side is measured at each size, operation and concurrency.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the benchmark.
pub(super) async fn bench(args: BlobsArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.concurrency.iter().all(|n| (1..=512).contains(n)) && args.seconds > 0,
        "--concurrency is 1 to 512, --seconds at least 1"
    );
    // Beside the build, not in /tmp: that may be memory, where fsync costs nothing.
    let directory = tempfile::Builder::new().prefix(".synap-bench-").tempdir_in(".")?;
    let floor = Floor { store: args.store.open(&directory.path().join("floor"))? };
    let content = Content::start(args.store, &directory.path().join("blobs")).await?;
    let time = Duration::from_secs(args.seconds);
    for &kib in &args.kib {
        let body = Bytes::from(vec![b'x'; kib * 1024]);
        for operation in ["put", "get"] {
            let title = format!("{operation} of {kib} KiB, {}", args.store.name());
            report::print_title(args.json, &title);
            for &concurrency in &args.concurrency {
                let stubs = content.stubs(concurrency)?;
                let (system, floor) = if operation == "put" {
                    let (system, floor) = (put(stubs, &body), floor.put(&body));
                    load::in_turns(concurrency, time, system, floor).await?
                } else {
                    let (system, floor) = (get(stubs, &body).await?, floor.get(&body).await?);
                    load::in_turns(concurrency, time, system, floor).await?
                };
                let bytes = body.len() as u64;
                let subject = Subject { store: args.store.name(), operation, bytes, rows: None };
                let line = report::Line::new(concurrency, system.into(), floor.into());
                line.about(subject, Vec::new()).print(args.json)?;
            }
        }
    }
    content.stop().await?;
    Ok(Exit::Well)
}

/// content-service in this process, as `up` runs it.
struct Content {
    url: String,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

type Stub = ContentServiceClient<Channel>;

impl Content {
    async fn start(store: StoreKind, directory: &Directory) -> anyhow::Result<Self> {
        let directory = directory.display().to_string();
        let flags =
            ["--listen", "127.0.0.1:0", "--blob-store", store.name(), "--blob-dir", &directory];
        let service =
            AnyService::bind(ServiceName::ContentService, &flags.map(str::to_owned)).await?;
        let url = format!("http://{}", service.grpc_addr()?);
        let stop = CancellationToken::new();
        let running = tokio::spawn(service.run(stop.clone()));
        Ok(Self { url, stop, running })
    }

    fn stubs(&self, concurrency: usize) -> anyhow::Result<Arc<[Stub]>> {
        let connections = concurrency.div_ceil(CALLERS_PER_CONNECTION);
        let stub = |_| anyhow::Ok(Stub::new(Channel::connect("content-service", &self.url)?));
        (0..connections).map(stub).collect()
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.running.await?
    }
}

/// The key of a blob that there is only once.
fn fresh_key() -> String {
    format!("users/bench/notes/{}.md", SystemIds.next_id())
}

async fn put_one(mut stub: Stub, key: String, body: Bytes, sha256: Bytes) -> anyhow::Result<()> {
    let mut spec = Some(PutBlobSpec { key, size: i64::try_from(body.len()).ok(), sha256 });
    let mut rest = body;
    let messages = std::iter::from_fn(move || {
        if spec.is_none() && rest.is_empty() {
            return None;
        }
        let data = rest.split_to(rest.len().min(CHUNK_BYTES));
        Some(PutBlobRequest { spec: spec.take(), data })
    });
    stub.put_blob(stream::iter(messages)).await?;
    Ok(())
}

fn put(stubs: Arc<[Stub]>, body: &Bytes) -> impl Fn(usize) -> Done + Clone + Send + Sync + 'static {
    let body = body.clone();
    let sha256 = Bytes::copy_from_slice(Checksum::of(&body).as_bytes());
    move |worker| {
        let stub = stubs[worker % stubs.len()].clone();
        Box::pin(put_one(stub, fresh_key(), body.clone(), sha256.clone()))
    }
}

async fn get(
    stubs: Arc<[Stub]>,
    body: &Bytes,
) -> anyhow::Result<impl Fn(usize) -> Done + Clone + Send + Sync + 'static> {
    let keys: Arc<[String]> = (0..READ_FROM).map(|_| fresh_key()).collect();
    let sha256 = Bytes::copy_from_slice(Checksum::of(body).as_bytes());
    for key in keys.iter() {
        put_one(stubs[0].clone(), key.clone(), body.clone(), sha256.clone()).await?;
    }
    let (expected, next) = (body.len(), Arc::new(AtomicUsize::new(0)));
    Ok(move |worker: usize| -> Done {
        let mut stub = stubs[worker % stubs.len()].clone();
        let key = keys[next.fetch_add(1, Ordering::Relaxed) % READ_FROM].clone();
        Box::pin(async move {
            let request = GetBlobRequest { key, ..GetBlobRequest::default() };
            let mut chunks = stub.get_blob(request).await?.into_inner();
            let mut read = 0;
            while let Some(chunk) = chunks.message().await? {
                read += chunk.data.len();
            }
            anyhow::ensure!(read == expected, "{read} of {expected} bytes");
            Ok(())
        })
    })
}

/// The store itself.
struct Floor {
    store: Arc<dyn ObjectStore>,
}

async fn put_direct(store: Arc<dyn ObjectStore>, key: Path, body: Bytes) -> anyhow::Result<()> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store.put_opts(&key, PutPayload::from(body), options).await?;
    Ok(())
}

/// In a bucket of both sides the floor has a user of its own.
fn fresh_path() -> Path {
    Path::from(format!("users/floor/notes/{}.md", SystemIds.next_id()))
}

impl Floor {
    fn put(&self, body: &Bytes) -> impl Fn(usize) -> Done + Clone + Send + Sync + 'static {
        let (store, body) = (Arc::clone(&self.store), body.clone());
        move |_| Box::pin(put_direct(Arc::clone(&store), fresh_path(), body.clone()))
    }

    async fn get(
        &self,
        body: &Bytes,
    ) -> anyhow::Result<impl Fn(usize) -> Done + Clone + Send + Sync + 'static> {
        let paths: Arc<[Path]> = (0..READ_FROM).map(|_| fresh_path()).collect();
        stream::iter(paths.iter().cloned().map(Ok))
            .try_for_each(|path| put_direct(Arc::clone(&self.store), path, body.clone()))
            .await?;
        let (expected, next) = (body.len(), Arc::new(AtomicUsize::new(0)));
        let store = Arc::clone(&self.store);
        Ok(move |_| -> Done {
            let path = paths[next.fetch_add(1, Ordering::Relaxed) % READ_FROM].clone();
            let store = Arc::clone(&store);
            Box::pin(async move {
                let mut chunks = store.get(&path).await?.into_stream();
                let mut read = 0;
                while let Some(chunk) = chunks.next().await {
                    read += chunk?.len();
                }
                anyhow::ensure!(read == expected, "{read} of {expected} bytes");
                Ok(())
            })
        })
    }
}
