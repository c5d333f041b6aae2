//! The system under measurement: what `up` runs, on a database and a blob directory of its own.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use synap_auth::Secret;
use synap_postgres::{ProvideOptions, Provided};
use synap_proto::gateway::{CreateNoteRequest, note_service_client::NoteServiceClient};
use synap_rpc::Channel;
use synap_types::{SystemClock, UserId};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::{Request, metadata::AsciiMetadataValue};

use super::load::Done;
use crate::up::{Plan, System};

/// Callers that share a connection, as a client library would.
pub(super) const CALLERS_PER_CONNECTION: usize = 16;

/// A running system, and everything below it.
pub(super) struct BenchSystem {
    pub(super) database: Provided,
    pub(super) directory: TempDir,
    system: System,
    stop: CancellationToken,
    secret: Secret,
}

impl BenchSystem {
    /// Who calls.
    pub(super) const USER: &str = "bench";

    /// Starts PostgreSQL and the services, on a directory that goes with the benchmark.
    pub(super) async fn start() -> anyhow::Result<Self> {
        // Beside the build, not in /tmp: that may be memory, where fsync costs nothing.
        let directory = tempfile::Builder::new().prefix(".synap-bench-").tempdir_in(".")?;
        let options = ProvideOptions::new(directory.path().join("postgres"));
        let database = synap_postgres::provide(options, |line| eprintln!("{line}")).await?;
        eprintln!("{}", database.description());
        let secret = Secret::new("a secret of a benchmark that nobody else uses");
        let stop = CancellationToken::new();
        let plan = Plan::on_free_ports(directory.path(), database.url(), &secret)?;
        let system = System::start_here(plan, stop.clone()).await?;
        system.ready().await?;
        Ok(Self { database, directory, system, stop, secret })
    }

    /// A connection to the gateway.
    pub(super) fn gateway(&self) -> anyhow::Result<Channel> {
        Ok(Channel::connect("gateway", &format!("http://{}", self.system.addresses.gateway))?)
    }

    /// A connection to entity-service.
    pub(super) fn entity(&self) -> anyhow::Result<Channel> {
        Ok(Channel::connect("entity-service", &format!("http://{}", self.system.addresses.entity))?)
    }

    /// A connection to event-service.
    pub(super) fn event(&self) -> anyhow::Result<Channel> {
        Ok(Channel::connect("event-service", &format!("http://{}", self.system.addresses.event))?)
    }

    /// The call to measure.
    pub(super) fn create_note(
        &self,
        concurrency: usize,
        body: &str,
    ) -> anyhow::Result<impl Fn(usize) -> Done + Clone + Send + Sync + 'static> {
        let url = format!("http://{}", self.system.addresses.gateway);
        let connections = concurrency.div_ceil(CALLERS_PER_CONNECTION);
        let stubs: Vec<_> = (0..connections)
            .map(|_| Channel::connect("gateway", &url).map(NoteServiceClient::new))
            .collect::<Result<_, _>>()?;
        // As many users as callers: one alone has a limit.
        let headers: Vec<_> = (0..concurrency)
            .map(|worker| bearer_of(&self.secret, &format!("bench-{worker}")))
            .collect::<Result<_, _>>()?;
        let (stubs, body) = (Arc::new(stubs), body.to_owned());
        Ok(move |worker: usize| -> Done {
            let mut stub = stubs[worker % stubs.len()].clone();
            let content = body.clone();
            let mut request = Request::new(CreateNoteRequest { content, ..Default::default() });
            request.metadata_mut().insert("authorization", headers[worker % headers.len()].clone());
            Box::pin(async move {
                let answer = stub.create_note(request).await?;
                anyhow::ensure!(!answer.get_ref().event_pending, "an event is pending");
                Ok(())
            })
        })
    }

    /// The `authorization` of [`Self::USER`].
    pub(super) fn bearer(&self) -> anyhow::Result<AsciiMetadataValue> {
        bearer(&self.secret)
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.system.join().await?;
        self.database.stop().await;
        Ok(())
    }
}

/// A message as a request of the benchmark's user.
pub(super) fn request<T>(header: &AsciiMetadataValue, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", header.clone());
    request
}

/// The `authorization` of the benchmark's user.
pub(super) fn bearer(secret: &Secret) -> anyhow::Result<AsciiMetadataValue> {
    bearer_of(secret, BenchSystem::USER)
}

/// The `authorization` of a user.
pub(super) fn bearer_of(secret: &Secret, user: &str) -> anyhow::Result<AsciiMetadataValue> {
    let user = UserId::parse(user).context("a user of the benchmark")?;
    let token = synap_auth::issue_hs256(secret, &user, Duration::from_hours(24), &SystemClock);
    Ok(format!("Bearer {token}").parse()?)
}

/// Makes the tables of both services.
pub(super) async fn migrate(url: &str) -> anyhow::Result<()> {
    use synap_entity_service as entity;
    use synap_event_service as event;
    synap_postgres::migrate(url, &entity::MIGRATOR, entity::MIGRATION_TABLE).await?;
    synap_postgres::migrate(url, &event::MIGRATOR, event::MIGRATION_TABLE).await?;
    Ok(())
}
