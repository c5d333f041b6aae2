//! A PostgreSQL server of our own: start, wait until it answers, stop, start again.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::sync::Mutex;

use crate::{
    Progress, ProvideError, Search,
    cluster::{Cluster, SOCKET_PARENT, SOCKET_PREFIX, SUPERUSER},
    external::Facts,
    identity::Identity,
    installed::Installation,
    provide::blocking,
    provide_error::IoContext as _,
    watchdog::{Plan, Signal, Watchdog},
};

/// Replaying a log after a crash takes time; a server that is alive is given this much.
const START_LIMIT: Duration = Duration::from_mins(10);

/// A session that takes longer to open is given up and tried anew.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// After this long a person wants to know what is going on.
const SLOW_START: Duration = Duration::from_secs(3);

/// How long backends of a killed server may take to notice that it is gone.
const ORPHANED_BACKENDS_LIMIT: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(10);

/// The port only names the socket, and keeps `$PGPORT` from naming another one.
const PORT: u16 = 5432;

/// What kind of server is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) installation: Installation,
    pub(crate) search: Search,
    /// Whether commits survive a crash of the machine.
    pub(crate) durable: bool,
    /// Whether the data directory is removed when this process ends.
    pub(crate) ephemeral: bool,
    pub(crate) database: String,
}

/// A server that ends with this process, or when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    inner: Arc<Inner>,
    watchdog: Mutex<Option<Watchdog>>,
}

/// What stays the same from start to start.
#[derive(Debug)]
struct Inner {
    spec: Spec,
    identity: Identity,
    sockets: PathBuf,
    cluster: Cluster,
}

impl Server {
    /// Starts a server on a data directory that is ours already, and makes the database in it.
    pub(crate) async fn start(
        spec: Spec,
        cluster: Cluster,
        progress: &Progress,
    ) -> Result<(Self, Facts), ProvideError> {
        let inner = blocking(move || {
            let identity = Identity::choose(&spec.search, &spec.installation, cluster.dir())?;
            Ok(Inner { spec, identity, sockets: new_socket_dir()?, cluster })
        });
        let server = Self { inner: Arc::new(inner.await?), watchdog: Mutex::new(None) };
        server.restart(progress).await?;
        let facts = server.make_database().await.map_err(|source| ProvideError::Database {
            what: format!("creating the database {}", server.inner.spec.database),
            source,
        })?;
        Ok((server, facts))
    }

    /// A URL of one of the server's databases.
    pub(crate) fn url(&self, database: &str) -> String {
        // TLS on a socket is never wanted, and asking for it would cost a round trip.
        let sockets = self.inner.sockets.display();
        format!("postgres://{SUPERUSER}@localhost:{PORT}/{database}?host={sockets}&sslmode=disable")
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.inner.cluster.dir()
    }

    pub(crate) fn postmaster_pid(&self) -> Option<u32> {
        self.inner.cluster.postmaster_pid()
    }

    /// Whether the server runs, as far as the watchdog knows.
    pub(crate) async fn is_running(&self) -> bool {
        let watchdog = self.watchdog.lock().await;
        watchdog.as_ref().is_some_and(|watchdog| !watchdog.server_ended())
    }

    /// Stops the server in an orderly way; sessions are ended, their transactions rolled back.
    pub(crate) async fn stop(&self) {
        let mut watchdog = self.watchdog.lock().await;
        let Some(watchdog) = watchdog.as_mut() else {
            return;
        };
        for (signal, patience) in [(Signal::Fast, 60), (Signal::Immediate, 10)] {
            watchdog.signal(signal);
            let limit = Duration::from_secs(patience);
            if tokio::time::timeout(limit, watchdog.wait_server()).await.is_ok() {
                return;
            }
            tracing::warn!(?signal, "PostgreSQL did not stop within {patience} s");
        }
        watchdog.signal(Signal::Kill);
        watchdog.wait_server().await;
    }

