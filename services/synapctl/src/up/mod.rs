//! `synapctl up`: all of Synap storage on this machine.
//!
//! 1. A database: DATABASE_URL, an installed PostgreSQL, or one that is fetched once.
//! 2. A secret for development tokens, unless the environment says who signs tokens.
//! 3. The four services ([`plan`]), each on its own loopback port with real gRPC between them: in
//!    this process ([`here`]), or each as a child ([`children`]).
//! 4. When all of them say that they are ready: addresses, a token, three calls to try.

mod children;
mod database;
mod greeting;
mod here;
mod plan;
mod secret;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use synap_rpc::Channel;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub use children::StartedAlone;
pub use plan::{Addresses, Plan};
pub use secret::DevSecret;

use crate::cli::Exit;

/// How long the services may take to get ready: migrations of a large database included.
const START_LIMIT: Duration = Duration::from_mins(2);

/// Run all of Synap storage on this machine until Ctrl-C: PostgreSQL, the four services, and local
/// blobs, with nothing installed and nothing configured.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  synapctl up\n  synapctl up --port-base 6000 --data-dir /tmp/second\n  \
                  DATABASE_URL=postgres://me@localhost/synap synapctl up\n  \
                  R2_ACCOUNT_ID=… R2_ACCESS_KEY_ID=… R2_SECRET_ACCESS_KEY=… R2_BUCKET_NAME=… synapctl up"
)]
pub struct UpArgs {
    /// Where PostgreSQL, blobs and the development secret are kept.
    #[arg(long, default_value = ".synap")]
    pub data_dir: PathBuf,
    /// First of six ports in a row: gateway gRPC, content, entity, event, gateway HTTP, signed URLs.
    /// 0 takes free ones. Without it: 50051 to 50054, 8080 for HTTP, and 50055 for signed URLs.
    #[arg(long)]
    pub port_base: Option<u16>,
    /// Run each service as a process of its own, and start it again if it dies.
    #[arg(long)]
    pub processes: bool,
    /// The database for all services; without it PostgreSQL is provided. ENTITY_DATABASE_URL and
    /// EVENT_DATABASE_URL give each its own.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Major version of the PostgreSQL that is fetched where none is installed: 18 or 16.
    #[arg(long, env = "SYNAP_EMBEDDED_PG", default_value_t = 18)]
    pub embedded_pg: u32,
}

/// Runs the command.
pub(crate) async fn up(args: UpArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let stop = synap_rpc::stop_signal();
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot create {}", args.data_dir.display()))?;
    let database = tokio::select! {
        provided = database::provide(&args) => provided?,
        () = stop.cancelled() => return Ok(Exit::Well),
    };
    let secret = DevSecret::unless_configured(&args.data_dir)?;

    let system = async {
        let plan = Plan::new(&args, &database, secret.as_ref())?;
        let system = if args.processes {
            children::start(plan, stop.clone())?
        } else {
            here::start(plan, stop.clone()).await?
        };
        let ready = wait_until_ready(&system.addresses);
        tokio::select! {
            ready = ready => {
                ready?;
                greeting::print(&args, &system.addresses, &database, secret.as_ref());
                println!("ready in {:.1} s; Ctrl-C stops everything", started.elapsed().as_secs_f64());
            }
            () = system.ended() => {}
        }
        database.keep(system.join()).await
    };
    let outcome = system.await;
    stop.cancel();
    database.stop().await;
    outcome?;
    println!("stopped");
    Ok(Exit::Well)
}

/// The running services.
pub struct System {
    /// Where they listen.
    pub addresses: Addresses,
    /// Cancelled when the system stops, whoever stops it.
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl System {
    fn new(addresses: Addresses, stop: CancellationToken) -> Self {
        Self { addresses, stop, tasks: JoinSet::new() }
    }

    /// Runs a part of the system. Its end, however it comes, is the end of all.
    fn spawn(&mut self, part: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let stop = self.stop.clone().drop_guard();
        self.tasks.spawn(async move {
            let _stop = stop;
            part.await
        });
    }

    /// Starts the services in this process.
    ///
    /// # Errors
    /// If a port is taken or a setting is wrong.
    pub async fn start_here(plan: Plan, stop: CancellationToken) -> anyhow::Result<Self> {
        here::start(plan, stop).await
    }

    /// Waits until every service says that it is ready.
    ///
    /// # Errors
    /// The names of those that are not after two minutes.
    pub async fn ready(&self) -> anyhow::Result<()> {
        wait_until_ready(&self.addresses).await
    }

    /// Waits for the system to stop: by Ctrl-C, or because a service failed.
    async fn ended(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until every service has drained. The first failure stops all.
    ///
    /// # Errors
    /// The first failure.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.context("a service panicked").and_then(|ended| ended);
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        outcome
    }
}

/// Asks every service, again and again, until all are ready.
async fn wait_until_ready(addresses: &Addresses) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    for (name, address) in addresses.services() {
        let channel = Channel::connect(name, &format!("http://{address}"))?;
        while !channel.is_ready().await {
            if Instant::now() > deadline {
                bail!("{name} is not ready after {START_LIMIT:?}; its log says why");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
