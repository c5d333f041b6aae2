//! What must hold before a phase is entered.

use std::{fmt, time::Duration};

use serde::Serialize;
use synap_proto::entity::{CheckPhaseRequest, Condition, StoragePhase};
use tokio::time::Instant;

use super::{Services, name, page};
use crate::{
    output::{Lines, Progress},
    patience::patiently,
};

/// Entities that a condition names.
const NAMED: usize = 20;
/// Of these, an entity has one at most: each is an object that is not known to be in step.
const OUT_OF_STEP: [&str; 3] = ["text_without_file", "file_unsound", "file_unchecked"];

/// A condition, of the whole installation.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    condition: String,
    holds: bool,
    /// Entities that it does not hold for.
    number: i64,
    /// Some of them.
    entity_ids: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { condition, holds, number, entity_ids, advice } = self;
        if *holds {
            return write!(f, "   ok  {condition}");
        }
        write!(f, "FAILS  {condition}: {number}; {advice}")?;
        for id in entity_ids {
            write!(f, "\n         {id}")?;
        }
        Ok(())
    }
}

/// All conditions of a phase.
pub(super) struct Checked {
    pub(super) verdicts: Vec<Verdict>,
    pub(super) entities: i64,
    pub(super) took: Duration,
}

impl Checked {
    /// The names of what does not hold; `None` if all is well.
    pub(super) fn failing(&self) -> Option<String> {
        let failing = self.verdicts.iter().filter(|verdict| !verdict.holds);
        let names: Vec<_> = failing.map(|verdict| verdict.condition.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    pub(super) fn print(&self, lines: &mut Lines) -> anyhow::Result<()> {
        self.verdicts.iter().try_for_each(|verdict| lines.print(verdict))
    }

    /// How many of a hundred entities are known to be in the store as their rows say.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 rows")]
    pub(super) fn sync_rate(&self) -> f64 {
        let out = self.verdicts.iter().filter(|v| OUT_OF_STEP.contains(&v.condition.as_str()));
        let out: i64 = out.map(|verdict| verdict.number).sum();
        100.0 * (1.0 - out as f64 / self.entities.max(1) as f64)
    }

    fn add(&mut self, found: Condition) {
        let known = self.verdicts.iter().position(|verdict| verdict.condition == found.name);
        let place = known.unwrap_or_else(|| {
            self.verdicts.push(Verdict {
                condition: found.name,
                holds: true,
                number: 0,
                entity_ids: Vec::new(),
                advice: String::new(),
            });
            self.verdicts.len() - 1
        });
        let verdict = &mut self.verdicts[place];
        if found.number > 0 {
            verdict.holds = false;
            verdict.number += found.number;
            verdict.advice = found.advice;
            verdict.entity_ids.extend(found.entity_ids);
            verdict.entity_ids.truncate(NAMED);
        }
    }
}

impl Services {
    /// Looks at the whole installation. Changes nothing.
    pub(super) async fn check(&self, to: StoragePhase) -> anyhow::Result<Checked> {
        let begun = Instant::now();
        let mut checked = Checked { verdicts: Vec::new(), entities: 0, took: Duration::ZERO };
        let reachable = self.content_channel.is_ready().await;
        checked.add(Condition {
            name: "store_reachable".to_owned(),
            number: i64::from(!reachable),
            entity_ids: Vec::new(),
            advice: "content-service is not ready: `content-service check` says why".to_owned(),
        });
        let (mut progress, what) = (Progress::new(), format!("check for {}", name(to)));
        let mut after_id = String::new();
        loop {
            let answer = patiently(|| async {
                let request = CheckPhaseRequest { to: to.into(), after_id: after_id.clone() };
                Ok(self.takeover.clone().check_phase(page(request)).await?.into_inner())
            })
            .await?;
            checked.entities += answer.seen;
            answer.conditions.into_iter().for_each(|condition| checked.add(condition));
            let total = answer.total.max(checked.entities);
            progress.show(&what, checked.entities, total, checked.entities);
            after_id = answer.next_after_id;
            if after_id.is_empty() {
                break;
            }
        }
        progress.clear();
        checked.took = begun.elapsed();
        Ok(checked)
    }
}
