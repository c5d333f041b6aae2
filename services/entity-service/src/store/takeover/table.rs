//! The end of content_blocks: first its name, then, much later, the table itself; and back.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::{
    estimate,
    shape::{columns_of, kept_shape, shape},
};
use crate::{
    domain::{LegacyTable, Phase, TableState, TableStep},
    error::Error,
    store::{Store, phase},
};

const PRESENT: &str = "content_blocks";
const RENAMED: &str = "content_blocks_retired";
/// Where rows are imported, until it gets the name.
pub(super) const RESTORED: &str = "content_blocks_restored";

const KEEP: &str = "
    UPDATE legacy_content
    SET renamed_at = clock_timestamp(), dropped_at = NULL, backup = $1::jsonb, columns = $2,
        definition = $3, finish = $4, attach = $5";

const OLD_ENOUGH: &str = "
    SELECT coalesce(renamed_at <= clock_timestamp() - make_interval(days => $1), $1 = 0)
    FROM legacy_content";

impl Store {
    /// What there is of content_blocks.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.takeover.table", skip_all, err(level = "debug"))]
    pub async fn legacy_table(&self) -> Result<LegacyTable, Error> {
        let mut connection = self.database.across_users().await?;
        let state = state(&mut connection).await?;
        let (name, shape) = match state {
            TableState::Present => (PRESENT, shape(&mut connection).await?),
            TableState::Renamed => (RENAMED, kept_shape(&mut connection).await?),
            TableState::Dropped => (RESTORED, kept_shape(&mut connection).await?),
        };
        let row = sqlx::query(
            "SELECT installation, renamed_at, backup::text, current_setting('server_version') AS version,
                    coalesce(pg_total_relation_size(to_regclass($1)), 0) AS bytes
             FROM legacy_content",
        )
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
        Ok(LegacyTable {
            state,
            rows: estimate(&mut connection, name).await?,
            bytes: row.try_get("bytes")?,
            renamed_at: row.try_get("renamed_at")?,
            shape,
            server_version: row.try_get("version")?,
            backup: row.try_get("backup")?,
            installation: row.try_get("installation")?,
        })
    }

    /// Takes a step, as a whole or not at all, and tells how many restored rows were of entities that
    /// are gone. A step that was taken can be repeated.
    ///
    /// # Errors
    /// [`Error::LegacyNotReady`] says what is in the way.
    #[tracing::instrument(name = "db.takeover.step", skip_all, err(level = "debug"))]
    pub async fn change_table(&self, step: TableStep, dry_run: bool) -> Result<u64, Error> {
        let database = self.database.clone();
        let work = async move {
            let mut transaction = database.begin_across_users().await?;
            let ready = match &step {
                TableStep::Rename { backup } => {
                    rename(&mut transaction, backup, dry_run).await.map(|()| 0)
                }
                TableStep::Drop { min_days } => {
                    drop(&mut transaction, *min_days, dry_run).await.map(|()| 0)
                }
                TableStep::Restore if dry_run => can_be_restored(&mut transaction).await,
                TableStep::Restore => {
                    if name_restored(&mut transaction).await? {
                        // The rest must not wait, and keep others waiting, for this.
                        transaction.commit().await?;
                        transaction = database.begin_across_users().await?;
                    }
                    restore(&mut transaction).await
                }
            };
            let rows = ready.map_err(in_use)?;
            transaction.commit().await?;
            Ok(rows)
        };
        // Whoever asked may leave: it ends by itself.
        tokio::spawn(work).await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }
}

pub(super) fn refused<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::LegacyNotReady(why.into()))
}

/// Nobody else is kept waiting for a lock that somebody holds.
fn in_use(error: Error) -> Error {
    match &error {
        Error::Database(cause)
            if cause.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref()
                == Some("55P03") =>
        {
            let why = "somebody holds a table; nothing was changed, try again";
            Error::LegacyNotReady(why.to_owned())
        }
        _ => error,
    }
}

pub(super) async fn state(connection: &mut PgConnection) -> Result<TableState, Error> {
    Ok(match first_of(connection, &[PRESENT, RENAMED]).await? {
        Some(PRESENT) => TableState::Present,
        Some(_) => TableState::Renamed,
        None => TableState::Dropped,
    })
}

/// The table that holds the rows, and its columns.
pub(super) async fn to_read(
    connection: &mut PgConnection,
) -> Result<(&'static str, Vec<String>), Error> {
    match first_of(connection, &[PRESENT, RENAMED, RESTORED]).await? {
        Some(name) => Ok((name, columns_of(connection, name).await?)),
        None => refused("content_blocks is dropped: there are no rows"),
    }
}

