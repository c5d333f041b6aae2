//! The HTTP edge: tRPC's wire format, for the clients that V0.2 has.

mod admission;
mod batch;
mod input;
mod linger;
mod mutations;
mod output;
mod queries;
mod trpc;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use synap_rpc::{ByteBudget, Callers};
use synap_telemetry::propagation;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::admission::Admission;
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
    /// Who may call, and how often at once.
    pub(crate) callers: Callers,
    /// Bodies are held out of this.
    pub(crate) budget: ByteBudget,
    /// A body may take this long.
    pub(crate) body_limit: Duration,
    /// A request gets this long from when its body is there.
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
        let admission = Admission {
            callers: options.callers,
            budget: options.budget,
            body_limit: options.body_limit,
            places: Arc::new(Semaphore::new(options.max_concurrent)),
            deadline: options.deadline,
            max_note_bytes: api.max_note_bytes,
        };
        let router = Router::new()
            .route("/trpc/notes.create", post(mutations::create))
            .route("/trpc/notes.update", post(mutations::update))
            .route("/trpc/notes.delete", post(mutations::delete))
            .route("/trpc/notes.undelete", post(mutations::undelete))
            .route("/trpc/notes.get", get(queries::get))
            .route("/trpc/notes.list", get(queries::list))
            .route("/trpc/notes.search", get(queries::search))
            .with_state(api)
            // Its own limit, which counts what is there in memory already.
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(admission, admission::admit))
            .fallback(trpc::no_such_procedure)
            .method_not_allowed_fallback(trpc::wrong_method)
            // Outermost last: a request is seen, then let in; its connection outlives it.
            .layer(middleware::from_fn(linger::lingering))
            .layer(middleware::from_fn(observed))
            .route("/healthz", get(async || "ok"))
            .route("/readyz", get(move || ready(readiness.clone())));
        let router = Router::new().fallback(batch::split).with_state(router);
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
