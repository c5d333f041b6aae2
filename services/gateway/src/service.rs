//! All the wiring of the gateway, in one place.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use synap_auth::Authenticator;
use synap_proto::gateway::{
    activity_service_server::ActivityServiceServer, file_service_server::FileServiceServer,
    note_service_server::NoteServiceServer,
};
use synap_rpc::{ByteBudget, CallerLimits, Callers, Channel, Rate, RpcError, Server};
use synap_types::SystemIds;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    activity::ActivityApi,
    clients::{ContentClient, EntityClient, EventClient},
    config::Config,
    domain::PageTokens,
    error::Error,
    files::FileApi,
    grpc::{Activities, Files, LONG_CALLS, Notes},
    http::{Edge, EdgeOptions},
    list_notes::Finder,
    notes::NoteApi,
    read_file::FileReader,
    read_note::Reader,
    recovery::Recovery,
    repairs::Repairs,
    saga::{Finisher, Saga},
};

/// The methods whose requests hold a note's body; a body that is streamed is not held.
const HOLD_A_BODY: &[&str] =
    &["/synap.gateway.v1.NoteService/CreateNote", "/synap.gateway.v1.NoteService/UpdateNote"];

/// The gateway, with its ports open.
pub struct Service {
    server: Server,
    edge: Edge,
    recovery: Recovery,
    finishing: JoinHandle<()>,
    repairing: JoinHandle<()>,
    readiness: Readiness,
    /// Ends what has no end of its own.
    stop: CancellationToken,
}

/// The gateway can work when the content and entity services can. It does not need event-service:
/// without it a write is acknowledged with `event_pending`.
#[derive(Clone)]
pub(crate) struct Readiness {
    content: Channel,
    entity: Channel,
}

impl Readiness {
    pub(crate) async fn check(&self) -> bool {
        let (content, entity) = tokio::join!(self.content.is_ready(), self.entity.is_ready());
        content && entity
    }
}

impl Service {
    /// Opens the ports. The services may still be away: the gateway is not ready until they are.
    ///
    /// # Errors
    /// If a port is taken, a URL is none, or the keys for tokens cannot be used.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let content_channel = Channel::connect("content-service", &config.content_url)?;
        let entity_channel = Channel::connect("entity-service", &config.entity_url)?;
        let event_channel = Channel::connect("event-service", &config.event_url)?;
        let readiness =
            Readiness { content: content_channel.clone(), entity: entity_channel.clone() };
        let lanes = (0..config.file_connections.get())
            .map(|_| Channel::connect("content-service", &config.content_url))
            .collect::<Result<_, _>>()?;
        let content = ContentClient::new(content_channel, lanes);
        let entity = EntityClient::new(entity_channel);
        let event = EventClient::new(event_channel);
        let (finisher, finishing) = Finisher::start(entity.clone());

        let saga = Saga {
            content: content.clone(),
            entity: entity.clone(),
            event,
            finisher,
            ids: Arc::new(SystemIds),
            append_timeout: Duration::from_millis(config.append_timeout_ms),
            under_way: TaskTracker::new(),
        };
        let files = FileApi {
            saga: saga.clone(),
            reader: FileReader { content: content.clone(), entity: entity.clone() },
            max_file_bytes: config.max_file_bytes,
            upload_expiry: Duration::from_secs(config.upload_url_expiry_secs),
        };
        let tokens = page_tokens(&config)?;
        let activity = ActivityApi {
            event: EventClient::new(Channel::connect("event-service", &config.event_url)?),
            tokens: tokens.clone(),
            places: Arc::new(Semaphore::new(config.max_watches)),
        };
        let stop = CancellationToken::new();
        let (repairs, repairing) = Repairs::start(saga.clone());
        let api = NoteApi {
            saga: saga.clone(),
            reader: Reader { content: content.clone(), entity: entity.clone(), repairs },
            finder: Finder { content, entity, tokens },
            max_note_bytes: config.max_note_bytes,
        };
        let recovery = Recovery {
            saga,
            ready: readiness.clone(),
            interval: Duration::from_secs_f64(config.recovery_interval_secs),
            max_interval: Duration::from_secs_f64(
                config.recovery_max_interval_secs.max(config.recovery_interval_secs),
            ),
        };

