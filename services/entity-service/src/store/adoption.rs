//! Taking over a database of V0.2 that is in use.
//!
//! Our migrations run on it as they are, and each takes its locks within a moment or tries again
//! (`synap_postgres::apply_migrations`). But the first of them would do what takes long while it has
//! them: read all rows for a new constraint, build indexes, rewrite `entities` for a wider column. So
//! that is done before, in ways that nobody waits for; the migration then finds it done.

mod blockers;
mod indexes;
mod inspect;
mod oddities;
mod plan;
mod sample;
mod statistics;
mod widen;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Row as _};
use synap_postgres::{
    InvalidUrl, LOCK_PAUSE, MigrationStep, PoolOptions, apply_migrations, limit_lock_waits,
    try_gently, try_lock_migrations,
};

use crate::{
    domain::{DatabaseState, Step, StepProgress},
    error::Error,
    service::{MIGRATION_TABLE, MIGRATOR},
};
use plan::Todo;

/// How often it is asked how far an index is, or whether another attempt has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const HAS_TABLES: &str = "
    SELECT to_regclass('entities') IS NOT NULL OR to_regclass('content_blocks') IS NOT NULL";

/// Who keeps us from a lock: the oldest transaction that has one of these tables.
const HOLDER: &str = "
    SELECT a.pid, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS seconds
    FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.granted AND l.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
      AND l.relation IN (to_regclass('entities'), to_regclass('content_blocks'),
                         to_regclass('entity_vectors'))
    ORDER BY a.xact_start LIMIT 1";

/// How far the build of an index is, of this process.
const BUILD: &str = "
    SELECT CASE WHEN blocks_total > 0 THEN blocks_done ELSE tuples_done END AS done,
           CASE WHEN blocks_total > 0 THEN blocks_total ELSE tuples_total END AS total,
           nullif(current_locker_pid, 0) AS locker
    FROM pg_stat_progress_create_index WHERE pid = $1";

/// Hears how far it is.
pub type Tell<'a> = &'a (dyn Fn(StepProgress) + Send + Sync);

/// The database as the one who adopts it sees it. Its connections are its own: those of the store
/// are set up for statements that find few rows by key, and end what takes long.
#[derive(Clone)]
pub struct Adoption {
    pool: PgPool,
    missing: Arc<AtomicBool>,
}

