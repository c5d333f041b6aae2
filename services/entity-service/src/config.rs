//! What entity-service can be told, by flag or environment.

use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroUsize},
    time::Duration,
};

use clap::Args;
use synap_postgres::PoolOptions;
use synap_rpc::ServerArgs;

const SECS_PER_DAY: f64 = 24.0 * 3600.0;

/// Configuration of entity-service.
#[derive(Clone, Args)]
pub struct Config {
    /// Address to listen on.
    #[arg(long, env = "ENTITY_LISTEN", default_value = "127.0.0.1:50053")]
    pub listen: SocketAddr,
    /// PostgreSQL 15 or newer with pgvector: postgres://user:password@host/database. Through a
    /// transaction pooler everything works but migrations: give those the direct URL.
    #[arg(long, env = "ENTITY_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Connections to the database at most.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub database_connections: u32,
    /// Apply migrations at start. Where a job does it, the service waits until it is done.
    #[arg(long, env = "AUTO_MIGRATE", default_value_t = true, action = clap::ArgAction::Set)]
    pub auto_migrate: bool,
    /// Adopt a database of V0.2 at start. Without it such a database is left alone until an operator
    /// runs `synapctl adopt`, and the service is not ready.
    #[arg(long, env = "AUTO_ADOPT", default_value_t = false, action = clap::ArgAction::Set)]
    pub auto_adopt: bool,
    /// How leases and queues are timed.
    #[command(flatten)]
    pub protocol: ProtocolArgs,
    /// How entities are searched.
    #[command(flatten)]
    pub search: SearchArgs,
    /// The gRPC server.
    #[command(flatten)]
    pub server: ServerArgs,
}

impl Config {
    /// How the pool behaves. Every statement of ours asks for few rows by an index.
    #[must_use]
    pub fn pool_options(&self) -> PoolOptions {
        PoolOptions {
            by_key: true,
            max_connections: self.database_connections,
            ..PoolOptions::new("entity-service")
        }
    }
}

/// The times of the write protocol, in seconds of the database's clock.
#[derive(Debug, Clone, Copy, Args)]
pub struct ProtocolArgs {
    /// Seconds a writer has from begin to commit before another may take over. Longer than any
    /// request's deadline: a writer is fenced, never waited for.
    #[arg(long, env = "OPERATION_LEASE_SECS", default_value_t = 30.0, value_parser = duration)]
    pub operation_lease_secs: f64,
    /// Seconds that a writer may ask for at most, for a long upload; it asks again while it goes on.
    #[arg(long, env = "MAX_OPERATION_LEASE_SECS", default_value_t = 7200.0, value_parser = duration)]
    pub max_operation_lease_secs: f64,
    /// Seconds after the commit until recovery appends the event; doubled with every failed try.
    #[arg(long, env = "EVENT_LEASE_SECS", default_value_t = 5.0, value_parser = duration)]
    pub event_lease_secs: f64,
    /// Seconds the longest possible upload takes: until then a blob that was given up may still
    /// appear, and is deleted again. Longer than any call's deadline (MAX_DEADLINE_SECS).
    #[arg(long, env = "BLOB_SETTLE_SECS", default_value_t = 7200.0, value_parser = duration)]
    pub blob_settle_secs: f64,
    /// Seconds that a recovery worker has to delete the blobs it took, before another is asked to.
    #[arg(long, env = "DELETION_LEASE_SECS", default_value_t = 60.0, value_parser = duration)]
    pub deletion_lease_secs: f64,
    /// Days for which a repeated request id gets the first answer.
    #[arg(long, env = "OPERATION_RETENTION_DAYS", default_value_t = 7.0, value_parser = duration)]
    pub operation_retention_days: f64,
    /// Revisions of an entity that are kept, the newest ones. More than these go with the next write.
    #[arg(long, env = "REVISION_COUNT", default_value = "50")]
    pub revision_count: NonZeroU16,
    /// Days for which a revision is kept after another took its place. The newest always stays.
    #[arg(long, env = "REVISION_DAYS", default_value_t = 90.0, value_parser = duration)]
    pub revision_days: f64,
    /// Days for which a deleted entity can be undeleted; then it is purged.
    #[arg(long, env = "DELETED_RETENTION_DAYS", default_value_t = 30.0, value_parser = duration)]
    pub deleted_retention_days: f64,
    /// Transactions of the write protocol at once; each carries every call that waits for it.
    #[arg(long, env = "GROUP_COMMIT_WORKERS", default_value = "1")]
    pub group_commit_workers: NonZeroUsize,
}

/// How entities are searched.
#[derive(Debug, Clone, Args)]
pub struct SearchArgs {
    /// The language of most notes, as PostgreSQL names its text search configurations (\dF in
    /// psql): its words are found in all their forms. An unknown one is `simple`: words as they are.
    /// Notes keep the language that they were written under.
    #[arg(long = "search-language", env = "SEARCH_LANGUAGE", default_value = "english")]
    pub language: String,
    /// A user with at most so many vectors of a model gets all of them compared. That is exact,
    /// and takes about 2 µs a vector; the index takes some 20 ms, and may miss one in a hundred.
    #[arg(long, env = "EXACT_VECTORS", default_value_t = 20_000)]
    pub exact_vectors: u32,
    /// Candidates that the index keeps while it looks for the nearest: more find more of them, and
    /// take longer.
    #[arg(long = "vector-ef-search", env = "VECTOR_EF_SEARCH", default_value_t = 600, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub ef_search: u16,
}

/// A length of time, in whatever unit: positive, and not so long that no clock can add it.
fn duration(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| *value > 0.0 && *value <= 1e6);
    value.ok_or_else(|| "expected a number above 0 and up to 1000000".to_owned())
}

impl ProtocolArgs {
    /// The lease of an attempt that asks for this one.
    #[must_use]
    pub fn lease(&self, asked: Option<Duration>) -> Duration {
        let max = Duration::from_secs_f64(self.max_operation_lease_secs);
        asked.unwrap_or(Duration::from_secs_f64(self.operation_lease_secs)).min(max)
    }

    /// How long a request id is remembered, in seconds.
    #[must_use]
    pub fn operation_retention_secs(&self) -> f64 {
        self.operation_retention_days * SECS_PER_DAY
    }

    /// How long a revision is kept after another took its place, in seconds.
    #[must_use]
    pub fn revision_secs(&self) -> f64 {
        self.revision_days * SECS_PER_DAY
    }

    /// How long a deleted entity is kept, in seconds.
    #[must_use]
    pub fn deleted_retention_secs(&self) -> f64 {
        self.deleted_retention_days * SECS_PER_DAY
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("database_url", &synap_postgres::redact_url(&self.database_url))
            .field("database_connections", &self.database_connections)
            .field("auto_migrate", &self.auto_migrate)
            .field("auto_adopt", &self.auto_adopt)
            .field("protocol", &self.protocol)
            .field("search", &self.search)
            .field("server", &self.server)
            .finish()
    }
}
