//! Signed URLs where the store has none of its own: GET, HEAD and PUT of one blob over HTTP/1.1, for
//! whoever has the URL. Everything else is 403 and no more is said.
//!
//! A body flows as it does over gRPC: from the socket into the store and back, at the pace of the
//! slower side. A connection that moves no byte for a while is dropped.

mod answer;
mod get;
mod put;
mod range;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use synap_types::{Clock as _, SystemClock};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    http::answer::{Refusal, refuse},
    sign::{Allows, Presented, RouteSigner, SecretSource},
    store::BlobStore,
    upload::Uploads,
};

/// Bytes that the line and the headers of a request may have: a key, a file name and a signature
/// need 6 KiB at most.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;
/// What a request may take to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries to accept a connection, when the system has no more files to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The HTTP server, with its port open.
pub(crate) struct Edge {
    listener: TcpListener,
    options: EdgeOptions,
}

/// What the server can be told.
#[derive(Debug, Clone)]
pub(crate) struct EdgeOptions {
    pub(crate) listen: SocketAddr,
    /// More wait until one ends.
    pub(crate) max_connections: usize,
    /// Time without a byte after which a connection is dropped.
    pub(crate) silence: Duration,
    /// What requests under way get to end.
    pub(crate) grace: Duration,
}

/// What a request works with.
#[derive(Clone)]
pub(crate) struct Blobs {
    pub(crate) store: BlobStore,
    pub(crate) signer: RouteSigner,
    pub(crate) uploads: Uploads,
    pub(crate) silence: Duration,
}

impl Edge {
    /// Opens the port.
    pub(crate) async fn bind(options: EdgeOptions) -> io::Result<Self> {
        let listen = options.listen;
        let listener = TcpListener::bind(listen).await.map_err(|cause| {
            let text = format!("content-service cannot listen on {listen}: {cause}");
            io::Error::new(cause.kind(), text)
        })?;
        Ok(Self { listener, options })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Makes the signer of URLs that lead here: below `base`, or else to the address itself.
    pub(crate) fn signer(
        &self,
        base: Option<String>,
        source: SecretSource,
    ) -> io::Result<RouteSigner> {
        let address = self.local_addr()?;
        if base.is_none() && address.ip().is_unspecified() {
            tracing::warn!(
                server.address = %address.ip(),
                "signed URLs name an address that only this machine has; set BLOB_URL_BASE"
            );
        }
        let base = base.unwrap_or_else(|| format!("http://{address}"));
        Ok(RouteSigner::new(base, source))
    }

    /// Serves until `stop` is cancelled, then drains within the grace period.
    pub(crate) async fn serve(self, blobs: Blobs, stop: CancellationToken) {
        let Self { listener, options } = self;
        let router = Router::new().fallback(handle).with_state(blobs);
        let places = Arc::new(Semaphore::new(options.max_connections));
        let draining = GracefulShutdown::new();
        // Dropped, and with it every connection that is left, at the end of the grace period.
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let socket = accept(&listener).await;
                let connection = connection_builder()
                    .serve_connection(
                        TokioIo::new(impatient(socket, options.silence)),
                        TowerToHyperService::new(router.clone()),
                    )
                    .into_owned();
                let connection = draining.watch(connection);
                connections.spawn(async move {
                    let _place = place;
                    // A client that goes away, or that nobody waits for any longer.
                    let _ = connection.await;
                });
                // Forgets the connections that have ended.
                while connections.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
        drop(listener);
        let _ = tokio::time::timeout(options.grace, draining.shutdown()).await;
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    builder
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => return socket,
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(reason, "a connection for a signed URL was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Gives up a client that takes no bytes. One that sends none is found where its body is read.
fn impatient(socket: TcpStream, silence: Duration) -> std::pin::Pin<Box<TimeoutStream<TcpStream>>> {
    // Whatever is answered is written at once.
    let _ = socket.set_nodelay(true);
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(silence));
    Box::pin(socket)
}

/// Answers one request. Its URL is never logged: whoever has it has the blob.
async fn handle(State(blobs): State<Blobs>, request: Request) -> Response {
    let span = tracing::info_span!(
        "http",
        otel.name = %request.method(),
        otel.kind = "server",
        http.request.method = %request.method(),
        http.response.status_code = tracing::field::Empty,
    );
    let answer = async {
        let (head, body) = request.into_parts();
        let asked = match believed(&blobs, &head).await {
            Ok(asked) => asked,
            Err(refusal) => return refuse(refusal, &head, body, blobs.silence).await,
        };
        let key = &asked.key;
        match asked.allows {
            Allows::Get { disposition } => get::get(&blobs, key, &disposition, &head).await,
            Allows::Put(promised) => match put::is_free(&blobs, key).await {
                Ok(()) => put::put(&blobs, key, promised, body).await,
                Err(refusal) => return refuse(refusal, &head, body, blobs.silence).await,
            },
        }
        .unwrap_or_else(Response::from)
    };
    let answer = answer.instrument(span.clone()).await;
    span.record("http.response.status_code", answer.status().as_u16());
    answer
}

async fn believed(blobs: &Blobs, head: &http::request::Parts) -> Result<Presented, Refusal> {
    let presented = Presented::read(&head.method, &head.uri, &head.headers);
    let presented = presented.ok_or(Refusal::Unsigned)?;
    if blobs.signer.verify(&presented, SystemClock.now()).await? {
        Ok(presented)
    } else {
        Err(Refusal::Unsigned)
    }
}