impl Adoption {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// If the URL is none of PostgreSQL.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        let options = PoolOptions {
            max_connections: 4,
            statement_timeout: None,
            idle_timeout: Duration::from_secs(10),
            ..PoolOptions::new("entity-service-adoption")
        };
        let pool = synap_postgres::connect_pool(url, &options)?;
        Ok(Self { pool, missing: Arc::default() })
    }

    /// Whether nothing may be done yet but to adopt the database.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    /// Whether the database is one of V0.2 that nobody has adopted, as of now.
    ///
    /// # Errors
    /// The database's.
    pub async fn look(&self) -> Result<bool, Error> {
        let mut connection = self.pool.acquire().await?;
        let missing = self.state(&mut connection).await? == DatabaseState::Legacy;
        self.missing.store(missing, Ordering::Relaxed);
        Ok(missing)
    }

    async fn state(&self, connection: &mut PgConnection) -> Result<DatabaseState, Error> {
        let applied = plan::applied(connection).await?;
        if MIGRATOR.iter().all(|migration| applied.contains(&migration.version)) {
            return Ok(DatabaseState::Adopted);
        }
        if !applied.is_empty() {
            return Ok(DatabaseState::Migrating);
        }
        let has_tables = sqlx::query_scalar(HAS_TABLES).fetch_one(connection).await?;
        Ok(if has_tables { DatabaseState::Legacy } else { DatabaseState::Empty })
    }

    /// A session that ends with the value, and with it every lock and setting of it.
    async fn connect(&self) -> Result<PgConnection, Error> {
        Ok(self.pool.acquire().await?.detach())
    }

    /// Adopts the database, or does what is left of it. Dropped at any moment, it leaves PostgreSQL
    /// to end the statement that it is at; what is called next waits for that.
    ///
    /// # Errors
    /// [`Error::NotAdoptable`] before anything is changed, [`Error::AdoptionFailed`] with what the
    /// database said.
    #[tracing::instrument(name = "db.adoption.adopt", skip_all, err(level = "debug"))]
    pub async fn adopt(&self, tell: Tell<'_>) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        self.lock(&mut connection, tell).await?;
        let state = self.state(&mut connection).await?;
        if state == DatabaseState::Legacy {
            let blockers = blockers::find(&mut connection).await?;
            if !blockers.is_empty() {
                return Err(Error::NotAdoptable(blockers));
            }
        }
        for todo in plan::steps(&mut connection, state).await? {
            let progress = Progress { step: todo.step(), tell };
            progress.of(0, 0);
            self.carry_out(&todo, &mut connection, &progress)
                .await
                .map_err(|error| error.of_step(&progress.step.description))?;
            progress.finished();
            tracing::info!(step = progress.step.description, "a step of the adoption is done");
        }
        self.look().await?;
        Ok(())
    }

    /// One at a time: another attempt, or what was left of one, comes to its end first.
    async fn lock(&self, connection: &mut PgConnection, tell: Tell<'_>) -> Result<(), Error> {
        let wait =
            Step { name: "migrations", description: "wait for an earlier attempt".to_owned() };
        let progress = Progress { step: wait, tell };
        while !try_lock_migrations(connection).await? {
            progress.waits("a session that adopts or migrates this database".to_owned());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        todo: &Todo,
        connection: &mut PgConnection,
        progress: &Progress<'_>,
    ) -> Result<(), Error> {
        match todo {
            Todo::AddColumns(_) => self.change(connection, plan::ADD_COLUMNS, progress).await,
            Todo::CheckFileType => {
                limit_lock_waits(connection, false).await?;
                sqlx::raw_sql(plan::CHECK_FILE_TYPE).execute(connection).await?;
                Ok(())
            }
            Todo::WidenFileSize => {
                self.change(connection, widen::BEGIN, progress).await?;
                limit_lock_waits(connection, false).await?;
                widen::fill(connection, |done| progress.of(done, 0)).await?;
                self.change(connection, widen::END, progress).await
            }
            Todo::Build(index) => {
                let pid = pid(connection).await?;
                Ok(self.watch(pid, progress, index.build(connection)).await?)
            }
            Todo::Migrate(count) => {
                let pid = pid(connection).await?;
                let (mut begun, total) = (0, i64::try_from(*count).unwrap_or(i64::MAX));
                let mut on = |step: MigrationStep<'_>| {
                    if step.waits {
                        progress.waits(format!("a lock for migration {}", step.version));
                    } else {
                        progress.of(begun, total);
                        begun += 1;
                    }
                };
                let work = apply_migrations(connection, &MIGRATOR, MIGRATION_TABLE, &mut on);
                Ok(self.watch(pid, progress, work).await?)
            }
        }
    }

    /// Changes a table: at once or, behind somebody's transaction, as soon as that has ended.
    async fn change(
        &self,
        connection: &mut PgConnection,
        statements: &'static str,
        progress: &Progress<'_>,
    ) -> Result<(), Error> {
        while !try_gently(connection, statements).await? {
            let holder = sqlx::query(HOLDER).fetch_optional(&mut *connection).await?;
            progress.waits(match holder {
                Some(row) => format!(
                    "a lock: the transaction of process {} has been open for {} s",
                    row.try_get::<i32, _>("pid")?,
                    row.try_get::<i64, _>("seconds")?
                ),
                None => "a lock".to_owned(),
            });
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(())
    }

    /// Tells how far the index is that the session of `pid` builds, if it does.
    async fn watch<T>(
        &self,
        pid: i32,
        progress: &Progress<'_>,
        work: impl Future<Output = T>,
    ) -> T {
        let watching = async {
            loop {
                tokio::time::sleep(LOOK_AGAIN).await;
                // What it tells is for people; where it cannot, nothing is lost.
                if let Err(error) = self.tell_of_build(pid, progress).await {
                    tracing::debug!(%error, "how far an index is cannot be told");
                }
            }
        };
        tokio::select! {
            outcome = work => outcome,
            () = watching => unreachable!("watching has no end"),
        }
    }

    async fn tell_of_build(&self, pid: i32, progress: &Progress<'_>) -> Result<(), sqlx::Error> {
        let row = sqlx::query(BUILD).bind(pid).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(()) };
        match row.try_get::<Option<i64>, _>("locker")? {
            Some(pid) => progress.waits(format!("the transaction of process {pid} to end")),
            None => progress.of(row.try_get("done")?, row.try_get("total")?),
        }
        Ok(())
    }
}

async fn pid(connection: &mut PgConnection) -> Result<i32, Error> {
    Ok(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await?)
}

/// How far one step is.
struct Progress<'a> {
    step: Step,
    tell: Tell<'a>,
}

impl Progress<'_> {
    fn of(&self, done: i64, total: i64) {
        self.say(done, total, None, false);
    }

    fn waits(&self, for_what: String) {
        self.say(0, 0, Some(for_what), false);
    }

    fn finished(&self) {
        self.say(0, 0, None, true);
    }

    fn say(&self, done: i64, total: i64, waiting_for: Option<String>, finished: bool) {
        let step = self.step.clone();
        (self.tell)(StepProgress { step, done, total, waiting_for, finished });
    }
}
