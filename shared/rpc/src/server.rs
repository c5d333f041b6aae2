//! The service's end: one place where a gRPC server is put together, the same for all.

use std::{
    collections::BTreeSet, convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc,
    time::Duration,
};

use clap::Args;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    server::NamedService,
    service::RoutesBuilder,
    transport::{self, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{Service, ServiceBuilder, util::option_layer};

use crate::{
    ByteBudget, Callers, RpcError,
    budget::BudgetLayer,
    deadline::DeadlineLayer,
    door::{DoorLayer, WhyShut},
    flow,
    gate::GateLayer,
    left,
    limit::LimitLayer,
    observe::ObserveLayer,
};

/// How often readiness is looked at: often enough that a pod leaves its service's endpoints soon,
/// seldom enough to cost nothing.
const READINESS_INTERVAL: Duration = Duration::from_secs(2);

/// How long the answers of calls that are cut off may take to leave. A connection that is open
/// after that belongs to a peer who says nothing: it ends with the process.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// What every gRPC server can be told.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Seconds a call may take that brings no deadline of its own.
    #[arg(long, env = "DEFAULT_DEADLINE_SECS", default_value_t = 15)]
    pub default_deadline_secs: u64,
    /// Seconds a call may take at most, whatever it asks for.
    #[arg(long, env = "MAX_DEADLINE_SECS", default_value_t = 3600)]
    pub max_deadline_secs: u64,
    /// Calls that run at once.
    #[arg(long, env = "MAX_CONCURRENT_CALLS", default_value_t = 512)]
    pub max_concurrent_calls: usize,
    /// Calls that wait for a place; more are answered RESOURCE_EXHAUSTED.
    #[arg(long, env = "MAX_WAITING_CALLS", default_value_t = 512)]
    pub max_waiting_calls: usize,
    /// Seconds that calls under way have to end when the service is told to stop.
    #[arg(long, env = "SHUTDOWN_GRACE_SECS", default_value_t = 20)]
    pub shutdown_grace_secs: u64,
    /// Seconds between saying NOT_SERVING and refusing connections, for load balancers to notice.
    #[arg(long, env = "SHUTDOWN_DELAY_SECS", default_value_t = 0)]
    pub shutdown_delay_secs: u64,
}

/// A gRPC server with health, reflection, limits and a stop that ends.
pub struct Server {
    name: &'static str,
    args: ServerArgs,
    listener: TcpListener,
    routes: RoutesBuilder,
    reflected: Vec<&'static str>,
    long_calls: &'static [&'static str],
    health: Health,
    gate: Option<GateLayer>,
    budget: Option<BudgetLayer>,
    why_shut: WhyShut,
}

