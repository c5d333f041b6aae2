//! A real PostgreSQL for tests: one server per test process, a database per test.
//!
//! A test asks for a database by the name of a template. The first test to ask has the template
//! migrated; everyone gets a copy, which takes milliseconds. Nothing is shared between tests but
//! the server, and nothing stays behind, however the test process ends.

use std::{
    collections::HashMap,
    fmt::Display,
    future::Future,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use synap_postgres::{
    EmbeddedMajor, PoolOptions, ProvideOptions, Provided, Sources, connect_pool, provide,
};
use tokio::sync::OnceCell;

/// A PostgreSQL server of this test process.
///
/// Its methods panic where a test cannot go on. It is not bound to a Tokio runtime: each
/// `#[tokio::test]` has its own, and the server outlives them.
#[derive(Debug)]
pub struct TestServer {
    provided: Provided,
    templates: Mutex<HashMap<&'static str, Arc<OnceCell<String>>>>,
    databases: AtomicU64,
    discarded: mpsc::Sender<String>,
}

/// A migrated database of one test, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its URL, for a service under test.
    pub url: String,
    /// A pool of up to 10 connections, which ends with the runtime of the test.
    pub pool: PgPool,
    name: String,
    discarded: mpsc::Sender<String>,
}

impl TestServer {
    /// The server that all tests of this process share. Do not kill it.
    ///
    /// `SYNAP_EMBEDDED_PG=16` in the environment runs the tests on PostgreSQL 16;
    /// `SYNAP_TEST_TIMESCALEDB`, the folder of PostgreSQL's programs that `.ci/timescaledb` prints, on
    /// one with TimescaleDB.
    ///
    /// # Panics
    /// If no PostgreSQL can be had; the message says how to change that.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<TestServer> = OnceCell::const_new();
        // Never dropped: its watchdog removes it when the process ends.
        SHARED.get_or_init(|| Self::start(false)).await
    }

    /// A server of the caller's own, for a test that stops or kills it: what it has committed is
    /// there afterwards.
    ///
    /// # Panics
    /// As [`shared`](Self::shared).
    pub async fn start_private() -> Self {
        Self::start(true).await
    }

    async fn start(durable: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("synap-test-postgres-").tempdir_in(scratch());
        let dir = dir.unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        let mut options = ProvideOptions::new(dir.path());
        options.durable = durable;
        options.ephemeral = true;
        if let Ok(major) = std::env::var("SYNAP_EMBEDDED_PG") {
            let major = major.parse::<EmbeddedMajor>();
            options.embedded_major = major.unwrap_or_else(|why| panic!("SYNAP_EMBEDDED_PG={why}"));
        }
        if let Some(bin) = std::env::var_os("SYNAP_TEST_TIMESCALEDB") {
            // First on the path: what is found there is taken before everything else.
            let path = std::env::split_paths(&options.search.path);
            let path = std::env::join_paths(std::iter::once(bin.into()).chain(path));
            options.search.path =
                path.unwrap_or_else(|why| panic!("SYNAP_TEST_TIMESCALEDB: {why}"));
            options.sources = Sources::Installed;
        }
        let provided = provide(options, |line| eprintln!("{line}")).await;
        let provided = provided.unwrap_or_else(|error| panic!("{error}"));
        // From here the server's watchdog removes it, also when this process is killed.
        let _ = dir.keep();
        let discarded = discard_in_the_background(url_of(&provided, "postgres"));
        Self { provided, templates: Mutex::default(), databases: AtomicU64::default(), discarded }
    }

    /// The server itself: its pid, `kill`, `stop`, `restart`.
    #[must_use]
    pub fn provided(&self) -> &Provided {
        &self.provided
    }

    /// A database of the caller's own, a copy of the template of that name.
    ///
    /// `migrate` gets the template's URL the first time that this process asks for the name; one
    /// name always means the same migrations.
    ///
    /// # Panics
    /// If the database cannot be made.
    pub async fn database<Migrate, Migrated, Error>(
        &self,
        template: &'static str,
        migrate: Migrate,
    ) -> TestDatabase
    where
        Migrate: FnOnce(String) -> Migrated,
        Migrated: Future<Output = Result<(), Error>>,
        Error: Display,
    {
        let cell = {
            let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(templates.entry(template).or_default())
        };
        let source = cell.get_or_init(|| self.make_template(template, migrate)).await;
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}_{template}");
        // Where no checkpoint waits for a disk, a third of the work of logging every page.
        let create = format!("CREATE DATABASE \"{name}\" TEMPLATE \"{source}\" STRATEGY FILE_COPY");
        self.admin(&create).await;
        let url = url_of(&self.provided, &name);
        let mut options = PoolOptions::new("test");
        options.max_connections = 10;
        // A test may look at every row of as many as a real installation has.
        options.statement_timeout = Some(Duration::from_mins(10));
        let pool = connect_pool(&url, &options).unwrap_or_else(|error| panic!("{error}"));
        TestDatabase { url, pool, name, discarded: self.discarded.clone() }
    }

    async fn make_template<Migrate, Migrated, Error>(
        &self,
        template: &str,
        migrate: Migrate,
    ) -> String
    where
        Migrate: FnOnce(String) -> Migrated,
        Migrated: Future<Output = Result<(), Error>>,
        Error: Display,
    {
        let name = format!("template_{template}");
        // A test that panicked while migrating may have left a half of it.
        self.admin(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await;
        self.admin(&format!("CREATE DATABASE \"{name}\"")).await;
        if let Err(error) = migrate(url_of(&self.provided, &name)).await {
            panic!("migrating the template {template}: {error}");
        }
        // A template can only be copied while nobody is connected to it.
        self.admin(&format!("ALTER DATABASE \"{name}\" WITH ALLOW_CONNECTIONS false")).await;
        self.admin(&format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"
        ))
        .await;
        name
    }

    async fn admin(&self, statement: &str) {
        let url = url_of(&self.provided, "postgres");
        if let Err(error) = execute(&url, statement).await {
            panic!("{statement}: {error}");
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Without its thread, the server is about to go as a whole.
        let _ = self.discarded.send(std::mem::take(&mut self.name));
    }
}

