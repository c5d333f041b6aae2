//! Why there is no database, and what to do about it.

use std::{io, path::PathBuf};

/// Why [`provide`](crate::provide()) could not give a database. No message holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvideError {
    /// No database is configured, none is installed, and none could be fetched.
    #[error(
        "there is no PostgreSQL to work with. Any one of these three helps:\n  \
         1. set DATABASE_URL to a PostgreSQL 15 or newer that has pgvector 0.8.4 or newer\n  \
         2. install PostgreSQL 15 to 18 with pgvector on this machine \
         (macOS: `brew install pgvector`; Debian and Ubuntu: the package postgresql-<major>-pgvector)\n  \
         3. install `uv` or Python's `pip` and be online once: PostgreSQL is then fetched by itself\n\
         What was tried:\n  - {}",
        reasons.join("\n  - ")
    )]
    Unavailable {
        /// One line for each place that was looked at.
        reasons: Vec<String>,
    },
    /// The configured URL is not one of PostgreSQL.
    #[error("DATABASE_URL: {0}")]
    InvalidUrl(#[from] crate::InvalidUrl),
    /// The configured database does not answer, or refuses us.
    #[error("DATABASE_URL ({url}) cannot be used: {source}")]
    Unreachable {
        /// The URL without its password.
        url: String,
        /// The last attempt's error.
        source: sqlx::Error,
    },
    /// The configured database is older than PostgreSQL 15.
    #[error(
        "DATABASE_URL ({url}) is PostgreSQL {version}; 15 or newer is needed: upgrade the server"
    )]
    TooOld {
        /// The URL without its password.
        url: String,
        /// The server's own version text.
        version: String,
    },
    /// The configured database has no `vector` extension to create.
    #[error(
        "DATABASE_URL ({url}) has no `vector` extension: install pgvector 0.8.4 or newer on that server"
    )]
    NoVector {
        /// The URL without its password.
        url: String,
    },
    /// What was fetched is not what this program was built to trust. Nothing of it was used.
    #[error(
        "the fetched {file} is not the expected one (sha256 {found}, expected {expected}): \
         it was not installed; look at what stands between this machine and the package index"
    )]
    Checksum {
        /// File name of the archive.
        file: String,
        /// The checksum pinned in this program, in hex.
        expected: String,
        /// The checksum of the file, in hex.
        found: String,
    },
    /// Another process runs a server on this data directory.
    #[error(
        "the data directory {} is in use by process {pid}: stop that process, \
         or choose another data directory", data_dir.display()
    )]
    InUse {
        /// The data directory.
        data_dir: PathBuf,
        /// The process that owns the server, not the server itself; `?` if it could not be read.
        pid: String,
    },
    /// The data directory was made by a major version that is not to be had here.
    #[error(
        "the data directory {} was made by PostgreSQL {major}, and no PostgreSQL {major} with \
         pgvector is to be had here: install one, or choose another data directory. Tried:\n  - {}",
        data_dir.display(), reasons.join("\n  - ")
    )]
    OtherMajor {
        /// The data directory.
        data_dir: PathBuf,
        /// The version that made it.
        major: u32,
        /// One line for each place that was looked at.
        reasons: Vec<String>,
    },
    /// PostgreSQL does not run as root, and no other identity can be taken here.
    #[error(
        "PostgreSQL does not run as root, and no other identity works here. Run this program as an \
         ordinary user, or permit user namespaces, or put both the data directory ({}) and the \
         cache ({}, see SYNAP_CACHE_DIR) where every user may read. Tried:\n  - {}",
        data_dir.display(), installation.display(), reasons.join("\n  - ")
    )]
    Identity {
        /// The data directory.
        data_dir: PathBuf,
        /// Where the server's programs are.
        installation: PathBuf,
        /// One line for each identity that was tried.
        reasons: Vec<String>,
    },
    /// A program of PostgreSQL failed.
    #[error("{what} failed:\n{}", output.trim_end())]
    Failed {
        /// The program, and what it was to do.
        what: String,
        /// The end of what it printed.
        output: String,
    },
    /// The server that was provided did not answer a question we must ask.
    #[error("{what}: {source}")]
    Database {
        /// What was to be done.
        what: String,
        /// Why it was not.
        source: sqlx::Error,
    },
    /// The file system or the operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it was not.
        source: io::Error,
    },
}

/// Adds what was to be done to an [`io::Error`].
pub(crate) trait IoContext<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ProvideError>;
}

impl<T> IoContext<T> for Result<T, io::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ProvideError> {
        self.map_err(|source| ProvideError::Io { what: what(), source })
    }
}
