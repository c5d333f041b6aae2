//! `synapctl adopt`: a database of V0.2, while it is in use.

mod report;

use std::time::Duration;

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use synap_proto::{
    entity::{
        AdoptDatabaseRequest, AdoptDatabaseResponse, DatabaseState, GetStorageStatusRequest,
        InspectDatabaseRequest, InspectDatabaseResponse, SetStoragePhaseRequest, StoragePhase,
        adoption_service_client::AdoptionServiceClient,
        storage_service_client::StorageServiceClient,
    },
    reason,
};
use synap_rpc::{Channel, RpcError};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    cli::Exit,
    output::{Lines, Progress, ReportArgs},
    patience::{AWAY_LIMIT, AWAY_PAUSE, patiently},
    phase,
    services::{ContentUrl, EntityUrl},
};
use report::{Adopted, Done, Found};

/// A look at a database may take so long: some counts, of ten seconds at most.
const INSPECT_LIMIT: Duration = Duration::from_mins(2);
/// A call for the adoption ends after so long, and the next one goes on.
const ADOPT_LIMIT: Duration = Duration::from_mins(30);

/// Take over a database of V0.2 that is in use.
///
/// Says what is in it and what is to be done, brings it to the newest migration, in place and without
/// anybody waiting, and enters a storage phase. It can be stopped and repeated at any moment. Exit
/// code 1 if something must be changed first.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  synapctl adopt --dry-run --report adopt.ndjson\n  synapctl adopt\n  \
                  synapctl adopt --phase dual_write"
)]
pub struct AdoptArgs {
    #[command(flatten)]
    entity: EntityUrl,
    #[command(flatten)]
    content: ContentUrl,
    /// Only say what is in the database and what would be done. Nothing is changed.
    #[arg(long)]
    dry_run: bool,
    /// The storage phase to enter: where bodies are written. An installation that is further stays
    /// where it is.
    #[arg(long, value_enum, default_value_t = Phase::Legacy)]
    phase: Phase,
    #[command(flatten)]
    report: ReportArgs,
}

/// A phase that an adopted database begins in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Phase {
    /// To content_blocks only, as V0.2 does.
    Legacy,
    /// To the object store, too.
    DualWrite,
}

/// Runs the command.
pub(crate) async fn adopt(args: AdoptArgs) -> anyhow::Result<Exit> {
    let stop = synap_rpc::stop_signal();
    tokio::select! {
        () = stop.cancelled() => {
            eprintln!("\nsynapctl: stopped; PostgreSQL ends the statement that it is at, and the \
                       same command goes on from there");
            Ok(Exit::CouldNotRun)
        }
        outcome = take_over(&args) => outcome,
    }
}

async fn take_over(args: &AdoptArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let entity = args.entity.connect()?;
    if args.phase == Phase::DualWrite {
        let content = args.content.connect()?;
        ensure!(
            content.is_ready().await,
            "content-service at {} is not there, or its store cannot be used: dual_write would \
             fail every write; its log says why, and nothing was changed",
            args.content.content_url
        );
    }
    let found = inspect(&entity).await?;
    let state = found.state();
    let blocked = !found.blockers.is_empty();
    lines.print(&Found::from(found))?;
    if blocked {
        return Ok(Exit::Findings);
    }
    if args.dry_run || state == DatabaseState::Empty {
        return Ok(Exit::Well);
    }
    carry_out(&entity, &mut lines).await?;
    let phase = enter(&entity, args.phase).await?;
    lines.print(&Adopted { phase: phase::name(phase) })?;
    Ok(Exit::Well)
}

async fn inspect(entity: &Channel) -> Result<InspectDatabaseResponse, RpcError> {
    patiently(|| async {
        let mut call = tonic::Request::new(InspectDatabaseRequest {});
        call.set_timeout(INSPECT_LIMIT);
        let answer = AdoptionServiceClient::new(entity.clone()).inspect_database(call).await?;
        Ok(answer.into_inner())
    })
    .await
}

/// All steps, called again whenever a call has ended before them.
async fn carry_out(entity: &Channel, lines: &mut Lines) -> anyhow::Result<()> {
    let mut following = Following { lines, heard: Instant::now(), progress: Progress::new() };
    loop {
        let Err(error) = following.one_call(entity).await? else { return Ok(()) };
        match error.code {
            // PostgreSQL goes on with what it is at; the next call waits for that.
            Code::DeadlineExceeded => {}
            Code::Unavailable if following.heard.elapsed() < AWAY_LIMIT => {
                tokio::time::sleep(AWAY_PAUSE).await;
            }
            _ => bail!("{error}"),
        }
    }
}

/// An adoption that is listened to.
struct Following<'a> {
    lines: &'a mut Lines,
    heard: Instant,
    /// Of the step that is under way.
    progress: Progress,
}

impl Following<'_> {
    /// One call, to its end or to the error that ended it.
    async fn one_call(&mut self, entity: &Channel) -> anyhow::Result<Result<(), RpcError>> {
        let mut call = tonic::Request::new(AdoptDatabaseRequest {});
        call.set_timeout(ADOPT_LIMIT);
        let answer = AdoptionServiceClient::new(entity.clone()).adopt_database(call).await;
        let mut updates = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status.into())),
        };
        loop {
            match updates.message().await {
                Ok(Some(update)) => self.hear(update)?,
                Ok(None) => return Ok(Ok(())),
                Err(status) => return Ok(Err(status.into())),
            }
        }
    }

    fn hear(&mut self, update: AdoptDatabaseResponse) -> anyhow::Result<()> {
        self.heard = Instant::now();
        if update.finished {
            self.progress.clear();
            self.progress = Progress::new();
            return self.lines.print(&Done::from(update));
        }
        let step = update.step.unwrap_or_default().description;
        if !update.waiting_for.is_empty() {
            self.progress.say(&format!("{step}: waits for {}", update.waiting_for));
        } else if update.total > 0 {
            self.progress.show(&step, update.done, update.total, update.done);
        } else {
            self.progress.say(&format!("{step}: {}", update.done));
        }
        Ok(())
    }
}

/// Enters the phase, unless the installation is in it or further; answers which one it is in.
async fn enter(entity: &Channel, wanted: Phase) -> Result<StoragePhase, RpcError> {
    let storage = StorageServiceClient::new(entity.clone());
    let status = once_adopted(|| async {
        Ok(storage.clone().get_storage_status(GetStorageStatusRequest {}).await?.into_inner())
    })
    .await?;
    if status.phase() != StoragePhase::Legacy || wanted == Phase::Legacy {
        return Ok(status.phase());
    }
    let (expected, next) = (StoragePhase::Legacy, StoragePhase::DualWrite);
    once_adopted(|| async {
        let request = SetStoragePhaseRequest { expected: expected.into(), next: next.into() };
        Ok(storage.clone().set_storage_phase(request).await?.into_inner())
    })
    .await?;
    Ok(next)
}

/// As [`patiently`], and with replicas that have not noticed yet.
async fn once_adopted<T, F>(mut call: impl FnMut() -> F) -> Result<T, RpcError>
where
    F: Future<Output = Result<T, tonic::Status>>,
{
    let begun = Instant::now();
    loop {
        match patiently(&mut call).await {
            Err(error) if error.reason == reason::NOT_ADOPTED && begun.elapsed() < AWAY_LIMIT => {
                tokio::time::sleep(AWAY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