/// In memory where there is room: every database is hundreds of files, and where as many have just
/// been removed, ext4 looks at each of them again before it makes a new one. SIGKILL, which is how
/// tests end servers, takes nothing from either that was written.
fn scratch() -> PathBuf {
    /// Many times what a test process has at once.
    const ENOUGH: u64 = 4 << 30;
    let memory = "/dev/shm";
    match rustix::fs::statvfs(memory) {
        Ok(found) if found.f_bavail * found.f_frsize >= ENOUGH => memory.into(),
        _ => std::env::temp_dir(),
    }
}

fn url_of(provided: &Provided, database: &str) -> String {
    let url = provided.url_of(database);
    url.unwrap_or_else(|| panic!("tests never run on a configured database"))
}

async fn execute(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

/// Drops databases where no test waits for it: a thread, because `Drop` cannot await and the
/// runtime of the test that is ending cannot be used any more.
fn discard_in_the_background(admin_url: String) -> mpsc::Sender<String> {
    let (sender, names) = mpsc::channel::<String>();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        for name in names {
            // A test may have killed the server. What stays goes with the whole server.
            let drop = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
            let _ = runtime.block_on(execute(&admin_url, &drop));
        }
    };
    std::thread::Builder::new()
        .name("test-databases".to_owned())
        .spawn(run)
        .unwrap_or_else(|error| panic!("no thread: {error}"));
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn migrate(url: String) -> Result<(), sqlx::Error> {
        execute(&url, "CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await
    }

    async fn ids(database: &TestDatabase) -> Vec<i32> {
        sqlx::query_scalar("SELECT id FROM t ORDER BY id").fetch_all(&database.pool).await.unwrap()
    }

    #[tokio::test]
    async fn every_test_has_its_own_copy_of_a_template_that_is_migrated_once() {
        let server = TestServer::shared().await;
        let (one, two) = tokio::join!(
            server.database("own_copy", migrate),
            server.database("own_copy", migrate)
        );
        sqlx::query("INSERT INTO t VALUES (2)").execute(&one.pool).await.unwrap();
        assert_eq!(ids(&one).await, [1, 2]);
        assert_eq!(ids(&two).await, [1]);
        let unused = async |_| Err("migrated twice");
        assert_eq!(ids(&server.database("own_copy", unused).await).await, [1]);
        let name = one.name.clone();
        drop(one);
        let is_there = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
        let started = std::time::Instant::now();
        while sqlx::query_scalar(is_there).bind(&name).fetch_one(&two.pool).await.unwrap() {
            assert!(started.elapsed().as_secs() < 30, "the dropped value left its database");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn the_shared_server_outlives_the_runtime_that_started_it() {
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let database = TestServer::shared().await.database("outlives", migrate).await;
                assert_eq!(ids(&database).await, [1]);
            });
        }
    }

    #[tokio::test]
    async fn a_private_server_can_be_killed_and_restarted() {
        let server = TestServer::start_private().await;
        let database = server.database("private", migrate).await;
        assert_eq!(ids(&database).await, [1]);
        server.provided().kill().await;
        assert!(sqlx::query("SELECT 1").execute(&database.pool).await.is_err());
        server.provided().restart().await.unwrap();
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        sqlx::query("SELECT id FROM t").fetch_one(&mut connection).await.unwrap();
    }
}
