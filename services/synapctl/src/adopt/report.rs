//! What `synapctl adopt` prints.

use std::fmt;

use serde::Serialize;
use synap_proto::entity as pb;

use crate::units::{bytes, grouped};

/// A number that may be an estimate, or unknown.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Amount {
    pub(crate) value: Option<i64>,
    pub(crate) about: bool,
}

impl From<Option<pb::Amount>> for Amount {
    fn from(amount: Option<pb::Amount>) -> Self {
        let amount = amount.unwrap_or_default();
        Self { value: amount.value, about: amount.about }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.value, self.about) {
            (Some(value), false) => grouped(value),
            (Some(value), true) => format!("about {}", grouped(value)),
            (None, _) => "not counted".to_owned(),
        };
        f.pad(&text)
    }
}

/// What is in the database.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    /// empty, legacy, migrating or adopted.
    state: String,
    postgres: String,
    pgvector: Option<String>,
    timescaledb: Option<String>,
    role: String,
    bytes: i64,
    tables: Vec<Table>,
    oddities: Vec<Oddity>,
    blockers: Vec<String>,
    steps: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Table {
    name: String,
    rows: Amount,
    bytes: i64,
    row_security: bool,
    policies: Vec<String>,
    owned: bool,
}

#[derive(Debug, Serialize)]
struct Oddity {
    name: String,
    description: String,
    count: Amount,
}

impl From<pb::InspectDatabaseResponse> for Found {
    fn from(found: pb::InspectDatabaseResponse) -> Self {
        let state = found.state().as_str_name().trim_start_matches("DATABASE_STATE_");
        let table = |table: pb::DatabaseTable| Table {
            name: table.name,
            rows: table.rows.into(),
            bytes: table.bytes,
            row_security: table.row_security,
            policies: table.policies,
            owned: table.owned,
        };
        let oddity = |oddity: pb::DatabaseOddity| Oddity {
            name: oddity.name,
            description: oddity.description,
            count: oddity.count.into(),
        };
        Self {
            state: state.to_lowercase(),
            postgres: found.server_version,
            pgvector: Some(found.vector_version).filter(|version| !version.is_empty()),
            timescaledb: Some(found.timescaledb_version).filter(|version| !version.is_empty()),
            role: found.role,
            bytes: found.database_bytes,
            tables: found.tables.into_iter().map(table).collect(),
            oddities: found.oddities.into_iter().map(oddity).collect(),
            blockers: found.blockers,
            steps: found.steps.into_iter().map(|step| step.description).collect(),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extension = |name: &str, version: &Option<String>| match version {
            Some(version) => format!(", {name} {version}"),
            None => String::new(),
        };
        writeln!(
            f,
            "PostgreSQL {}{}{}; {} as role {}",
            self.postgres,
            extension("pgvector", &self.pgvector),
            extension("TimescaleDB", &self.timescaledb),
            bytes(self.bytes),
            self.role
        )?;
        writeln!(f, "\n{:<20} {:>16} {:>10}  row security", "table", "rows", "size")?;
        for Table { name, rows, bytes: size, row_security, policies, owned } in &self.tables {
            let security = match (row_security, policies.as_slice()) {
                (false, _) => "off".to_owned(),
                (true, []) => "on, without a policy".to_owned(),
                (true, policies) => policies.join(", "),
            };
            let owned = if *owned { "" } else { " (not ours)" };
            writeln!(f, "{name:<20} {rows:>16} {:>10}  {security}{owned}", bytes(*size))?;
        }
        let mut odd =
            self.oddities.iter().filter(|oddity| oddity.count.value != Some(0)).peekable();
        if odd.peek().is_some() {
            writeln!(f, "\nodd, and in nobody's way:")?;
        }
        for Oddity { name, description, count } in odd {
            writeln!(f, "{count:>14}  {name:<18}  {description}")?;
        }
        if !self.blockers.is_empty() {
            writeln!(f, "\ncannot be adopted as it is:")?;
        }
        for blocker in &self.blockers {
            writeln!(f, "  - {blocker}")?;
        }
        match &*self.state {
            "adopted" => return write!(f, "\nnothing to do"),
            "empty" => {
                return write!(
                    f,
                    "\nnothing to do: it is empty, and entity-service migrates it by itself"
                );
            }
            _ => write!(f, "\nto do:")?,
        }
        for (number, step) in (1..).zip(&self.steps) {
            write!(f, "\n  {number}. {step}")?;
        }
        Ok(())
    }
}

/// A step that is done.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    step: String,
    done: String,
}

impl From<pb::AdoptDatabaseResponse> for Done {
    fn from(update: pb::AdoptDatabaseResponse) -> Self {
        let step = update.step.unwrap_or_default();
        Self { step: step.name, done: step.description }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "done: {}", self.done)
    }
}

/// The end.
#[derive(Debug, Serialize)]
pub(super) struct Adopted {
    pub(super) phase: &'static str,
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adopted; the storage phase is {}; ", self.phase)?;
        f.write_str(match self.phase {
            "legacy" => "next: synapctl adopt --phase dual_write",
            "dual_write" => "next: synapctl migrate content",
            _ => "an adoption changes no phase that late",
        })
    }
}
