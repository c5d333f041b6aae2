//! Migrations: one table of applied migrations per service, safe when replicas start together.

use std::{collections::HashMap, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool,
    migrate::{MigrateError as SqlxError, Migration, Migrator},
};

use crate::{
    gentle::{LOCK_PAUSE, limit_lock_waits, locks_were_refused},
    pool::{InvalidUrl, connect_options, is_transaction_pooler},
};

/// The advisory lock held while migrating: one for the database, because services that share one
/// also share extensions. The number means nothing; it must only never change.
const LOCK: i64 = 0x53_79_6e_61_70_44_42;

const LOCK_POLL: Duration = Duration::from_millis(100);

/// Why a database is not migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A newer version of the program was here.
    #[error(
        "the database was migrated to {found} by a newer version of this program, which knows \
         migrations up to {known} (table {table}): run the newer version"
    )]
    DatabaseNewer {
        /// The service's table of applied migrations.
        table: String,
        /// The newest migration in the database.
        found: i64,
        /// The newest migration in this program.
        known: i64,
    },
    /// An applied migration is not the one of that number in this program.
    #[error(
        "migration {version} in table {table} differs from this program's, or is missing in it: \
         the database belongs to another program, or an applied migration was edited"
    )]
    Diverged {
        /// The service's table of applied migrations.
        table: String,
        /// The migration.
        version: i64,
    },
    /// A migration failed. It was rolled back unless its file opts out of transactions.
    #[error("migration {version} (table {table}) failed: {source}")]
    Failed {
        /// The service's table of applied migrations.
        table: String,
        /// The migration.
        version: i64,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The URL is not one of PostgreSQL.
    #[error(transparent)]
    InvalidUrl(#[from] InvalidUrl),
    /// The database could not be asked.
    #[error("migrating (table {table}): {source}")]
    Database {
        /// The service's table of applied migrations.
        table: String,
        /// What sqlx said.
        source: sqlx::Error,
    },
}

/// What [`apply_migrations`] is at.
#[derive(Debug, Clone, Copy)]
pub struct MigrationStep<'a> {
    /// The migration's number.
    pub version: i64,
    /// What its file is called.
    pub description: &'a str,
    /// Somebody else's transaction holds a lock that it needs: it is tried again.
    pub waits: bool,
}

/// Brings the database at `url` to the last migration of `migrator`, recording it in `table`.
///
/// `table` is the service's own (`_entity_migrations`): services may share a database. Opens one
/// connection of its own, without a statement timeout, because building an index over real data
/// takes as long as it takes. Nobody waits long for it: see [`apply_migrations`]. Replicas that
/// start together wait for each other. `url` must be the direct one: behind a transaction pooler
/// the lock holds nothing, which is logged as a warning.
///
/// # Errors
/// See [`MigrateError`]; whether another try helps can be asked of its source with
/// [`is_transient`](crate::is_transient).
pub async fn migrate(url: &str, migrator: &Migrator, table: &str) -> Result<(), MigrateError> {
    let options = connect_options(url)?.application_name("synap-migrate");
    if is_transaction_pooler(&options) {
        tracing::warn!(table, "migrating through a transaction pooler: use the direct URL");
    }
    let failed = |source| MigrateError::Database { table: table.to_owned(), source };
    let mut connection = PgConnection::connect_with(&options).await.map_err(failed)?;
    while !try_lock_migrations(&mut connection).await.map_err(failed)? {
        tokio::time::sleep(LOCK_POLL).await;
    }
    let mut tell = |step: MigrationStep<'_>| {
        if step.waits {
            tracing::info!(table, version = step.version, "a migration waits for a lock");
        }
    };
    let outcome = apply_migrations(&mut connection, migrator, table, &mut tell).await;
    // Ends the session, and the lock with it, whatever the outcome was.
    let closed = connection.close().await;
    outcome?;
    closed.map_err(failed)
}

/// Takes the lock under which a database is migrated, until the end of the session, unless somebody
/// else has it. sqlx's own lock waits inside the server and thereby holds a snapshot, on which
/// another replica's CREATE INDEX CONCURRENTLY waits in turn: a deadlock. Ours is asked for again.
///
/// # Errors
/// The database's.
pub async fn try_lock_migrations(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(connection).await
}