    /// Kills the server as a crash would, and waits until it is gone.
    pub(crate) async fn kill(&self) {
        if let Some(watchdog) = self.watchdog.lock().await.as_mut() {
            watchdog.signal(Signal::Kill);
            watchdog.wait_server().await;
        }
    }

    /// Starts the server under the same URL; stops it first if it runs.
    pub(crate) async fn restart(&self, progress: &Progress) -> Result<(), ProvideError> {
        self.stop().await;
        let mut place = self.watchdog.lock().await;
        let started = Instant::now();
        loop {
            if let Some(old) = place.take() {
                old.leave().await;
            }
            let inner = Arc::clone(&self.inner);
            let told = Arc::clone(progress);
            let (watchdog, log_start) = blocking(move || inner.spawn(&told)).await?;
            let outcome = self.wait_until_ready(&watchdog, progress).await;
            // Kept in both cases: in the bad one its end removes what it should.
            let ended = watchdog.server_ended();
            *place = Some(watchdog);
            let Err(why) = outcome else { return Ok(()) };
            let log = self.inner.cluster.log_since(log_start);
            if ended && held_by_orphans(&log) && started.elapsed() < ORPHANED_BACKENDS_LIMIT {
                tokio::time::sleep(POLL).await;
                continue;
            }
            let what = format!("starting PostgreSQL on {} ({why})", self.data_dir().display());
            return Err(ProvideError::Failed { what, output: log });
        }
    }

    async fn wait_until_ready(
        &self,
        watchdog: &Watchdog,
        progress: &Progress,
    ) -> Result<(), String> {
        let started = Instant::now();
        let mut told = false;
        loop {
            let attempt = tokio::time::timeout(ANSWER_LIMIT, async {
                let connection = self.connect("postgres").await?;
                connection.close().await
            });
            let outcome = tokio::select! {
                () = watchdog.wait_server() => return Err("it ended at once".to_owned()),
                outcome = attempt => outcome,
            };
            match outcome {
                Ok(Ok(())) => return Ok(()),
                // Not listening yet, or not accepting sessions yet.
                Ok(Err(error)) if started.elapsed() > START_LIMIT => return Err(error.to_string()),
                Err(_) if started.elapsed() > START_LIMIT => return Err("no answer".to_owned()),
                _ if started.elapsed() > SLOW_START && !told => {
                    progress("PostgreSQL is recovering from a crash");
                    told = true;
                }
                _ => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn make_database(&self) -> Result<Facts, sqlx::Error> {
        let database = &self.inner.spec.database;
        let mut admin = self.connect("postgres").await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(database)
                .fetch_one(&mut admin)
                .await?;
        if !exists {
            let quoted = database.replace('"', "\"\"");
            let create = format!("CREATE DATABASE \"{quoted}\"");
            sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await?;
        }
        admin.close().await?;
        let mut connection = self.connect(database).await?;
        let facts = Facts::ask(&mut connection).await?;
        connection.close().await?;
        Ok(facts)
    }

    async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&self.inner.sockets)
            .port(PORT)
            .username(SUPERUSER)
            .database(database)
            .ssl_mode(PgSslMode::Disable);
        PgConnection::connect_with(&options).await
    }
}

impl Inner {
    /// Starts a watchdog with a server; returns where the log begins to speak of it.
    fn spawn(&self, progress: &Progress) -> Result<(Watchdog, u64), ProvideError> {
        let lock = self.cluster.lock_server(progress)?;
        self.cluster.clear_stale()?;
        self.cluster.init(&self.spec.installation, &self.identity, self.spec.durable)?;
        let log_start = self.cluster.open_log(&self.identity)?;
        self.make_socket_dir()?;
        let watchdog = Watchdog::spawn(Plan {
            identity: &self.identity,
            log: self.cluster.log(),
            sockets: self.sockets.clone(),
            discard: self.spec.ephemeral.then(|| self.cluster.dir().to_owned()),
            // Nobody will read an ephemeral server's data again.
            at_end: if self.spec.ephemeral { Signal::Immediate } else { Signal::Fast },
            lock,
            server: self.command(),
        });
        Ok((watchdog.doing(|| "starting PostgreSQL's watchdog".to_owned())?, log_start))
    }

