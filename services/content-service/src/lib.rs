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
//!    `moves`: the way of a blob into quarantine and back, over the same road.
//! 5. `sign` and `http`: signed URLs, and how they are served where the store has none.
//! 6. `store`: memory, the local file system, or S3/R2, behind one type. A key is written once.
//! 7. `readiness`: whether the store can be worked with.
//! 8. `error`: what each failure becomes on the wire.
//! 9. `check`: all of it tried once against a store, for an operator.

mod check;
mod config;
mod domain;
mod error;
mod grpc;
mod http;
mod moves;
mod readiness;
mod sign;
mod store;
mod upload;

use std::{io, net::SocketAddr, time::Duration};

use synap_proto::content::content_service_server::ContentServiceServer;
use synap_rpc::Server;
use synap_types::SystemClock;
use tokio_util::sync::CancellationToken;

pub use crate::{
    check::{CheckArgs, CheckOutput, Report, check, print_check},
    config::{Backend, Config, ConfigError, S3Limits, Secret, StoreArgs, UrlArgs},
    error::StartError,
};
use crate::{
    config::Place,
    grpc::{Content, Urls},
    http::{Blobs, Edge, EdgeOptions},
    readiness::Readiness,
    sign::{S3Signer, SecretSource, Signer},
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
    /// Where the store does not serve signed URLs itself.
    route: Option<(Edge, Blobs)>,
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
        let uploads = Uploads::new(store.clone(), config.max_blob_bytes, config.max_inflight_bytes);
        let (signer, route) = match &store_config.place {
            Place::S3(bucket) => (Signer::S3(S3Signer::new(bucket)?), None),
            place => {
                let edge = Edge::bind(edge_options(&config)).await.map_err(StartError::Listen)?;
                let source = SecretSource::of(place, config.urls.secret());
                let signer =
                    edge.signer(config.urls.base()?, source).map_err(StartError::Listen)?;
                let blobs = Blobs {
                    store: store.clone(),
                    signer: signer.clone(),
                    uploads: uploads.clone(),
                    silence: config.urls.silence(),
                };
                (Signer::Route(signer), Some((edge, blobs)))
            }
        };
        let content = Content {
            uploads,
            store: store.clone(),
            signer,
            urls: Urls::below(store_config.public_url),
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
        Ok(Self { server, address, store, route })
    }

    /// The address that is listened on: the port that was given for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of signed URLs; none where the store serves them itself.
    ///
    /// # Errors
    /// The operating system's.
    pub fn http_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.route.as_ref().map(|(edge, _)| edge.local_addr()).transpose()
    }

    /// Serves until `stop` is cancelled and calls under way have ended.
    ///
    /// # Errors
    /// [`StartError::Serve`] if the listener fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        self.store.sweep(SystemClock, stop.clone());
        let readiness = Readiness::of(self.store.clone());
        let rpc = async {
            let outcome = self.server.serve(stop.clone(), || readiness.now()).await;
            // Ends the others also where the server failed by itself.
            stop.cancel();
            outcome
        };
        let http = async {
            if let Some((edge, blobs)) = self.route {
                edge.serve(blobs, stop.clone()).await;
            }
        };
        let (outcome, ()) = tokio::join!(rpc, http);
        if tokio::time::timeout(CLEANING, self.store.settled()).await.is_err() {
            tracing::warn!("uploads that were given up may be left in the store; they are swept");
        }
        outcome.map_err(StartError::Serve)
    }
}

fn edge_options(config: &Config) -> EdgeOptions {
    EdgeOptions {
        listen: config.urls.http_listen,
        max_connections: config.urls.http_max_connections,
        silence: config.urls.silence(),
        grace: Duration::from_secs(config.server.shutdown_grace_secs),
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
