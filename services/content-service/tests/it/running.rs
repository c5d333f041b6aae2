//! A running content-service, and a client that talks to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    task::Poll,
};

use synap_content_service::{Backend, Config, Service, StartError, StoreArgs, UrlArgs};
use synap_proto::content::{
    Blob, DeleteBlobsRequest, GetBlobRequest, HeadBlobRequest, PutBlobRequest, PutBlobSpec,
    SignUrlRequest, SignUrlResponse, content_service_client::ContentServiceClient,
};
use synap_rpc::{CHUNK_BYTES, Channel, RpcError, ServerArgs};
use synap_testkit::s3::{self, S3Server};
use synap_types::Checksum;
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Runs each test over memory, the local file system and S3.
macro_rules! over_every_store {
    ($($test:ident),+ $(,)?) => {
        mod over_every_store {
            $crate::running::over!(memory, Memory, $($test),+);
            $crate::running::over!(local, Local, $($test),+);
            $crate::running::over!(s3, S3, $($test),+);
        }
    };
}

/// Runs each test where s3s-fs does not do what R2 does.
macro_rules! over_memory_and_local {
    ($($test:ident),+ $(,)?) => {
        mod over_memory_and_local {
            $crate::running::over!(memory, Memory, $($test),+);
            $crate::running::over!(local, Local, $($test),+);
        }
    };
}

macro_rules! over {
    ($store:ident, $backend:ident, $($test:ident),+) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let backend = synap_content_service::Backend::$backend;
                    super::super::$test($crate::running::start(backend).await).await;
                }
            )+
        }
    };
}
pub(crate) use {over, over_every_store, over_memory_and_local};

/// Largest blob that the service under test takes.
pub(crate) const MAX_BLOB_BYTES: u64 = 48 * MIB as u64;
pub(crate) const MIB: usize = 1024 * 1024;
/// Blobs larger than this flow through in parts of this size.
pub(crate) const PART: usize = 8 * MIB;

/// A service that is ready. Stops when dropped.
pub(crate) struct Running {
    pub(crate) backend: Backend,
    pub(crate) channel: Channel,
    /// What a local store keeps its files in.
    pub(crate) directory: PathBuf,
    pub(crate) s3: Option<S3Server>,
    pub(crate) served: JoinHandle<Result<(), StartError>>,
    pub(crate) stop: DropGuard,
    pub(crate) _files: TempDir,
}

/// Starts a service over a new store.
pub(crate) async fn start(backend: Backend) -> Running {
    start_with(backend, |_| ()).await
}

/// Starts a service over a new store, configured in another way than usual.
pub(crate) async fn start_with(backend: Backend, adjust: impl FnOnce(&mut Config)) -> Running {
    let running = launch(backend, adjust).await;
    running.becomes(ServingStatus::Serving).await;
    running
}

/// As [`start_with`], but does not wait for readiness.
pub(crate) async fn launch(backend: Backend, adjust: impl FnOnce(&mut Config)) -> Running {
    let files = tempfile::tempdir().unwrap();
    let directory = files.path().join("blobs");
    let mut store = StoreArgs {
        blob_store: Some(backend),
        blob_dir: Some(directory.clone()),
        r2_public_url: Some("https://blobs.example/".to_owned()),
        ..StoreArgs::default()
    };
    let mut s3 = None;
    if backend == Backend::S3 {
        let server = S3Server::start().await.unwrap();
        store.s3_endpoint = Some(server.endpoint().to_owned());
        store.r2_access_key_id = Some(s3::ACCESS_KEY_ID.to_owned());
        store.r2_secret_access_key = Some(s3::SECRET_ACCESS_KEY.into());
        store.r2_bucket_name = Some(s3::BUCKET.to_owned());
        s3 = Some(server);
    }
    let mut config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        server: server_args(),
        store,
        urls: UrlArgs {
            http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            blob_url_base: None,
            blob_url_secret: None,
            http_max_connections: 64,
            http_silence_secs: 30,
        },
        max_blob_bytes: MAX_BLOB_BYTES,
        max_inflight_bytes: 64 * 1024 * 1024,
    };
    adjust(&mut config);
    let service = Service::bind(config).await.unwrap();
    let url = format!("http://{}", service.local_addr());
    let stop = CancellationToken::new();
    Running {
        backend,
        channel: Channel::connect("content-service", &url).unwrap(),
        directory,
        s3,
        served: tokio::spawn(service.run(stop.clone())),
        stop: stop.drop_guard(),
        _files: files,
    }
}

impl Running {
    pub(crate) fn client(&self) -> ContentServiceClient<Channel> {
        ContentServiceClient::new(self.channel.clone())
    }

    /// Waits until the service says so of its readiness.
    pub(crate) async fn becomes(&self, status: ServingStatus) {
        let request = HealthCheckRequest { service: "readiness".to_owned() };
        let mut health = HealthClient::new(self.channel.clone());
        let mut answers = health.watch(request).await.unwrap().into_inner();
        while answers.message().await.unwrap().unwrap().status() != status {}
    }

    /// Puts a body as it should be put.
    pub(crate) async fn put(&self, key: &str, body: &[u8]) -> Result<Blob, RpcError> {
        self.send(tokio_stream::iter(messages(key, body))).await
    }

    /// Puts whatever the messages say.
    pub(crate) async fn send(
        &self,
        messages: impl Stream<Item = PutBlobRequest> + Send + 'static,
    ) -> Result<Blob, RpcError> {
        match self.client().put_blob(messages).await {
            Ok(answer) => Ok(answer.into_inner().blob.unwrap()),
            Err(status) => Err(RpcError::from_status(&status)),
        }
    }

