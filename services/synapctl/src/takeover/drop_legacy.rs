//! `synapctl drop-legacy`.

use std::{fmt, path::PathBuf};

use clap::Args;
use serde::Serialize;
use synap_proto::entity::{
    ChangeLegacyTableRequest, GetLegacyTableResponse, LegacyTableState, LegacyTableStep,
    StoragePhase,
};

use super::{Outcome, ServiceArgs, Services, backup::Backup, until_stopped};
use crate::{
    cli::Exit,
    output::{Lines, ReportArgs},
};

const COMMAND: &str = "drop-legacy";

/// Retire content_blocks. The first call, in object_only, backs the table up, reads the backup back,
/// gives the table another name and enters legacy_dropped; a later one drops it, when it has had that
/// name for long enough and the backup still is what the table holds. Exit code 1 if something is in
/// the way. It can be stopped at any moment, and goes on where it was.
///
/// The backup is plain SQL in compressed files: `zcat DIR/*.sql.gz | psql DATABASE` restores it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl drop-legacy --dry-run\n  \
                  synapctl drop-legacy --backup /backup/content_blocks\n  \
                  synapctl drop-legacy --backup /backup/content_blocks --after 30\n  \
                  synapctl drop-legacy --now --yes-i-have-a-backup")]
pub(crate) struct DropArgs {
    /// Directory of the backup. Where bodies of users are, nothing else is put into their store.
    #[arg(long, value_name = "DIR")]
    backup: Option<PathBuf>,
    /// MiB of rows in each of its files, before they are compressed.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    part_mib: u64,
    /// Days that the renamed table is kept at least.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=36_500))]
    after: i32,
    /// Drop the renamed table whatever its age, and without looking at a backup.
    #[arg(long, requires = "yes_i_have_a_backup", conflicts_with_all = ["after", "backup"])]
    now: bool,
    /// Needed for --now.
    #[arg(long, requires = "now")]
    yes_i_have_a_backup: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    services: ServiceArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the command.
pub(crate) async fn drop_legacy(args: DropArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let services = args.services.connect()?;
    until_stopped(services.retire(&args, &mut lines)).await
}

impl Services {
    async fn retire(&self, args: &DropArgs, lines: &mut Lines) -> anyhow::Result<Exit> {
        let phase = self.phase().await?;
        let table = self.table().await?;
        match table.state() {
            LegacyTableState::Dropped => {
                Outcome::done(COMMAND, phase, "content_blocks is dropped already").print(lines)
            }
            LegacyTableState::Renamed => self.drop_table(args, &table, phase, lines).await,
            LegacyTableState::Present | LegacyTableState::Unspecified => {
                self.rename_table(args, &table, phase, lines).await
            }
        }
    }

    async fn rename_table(
        &self,
        args: &DropArgs,
        table: &GetLegacyTableResponse,
        phase: StoragePhase,
        lines: &mut Lines,
    ) -> anyhow::Result<Exit> {
        let refuse = |why: String| Outcome::problem(COMMAND, phase, why).rehearsal(args.dry_run);
        let rename = |backup: &str, dry_run| ChangeLegacyTableRequest {
            step: LegacyTableStep::Rename.into(),
            backup: backup.to_owned(),
            dry_run,
            ..ChangeLegacyTableRequest::default()
        };
        if let Err(why) = self.change_table(rename("{}", true)).await? {
            return refuse(why).print(lines);
        }
        let checked = self.check(StoragePhase::ObjectOnly).await?;
        checked.print(lines)?;
        if let Some(failing) = checked.failing() {
            return refuse(format!("content_blocks is still needed, because of {failing}"))
                .print(lines);
        }
        if args.dry_run {
            let done = format!(
                "about {} rows, {} bytes, would be backed up; then content_blocks would be renamed, \
                 and legacy_dropped entered",
                table.rows, table.bytes
            );
            return Outcome::done(COMMAND, phase, done).rehearsal(true).print(lines);
        }
        let Some(directory) = &args.backup else {
            return refuse("it must be told where the backup goes: --backup DIR".to_owned())
                .print(lines);
        };
        let mut backup = Backup::open(directory, table, args.part_mib << 20)?;
        backup.write(self, table.rows).await?;
        backup.compare(self).await?;
        if let Err(why) = self.change_table(rename(&backup.manifest.summary(), false)).await? {
            return refuse(why).print(lines);
        }
        let written_since = self.compare_renamed(&mut backup).await?;
        lines.print(&Backed::of(&backup, written_since))?;
        let done = "content_blocks is backed up and renamed; the same command drops it when its time \
                    has come";
        Outcome::done(COMMAND, StoragePhase::LegacyDropped, done).print(lines)
    }

    /// Under its other name nobody writes to the table: what is the same now stays so.
    async fn compare_renamed(&self, backup: &mut Backup) -> anyhow::Result<usize> {
        let rewritten = backup.compare(self).await?;
        backup.manifest.compared_after_rename = true;
        backup.manifest.save(&backup.directory)?;
        Ok(rewritten)
    }

    async fn drop_table(
        &self,
        args: &DropArgs,
        table: &GetLegacyTableResponse,
        phase: StoragePhase,
        lines: &mut Lines,
    ) -> anyhow::Result<Exit> {
        let refuse = |why: String| Outcome::problem(COMMAND, phase, why).rehearsal(args.dry_run);
        let step = |dry_run| ChangeLegacyTableRequest {
            step: LegacyTableStep::Drop.into(),
            min_days: if args.now { 0 } else { args.after },
            dry_run,
            ..ChangeLegacyTableRequest::default()
        };
        // A call that ended after the rename has something left to do, whatever the table's age.
        if let Some(directory) = args.backup.as_ref().filter(|_| !args.dry_run) {
            let mut backup = Backup::open(directory, table, args.part_mib << 20)?;
            let written_since = self.compare_renamed(&mut backup).await?;
            lines.print(&Backed::of(&backup, written_since))?;
        }
        if let Err(why) = self.change_table(step(true)).await? {
            return refuse(why).print(lines);
        }
        if args.dry_run {
            let done = format!("{} bytes would be dropped", table.bytes);
            return Outcome::done(COMMAND, phase, done).rehearsal(true).print(lines);
        }
        if args.backup.is_none() && !args.now {
            let why = "its backup is read once more before it is dropped: --backup DIR";
            return refuse(why.to_owned()).print(lines);
        }
        if let Err(why) = self.change_table(step(false)).await? {
            return refuse(why).print(lines);
        }
        Outcome::done(COMMAND, phase, "content_blocks is dropped").print(lines)
    }
}

/// What the backup holds.
#[derive(Debug, Serialize)]
struct Backed {
    directory: String,
    rows: i64,
    parts: usize,
    /// Parts that were other than the table since the last look.
    rewritten: usize,
}

impl Backed {
    fn of(backup: &Backup, rewritten: usize) -> Self {
        let (rows, parts) = (backup.manifest.rows(), backup.manifest.parts.len());
        Self { directory: backup.directory.display().to_string(), rows, parts, rewritten }
    }
}

impl fmt::Display for Backed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, rows, parts, rewritten } = self;
        write!(f, "backup in {directory}: {rows} rows in {parts} files, read back and compared")?;
        if *rewritten > 0 {
            write!(f, "; {rewritten} written again: their rows had changed, or their files")?;
        }
        Ok(())
    }
}
