//! `synapctl cutover`.

use std::fmt;

use clap::Args;
use serde::Serialize;
use synap_proto::entity::StoragePhase;

use super::{Outcome, Phase, ServiceArgs, Services, WAY, check::Checked, name, until_stopped};
use crate::{
    cli::Exit,
    output::{Lines, ReportArgs},
};

const COMMAND: &str = "cutover";

/// Enter the next storage phase, if everything is where that phase looks for it. Every condition is
/// decided from the rows as they are, before the change and once more after it; exit code 1 if one
/// does not hold, and then it says what to run. Users go on all the while.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl cutover --to object_primary --rehearse\n  \
                  synapctl cutover --to object_primary")]
pub(crate) struct CutoverArgs {
    /// The phase to enter; the one after that which the installation is in.
    #[arg(long, value_enum)]
    to: Phase,
    /// Do everything but the change, and say what would happen.
    #[arg(long)]
    rehearse: bool,
    #[command(flatten)]
    services: ServiceArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the command.
pub(crate) async fn cutover(args: CutoverArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let services = args.services.connect()?;
    until_stopped(services.cut_over(args.to.into(), args.rehearse, &mut lines)).await
}

impl Services {
    async fn cut_over(
        &self,
        to: StoragePhase,
        rehearse: bool,
        lines: &mut Lines,
    ) -> anyhow::Result<Exit> {
        let from = self.phase().await?;
        if let Some(outcome) = way_is_wrong(from, to) {
            return outcome.print(lines);
        }
        let checked = self.check(to).await?;
        checked.print(lines)?;
        if to != StoragePhase::DualWrite {
            lines.print(&Summary::of(&checked))?;
        }
        if let Some(failing) = checked.failing() {
            let why = format!("{} is not entered, because of {failing}", name(to));
            return Outcome::problem(COMMAND, from, why).rehearsal(rehearse).print(lines);
        }
        if rehearse {
            let done = format!(
                "{} would be entered, which takes a moment, and then be checked again, which took \
                 {:.1} s",
                name(to),
                checked.took.as_secs_f64()
            );
            return Outcome::done(COMMAND, from, done).rehearsal(true).print(lines);
        }
        self.change_phase(from, to).await?;
        self.check_again(from, to, lines).await
    }

    /// For what came while the first look was at other rows.
    async fn check_again(
        &self,
        from: StoragePhase,
        to: StoragePhase,
        lines: &mut Lines,
    ) -> anyhow::Result<Exit> {
        let checked = self.check(to).await?;
        let Some(failing) = checked.failing() else {
            let done = format!("{} is entered", name(to));
            return Outcome::done(COMMAND, to, done).print(lines);
        };
        checked.print(lines)?;
        if to == StoragePhase::ObjectPrimary {
            // Both places are written in both phases: one step back is nothing but that.
            self.change_phase(to, from).await?;
            let why = format!("{failing} did not hold any more when it was entered: gone back");
            return Outcome::problem(COMMAND, from, why).print(lines);
        }
        let why = format!(
            "{} is entered, but {failing} did not hold any more; content_blocks has what it had: see \
             to it, or `synapctl rollback`",
            name(to)
        );
        Outcome::problem(COMMAND, to, why).print(lines)
    }
}

/// One step forward, and not the last: that one is another command's.
fn way_is_wrong(from: StoragePhase, to: StoragePhase) -> Option<Outcome> {
    let place = |phase| WAY.iter().position(|&one| one == phase).unwrap_or_default();
    let (here, there) = (place(from), place(to));
    if here == there {
        return Some(Outcome::done(COMMAND, from, "nothing to do"));
    }
    let why = if there < here {
        "that is behind: `synapctl rollback` goes one phase back".to_owned()
    } else if there == here + 1 {
        if to != StoragePhase::LegacyDropped {
            return None;
        }
        "`synapctl drop-legacy` enters legacy_dropped, with a backup".to_owned()
    } else {
        let steps: Vec<_> = WAY[here + 1..=there].iter().map(|&phase| name(phase)).collect();
        format!("one phase after the other: {}", steps.join(", "))
    };
    Some(Outcome::problem(COMMAND, from, why))
}

/// What was looked at.
#[derive(Debug, Serialize)]
struct Summary {
    entities: i64,
    /// Of a hundred, those that are in the store as their rows say.
    sync_rate: f64,
    seconds: f64,
}

impl Summary {
    fn of(checked: &Checked) -> Self {
        let (entities, sync_rate) = (checked.entities, checked.sync_rate());
        Self { entities, sync_rate, seconds: checked.took.as_secs_f64() }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entities, sync_rate, seconds } = self;
        write!(f, "{entities} entities, sync rate {sync_rate:.2} %, in {seconds:.1} s")
    }
}
