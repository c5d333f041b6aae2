//! `synapctl restore-legacy`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use synap_proto::entity::{
    ChangeLegacyTableRequest, ImportContentBlocksRequest, LegacyTableState, LegacyTableStep,
    StoragePhase,
};
use synap_rpc::RpcError;
use tonic::Code;
use uuid::Uuid;

use super::{
    Outcome, ServiceArgs, Services,
    backup::{Backup, Part, Reader},
    page, until_stopped,
};
use crate::{
    cli::Exit,
    output::{Lines, Progress, ReportArgs},
    patience::patiently,
};

const COMMAND: &str = "restore-legacy";

/// Bytes of rows in one call, or one row.
const CHUNK_BYTES: usize = 4 << 20;

/// Bring content_blocks back, and go back to object_only. While the table only has another name, it
/// gets its own; after it was dropped, its rows come from the backup, and are compared with it. What
/// was written since is not in it: `synapctl rollback` copies that back. It can be stopped at any
/// moment, and goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl restore-legacy\n  \
                  synapctl restore-legacy --backup /backup/content_blocks")]
pub(crate) struct RestoreArgs {
    /// Directory of the backup, if the table is dropped.
    #[arg(long, value_name = "DIR")]
    backup: Option<PathBuf>,
    /// Only say what would be done; reads the backup.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    services: ServiceArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the command.
pub(crate) async fn restore_legacy(args: RestoreArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let services = args.services.connect()?;
    until_stopped(services.restore(&args, &mut lines)).await
}

impl Services {
    async fn restore(&self, args: &RestoreArgs, lines: &mut Lines) -> anyhow::Result<Exit> {
        let phase = self.phase().await?;
        let table = self.table().await?;
        if phase != StoragePhase::LegacyDropped && table.state() == LegacyTableState::Present {
            return Outcome::done(COMMAND, phase, "content_blocks is in its place").print(lines);
        }
        if table.state() == LegacyTableState::Dropped {
            let Some(directory) = &args.backup else {
                let why = "content_blocks is dropped, and comes back from its backup: --backup DIR";
                return Outcome::problem(COMMAND, phase, why).print(lines);
            };
            let backup = Backup::existing(directory, &table)?;
            self.import(&backup, args.dry_run).await?;
            if args.dry_run {
                let done = format!("{} rows would be imported", backup.manifest.rows());
                return Outcome::done(COMMAND, phase, done).rehearsal(true).print(lines);
            }
        }
        let step = ChangeLegacyTableRequest {
            step: LegacyTableStep::Restore.into(),
            dry_run: args.dry_run,
            ..ChangeLegacyTableRequest::default()
        };
        let purged = match self.change_table(step).await? {
            Ok(answer) => answer.purged_rows,
            Err(why) => return Outcome::problem(COMMAND, phase, why).print(lines),
        };
        if args.dry_run {
            let done = "content_blocks would get its name back, and object_only be entered";
            return Outcome::done(COMMAND, phase, done).rehearsal(true).print(lines);
        }
        let done = format!(
            "content_blocks is back; {purged} of its rows were of entities that are purged. What was \
             written since is not in it: `synapctl rollback` copies that back"
        );
        Outcome::done(COMMAND, StoragePhase::ObjectOnly, done).print(lines)
    }

    /// Imports the parts that are not there yet, and compares each with the backup.
    async fn import(&self, backup: &Backup, dry_run: bool) -> anyhow::Result<()> {
        let (mut progress, mut done) = (Progress::new(), 0);
        for part in &backup.manifest.parts {
            let path = backup.directory.join(&part.file);
            if dry_run {
                self.import_part(&path, part, true).await?;
            } else if !self.is_imported(part).await? {
                self.import_part(&path, part, false).await?;
                if !self.is_imported(part).await? {
                    bail!("{} was imported, and the table holds something else", part.file);
                }
            }
            done += part.rows;
            progress.show("import", done, backup.manifest.rows(), done);
        }
        progress.clear();
        Ok(())
    }

    /// Before the first part there is no table.
    async fn is_imported(&self, part: &Part) -> anyhow::Result<bool> {
        match self.has_rows(part).await {
            Err(error) => match error.downcast_ref::<RpcError>() {
                Some(error) if error.code == Code::FailedPrecondition => Ok(false),
                _ => Err(error),
            },
            there => there,
        }
    }

    async fn import_part(&self, path: &Path, part: &Part, dry_run: bool) -> anyhow::Result<()> {
        let mut reader = Reader::open(path)?;
        let (mut after_id, mut data) = (part.after_id.clone(), Vec::new());
        let mut last_id = after_id.clone();
        while let Some(row) = reader.next().with_context(|| part.file.clone())? {
            last_id = id_of(row).with_context(|| part.file.clone())?;
            data.extend_from_slice(row);
            if data.len() >= CHUNK_BYTES {
                let rows = std::mem::take(&mut data);
                if !dry_run {
                    self.import_rows(&after_id, &last_id, rows).await?;
                }
                after_id.clone_from(&last_id);
            }
        }
        if !dry_run && last_id != part.after_id {
            // Up to the part's end: a row that is not in the backup must not be there.
            self.import_rows(&after_id, &part.last_id, data).await?;
        }
        reader.check(part)
    }

    async fn import_rows(
        &self,
        after_id: &str,
        last_id: &str,
        data: Vec<u8>,
    ) -> Result<(), RpcError> {
        let (after_id, last_id) = (after_id.to_owned(), last_id.to_owned());
        let request = ImportContentBlocksRequest { after_id, last_id, data: Bytes::from(data) };
        patiently(|| async {
            self.takeover.clone().import_content_blocks(page(request.clone())).await
        })
        .await?;
        Ok(())
    }
}

/// The key is the first column.
fn id_of(row: &[u8]) -> anyhow::Result<String> {
    let key = row.split(|&byte| byte == b'\t').next().unwrap_or_default();
    Ok(Uuid::try_parse_ascii(key)?.to_string())
}