/// Says whether a server is alive and ready. Health services: `liveness` (the process answers),
/// `readiness` and the empty name (it can do its work).
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    async fn starting() -> Self {
        let health = Self { reporter: HealthReporter::new() };
        health.reporter.set_service_status("liveness", ServingStatus::Serving).await;
        // tonic's default for the empty name is SERVING, and we are not.
        health.set_ready(false).await;
        health
    }

    async fn set_ready(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["readiness", ""] {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

impl Server {
    /// Opens the port, so that a taken one is an error before anything else is done.
    ///
    /// # Errors
    /// The operating system's, with the address in it.
    pub async fn bind(
        name: &'static str,
        listen: SocketAddr,
        args: &ServerArgs,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await.map_err(|cause| {
            io::Error::new(cause.kind(), format!("{name} cannot listen on {listen}: {cause}"))
        })?;
        let health = Health::starting().await;
        let mut routes = RoutesBuilder::default();
        routes.add_service(tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(health.reporter.clone()),
        ));
        let reflected = vec!["grpc.health.v1.Health"];
        let (args, long_calls) = (args.clone(), &[][..]);
        let (gate, budget) = (None, None);
        let why_shut: WhyShut = Arc::new(|_| None);
        Ok(Self {
            name,
            args,
            listener,
            routes,
            reflected,
            long_calls,
            health,
            gate,
            budget,
            why_shut,
        })
    }

    /// The address that is listened on: the port that was given for port 0.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Adds a service.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.reflected.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Names the calls, as `/package.Service/Method`, that have the longest deadline there is where
    /// they bring none of their own: those that take as long as a file does.
    #[must_use]
    pub fn long_calls(mut self, paths: &'static [&'static str]) -> Self {
        self.long_calls = paths;
        self
    }

    /// Lets in only whom `callers` knows, and only so many calls of each at once; handlers find the
    /// [`UserId`](synap_types::UserId) in the request's extensions. Health and reflection stay open
    /// to all.
    #[must_use]
    pub fn only_for(mut self, callers: Callers) -> Self {
        self.gate = Some(GateLayer { callers });
        self
    }

    /// Takes the bytes of request messages out of `budget` while their calls run; what does not fit
    /// is answered RESOURCE_EXHAUSTED. For `methods` (`/package.Service/Method`) whose handlers get
    /// a message as a whole: a stream that is passed on would be counted though it is gone.
    #[must_use]
    pub fn within(mut self, budget: ByteBudget, methods: &'static [&'static str]) -> Self {
        self.budget = Some(BudgetLayer { budget, methods });
        self
    }

    /// Refuses the calls (`/package.Service/Method`) for which there is a reason to, as long as there
    /// is; health and reflection stay open.
    #[must_use]
    pub fn shut_for(
        mut self,
        why: impl Fn(&str) -> Option<RpcError> + Send + Sync + 'static,
    ) -> Self {
        self.why_shut = Arc::new(why);
        self
    }

    /// Serves until `stop` is cancelled, then says NOT_SERVING, drains, and ends within the grace
    /// period and half a second, even if a client keeps its connection open: calls that are still
    /// under way are answered UNAVAILABLE. `ready` is asked every two seconds, from
    /// the start, and when it says so the server is SERVING.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve<F>(
        self,
        stop: CancellationToken,
        mut ready: impl FnMut() -> F + Send,
    ) -> Result<(), transport::Error>
    where
        F: Future<Output = bool> + Send,
    {
        let Self { name, args, listener, mut routes, reflected, long_calls, .. } = self;
        let (health, gate, budget) = (self.health, self.gate, self.budget);
        let why_shut = self.why_shut;
        add_reflection(&mut routes, &reflected);

        // Outermost first: a call is seen, then timed, then let in, then given a place; what it
        // brings is counted. Its time runs while it waits for a place.
        let cut = CancellationToken::new();
        let layers = ServiceBuilder::new()
            .layer(ObserveLayer)
            .layer(DeadlineLayer {
                default: Duration::from_secs(args.default_deadline_secs),
                max: Duration::from_secs(args.max_deadline_secs),
                long_calls,
                stop: cut.clone(),
            })
            .layer(DoorLayer { why_shut })
            .layer(option_layer(gate))
            .layer(LimitLayer::new(args.max_concurrent_calls, args.max_waiting_calls))
            .layer(option_layer(budget))
            .map_request(left::tell);

        let draining = CancellationToken::new();
        let serving = transport::Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .http2_adaptive_window(Some(false))
            .initial_stream_window_size(flow::STREAM_WINDOW)
            .initial_connection_window_size(flow::CONNECTION_WINDOW)
            .max_frame_size(flow::FRAME)
            .max_concurrent_streams(flow::MAX_STREAMS)
            // Clients behind a Kubernetes service find new replicas when they reconnect.
            // No grace is set: with one, tonic 0.14 does not ask the client to leave, it only cuts
            // the connection at the end of the grace, with whatever is under way.
            .max_connection_age(Duration::from_mins(30))
            .layer(layers)
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                draining.clone().cancelled_owned(),
            );
        tokio::pin!(serving);

        let readiness = async {
            let mut last = false;
            loop {
                let now = tokio::time::timeout(READINESS_INTERVAL, ready()).await.unwrap_or(false);
                if now != last {
                    tracing::info!(service = name, ready = now, "readiness changed");
                    health.set_ready(now).await;
                    last = now;
                }
                // Until it is ready for the first time, ask often: start-up is being waited for.
                let pause = if now { READINESS_INTERVAL } else { READINESS_INTERVAL / 40 };
                tokio::time::sleep(pause).await;
            }
        };

        tokio::select! {
            outcome = &mut serving => return outcome,
            () = readiness => {}
            () = stop.cancelled() => {}
        }
        tracing::info!(service = name, "stopping");
        health.set_ready(false).await;
        // Served on: whoever has not noticed yet must still find us.
        let delay = Duration::from_secs(args.shutdown_delay_secs);
        if let Ok(outcome) = tokio::time::timeout(delay, &mut serving).await {
            return outcome;
        }
        draining.cancel();
        let grace = Duration::from_secs(args.shutdown_grace_secs);
        if let Ok(outcome) = tokio::time::timeout(grace, &mut serving).await {
            return outcome;
        }
        tracing::warn!(
            service = name,
            ?grace,
            "connections were still open at the end of the grace period; their calls are ended"
        );
        cut.cancel();
        tokio::time::timeout(LAST_ANSWERS, serving).await.unwrap_or(Ok(()))
    }
}

fn add_reflection(routes: &mut RoutesBuilder, services: &[&'static str]) {
    // Only of what is served: they are decoded at every start.
    let packages: BTreeSet<_> =
        services.iter().filter_map(|name| Some(name.rsplit_once('.')?.0)).collect();
    let builder = || {
        let health = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let with_files = packages.iter().fold(health, |builder, package| {
            builder.register_encoded_file_descriptor_set(synap_proto::descriptors(package))
        });
        services.iter().fold(with_files, |builder, name| builder.with_service_name(*name))
    };
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            routes.add_service(v1).add_service(v1alpha);
        }
        (Err(cause), _) | (_, Err(cause)) => {
            tracing::error!(error = &cause as &dyn std::error::Error, "no reflection");
        }
    }
}
