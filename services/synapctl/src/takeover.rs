//! From content_blocks to the object store, phase by phase, and back: `synapctl cutover`, `rollback`,
//! `drop-legacy` and `restore-legacy`.

mod backup;
mod check;
mod copy_back;
pub(crate) mod cutover;
pub(crate) mod drop_legacy;
pub(crate) mod restore_legacy;
pub(crate) mod rollback;

use std::{fmt, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;
use synap_proto::{
    content::content_service_client::ContentServiceClient,
    entity::{
        ChangeLegacyTableRequest, ChangeLegacyTableResponse, GetLegacyTableRequest,
        GetLegacyTableResponse, GetStorageStatusRequest, SetStoragePhaseRequest, StoragePhase,
        storage_service_client::StorageServiceClient,
        takeover_service_client::TakeoverServiceClient,
    },
};
use synap_rpc::{Channel, RpcError};
use tonic::{Code, Request};

use crate::{
    cli::Exit,
    output::Lines,
    patience::patiently,
    phase::name,
    services::{ContentUrl, EntityUrl},
};

/// One page may take so long: it hashes many bodies.
const PAGE_LIMIT: Duration = Duration::from_mins(5);
/// To restore a table is to build its indexes.
const STEP_LIMIT: Duration = Duration::from_hours(2);
/// A row of content_blocks as text.
const MAX_ROWS_BYTES: usize = 128 << 20;

/// Where the services are.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    entity: EntityUrl,
    #[command(flatten)]
    content: ContentUrl,
}

/// The services.
#[derive(Clone)]
struct Services {
    storage: StorageServiceClient<Channel>,
    takeover: TakeoverServiceClient<Channel>,
    content: ContentServiceClient<Channel>,
    content_channel: Channel,
}

impl ServiceArgs {
    fn connect(&self) -> anyhow::Result<Services> {
        let entity = self.entity.connect()?;
        let content = self.content.connect()?;
        Ok(Services {
            storage: StorageServiceClient::new(entity.clone()),
            takeover: TakeoverServiceClient::new(entity).max_decoding_message_size(MAX_ROWS_BYTES),
            content: ContentServiceClient::new(content.clone()),
            content_channel: content,
        })
    }
}

/// A request that may take as long as a page does.
fn page<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PAGE_LIMIT);
    request
}

impl Services {
    async fn phase(&self) -> Result<StoragePhase, RpcError> {
        let ask =
            || async { self.storage.clone().get_storage_status(GetStorageStatusRequest {}).await };
        Ok(patiently(ask).await?.into_inner().phase())
    }

    async fn change_phase(&self, from: StoragePhase, to: StoragePhase) -> Result<(), RpcError> {
        let request = SetStoragePhaseRequest { expected: from.into(), next: to.into() };
        patiently(|| async { self.storage.clone().set_storage_phase(request).await }).await?;
        Ok(())
    }

    async fn table(&self) -> Result<GetLegacyTableResponse, RpcError> {
        let ask =
            || async { self.takeover.clone().get_legacy_table(GetLegacyTableRequest {}).await };
        Ok(patiently(ask).await?.into_inner())
    }

    /// Takes a step; the reason where something is in the way.
    async fn change_table(
        &self,
        step: ChangeLegacyTableRequest,
    ) -> Result<Result<ChangeLegacyTableResponse, String>, RpcError> {
        let answer = patiently(|| async {
            let mut request = Request::new(step.clone());
            request.set_timeout(STEP_LIMIT);
            self.takeover.clone().change_legacy_table(request).await
        });
        match answer.await {
            Ok(answer) => Ok(Ok(answer.into_inner())),
            Err(error) if error.code == Code::FailedPrecondition => Ok(Err(error.message)),
            Err(error) => Err(error),
        }
    }
}

/// The phases in their order.
const WAY: [StoragePhase; 5] = [
    StoragePhase::Legacy,
    StoragePhase::DualWrite,
    StoragePhase::ObjectPrimary,
    StoragePhase::ObjectOnly,
    StoragePhase::LegacyDropped,
];

/// A phase on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Phase {
    Legacy,
    DualWrite,
    ObjectPrimary,
    ObjectOnly,
    LegacyDropped,
}

impl From<Phase> for StoragePhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Legacy => Self::Legacy,
            Phase::DualWrite => Self::DualWrite,
            Phase::ObjectPrimary => Self::ObjectPrimary,
            Phase::ObjectOnly => Self::ObjectOnly,
            Phase::LegacyDropped => Self::LegacyDropped,
        }
    }
}

/// How a command ended that wanted something of the installation.
#[derive(Debug, Serialize)]
struct Outcome {
    command: &'static str,
    /// The phase that the installation is in.
    phase: &'static str,
    /// Whether it was a rehearsal, or a dry run.
    rehearsal: bool,
    /// What is in the way, or is left to be seen to.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What was done, or would be.
    #[serde(skip_serializing_if = "String::is_empty")]
    done: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem.as_deref().unwrap_or(&self.done))?;
        let nothing = if self.rehearsal { "; nothing was changed" } else { "" };
        write!(f, "{nothing}\nthe installation is in {}", self.phase)
    }
}

impl Outcome {
    fn problem(command: &'static str, phase: StoragePhase, why: impl Into<String>) -> Self {
        let (phase, problem) = (name(phase), Some(why.into()));
        Self { command, phase, rehearsal: false, problem, done: String::new() }
    }

    fn done(command: &'static str, phase: StoragePhase, done: impl Into<String>) -> Self {
        Self { command, phase: name(phase), rehearsal: false, problem: None, done: done.into() }
    }

    fn rehearsal(self, rehearsal: bool) -> Self {
        Self { rehearsal, ..self }
    }

    fn print(self, lines: &mut Lines) -> anyhow::Result<Exit> {
        lines.print(&self)?;
        Ok(if self.problem.is_some() { Exit::Findings } else { Exit::Well })
    }
}

/// Runs a command until it ends or is told to stop: whatever it does can be begun again.
async fn until_stopped(work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let stop = synap_rpc::stop_signal();
    tokio::select! {
        () = stop.cancelled() => {
            eprintln!("\nsynapctl: stopped; the same command goes on");
            Ok(Exit::CouldNotRun)
        }
        outcome = work => outcome,
    }
}
