//! content-service keeps the bytes of notes and files, and nothing else: it has no database and
//! knows no user's rights.
//!
//! In reading order:
//!
//! 1. `config`: where blobs are kept, and the limits.
//! 2. `grpc`: the service; each call validates, calls, maps.
//! 3. `upload`: the way of a body into the store: held if it is small, else passed on part by part;
//!    not visible before it turned out to be what was promised.
//! 4. `domain`: what a body is made of on that way, and the memory that all of them may take.
//! 5. `store`: memory, the local file system, or S3/R2, behind one type. A key is written once.
//! 7. `readiness`: whether the store can be worked with.
//! 8. `error`: what each failure becomes on the wire.

mod config;
mod domain;
mod error;
mod grpc;
mod readiness;
mod store;
mod upload;

use std::{net::SocketAddr, time::Duration};

use synap_proto::content::content_service_server::ContentServiceServer;
use synap_rpc::Server;
use synap_types::SystemClock;
use tokio_util::sync::CancellationToken;

pub use crate::{
    config::{Backend, Config, ConfigError, Secret, StoreArgs},
    error::StartError,
};
use crate::{
    grpc::{Content, Urls},
    readiness::Readiness,
    store::BlobStore,
    upload::Uploads,
};

/// How long a stop waits for the store to forget uploads that were given up.
const CLEANING: Duration = Duration::from_secs(5);

/// A content-service whose port is open and whose store is known, and that serves nobody yet.
pub struct Service {
    server: Server,
    address: SocketAddr,
    store: BlobStore,
}

impl Service {
    /// Checks the configuration, makes the store, and opens the port. A store that does not answer
    /// is no reason to fail: the service is not ready until it does.
    ///
    /// # Errors
    /// [`StartError`], which names the setting or the address at fault.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let store_config = config.store.resolve()?;
        let store = BlobStore::open(&store_config.place).map_err(StartError::Store)?;
        let content =
            Content { uploads, store: store.clone(), urls: Urls::below(store_config.public_url) };
        let server = Server::bind("content-service", config.listen, &config.server)
            .await
            .map_err(StartError::Listen)?
            .add_service(ContentServiceServer::new(content));
        let address = server.local_addr().map_err(StartError::Listen)?;
        tracing::info!(
            server.address = %address.ip(),
            server.port = address.port(),
            store = %store_config.place,
            "listening"
        );
        Ok(Self { server, address, store })
    }

    /// The address that is listened on: the port that was given for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled and calls under way have ended.
    ///
    /// # Errors
    /// [`StartError::Serve`] if the listener fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        self.store.sweep(SystemClock, stop.clone());
        let readiness = Readiness::of(self.store.clone());
        let outcome = self.server.serve(stop.clone(), || readiness.now()).await;
        // Ends the sweep also where the server failed by itself.
        stop.cancel();
        if tokio::time::timeout(CLEANING, self.store.settled()).await.is_err() {
            tracing::warn!("uploads that were given up may be left in the store; they are swept");
        }
        outcome.map_err(StartError::Serve)
    }
}

/// Runs the service until the process is told to stop by SIGTERM or Ctrl-C.
///
/// # Errors
/// [`StartError`] if it cannot start, or if the listener fails.
pub async fn run(config: Config) -> Result<(), StartError> {
    let stop = synap_rpc::stop_signal();
    Service::bind(config).await?.run(stop).await
}
