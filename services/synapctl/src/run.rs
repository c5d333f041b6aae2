//! `synapctl run`: one service in the foreground, from the same code as the service's own binary.

use std::{io, net::SocketAddr};

use clap::{Args, CommandFactory as _, FromArgMatches as _, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::cli::Exit;

/// Run one service in the foreground.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  synapctl run gateway -- --listen 127.0.0.1:50051\n  \
                  synapctl run entity-service -- --help")]
pub struct RunArgs {
    /// Which service.
    #[arg(value_enum)]
    pub(crate) service: ServiceName,
    /// Stop when standard input ends: what `up` starts ends with it, even if it is killed.
    #[arg(long, hide = true)]
    with_parent: bool,
    /// The service's own flags, after `--`.
    #[arg(last = true)]
    args: Vec<String>,
}

/// The services of Synap storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceName {
    ContentService,
    EntityService,
    EventService,
    Gateway,
}

impl ServiceName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ContentService => "content-service",
            Self::EntityService => "entity-service",
            Self::EventService => "event-service",
            Self::Gateway => "gateway",
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<Exit> {
    let stop = synap_rpc::stop_signal();
    if args.with_parent {
        stop_with_stdin(stop.clone());
    }
    AnyService::bind(args.service, &args.args).await?.run(stop).await?;
    Ok(Exit::Well)
}

fn stop_with_stdin(stop: CancellationToken) {
    // A thread of our own: the runtime would wait for its blocking read at the end.
    std::thread::spawn(move || {
        let _ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
        stop.cancel();
    });
}

/// A service with its port open.
pub(crate) enum AnyService {
    Content(Box<synap_content_service::Service>),
    Entity(Box<synap_entity_service::Service>),
    Event(Box<synap_event_service::Service>),
    Gateway(Box<synap_gateway::Service>),
}

impl AnyService {
    /// Reads a service's flags and environment, as its own binary would, and opens its port.
    pub(crate) async fn bind(service: ServiceName, args: &[String]) -> anyhow::Result<Self> {
        let name = service.name();
        Ok(match service {
            ServiceName::ContentService => {
                let bound = synap_content_service::Service::bind(config(name, args)).await?;
                Self::Content(Box::new(bound))
            }
            ServiceName::EntityService => {
                let bound = synap_entity_service::Service::bind(config(name, args)).await?;
                Self::Entity(Box::new(bound))
            }
            ServiceName::EventService => {
                let bound = synap_event_service::Service::bind(config(name, args)).await?;
                Self::Event(Box::new(bound))
            }
            ServiceName::Gateway => {
                let bound = synap_gateway::Service::bind(config(name, args)).await?;
                Self::Gateway(Box::new(bound))
            }
        })
    }

    /// The gRPC address that is listened on.
    pub(crate) fn grpc_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(match self {
            Self::Content(service) => service.local_addr(),
            Self::Entity(service) => service.local_addr()?,
            Self::Event(service) => service.local_addr(),
            Self::Gateway(service) => service.local_addr()?,
        })
    }

    /// The HTTP address that is listened on, by those that have one.
    pub(crate) fn http_addr(&self) -> anyhow::Result<Option<SocketAddr>> {
        match self {
            Self::Content(service) => Ok(service.http_addr()?),
            Self::Gateway(service) => Ok(Some(service.http_addr()?)),
            Self::Entity(_) | Self::Event(_) => Ok(None),
        }
    }

    /// Serves until `stop` is cancelled, and drains.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        match self {
            Self::Content(service) => service.run(stop).await?,
            Self::Entity(service) => service.run(stop).await?,
            Self::Event(service) => service.run(stop).await?,
            Self::Gateway(service) => service.run(stop).await?,
        }
        Ok(())
    }
}

/// A service's configuration from flags and environment; wrong ones end the process, as they do in
/// the service's own binary.
fn config<C: Args>(name: &'static str, args: &[String]) -> C {
    #[derive(Debug, clap::Parser)]
    struct Only<C: Args> {
        #[command(flatten)]
        config: C,
    }
    let command = Only::<C>::command().name(name).no_binary_name(true);
    let matches = command.get_matches_from(args);
    match Only::from_arg_matches(&matches) {
        Ok(only) => only.config,
        Err(error) => error.exit(),
    }
}
