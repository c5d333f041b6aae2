//! What content-service can be told, and what follows from it.

mod s3;
mod urls;

use std::{fmt, net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use synap_rpc::ServerArgs;
use url::Url;

pub use self::{s3::S3Limits, urls::UrlArgs};
use crate::upload::HELD;

/// Configuration of content-service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address to listen on.
    #[arg(long, env = "CONTENT_LISTEN", default_value = "127.0.0.1:50052")]
    pub listen: SocketAddr,
    /// Limits of the gRPC server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Where blobs are kept.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Signed URLs.
    #[command(flatten)]
    pub urls: UrlArgs,
    /// Largest blob in bytes that PutBlob takes. S3 takes 10,000 parts of a blob, and one part must
    /// fit into MAX_INFLIGHT_BYTES; a body of unknown size has parts of 8 MiB.
    #[arg(long, env = "MAX_BLOB_BYTES", default_value_t = 5 * 1024 * 1024 * 1024 * 1024)]
    pub max_blob_bytes: u64,
    /// Bytes that are held of all bodies which are being written; more bodies wait. A large body
    /// takes 32 MiB, or one part if that is more.
    #[arg(long, env = "MAX_INFLIGHT_BYTES", default_value_t = 640 * 1024 * 1024)]
    pub max_inflight_bytes: u64,
}

impl Config {
    /// Checks what cannot be seen in one value alone.
    ///
    /// # Errors
    /// [`ConfigError`] if a blob that is held as a whole could never be admitted.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.max_blob_bytes.min(HELD) > self.max_inflight_bytes {
            return Err(ConfigError::Wrong {
                name: "MAX_INFLIGHT_BYTES",
                why: "must be at least 8 MiB, or MAX_BLOB_BYTES if that is less",
            });
        }
        if i64::try_from(self.max_blob_bytes).is_err() {
            return Err(ConfigError::Wrong {
                name: "MAX_BLOB_BYTES",
                why: "does not fit a signed 64-bit number",
            });
        }
        self.urls.check()
    }
}

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The memory of this process; gone when it ends. For tests.
    Memory,
    /// A directory, with fsync.
    Local,
    /// R2, or any other S3.
    S3,
}

/// Where blobs are kept. An empty value counts as none.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    /// Kind of store. Without it: s3 if anything of R2 or S3 is configured, else local.
    #[arg(long, env = "BLOB_STORE", value_enum)]
    pub blob_store: Option<Backend>,
    /// Directory of the local store [default: .synap/blobs].
    #[arg(long, env = "BLOB_DIR")]
    pub blob_dir: Option<PathBuf>,
    /// Cloudflare account that has the R2 bucket.
    #[arg(long, env = "R2_ACCOUNT_ID")]
    pub r2_account_id: Option<String>,
    /// Access key id for R2 or S3.
    #[arg(long, env = "R2_ACCESS_KEY_ID")]
    pub r2_access_key_id: Option<String>,
    /// Secret access key for R2 or S3; better given in the environment.
    #[arg(long, env = "R2_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub r2_secret_access_key: Option<Secret>,
    /// Bucket in R2 or S3.
    #[arg(long, env = "R2_BUCKET_NAME")]
    pub r2_bucket_name: Option<String>,
    /// Begin of every blob's URL; only written down, never called.
    #[arg(long, env = "R2_PUBLIC_URL")]
    pub r2_public_url: Option<String>,
    /// Endpoint of another S3 than R2, or of an R2 jurisdiction; wins over R2_ACCOUNT_ID.
    #[arg(long, env = "S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,
    /// Region to sign requests for [default: auto].
    #[arg(long, env = "S3_REGION")]
    pub s3_region: Option<String>,
    /// Limits of the S3 client.
    #[command(flatten)]
    pub s3_limits: S3Limits,
}

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one who needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A setting that cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The settings are incomplete.
    #[error("{name} is missing: {why}")]
    Missing {
        /// The environment variable.
        name: &'static str,
        /// Why it is needed.
        why: &'static str,
    },
    /// The setting has a value that cannot be.
    #[error("{name} {why}")]
    Wrong {
        /// The environment variable.
        name: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// What [`StoreArgs`] come down to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreConfig {
    pub(crate) place: Place,
    /// Without a slash at its end.
    pub(crate) public_url: Option<String>,
}

/// Where blobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    Local(PathBuf),
    S3(Bucket),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Local(directory) => directory.display().fmt(f),
            Self::S3(bucket) => write!(f, "{}/{}", bucket.endpoint, bucket.name),
        }
    }
}

/// A bucket and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// URL without a path.
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) name: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    pub(crate) limits: S3Limits,
}

const HALF: &str =
    "R2 or S3 is configured in part; set what is missing, or BLOB_STORE=local to do without";

impl StoreArgs {
    /// Decides where blobs are kept.
    ///
    /// # Errors
    /// [`ConfigError`] that names the variable which is missing or wrong.
    pub(crate) fn resolve(&self) -> Result<StoreConfig, ConfigError> {
        let public_url = given(self.r2_public_url.as_ref())
            .map(|url| http_url("R2_PUBLIC_URL", url))
            .transpose()?;
        let place = match self.blob_store {
            Some(Backend::Memory) => Place::Memory,
            Some(Backend::S3) => Place::S3(self.bucket()?),
            None if self.mentions_s3() => Place::S3(self.bucket()?),
            Some(Backend::Local) | None => self.local(),
        };
        Ok(StoreConfig { place, public_url })
    }

