//! Signed URLs of a store that has none of its own.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

use super::{ConfigError, Secret, given, http_url};

/// Shortest secret that is accepted, in bytes: as long as what it makes.
const MIN_SECRET_BYTES: usize = 32;

/// How content-service serves signed URLs where the store cannot: memory and the local file system.
/// S3 serves its own, and none of this is used.
#[derive(Debug, Clone, Args)]
pub struct UrlArgs {
    /// Address to listen on for signed URLs. Not opened where the store is S3: it serves its own.
    #[arg(long, env = "CONTENT_HTTP_LISTEN", default_value = "127.0.0.1:50055")]
    pub http_listen: SocketAddr,
    /// Begin of signed URLs, as clients reach that address; a proxy takes off the path in it
    /// [default: http://{address}].
    #[arg(long, env = "BLOB_URL_BASE")]
    pub blob_url_base: Option<String>,
    /// Secret that signs URLs, 32 bytes or more; the same for all replicas. Better given in the
    /// environment [default: made once, and kept in a file beside the blobs].
    #[arg(long, env = "BLOB_URL_SECRET", hide_env_values = true)]
    pub blob_url_secret: Option<Secret>,
    /// Connections for signed URLs that are open at once; more wait.
    #[arg(long, env = "CONTENT_HTTP_MAX_CONNECTIONS", default_value_t = 512)]
    pub http_max_connections: usize,
    /// Seconds without a byte after which a connection for a signed URL is dropped.
    #[arg(long, env = "CONTENT_HTTP_SILENCE_SECS", default_value_t = 30)]
    pub http_silence_secs: u64,
}

impl UrlArgs {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |name, why| Err(ConfigError::Wrong { name, why });
        if self.secret().is_some_and(|secret| secret.reveal().len() < MIN_SECRET_BYTES) {
            return wrong("BLOB_URL_SECRET", "must have 32 bytes at least");
        }
        if self.http_max_connections == 0 {
            return wrong("CONTENT_HTTP_MAX_CONNECTIONS", "must be at least 1");
        }
        if self.http_silence_secs == 0 {
            return wrong("CONTENT_HTTP_SILENCE_SECS", "must be at least 1");
        }
        self.base().map(drop)
    }

    /// Without a slash at its end.
    pub(crate) fn base(&self) -> Result<Option<String>, ConfigError> {
        let base = given(self.blob_url_base.as_ref());
        base.map(|base| http_url("BLOB_URL_BASE", base)).transpose()
    }

    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.blob_url_secret.as_ref().filter(|secret| !secret.reveal().is_empty())
    }

    pub(crate) fn silence(&self) -> Duration {
        Duration::from_secs(self.http_silence_secs)
    }
}
