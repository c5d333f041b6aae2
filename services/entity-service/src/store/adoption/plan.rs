//! What is left to do, found out from what is there: so every step can be repeated, and a killed
//! adoption goes on where it was.

use sqlx::PgConnection;

use super::{
    indexes::{self, Wanted},
    widen,
};
use crate::{
    domain::{DatabaseState, Step},
    error::Error,
    service::{MIGRATION_TABLE, MIGRATOR},
};

/// The columns of early V0.3, as migration 0001 adds them. It adds the check together with its
/// column, and then PostgreSQL reads all rows with everybody locked out.
pub(super) const ADD_COLUMNS: &str = "
    ALTER TABLE entities
        ADD COLUMN IF NOT EXISTS file_url text,
        ADD COLUMN IF NOT EXISTS file_path text,
        ADD COLUMN IF NOT EXISTS file_size bigint,
        ADD COLUMN IF NOT EXISTS checksum text;
    DO $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'entities'::regclass
                       AND attname = 'file_type' AND NOT attisdropped) THEN
            ALTER TABLE entities ADD COLUMN file_type text,
                ADD CONSTRAINT entities_file_type_check CHECK
                    (file_type IN ('markdown', 'pdf', 'audio', 'video', 'image')) NOT VALID;
        END IF;
    END
    $$";

const MISSING_COLUMNS: &str = "
    SELECT name FROM unnest(ARRAY['file_url', 'file_path', 'file_size', 'file_type', 'checksum'])
        AS w (name)
    WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('entities')
                      AND attname = name AND NOT attisdropped)";

/// Reads all rows while writers go on.
pub(super) const CHECK_FILE_TYPE: &str =
    "ALTER TABLE entities VALIDATE CONSTRAINT entities_file_type_check";

const IS_UNCHECKED: &str = "
    SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass('entities')
                   AND conname = 'entities_file_type_check' AND NOT convalidated)";

/// One thing to do.
#[derive(Debug, Clone)]
pub(super) enum Todo {
    AddColumns(Vec<String>),
    CheckFileType,
    WidenFileSize,
    Build(Wanted),
    Migrate(usize),
}

impl Todo {
    /// As an operator reads it.
    pub(super) fn step(&self) -> Step {
        let (name, description) = match self {
            Self::AddColumns(names) => ("columns", format!("add {} to entities", names.join(", "))),
            Self::CheckFileType => ("file_type", "check entities.file_type".to_owned()),
            Self::WidenFileSize => (
                "file_size",
                "make entities.file_size a bigint: a second column, filled in batches, takes its \
                 place"
                    .to_owned(),
            ),
            Self::Build(index) => return index.step(),
            Self::Migrate(count) => ("migrations", format!("apply {count} migrations")),
        };
        Step { name, description }
    }
}

/// In the order in which it is done.
pub(super) async fn steps(
    connection: &mut PgConnection,
    state: DatabaseState,
) -> Result<Vec<Todo>, Error> {
    let mut steps = Vec::new();
    if state == DatabaseState::Legacy {
        let columns: Vec<String> =
            sqlx::query_scalar(MISSING_COLUMNS).fetch_all(&mut *connection).await?;
        let has_type = !columns.iter().any(|name| name == "file_type");
        if !columns.is_empty() {
            steps.push(Todo::AddColumns(columns));
        }
        if !has_type || sqlx::query_scalar(IS_UNCHECKED).fetch_one(&mut *connection).await? {
            steps.push(Todo::CheckFileType);
        }
        if widen::is_needed(connection).await? {
            steps.push(Todo::WidenFileSize);
        }
        steps.extend(indexes::missing(connection).await?.into_iter().map(Todo::Build));
    }
    if state != DatabaseState::Adopted {
        let applied = applied(connection).await?.len();
        steps.push(Todo::Migrate(MIGRATOR.iter().count().saturating_sub(applied)));
    }
    Ok(steps)
}

/// The numbers of the migrations that are applied.
pub(super) async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, Error> {
    let is_there = "SELECT to_regclass($1) IS NOT NULL";
    if !sqlx::query_scalar(is_there).bind(MIGRATION_TABLE).fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    // MIGRATION_TABLE.
    let applied = "SELECT version FROM _entity_migrations WHERE success";
    Ok(sqlx::query_scalar(applied).fetch_all(connection).await?)
}