    fn command(&self) -> Vec<OsString> {
        let mut words = self.identity.words(&self.spec.installation.bin.join("postgres"));
        words.extend(["-D".into(), self.cluster.pgdata().into()]);
        words.extend(["-k".into(), self.sockets.clone().into()]);
        words.extend(["-p".into(), PORT.to_string().into()]);
        let durable: &[&str] = if self.spec.durable {
            &["fsync=on", "synchronous_commit=on", "full_page_writes=on"]
        } else {
            // Without waiting for the disk a checkpoint costs nothing; its log may be in memory.
            &["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=256MB"]
        };
        let settings = [
            // The socket's directory is the only door, and it is closed to other users.
            "listen_addresses=",
            "unix_socket_permissions=0700",
            "max_connections=200",
            "shared_buffers=128MB",
            "max_wal_size=2GB",
            "checkpoint_timeout=15min",
            // A transaction left open holds back every ordered reader of events.
            "idle_in_transaction_session_timeout=60s",
            "log_min_duration_statement=-1",
            "log_destination=stderr",
            "logging_collector=off",
            "timezone=UTC",
            "log_timezone=UTC",
        ];
        for setting in settings.iter().chain(durable) {
            words.extend(["-c".into(), setting.into()]);
        }
        words
    }

    /// Made anew for every start, because every watchdog may have removed it.
    fn make_socket_dir(&self) -> Result<(), ProvideError> {
        let what = || format!("creating {}", self.sockets.display());
        if self.sockets.exists() {
            fs::remove_dir_all(&self.sockets).doing(what)?;
        }
        // Fails if someone else took the name meanwhile; the directory is never another user's.
        fs::DirBuilder::new().mode(0o700).create(&self.sockets).doing(what)?;
        self.identity.give(&self.sockets).doing(what)
    }
}

/// A name that nobody has, short enough for a socket.
fn new_socket_dir() -> Result<PathBuf, ProvideError> {
    let dir = tempfile::Builder::new().prefix(SOCKET_PREFIX).tempdir_in(SOCKET_PARENT);
    // Dropped, and removed, here: a failure before the start leaves nothing behind.
    dir.map(|dir| dir.path().to_owned())
        .doing(|| format!("creating a directory in {SOCKET_PARENT}"))
}

/// Whether the server refused to start because processes of its predecessor are still ending.
fn held_by_orphans(log: &str) -> bool {
    log.contains("pre-existing shared memory block")
        || log.contains("lock file \"postmaster.pid\" already exists")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::GOOD_VECTOR;

    /// Debian's PostgreSQL 15 has no pgvector, so [`provide`](crate::provide()) never takes it as
    /// it is; everything else about the oldest version must work.
    #[tokio::test]
    async fn the_oldest_supported_version_starts_with_our_settings() {
        let bin = PathBuf::from("/usr/lib/postgresql/15/bin");
        if !bin.join("postgres").exists() {
            eprintln!("skipped: no PostgreSQL 15 in {}", bin.display());
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let spec = Spec {
            installation: Installation { bin, major: 15, vector: GOOD_VECTOR },
            search: Search::machine(),
            durable: false,
            ephemeral: false,
            database: "synap".to_owned(),
        };
        let cluster = Cluster::open(scratch.path()).unwrap();
        let progress: Progress = Arc::new(|line| eprintln!("{line}"));
        let (server, facts) = Server::start(spec, cluster, &progress).await.unwrap();
        assert!(facts.describe().starts_with("PostgreSQL 15."), "{}", facts.describe());
        let mut connection = server.connect("synap").await.unwrap();
        let lower: String =
            sqlx::query_scalar("SELECT lower('ÄΣ')").fetch_one(&mut connection).await.unwrap();
        // macOS before 14 has no C.UTF-8 and falls back to C.
        assert!(lower == "äσ" || cfg!(target_os = "macos"), "{lower}");
        server.stop().await;
    }
}