    /// Sends messages and, when the service has taken them all, goes away.
    pub(crate) async fn abandon(&self, messages: Vec<PutBlobRequest>) {
        let (all_taken, mut told) = mpsc::unbounded_channel();
        let upload = Abandoned { messages: messages.into_iter(), all_taken };
        tokio::select! {
            outcome = self.send(upload) => panic!("ended with {outcome:?}"),
            _ = told.recv() => {}
        }
    }

    pub(crate) async fn get(&self, key: &str) -> Result<(Blob, Vec<u8>), RpcError> {
        self.read(GetBlobRequest { key: key.to_owned(), ..GetBlobRequest::default() }).await
    }

    pub(crate) async fn get_range(
        &self,
        key: &str,
        offset: u64,
        length: u64,
    ) -> Result<(Blob, Vec<u8>), RpcError> {
        self.read(GetBlobRequest {
            key: key.to_owned(),
            offset: i64::try_from(offset).unwrap(),
            length: i64::try_from(length).unwrap(),
            ..GetBlobRequest::default()
        })
        .await
    }

    pub(crate) async fn read(&self, request: GetBlobRequest) -> Result<(Blob, Vec<u8>), RpcError> {
        let answer = self.client().get_blob(request).await;
        let mut answer = answer.map_err(|status| RpcError::from_status(&status))?.into_inner();
        let (mut blob, mut body) = (None, Vec::new());
        while let Some(message) = answer.next().await {
            let message = message.map_err(|status| RpcError::from_status(&status))?;
            assert_eq!(message.blob.is_some(), blob.is_none(), "the first describes, no other");
            assert!(message.data.len() <= CHUNK_BYTES);
            blob = blob.or(message.blob);
            body.extend_from_slice(&message.data);
        }
        Ok((blob.expect("one message at least"), body))
    }

    pub(crate) async fn head(&self, key: &str) -> Result<Blob, RpcError> {
        self.look(key, false).await
    }

    /// As [`Running::head`], with the checksum where that is asked for.
    pub(crate) async fn look(&self, key: &str, with_sha256: bool) -> Result<Blob, RpcError> {
        let key = key.to_owned();
        match self.client().head_blob(HeadBlobRequest { key, with_sha256 }).await {
            Ok(answer) => Ok(answer.into_inner().blob.unwrap()),
            Err(status) => Err(RpcError::from_status(&status)),
        }
    }

    pub(crate) async fn sign(&self, wish: SignUrlRequest) -> Result<SignUrlResponse, RpcError> {
        match self.client().sign_url(wish).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(RpcError::from_status(&status)),
        }
    }

    pub(crate) async fn delete(&self, keys: &[&str]) -> Result<(), RpcError> {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        match self.client().delete_blobs(DeleteBlobsRequest { keys }).await {
            Ok(_) => Ok(()),
            Err(status) => Err(RpcError::from_status(&status)),
        }
    }

    /// Waits until nothing is left of uploads that came to nothing.
    pub(crate) async fn forgets_uploads(&self) {
        let Some(s3) = &self.s3 else { return };
        let forgotten = async {
            while !s3.unfinished().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, forgotten).await.expect("uploads stay unfinished");
    }

    /// Every file below the store's directory, staging files too; memory has none to show.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let root = match self.backend {
            Backend::Memory => return Vec::new(),
            Backend::Local => self.directory.clone(),
            Backend::S3 => self.s3.as_ref().unwrap().objects(),
        };
        let mut files = Vec::new();
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                // Readiness looks whether the directory can be written to.
                // The secret of signed URLs is kept there, too.
                } else if ![".probe", ".url-secret"].map(|name| root.join(name)).contains(&path) {
                    files.push(path.strip_prefix(&root).unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }
}

/// The messages of an upload whose client goes away: tells when the service has taken them all.
struct Abandoned {
    messages: std::vec::IntoIter<PutBlobRequest>,
    all_taken: mpsc::UnboundedSender<()>,
}

impl Stream for Abandoned {
    type Item = PutBlobRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<PutBlobRequest>> {
        let next = self.messages.next();
        if next.is_none() {
            let _ = self.all_taken.send(());
            return Poll::Pending;
        }
        Poll::Ready(next)
    }
}

/// The messages of a body: the first also says what it will be.
pub(crate) fn messages(key: &str, body: &[u8]) -> Vec<PutBlobRequest> {
    messages_with(spec(key, body), body)
}

pub(crate) fn messages_with(spec: PutBlobSpec, body: &[u8]) -> Vec<PutBlobRequest> {
    let mut messages: Vec<_> = body
        .chunks(CHUNK_BYTES)
        .map(|chunk| PutBlobRequest { spec: None, data: chunk.to_vec().into() })
        .collect();
    if messages.is_empty() {
        messages.push(PutBlobRequest::default());
    }
    messages[0].spec = Some(spec);
    messages
}

pub(crate) fn spec(key: &str, body: &[u8]) -> PutBlobSpec {
    PutBlobSpec {
        key: key.to_owned(),
        size: i64::try_from(body.len()).ok(),
        sha256: Checksum::of(body).as_bytes().to_vec().into(),
    }
}

/// Bytes without a short period, so that a lost or doubled chunk shows.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..4096_usize).map(|i| (i * 31 + i / 251).to_le_bytes()[0]).collect();
    let mut bytes = Vec::with_capacity(size + block.len());
    while bytes.len() < size {
        let at = bytes.len();
        bytes.extend_from_slice(&block);
        bytes[at..at + 8].copy_from_slice(&at.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn server_args() -> ServerArgs {
    ServerArgs {
        default_deadline_secs: 15,
        max_deadline_secs: 60,
        max_concurrent_calls: 64,
        max_waiting_calls: 64,
        shutdown_grace_secs: 10,
        shutdown_delay_secs: 0,
    }
}
