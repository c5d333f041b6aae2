//! What we do to an S3 that is in trouble: a real HTTP server on loopback that counts.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, future, stream};
use synap_content_service::{Backend, Config};
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;

use crate::running::{Running, launch};

const KEY: &str = "users/u/notes/x.md";

/// An S3 that answers as it is told.
struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

/// What the server saw.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    in_flight: AtomicUsize,
    /// Since it was last asked for.
    most_in_flight: AtomicUsize,
}

impl Server {
    /// `answer` gets the number of the request and those in flight with it.
    async fn start<F>(answer: impl Fn(usize, usize) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let watching = Arc::clone(&seen);
        let router = Router::new().fallback(async move |request: axum::extract::Request| {
            // Readiness looks, and the sweep for unfinished uploads; they are not what is counted.
            let uri = request.uri();
            if uri.path().ends_with("readiness-probe")
                || uri.query().is_some_and(|query| query.contains("uploads"))
            {
                return StatusCode::NOT_FOUND.into_response();
            }
            let number = watching.requests.fetch_add(1, SeqCst);
            let in_flight = watching.in_flight.fetch_add(1, SeqCst) + 1;
            watching.most_in_flight.fetch_max(in_flight, SeqCst);
            let mut body = request.into_body().into_data_stream();
            while body.next().await.is_some() {}
            let response = answer(number, in_flight).await;
            watching.in_flight.fetch_sub(1, SeqCst);
            response
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, _serving: serving }
    }

    async fn service(&self, adjust: impl FnOnce(&mut Config)) -> Running {
        let endpoint = Some(format!("http://{}", self.address));
        launch(Backend::S3, |config| {
            config.store.s3_endpoint = endpoint;
            adjust(config);
        })
        .await
    }

    fn requests(&self) -> usize {
        self.seen.requests.load(SeqCst)
    }
}

fn found() -> Response {
    let headers = [
        (header::CONTENT_LENGTH, "3"),
        (header::LAST_MODIFIED, "Wed, 21 Oct 2015 07:28:00 GMT"),
        (header::ETAG, "\"x\""),
    ];
    (headers, Body::from("abc")).into_response()
}

fn slow_down() -> Response {
    let body = "<Error><Code>SlowDown</Code></Error>";
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn heads(service: &Running, count: usize, at_a_time: usize) -> Vec<Option<Code>> {
    let calls = (0..count).map(|_| async { service.head(KEY).await.err().map(|error| error.code) });
    stream::iter(calls).buffer_unordered(at_a_time).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_asks_for_less_gets_less() {
    const CAPACITY: usize = 4;
    let server = Server::start(async |_, in_flight| {
        if in_flight > CAPACITY {
            return slow_down();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        found()
    })
    .await;
    let service = server.service(|config| config.store.s3_limits.s3_max_concurrency = 32).await;
    let outcomes = heads(&service, 300, 60).await;
    // A few may be told to come back later; all were, if nobody slowed down.
    let failed = outcomes.iter().flatten().count();
    assert!(failed <= 60, "{failed} of 300 failed");
    server.seen.most_in_flight.store(0, SeqCst);
    let before = server.requests();
    let outcomes = heads(&service, 300, 60).await;
    let failed = outcomes.iter().flatten().count();
    let most = server.seen.most_in_flight.load(SeqCst);
    assert!(most <= 3 * CAPACITY, "{most} in flight at a store that takes {CAPACITY}");
    assert!(failed <= 15, "{failed} of 300 failed");
    assert!(server.requests() - before <= 400, "{} requests for 300", server.requests() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_not_multiplied() {
    let server = Server::start(async |_, _| StatusCode::BAD_GATEWAY.into_response()).await;
    let service = server.service(|_| ()).await;
    let outcomes = heads(&service, 400, 40).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Some(Code::Unavailable)), "{outcomes:?}");
    // 20 %, and one a second in each window of 10 s.
    assert!(server.requests() <= 400 + 80 + 20, "{} requests for 400 calls", server.requests());
    assert!(server.requests() > 400, "nothing was repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn we_come_back_when_we_are_told_to() {
    let server = Server::start(async |number, _| match number {
        0 => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response(),
        _ => found(),
    })
    .await;
    let service = server.service(|_| ()).await;
    let asked = Instant::now();
    service.head(KEY).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_secs(1), "back after {:?}", asked.elapsed());
    assert_eq!(server.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_too_long_is_the_callers() {
    let server = Server::start(async |_, _| {
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "3600")]).into_response()
    })
    .await;
    let service = server.service(|_| ()).await;
    assert_eq!(service.head(KEY).await.unwrap_err().code, Code::Unavailable);
    assert_eq!(server.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_request_and_slowness_does_not() {
    // Three bytes, each within the limit, all of them not.
    let server = Server::start(async |_, _| {
        let trickle = stream::iter(b"abc").then(async |byte| {
            tokio::time::sleep(Duration::from_millis(600)).await;
            Ok::<_, std::io::Error>(vec![*byte])
        });
        let mut response = found();
        *response.body_mut() = Body::from_stream(trickle);
        response
    })
    .await;
    let service = server.service(|config| config.store.s3_limits.s3_silence_secs = 1).await;
    assert_eq!(service.get(KEY).await.unwrap().1, b"abc");

    let silent = Server::start(async |_, _| future::pending().await).await;
    let service = silent
        .service(|config| {
            config.store.s3_limits.s3_silence_secs = 1;
            config.store.s3_limits.s3_max_retries = 1;
        })
        .await;
    assert_eq!(service.head(KEY).await.unwrap_err().code, Code::Unavailable);
    assert_eq!(silent.requests(), 2);
}
