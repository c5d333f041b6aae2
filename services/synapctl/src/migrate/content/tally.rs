//! What became of the entities.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use synap_proto::entity::Notable;
use tokio::time::Instant;

use super::{
    body::Ended,
    claims::{Asked, Looked},
};
use crate::output::Lines;

/// How a body got where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Migrated,
    /// V0.2 says that it is something else.
    MigratedAsMarkdown,
    /// It was there.
    AlreadyMigrated,
    /// It was changed while it was under way, and then went.
    ConflictRetried,
    /// The entity was purged meanwhile.
    Gone,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Migrated => "migrated",
            Self::MigratedAsMarkdown => "migrated_as_markdown",
            Self::AlreadyMigrated => "already_migrated",
            Self::ConflictRetried => "conflict_retried",
            Self::Gone => "gone",
        }
    }
}

/// An entity that needs a person.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) entity_id: String,
    pub(crate) user_id: String,
    pub(crate) outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entity_id, user_id, outcome, detail } = self;
        write!(f, "{entity_id} of {user_id}: {outcome} {detail}")
    }
}

impl From<Notable> for Failure {
    fn from(notable: Notable) -> Self {
        let Notable { entity_id, user_id, outcome, detail } = notable;
        Self { entity_id, user_id, outcome, detail }
    }
}

/// Counts of one run.
pub(crate) struct Tally {
    dry_run: bool,
    begun: Instant,
    entities: i64,
    outcomes: BTreeMap<String, i64>,
    /// Of this run.
    failures: u64,
    objects: u64,
    bytes: u64,
    /// Nothing is left.
    pub(super) done: bool,
}

impl Tally {
    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            begun: Instant::now(),
            entities: 0,
            outcomes: BTreeMap::new(),
            failures: 0,
            objects: 0,
            bytes: 0,
            done: false,
        }
    }

    /// How many entities were looked at.
    pub(super) fn entities(&self) -> i64 {
        self.entities
    }

    /// How many have failed now.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Whether somebody has to look at something.
    pub(super) fn findings(&self) -> bool {
        let is_odd = |name: &String| name == "skipped_elsewhere" || name.starts_with("failed:");
        self.outcomes.keys().any(is_odd)
    }

    /// What was found among entities.
    pub(super) fn looked(&mut self, looked: Looked, lines: &mut Lines) -> anyhow::Result<()> {
        let Looked { asked, entities, outcomes, notables } = looked;
        match asked {
            Asked::Next => self.entities += entities,
            Asked::Held(number) | Asked::Again(number) => self.count("gone", number - entities),
        }
        for (outcome, number) in outcomes {
            let well = outcome == "already_migrated" && matches!(asked, Asked::Again(_));
            self.count(if well { "conflict_retried" } else { &outcome }, number);
        }
        notables.into_iter().try_for_each(|one| lines.print(&Failure::from(one)))
    }

    /// A body came to its end.
    pub(super) fn ended(&mut self, ended: Ended, lines: &mut Lines) -> anyhow::Result<()> {
        match ended {
            Ended::Well(outcome, bytes) => {
                self.count(outcome.name(), 1);
                self.objects += u64::from(bytes > 0);
                self.bytes += bytes as u64;
            }
            Ended::Conflict => {}
            Ended::Failed(failure) => {
                self.count(&failure.outcome, 1);
                self.failures += 1;
                lines.print(&failure)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, outcome: &str, number: i64) {
        if number > 0 {
            *self.outcomes.entry(outcome.to_owned()).or_default() += number;
        }
    }

    pub(super) fn print_summary(&self, lines: &mut Lines) -> anyhow::Result<()> {
        let seconds = self.begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 objects")]
        let objects_per_second = self.objects as f64 / seconds.max(1e-3);
        lines.print(&Summary {
            dry_run: self.dry_run,
            done: self.done,
            outcomes: &self.outcomes,
            entities: self.entities,
            objects: self.objects,
            bytes: self.bytes,
            seconds,
            objects_per_second,
        })
    }
}

/// What became of all of them.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    dry_run: bool,
    /// Nothing is left to do, but for what needs a person.
    done: bool,
    outcomes: &'a BTreeMap<String, i64>,
    entities: i64,
    objects: u64,
    bytes: u64,
    seconds: f64,
    objects_per_second: f64,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (outcome, number) in self.outcomes {
            writeln!(f, "{number:>12}  {outcome}")?;
        }
        let Self { entities, objects, bytes, seconds, objects_per_second, .. } = self;
        writeln!(
            f,
            "{entities} entities in {seconds:.1} s; {objects} objects, {bytes} bytes, \
             {objects_per_second:.0} objects/s"
        )?;
        f.write_str(match (self.dry_run, self.done) {
            (true, _) => "nothing was changed",
            (false, false) => "there is more to do: the same command goes on",
            (false, true) => "all is migrated that can be",
        })
    }
}