        // Both edges let in the same callers, and hold their bodies out of one budget.
        let authenticator = Arc::new(Authenticator::new(&config.auth)?);
        let limits = CallerLimits {
            at_once: config.max_calls_per_user.get(),
            rate: Rate {
                per_second: config.calls_per_second_per_user,
                burst: config.call_burst_per_user,
            },
        };
        let callers = Callers::new(limits, move |header| {
            let authenticator = Arc::clone(&authenticator);
            async move {
                let user = authenticator.authenticate(header.as_deref()).await;
                user.map_err(|why| RpcError::from(Error::from(why)))
            }
        });
        let budget = ByteBudget::new(config.max_inflight_bytes);

        let options = EdgeOptions {
            listen: config.http_listen,
            callers: callers.clone(),
            budget: budget.clone(),
            body_limit: Duration::from_secs(config.http_body_secs.get()),
            deadline: Duration::from_secs(config.server.default_deadline_secs),
            max_concurrent: config.server.max_concurrent_calls,
            grace: Duration::from_secs(config.server.shutdown_grace_secs),
        };
        let edge = Edge::bind(options, api.clone(), readiness.clone()).await?;
        // Room for a note over its limit: the answer should name the field, not the message.
        let max_message = config.max_note_bytes.saturating_mul(2).saturating_add(1024 * 1024);
        let server = Server::bind("gateway", config.listen, &config.server)
            .await?
            .long_calls(LONG_CALLS)
            .only_for(callers)
            .within(budget, HOLD_A_BODY)
            .add_service(
                NoteServiceServer::new(Notes { api })
                    .max_decoding_message_size(max_message)
                    .max_encoding_message_size(usize::MAX),
            )
            .add_service(FileServiceServer::new(Files { api: files }))
            .add_service(ActivityServiceServer::new(Activities {
                api: activity,
                stop: stop.clone(),
            }));
        Ok(Self { server, edge, recovery, finishing, repairing, readiness, stop })
    }

    /// The gRPC address that is listened on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// The HTTP address that is listened on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn http_addr(&self) -> io::Result<SocketAddr> {
        self.edge.local_addr()
    }

    /// Serves until `stop` is cancelled, drains, and finishes what was appended.
    ///
    /// # Errors
    /// If a listener fails.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { server, edge, recovery, finishing, repairing, readiness, stop: ends } = self;
        let recovering = tokio::spawn(recovery.run(stop.clone()));
        let ready = || {
            let readiness = readiness.clone();
            async move { readiness.check().await }
        };
        // One that fails takes the other along.
        let rpc = async {
            let outcome = server.serve(stop.clone(), ready).await;
            stop.cancel();
            outcome
        };
        let http = async {
            let outcome = edge.serve(stop.clone()).await;
            stop.cancel();
            outcome
        };
        let ending = async {
            stop.cancelled().await;
            ends.cancel();
        };
        let (rpc, http, ()) = tokio::join!(rpc, http, ending);
        // The servers are gone, and with them every sender of repairs, then of the finisher.
        let last = async {
            let _ = recovering.await;
            let _ = repairing.await;
            let _ = finishing.await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), last).await;
        rpc?;
        http?;
        Ok(())
    }
}

/// RFC 2104 asks for a key as long as the hash; a shorter one is a mistake.
const MIN_SECRET_BYTES: usize = 32;

fn page_tokens(config: &Config) -> anyhow::Result<PageTokens> {
    let given = config.page_token_secret.as_ref().map(synap_auth::Secret::expose);
    // Deployment templates write what is not set as an empty value.
    let Some(secret) = given.filter(|secret| !secret.is_empty()) else {
        tracing::info!("no PAGE_TOKEN_SECRET: page tokens are good in this process only");
        return PageTokens::of_this_process();
    };
    anyhow::ensure!(
        secret.len() >= MIN_SECRET_BYTES,
        "PAGE_TOKEN_SECRET has {} bytes; it needs {MIN_SECRET_BYTES}",
        secret.len()
    );
    Ok(PageTokens::new(secret))
}
