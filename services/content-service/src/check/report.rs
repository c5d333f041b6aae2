//! What a check found.

use std::{fmt, process::ExitCode};

use serde::Serialize;

/// The steps of a check, in their order.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which store.
    store: String,
    steps: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    step: &'static str,
    outcome: Outcome,
    /// What was seen, or what is wrong and what to do.
    says: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    Failed,
    NotTried,
}

impl Report {
    pub(super) fn new(store: String) -> Self {
        Self { store, steps: Vec::new() }
    }

    pub(super) fn ok(&mut self, step: &'static str, says: impl Into<String>) {
        self.steps.push(Line { step, outcome: Outcome::Ok, says: says.into() });
    }

    pub(super) fn failed(&mut self, step: &'static str, says: impl Into<String>) {
        self.steps.push(Line { step, outcome: Outcome::Failed, says: says.into() });
    }

    pub(super) fn not_tried(&mut self, step: &'static str) {
        let says = "not tried: nothing was written".to_owned();
        self.steps.push(Line { step, outcome: Outcome::NotTried, says });
    }

    /// Whether every step succeeded.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.steps.iter().all(|step| step.outcome == Outcome::Ok)
    }

    /// What went wrong: the step, and what it says.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let failed = self.steps.iter().filter(|step| step.outcome == Outcome::Failed);
        failed.map(|step| (step.step, step.says.as_str()))
    }

    /// The process's exit code: 0 all well, 1 findings.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(u8::from(!self.is_well()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.store)?;
        for Line { step, outcome, says } in &self.steps {
            let mark = match outcome {
                Outcome::Ok => '✓',
                Outcome::Failed => '✗',
                Outcome::NotTried => '–',
            };
            writeln!(f, "{mark} {step:<16} {says}")?;
        }
        Ok(())
    }
}
