//! A store that misbehaves: an HTTP proxy before an [`S3Server`], which answers some calls with
//! errors, cuts connections and bodies, slows bodies down, and loses answers. What it lets through
//! reaches a real server.
//!
//! Which call gets which fault is told by a rule, so that a test can repeat a run:
//!
//! ```ignore
//! let faults = Faults::before(&server).await?;
//! faults.rule(|call| (call.is("PUT") && call.nth == 0).then_some(Fault::LoseAnswer));
//! ```

use std::{
    collections::HashMap,
    error::Error,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, Response, StatusCode, Uri, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::s3::S3Server;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call is answered with this status, and does not reach the store.
    Status {
        /// An HTTP status: 429, 500, 503.
        code: u16,
        /// Seconds for a `Retry-After`.
        retry_after: Option<u32>,
    },
    /// The connection ends before the call reaches the store.
    Reset,
    /// The call reaches the store and has its effect; the connection ends instead of an answer.
    LoseAnswer,
    /// The answer's body ends, and the connection, after so many bytes.
    Cut {
        /// Bytes of the body that arrive.
        after: usize,
    },
    /// The answer's body comes in pieces of 64 KiB at most, with a pause before each.
    Slow {
        /// The pause.
        pause: Duration,
    },
}

/// A call, as a rule sees it.
#[derive(Debug, Clone)]
pub struct Call {
    /// How many calls came before it.
    pub nth: u64,
    /// The HTTP method.
    pub method: String,
    /// `/bucket/key`, as it is on the wire.
    pub path: String,
    /// What follows the question mark, or nothing.
    pub query: String,
}

impl Call {
    /// Whether it has this method.
    #[must_use]
    pub fn is(&self, method: &str) -> bool {
        self.method == method
    }

    /// Whether it sends a part of a multipart upload.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.is("PUT") && self.query.contains("partNumber=")
    }

    /// Whether an object is there afterwards that was not before: a PUT, or the end of a multipart
    /// upload.
    #[must_use]
    pub fn is_write(&self) -> bool {
        (self.is("PUT") && !self.is_part())
            || (self.is("POST") && self.query.starts_with("uploadId="))
    }
}

type Rule = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;
type Broken = Box<dyn Error + Send + Sync>;
type AnswerBody = UnsyncBoxBody<Bytes, Broken>;

