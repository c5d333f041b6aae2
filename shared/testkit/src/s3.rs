//! A real S3 server in this process: s3s-fs on loopback, with signature checks on. It also does
//! what R2 does with multipart uploads and s3s-fs does not: lists those that are not finished, and
//! refuses parts of different sizes.
//!
//! It is good at integrity and bad at races: of several conditional creates of one key at the same
//! time more than one may win. A test must not lean on the conditional PUT for more than R2
//! promises.

mod strict;

use std::{
    io,
    path::{Path, PathBuf},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use strict::Strict;
pub use strict::Unfinished;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

/// The access key id that the server knows.
pub const ACCESS_KEY_ID: &str = "testkit";
/// The secret that goes with [`ACCESS_KEY_ID`].
pub const SECRET_ACCESS_KEY: &str = "testkit-secret";
/// The one bucket; empty at first.
pub const BUCKET: &str = "blobs";

/// A running server; it and its objects are gone when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    root: TempDir,
    _serving: JoinSet<()>,
}

impl S3Server {
    /// Starts a server on a free port of loopback, on the runtime of the caller.
    ///
    /// # Errors
    /// The operating system's: no port, or no temporary directory.
    pub async fn start() -> io::Result<Self> {
        let root = tempfile::tempdir()?;
        std::fs::create_dir(root.path().join(BUCKET))?;
        let files = FileSystem::new(root.path()).map_err(|e| io::Error::other(format!("{e:?}")))?;
        let mut service = S3ServiceBuilder::new(Strict::new(files, root.path()));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, service.build()));
        Ok(Self { endpoint, root, _serving: serving })
    }

    /// The server's URL: `http://127.0.0.1:port`. Buckets are addressed by path.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The directory that holds the objects of [`BUCKET`], one file each, named by its key.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }

    /// The multipart uploads of [`BUCKET`] that are not finished, by key.
    ///
    /// # Errors
    /// The operating system's.
    pub fn unfinished(&self) -> io::Result<Vec<Unfinished>> {
        strict::unfinished(self.root.path(), BUCKET)
    }

    /// The directory with everything that the server keeps.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    // Dropped, and every connection with it, when the server is.
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        // An answer leaves in pieces: without this each waits 40 ms for the client's ACK.
        let _ = socket.set_nodelay(true);
        let service = service.clone();
        connections.spawn(async move {
            let http = auto::Builder::new(TokioExecutor::new());
            // A client that goes away is no matter of ours.
            let _ = http.serve_connection(TokioIo::new(socket), service).await;
        });
        // Forgets the connections that have ended.
        while connections.try_join_next().is_some() {}
    }
}
