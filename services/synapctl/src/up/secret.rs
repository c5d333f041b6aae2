//! The secrets that development tokens and page tokens are signed with.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use synap_auth::Secret;

const FILE: &str = "jwt-secret";
const PAGE_TOKENS_FILE: &str = "page-token-secret";

/// Says who signs tokens, if anything in the environment does.
const CONFIGURED_BY: [&str; 3] = ["JWT_HS256_SECRET", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL"];

/// A secret made once for a data directory.
pub struct DevSecret;

impl DevSecret {
    /// The directory's secret, made if there is none; `None` if the environment says who signs
    /// tokens.
    ///
    /// # Errors
    /// If the file cannot be read or made.
    pub fn unless_configured(data_dir: &Path) -> anyhow::Result<Option<Secret>> {
        Self::unless_any(&CONFIGURED_BY, data_dir, FILE)
    }

    /// The directory's secret for page tokens, made if there is none; `None` if the environment has
    /// one.
    ///
    /// # Errors
    /// If the file cannot be read or made.
    pub(super) fn for_page_tokens(data_dir: &Path) -> anyhow::Result<Option<Secret>> {
        Self::unless_any(&["PAGE_TOKEN_SECRET"], data_dir, PAGE_TOKENS_FILE)
    }

    fn unless_any(
        variables: &[&str],
        data_dir: &Path,
        file: &str,
    ) -> anyhow::Result<Option<Secret>> {
        let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
        if variables.iter().any(is_set) {
            return Ok(None);
        }
        Self::read_or_make(&data_dir.join(file)).map(Some)
    }

    /// The directory's secret.
    ///
    /// # Errors
    /// If there is none: nothing was ever run there.
    pub fn read(data_dir: &Path) -> anyhow::Result<Secret> {
        let path = data_dir.join(FILE);
        let secret = fs::read_to_string(&path).with_context(|| {
            format!(
                "no secret in {}: run `synapctl up` there first, name another --data-dir, or set \
                 JWT_HS256_SECRET",
                path.display()
            )
        })?;
        Ok(Secret::new(secret.trim()))
    }

    fn read_or_make(path: &Path) -> anyhow::Result<Secret> {
        if path.exists() {
            let secret = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            return Ok(Secret::new(secret.trim()));
        }
        let mut random = [0_u8; 32];
        fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut random))
            .context("no randomness for a secret")?;
        let secret = STANDARD.encode(random);
        // Whole or not at all, and nobody else's to read.
        let unfinished = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .with_context(|| format!("cannot write {}", unfinished.display()))?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(Secret::new(secret))
    }
}