/// As [`migrate`], on a connection that has [the lock](try_lock_migrations), telling each step.
///
/// A migration that changes tables takes all of its locks within a moment or is rolled back and
/// tried again, as often as it takes: while it waits, everybody who comes later waits behind it. One
/// outside of transactions builds an index CONCURRENTLY, which nobody waits for: it takes its time.
///
/// # Errors
/// As [`migrate`].
pub async fn apply_migrations(
    connection: &mut PgConnection,
    migrator: &Migrator,
    table: &str,
    tell: &mut (dyn FnMut(MigrationStep<'_>) + Send),
) -> Result<(), MigrateError> {
    let failed = |source| MigrateError::Database { table: table.to_owned(), source };
    let mut ours = Migrator::with_migrations(migrator.iter().cloned().collect());
    ours.dangerous_set_table_name(table.to_owned());
    ours.set_locking(false);
    let explain = |error| explain(error, migrator, table);
    // Makes the table, and looks for what is not ours; no migration has a number so low.
    ours.run_direct(Some(0), connection, false).await.map_err(explain)?;
    let applied = format!("SELECT version FROM {table}");
    let applied: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(applied))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let pending = ours
        .iter()
        .filter(|it| !it.migration_type.is_down_migration() && !applied.contains(&it.version));
    for migration in pending {
        let (version, description) = (migration.version, &*migration.description);
        tell(MigrationStep { version, description, waits: false });
        if migration.no_tx {
            drop_leftover(connection, migration).await.map_err(failed)?;
        }
        limit_lock_waits(connection, !migration.no_tx).await.map_err(failed)?;
        loop {
            match ours.run_direct(Some(version), connection, false).await {
                Err(SqlxError::ExecuteMigration(cause, _)) if locks_were_refused(&cause) => {
                    tell(MigrationStep { version, description, waits: true });
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                outcome => break outcome.map_err(explain)?,
            }
        }
    }
    // Compares the checksums of those that were applied before.
    ours.run_direct(None, connection, false).await.map_err(explain)
}

/// Drops what an attempt that was killed has left of the index that a migration outside of
/// transactions makes: it would find the name taken.
async fn drop_leftover(
    connection: &mut PgConnection,
    migration: &Migration,
) -> Result<(), sqlx::Error> {
    let Some((_, rest)) = migration.sql.as_str().split_once(" INDEX CONCURRENTLY ") else {
        return Ok(());
    };
    let index = rest.split_whitespace().next().unwrap_or_default();
    let is_there = "SELECT to_regclass($1) IS NOT NULL";
    if sqlx::query_scalar(is_there).bind(index).fetch_one(&mut *connection).await? {
        tracing::warn!(index, "building an index anew that an earlier attempt had begun");
        limit_lock_waits(connection, false).await?;
        let drop = format!("DROP INDEX CONCURRENTLY {index}");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(connection).await?;
    }
    Ok(())
}

/// As [`migrate`], but a database that is away is waited for: a service starts in any order, and
/// is not ready until this returns.
///
/// # Errors
/// As [`migrate`], but for what passes by itself.
pub async fn migrate_when_reachable(
    url: &str,
    migrator: &Migrator,
    table: &str,
) -> Result<(), MigrateError> {
    let mut pause = Duration::from_millis(100);
    loop {
        match migrate(url, migrator, table).await {
            Err(MigrateError::Database { source, .. }) if crate::is_transient(&source) => {
                tracing::warn!(table, error = %source, "waiting for the database to migrate it");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            outcome => return outcome,
        }
    }
}

/// Whether every migration of `migrator` is applied, unchanged: the readiness of a service.
///
/// Migrations that only the database knows do not count. During a rolling update the older
/// replicas keep serving, for which migrations expand before they contract.
///
/// # Errors
/// Any error of the query, except that a missing table means `false`.
pub async fn migrations_current(
    pool: &PgPool,
    migrator: &Migrator,
    table: &str,
) -> Result<bool, sqlx::Error> {
    let query = format!("SELECT version, checksum FROM {table} WHERE success");
    let applied: Vec<(i64, Vec<u8>)> =
        match sqlx::query_as(AssertSqlSafe(query)).fetch_all(pool).await {
            Ok(applied) => applied,
            Err(error) if is_undefined_table(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
    let applied: HashMap<i64, Vec<u8>> = applied.into_iter().collect();
    Ok(migrator
        .iter()
        .filter(|migration| !migration.migration_type.is_down_migration())
        .all(|ours| applied.get(&ours.version).is_some_and(|sum| *sum == *ours.checksum)))
}

fn explain(error: SqlxError, migrator: &Migrator, table: &str) -> MigrateError {
    let table = table.to_owned();
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    match error {
        SqlxError::VersionMissing(found) if found > known => {
            MigrateError::DatabaseNewer { table, found, known }
        }
        SqlxError::VersionMissing(version) | SqlxError::VersionMismatch(version) => {
            MigrateError::Diverged { table, version }
        }
        SqlxError::ExecuteMigration(source, version) => {
            MigrateError::Failed { table, version, source }
        }
        SqlxError::Execute(source) => MigrateError::Database { table, source },
        other => MigrateError::Database { table, source: sqlx::Error::Migrate(Box::new(other)) },
    }
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42P01"))
}
