//! content-service keeps the bytes of notes and files, and nothing else: it has no database and
//! knows no user's rights.
//!
//! In reading order:
//!
//! 1. `config`: where blobs are kept, and the limits.
//! 2. `grpc`: the service; each call validates, calls, maps.
//! 3. `domain`: a body while it arrives. It is held in memory, within a budget, until it turned
//!    out to be what was promised; before that nothing is written.
//! 4. `store`: memory, the local file system, or S3/R2, behind one struct. A key is written once.
//! 5. `readiness`: whether the store can be worked with.
//! 6. `error`: what each failure becomes on the wire.

mod config;
mod domain;
mod error;
mod grpc;
mod readiness;
mod store;

use std::net::SocketAddr;

use synap_proto::content::content_service_server::ContentServiceServer;
use synap_rpc::Server;
use synap_types::{Clock as _, SystemClock};
use tokio_util::sync::CancellationToken;

pub use crate::{
    config::{Backend, Config, ConfigError, Secret, StoreArgs},
    error::StartError,
};
use crate::{domain::Budget, grpc::Content, readiness::Readiness, store::BlobStore};

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
        let content = Content {
            store: store.clone(),
            public_url: store_config.public_url,
            max_blob_bytes: config.max_blob_bytes,
            budget: Budget::new(config.max_inflight_bytes),
        };
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
        self.store.sweep(SystemClock.now(), stop.clone());
        let readiness = Readiness::of(self.store);
        let outcome = self.server.serve(stop.clone(), || readiness.now()).await;
        // Ends the sweep also where the server failed by itself.
        stop.cancel();
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