    fn local(&self) -> Place {
        let directory = self.blob_dir.clone();
        Place::Local(directory.unwrap_or_else(|| PathBuf::from(".synap/blobs")))
    }

    /// Half a configuration must not end in the local file system.
    fn mentions_s3(&self) -> bool {
        self.secret().is_some()
            || [
                &self.r2_account_id,
                &self.r2_access_key_id,
                &self.r2_bucket_name,
                &self.s3_endpoint,
            ]
            .into_iter()
            .any(|setting| given(setting.as_ref()).is_some())
    }

    fn bucket(&self) -> Result<Bucket, ConfigError> {
        let missing = |name, why| ConfigError::Missing { name, why };
        let need = |setting: &Option<String>, name| {
            given(setting.as_ref()).map(str::to_owned).ok_or(missing(name, HALF))
        };
        self.s3_limits.check()?;
        Ok(Bucket {
            limits: self.s3_limits.clone(),
            endpoint: self.endpoint()?,
            region: given(self.s3_region.as_ref()).unwrap_or("auto").to_owned(),
            name: need(&self.r2_bucket_name, "R2_BUCKET_NAME")?,
            access_key_id: need(&self.r2_access_key_id, "R2_ACCESS_KEY_ID")?,
            secret_access_key: self
                .secret()
                .cloned()
                .ok_or(missing("R2_SECRET_ACCESS_KEY", HALF))?,
        })
    }

    fn endpoint(&self) -> Result<String, ConfigError> {
        if let Some(endpoint) = given(self.s3_endpoint.as_ref()) {
            return http_url("S3_ENDPOINT", endpoint);
        }
        let account = given(self.r2_account_id.as_ref()).ok_or(ConfigError::Missing {
            name: "R2_ACCOUNT_ID",
            why: "it says where the bucket is; for another S3 than R2 set S3_ENDPOINT",
        })?;
        if !account.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(ConfigError::Wrong {
                name: "R2_ACCOUNT_ID",
                why: "must be letters and digits only",
            });
        }
        Ok(format!("https://{account}.r2.cloudflarestorage.com"))
    }

    fn secret(&self) -> Option<&Secret> {
        let secret = self.r2_secret_access_key.as_ref();
        secret.filter(|secret| !secret.reveal().is_empty())
    }
}

/// An empty variable is how compose files say "not set".
fn given(setting: Option<&String>) -> Option<&str> {
    setting.map(String::as_str).filter(|text| !text.is_empty())
}

fn http_url(name: &'static str, text: &str) -> Result<String, ConfigError> {
    let url = Url::parse(text).ok();
    if url.is_none_or(|url| !matches!(url.scheme(), "http" | "https") || !url.has_host()) {
        return Err(ConfigError::Wrong {
            name,
            why: "must be a URL that begins with https:// or http://",
        });
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r2() -> StoreArgs {
        StoreArgs {
            r2_account_id: Some("abc123".to_owned()),
            r2_access_key_id: Some("id".to_owned()),
            r2_secret_access_key: Some("hush".into()),
            r2_bucket_name: Some("notes".to_owned()),
            ..StoreArgs::default()
        }
    }

    fn place(args: &StoreArgs) -> String {
        args.resolve().unwrap().place.to_string()
    }

    #[test]
    fn the_environment_decides_where_blobs_are_kept() {
        assert_eq!(place(&StoreArgs::default()), ".synap/blobs");
        assert_eq!(place(&r2()), "https://abc123.r2.cloudflarestorage.com/notes");
        let elsewhere =
            StoreArgs { s3_endpoint: Some("http://127.0.0.1:9000/".to_owned()), ..r2() };
        assert_eq!(place(&elsewhere), "http://127.0.0.1:9000/notes");
        for (backend, expected) in [(Backend::Memory, "memory"), (Backend::Local, ".synap/blobs")] {
            let args = StoreArgs { blob_store: Some(backend), ..r2() };
            assert_eq!(place(&args), expected);
        }
    }

    #[test]
    fn half_a_configuration_is_refused_by_the_name_of_what_is_missing() {
        type Forget = fn(&mut StoreArgs);
        let cases: [(&str, Forget); 4] = [
            ("R2_ACCOUNT_ID", |args| args.r2_account_id = None),
            ("R2_ACCESS_KEY_ID", |args| {
                args.r2_access_key_id = Some(String::new());
            }),
            ("R2_SECRET_ACCESS_KEY", |args| {
                args.r2_secret_access_key = None;
            }),
            ("R2_BUCKET_NAME", |args| args.r2_bucket_name = None),
        ];
        for (name, forget) in cases {
            let mut args = r2();
            forget(&mut args);
            let message = args.resolve().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{name} is missing")), "{message}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_by_name() {
        for bad in ["127.0.0.1:9000", "ftp://x", "https://", "no url"] {
            for name in ["S3_ENDPOINT", "R2_PUBLIC_URL"] {
                let mut args = r2();
                match name {
                    "S3_ENDPOINT" => args.s3_endpoint = Some(bad.to_owned()),
                    _ => args.r2_public_url = Some(bad.to_owned()),
                }
                let message = args.resolve().unwrap_err().to_string();
                assert!(message.starts_with(name), "{bad:?}: {message}");
            }
        }
        let mut args = r2();
        args.r2_account_id = Some("evil.example/".to_owned());
        assert!(args.resolve().is_err());
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", r2()).contains("hush"));
        assert!(!format!("{:?}", r2().resolve().unwrap()).contains("hush"));
    }
}
