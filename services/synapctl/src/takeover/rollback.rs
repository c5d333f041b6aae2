//! `synapctl rollback`.

use std::fmt;

use clap::Args;
use serde::Serialize;
use synap_proto::entity::StoragePhase::{
    self, DualWrite, Legacy, LegacyDropped, ObjectOnly, ObjectPrimary, Unspecified,
};

use super::{Outcome, Phase, ServiceArgs, Services, copy_back::Walked, name, until_stopped};
use crate::{
    cli::Exit,
    output::{Lines, ReportArgs},
};

const COMMAND: &str = "rollback";

/// Few enough bodies are left to be copied after the phase is changed.
const FEW: i64 = 100;
/// Walks before the phase is changed, at most: where users write faster than this copies, more of
/// them would not help.
const WALKS: usize = 5;

/// Go one storage phase back. Where the phase before reads content_blocks, or falls back on them, what
/// they lack is copied back from the object store first, while users go on, and once more after the
/// change: every body is what its last writer wrote. Exit code 1 if some cannot be copied. It can be
/// stopped at any moment and goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl rollback --rehearse\n  synapctl rollback")]
pub(crate) struct RollbackArgs {
    /// The phase to be in afterwards: the one before, or this one, if going back was interrupted.
    #[arg(long, value_enum)]
    to: Option<Phase>,
    /// Change nothing; count what is to be copied, and say how long it takes.
    #[arg(long)]
    rehearse: bool,
    #[command(flatten)]
    services: ServiceArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the command.
pub(crate) async fn rollback(args: RollbackArgs) -> anyhow::Result<Exit> {
    let mut lines = args.report.lines()?;
    let services = args.services.connect()?;
    let to = args.to.map(StoragePhase::from);
    until_stopped(services.roll_back(to, args.rehearse, &mut lines)).await
}

impl Services {
    async fn roll_back(
        &self,
        wanted: Option<StoragePhase>,
        rehearse: bool,
        lines: &mut Lines,
    ) -> anyhow::Result<Exit> {
        let from = self.phase().await?;
        let refuse = |why: &str| Outcome::problem(COMMAND, from, why).rehearsal(rehearse);
        let to = match from {
            _ if wanted == Some(from) => from,
            Legacy | Unspecified => return refuse("there is no phase before").print(lines),
            LegacyDropped => return refuse("`synapctl restore-legacy` comes first").print(lines),
            DualWrite => Legacy,
            ObjectPrimary => DualWrite,
            ObjectOnly => ObjectPrimary,
        };
        if wanted.is_some_and(|wanted| wanted != to) {
            return refuse(&format!("one phase after the other: {} is next", name(to)))
                .print(lines);
        }
        if rehearse {
            return rehearsed(from, to, &self.copy_back(true).await?, lines);
        }
        // dual_write reads the store, too, and falls back only on what is the same body: there is
        // nothing to wait for, and whoever goes there may have no store to read.
        let mut written = 0;
        if from != ObjectPrimary && from != to {
            let mut walked = Walked::default();
            for _ in 0..WALKS {
                walked = self.copy_back(false).await?;
                written += walked.written;
                if walked.written <= FEW {
                    break;
                }
            }
            if to == Legacy && walked.is_incomplete() {
                lines.print(&Walk::of(&walked, written))?;
                let why = "users would read other bodies in content_blocks than in the store: \
                           `synapctl verify` says which, and why";
                return refuse(why).print(lines);
            }
        }
        if from != to {
            self.change_phase(from, to).await?;
        }
        self.copy_the_rest(to, written, lines).await
    }

    /// From here on every write goes to content_blocks, too: what is left does not grow.
    async fn copy_the_rest(
        &self,
        to: StoragePhase,
        mut written: i64,
        lines: &mut Lines,
    ) -> anyhow::Result<Exit> {
        let mut before = 0;
        let walked = loop {
            let walked = self.copy_back(false).await?;
            written += walked.written;
            // A blob that cannot be read may be that of a body which was replaced meanwhile.
            if walked.lacking == walked.unreadable && [0, before].contains(&walked.lacking) {
                break walked;
            }
            before = walked.lacking;
        };
        lines.print(&Walk::of(&walked, written))?;
        let outcome = if walked.is_incomplete() {
            let why = "gone back, but content_blocks does not have every body: the store has them, \
                       as far as they can be read";
            Outcome::problem(COMMAND, to, why)
        } else {
            Outcome::done(COMMAND, to, "gone back; content_blocks has every body")
        };
        outcome.print(lines)
    }
}

impl Walked {
    fn is_incomplete(&self) -> bool {
        self.unreadable + self.unknown > 0
    }
}

fn rehearsed(
    from: StoragePhase,
    to: StoragePhase,
    walked: &Walked,
    lines: &mut Lines,
) -> anyhow::Result<Exit> {
    lines.print(&Walk::of(walked, 0))?;
    let (lacking, bytes) = (walked.lacking, walked.bytes);
    let done = format!(
        "would copy {lacking} bodies of {bytes} bytes back in about {:.0} s, and go back to {}",
        walked.estimate(),
        name(to)
    );
    let outcome = Outcome::done(COMMAND, from, done).rehearsal(true);
    let exit = outcome.print(lines)?;
    Ok(if walked.is_incomplete() { Exit::Findings } else { exit })
}

/// What was copied, and what could not be.
#[derive(Debug, Serialize)]
struct Walk<'a> {
    /// Entities that were looked at by the last walk.
    entities: i64,
    copied: i64,
    /// Whose blob is missing, damaged or no text.
    unreadable: i64,
    /// Whose content block was written behind our back, and is left as it is.
    unknown_blocks: i64,
    /// Some of those two.
    entity_ids: &'a [String],
}

impl<'a> Walk<'a> {
    fn of(walked: &'a Walked, copied: i64) -> Self {
        let Walked { entities, unreadable, unknown, named, .. } = walked;
        Self {
            entities: *entities,
            copied,
            unreadable: *unreadable,
            unknown_blocks: *unknown,
            entity_ids: named,
        }
    }
}

impl fmt::Display for Walk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entities, copied, unreadable, unknown_blocks, entity_ids } = self;
        write!(
            f,
            "{entities} entities; {copied} bodies copied, {unreadable} cannot be read, \
             {unknown_blocks} content blocks were written behind our back"
        )?;
        entity_ids.iter().try_for_each(|id| write!(f, "\n         {id}"))
    }
}
