//! The HTTP edge: tRPC's wire format, for the clients that V0.2 has.

mod notes;
mod trpc;

use std::{io, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use synap_proto::reason;
use synap_rpc::{RpcError, deadline};
use synap_telemetry::propagation;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::Instrument as _;

use crate::{notes::NoteApi, service::Readiness};

/// The HTTP server, with its port open.
pub(crate) struct Edge {
    listener: TcpListener,
    router: Router,
    grace: Duration,
}

/// What the edge can be told.
pub(crate) struct EdgeOptions {
    pub(crate) listen: SocketAddr,
    /// A request gets this long.
    pub(crate) deadline: Duration,
    /// Requests that run at once; more are answered 429.
    pub(crate) max_concurrent: usize,
    /// What requests under way get to end.
    pub(crate) grace: Duration,
}

impl Edge {
    pub(crate) async fn bind(
        options: EdgeOptions,
        api: NoteApi,
        readiness: Readiness,
    ) -> io::Result<Self> {
        let listen = options.listen;
        let listener = TcpListener::bind(listen).await.map_err(|cause| {
            io::Error::new(cause.kind(), format!("gateway cannot listen on {listen}: {cause}"))
        })?;
        // JSON escapes can make a body of 1 byte one of 6.
        let body_limit = api.max_note_bytes.saturating_mul(6).saturating_add(64 * 1024);
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(options.max_concurrent));
        let router = Router::new()
            .route("/trpc/notes.create", post(notes::create))
            .route("/trpc/notes.get", get(notes::get))
            .fallback(trpc::no_such_procedure)
            .method_not_allowed_fallback(trpc::wrong_method)
            .with_state(api)
            .layer(DefaultBodyLimit::max(body_limit))
            // Outermost last: a request is seen, then admitted, then timed.
            .layer(middleware::from_fn(move |request, next| timed(options.deadline, request, next)))
            .layer(middleware::from_fn(move |request, next| {
                admitted(places.clone(), request, next)
            }))
            .layer(middleware::from_fn(observed))
            .route("/healthz", get(async || "ok"))
            .route("/readyz", get(move || ready(readiness.clone())));
        Ok(Self { listener, router, grace: options.grace })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled, then drains within the grace period.
    pub(crate) async fn serve(self, stop: CancellationToken) -> io::Result<()> {
        let serving = axum::serve(self.listener, self.router)
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let grace_over = async {
            stop.cancelled().await;
            tokio::time::sleep(self.grace).await;
        };
        tokio::select! {
            outcome = serving => outcome,
            () = grace_over => Ok(()),
        }
    }
}

async fn ready(readiness: Readiness) -> (axum::http::StatusCode, &'static str) {
    if readiness.check().await {
        (axum::http::StatusCode::OK, "ready")
    } else {
        (axum::http::StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

async fn observed(request: Request, next: Next) -> Response {
    let span = tracing::info_span!(
        "http",
        otel.name = format!("{} {}", request.method(), request.uri().path()),
        otel.kind = "server",
        http.request.method = %request.method(),
        url.path = request.uri().path(),
        http.response.status_code = tracing::field::Empty,
    );
    propagation::set_parent(&span, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

async fn admitted(
    places: std::sync::Arc<tokio::sync::Semaphore>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_place) = places.try_acquire() else {
        let error = RpcError::new(
            Code::ResourceExhausted,
            reason::OVERLOADED,
            "more requests at once than this server takes; try again, a little later each time",
        )
        .retry_after(Duration::from_millis(500));
        return trpc::failure(request.uri().path(), &error);
    };
    next.run(request).await
}

async fn timed(limit: Duration, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match deadline::within(limit, next.run(request)).await {
        Ok(response) => response,
        Err(error) => trpc::failure(&path, &error),
    }
}