/// The proxy. Without a rule it lets everything through.
#[derive(Debug)]
pub struct Faults {
    endpoint: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    store: Uri,
    client: Client<HttpConnector, Incoming>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rule: Option<Rule>,
    calls: Vec<Call>,
    injected: u64,
    /// When each key was last written, where the limit of R2 is kept.
    written: Option<HashMap<String, Instant>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Faults {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn before(server: &S3Server) -> io::Result<Self> {
        let store = server.endpoint().parse().map_err(io::Error::other)?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let shared = Arc::new(Shared { store, client, state: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { endpoint, shared, _serving: serving })
    }

    /// The URL to use in place of the server's.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// From now on this decides. It is asked once for each call, in the order of their arrival.
    pub fn rule(&self, rule: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.shared.state().rule = Some(Box::new(rule));
    }

    /// From now on of 100 calls so many fail, each in one of the ways that a network and a store
    /// have. The same seed gives the same faults to the same order of calls.
    pub fn mixed(&self, percent: u64, seed: u64) {
        let mut random = seed;
        let mut below = move |limit: u64| {
            // Knuth's MMIX; the upper bits are good enough to be surprised by.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        self.rule(move |_| {
            if below(100) >= percent {
                return None;
            }
            let status = |code, retry_after| Fault::Status { code, retry_after };
            Some(match below(8) {
                0 => status(500, None),
                1 => status(503, None),
                2 => status(503, Some(1)),
                3 => status(429, None),
                4 => Fault::Reset,
                5 => Fault::LoseAnswer,
                6 => Fault::Cut { after: usize::try_from(below(100_000)).unwrap_or_default() },
                _ => Fault::Slow { pause: Duration::from_millis(20) },
            })
        });
    }

    /// From now on a second write of a key within a second is answered 429, as R2 does.
    pub fn limit_writes_to_one_a_second(&self) {
        self.shared.state().written = Some(HashMap::new());
    }

    /// From now on everything is let through.
    pub fn none(&self) {
        let mut state = self.shared.state();
        state.rule = None;
        state.written = None;
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }

    /// How many calls got a fault.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.shared.state().injected
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped, and every connection with it, when the proxy is.
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let answer = service_fn(move |request| Arc::clone(&shared).answer(request));
            let http = auto::Builder::new(TokioExecutor::new());
            // An error is how a connection is made to end.
            let _ = http.serve_connection(TokioIo::new(socket), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Broken> {
        match self.decide(&request) {
            Some(Fault::Status { code, retry_after }) => {
                let mut answer = Response::builder().status(StatusCode::from_u16(code)?);
                if let Some(seconds) = retry_after {
                    answer = answer.header(RETRY_AFTER, seconds);
                }
                let body = Full::new(Bytes::from_static(b"<Error><Code>Injected</Code></Error>"));
                Ok(answer.body(body.map_err(Broken::from).boxed_unsync())?)
            }
            Some(Fault::Reset) => Err("reset".into()),
            Some(Fault::LoseAnswer) => {
                let answer = self.forward(request).await?;
                // All of it: the store may work while it answers.
                answer.into_body().collect().await?;
                Err("the answer is lost".into())
            }
            Some(Fault::Cut { after }) => {
                Ok(self.forward(request).await?.map(|body| cut(body, after)))
            }
            Some(Fault::Slow { pause }) => {
                Ok(self.forward(request).await?.map(|body| slowed(body, pause)))
            }
            None => Ok(self
                .forward(request)
                .await?
                .map(|body| body.map_err(Broken::from).boxed_unsync())),
        }
    }

    fn decide(&self, request: &Request<Incoming>) -> Option<Fault> {
        let mut state = self.state();
        let state = &mut *state;
        let call = Call {
            nth: state.calls.len() as u64,
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
        };
        state.calls.push(call.clone());
        let mut fault = state.rule.as_mut().and_then(|rule| rule(&call));
        if fault.is_none()
            && call.is_write()
            && let Some(written) = &mut state.written
        {
            let now = Instant::now();
            match written.get(&call.path) {
                Some(last) if now - *last < Duration::from_secs(1) => {
                    fault = Some(Fault::Status { code: 429, retry_after: None });
                }
                _ => {
                    written.insert(call.path, now);
                }
            }
        }
        state.injected += u64::from(fault.is_some());
        fault
    }

    /// Sends the call on as it is. The signature covers the `Host` that the client saw.
    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Broken> {
        let mut parts = self.store.clone().into_parts();
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts)?;
        Ok(self.client.request(request).await?)
    }
}

/// The begin of a body, then an error: hyper closes the connection.
fn cut(body: Incoming, after: usize) -> AnswerBody {
    let mut left = after;
    let pieces = BodyStream::new(body.map_err(Broken::from)).map(move |frame| {
        let frame = frame?;
        let Ok(mut data) = frame.into_data() else { return Err("cut".into()) };
        if left == 0 {
            return Err("cut".into());
        }
        data.truncate(left);
        left -= data.len();
        Ok(Frame::data(data))
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn slowed(body: Incoming, pause: Duration) -> AnswerBody {
    let pieces = BodyStream::new(body.map_err(Broken::from))
        .map_ok(|frame| {
            let mut data = frame.into_data().unwrap_or_default();
            let mut pieces = Vec::new();
            while !data.is_empty() {
                pieces.push(Ok(data.split_to(data.len().min(64 * 1024))));
            }
            stream::iter(pieces)
        })
        .try_flatten()
        .and_then(move |data| async move {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(data))
        });
    StreamBody::new(pieces).boxed_unsync()
}
