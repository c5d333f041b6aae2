//! What the service can be told: flags, and the environment variables beside them.

mod upkeep;

use std::{convert::Infallible, fmt, net::SocketAddr, str::FromStr, sync::LazyLock};

use clap::{ArgAction, Args};
use synap_postgres::GroupCommitOptions;
use synap_rpc::ServerArgs;

pub(crate) use upkeep::MIN_RETENTION_DAYS;
pub use upkeep::UpkeepArgs;

/// The database of an installation whose services share one.
static SHARED_DATABASE_URL: LazyLock<Option<String>> =
    LazyLock::new(|| std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()));

/// Configuration of event-service. Its `Debug` shows no password.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address to listen on.
    #[arg(long, env = "EVENT_LISTEN", default_value = "127.0.0.1:50054")]
    pub listen: SocketAddr,
    /// The database, as postgres://user:password@host:port/name; DATABASE_URL if not given.
    #[arg(
        long,
        env = "EVENT_DATABASE_URL",
        hide_env_values = true,
        default_value = SHARED_DATABASE_URL.as_deref(),
        hide_default_value = true,
        required = SHARED_DATABASE_URL.is_none(),
    )]
    pub database_url: DatabaseUrl,
    /// Connections to the database at most.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 8)]
    pub database_connections: u32,
    /// Apply migrations at start. Without, the service waits until somebody did.
    #[arg(long, env = "AUTO_MIGRATE", default_value_t = true, action = ArgAction::Set)]
    pub auto_migrate: bool,
    /// Appends that wait for a commit at most; more are answered RESOURCE_EXHAUSTED.
    #[arg(long, env = "EVENT_APPEND_QUEUE", default_value_t = 1024)]
    pub append_queue: usize,
    /// Groups of appends that are committed at the same time.
    #[arg(long, env = "EVENT_APPEND_WORKERS", default_value_t = 1)]
    pub append_workers: usize,
    /// Appends in one group at most.
    #[arg(long, env = "EVENT_APPEND_BATCH", default_value_t = 128)]
    pub append_batch: usize,
    /// Partitions, archive and retention.
    #[command(flatten)]
    pub upkeep: UpkeepArgs,
    /// Limits of the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

impl Config {
    pub(crate) fn group_commit(&self) -> GroupCommitOptions {
        GroupCommitOptions {
            queue: self.append_queue,
            workers: self.append_workers,
            max_batch: self.append_batch,
        }
    }
}

/// The URL of a database, with a password that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL with its password.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl FromStr for DatabaseUrl {
    type Err = Infallible;

    fn from_str(url: &str) -> Result<Self, Infallible> {
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&synap_postgres::redact_url(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }

    fn parse(more: &[&str]) -> Config {
        let url = "postgres://u:s3cret@127.0.0.1/d";
        let fixed = ["event-service", "--database-url", url];
        Command::try_parse_from(fixed.iter().chain(more)).unwrap().config
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let config = parse(&[]);
        assert_eq!(config.listen.port(), 50054);
        assert!(config.listen.ip().is_loopback());
        assert!(config.auto_migrate);
        assert!(!parse(&["--auto-migrate", "false"]).auto_migrate);
    }

    #[test]
    fn no_password_is_shown() {
        let shown = format!("{:?}", parse(&[]));
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("127.0.0.1/d"), "{shown}");
    }
}