async fn first_of(
    connection: &mut PgConnection,
    names: &[&'static str],
) -> Result<Option<&'static str>, Error> {
    for name in names {
        let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
        if there {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

async fn run(connection: &mut PgConnection, statement: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

async fn rename(connection: &mut PgConnection, backup: &str, dry_run: bool) -> Result<(), Error> {
    if !dry_run {
        phase::lock(connection).await?;
    }
    let phase = phase::find(connection).await?;
    match state(connection).await? {
        _ if !matches!(phase, Phase::ObjectOnly | Phase::LegacyDropped) => refused(format!(
            "content_blocks is written in {}: `synapctl cutover --to object_only` comes first",
            phase.name()
        )),
        TableState::Dropped => refused("content_blocks is dropped already"),
        _ if dry_run => Ok(()),
        TableState::Present => {
            let shape = shape(connection).await?;
            sqlx::query(KEEP)
                .bind(backup)
                .bind(shape.columns)
                .bind(shape.definition)
                .bind(shape.finish)
                .bind(shape.attach)
                .execute(&mut *connection)
                .await?;
            run(connection, format!("ALTER TABLE {PRESENT} RENAME TO {RENAMED}")).await?;
            enter(connection, phase, Phase::LegacyDropped).await
        }
        TableState::Renamed => enter(connection, phase, Phase::LegacyDropped).await,
    }
}

async fn drop(connection: &mut PgConnection, min_days: i32, dry_run: bool) -> Result<(), Error> {
    run(connection, "SET LOCAL lock_timeout = '3s'".to_owned()).await?;
    if phase::find(connection).await? != Phase::LegacyDropped {
        return refused("content_blocks is not renamed: `synapctl drop-legacy` does that first");
    }
    match state(connection).await? {
        TableState::Present => return refused("content_blocks is not renamed"),
        TableState::Dropped => return Ok(()),
        TableState::Renamed => {}
    }
    let old_enough = sqlx::query_scalar(OLD_ENOUGH).bind(min_days);
    if !old_enough.fetch_one(&mut *connection).await? {
        return refused(format!("content_blocks was renamed less than {min_days} days ago"));
    }
    if dry_run {
        return Ok(());
    }
    run(connection, format!("DROP TABLE {RENAMED}")).await?;
    run(connection, "UPDATE legacy_content SET dropped_at = clock_timestamp()".to_owned()).await
}

async fn enter(connection: &mut PgConnection, from: Phase, to: Phase) -> Result<(), Error> {
    if from == to { Ok(()) } else { phase::enter(connection, to).await }
}

async fn can_be_restored(connection: &mut PgConnection) -> Result<u64, Error> {
    match first_of(connection, &[PRESENT, RENAMED, RESTORED]).await? {
        Some(_) => Ok(0),
        None => refused("content_blocks is dropped: its backup must be imported first"),
    }
}

/// Gives the imported table the name; false if there is no need. Building its indexes takes as long as
/// it takes: nobody uses the table yet.
async fn name_restored(connection: &mut PgConnection) -> Result<bool, Error> {
    if first_of(connection, &[PRESENT, RENAMED, RESTORED]).await? != Some(RESTORED) {
        return Ok(false);
    }
    let shape = kept_shape(connection).await?;
    run(connection, "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '3s'".to_owned())
        .await?;
    for statement in shape.finish {
        run(connection, statement.replace("{table}", RESTORED)).await?;
    }
    run(connection, format!("ALTER TABLE {RESTORED} RENAME TO {PRESENT}")).await?;
    for statement in shape.attach {
        run(connection, statement.replace("{table}", PRESENT)).await.map_err(in_use)?;
    }
    Ok(true)
}

async fn restore(connection: &mut PgConnection) -> Result<u64, Error> {
    run(connection, "SET LOCAL statement_timeout = 0".to_owned()).await?;
    let mut purged = 0;
    match state(connection).await? {
        TableState::Dropped => return can_be_restored(connection).await,
        TableState::Renamed => {
            phase::lock(connection).await?;
            run(connection, format!("ALTER TABLE {RENAMED} RENAME TO {PRESENT}")).await?;
        }
        TableState::Present => {
            // Of entities that were purged while there was no table to go with them.
            let gone = "DELETE FROM content_blocks b
                        WHERE (SELECT count(*) FROM entities e WHERE e.id = b.entity_id) = 0";
            purged = sqlx::query(gone).execute(&mut *connection).await?.rows_affected();
            let unchecked =
                "SELECT format('ALTER TABLE content_blocks VALIDATE CONSTRAINT %I', conname)
                             FROM pg_constraint
                             WHERE conrelid = to_regclass('content_blocks') AND NOT convalidated";
            let statements: Vec<String> =
                sqlx::query_scalar(unchecked).fetch_all(&mut *connection).await?;
            for statement in statements {
                run(connection, statement).await?;
            }
            phase::lock(connection).await?;
        }
    }
    run(connection, "UPDATE legacy_content SET renamed_at = NULL, dropped_at = NULL".to_owned())
        .await?;
    if phase::find(connection).await? == Phase::LegacyDropped {
        phase::enter(connection, Phase::ObjectOnly).await?;
    }
    Ok(purged)
}
