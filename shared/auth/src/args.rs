//! Whose tokens are trusted, as the environment says.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use clap::Args;

/// A text that nobody should read in a log.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl FromStr for Secret {
    /// Cannot fail: a value that the command line's parser refuses is printed.
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}

/// Whose tokens are trusted. Exactly one of the first three must be set; an empty value counts as
/// not set, because that is how deployment templates write it.
#[derive(Debug, Clone, Args)]
pub struct AuthArgs {
    /// Secret of at least 32 bytes that signs tokens with HS256.
    #[arg(long, env = "JWT_HS256_SECRET", hide_env_values = true)]
    pub jwt_hs256_secret: Option<Secret>,
    /// PEM file with the public key that tokens are signed for: RSA (2048 to 8192 bits), EC (P-256,
    /// P-384) or Ed25519.
    #[arg(long, env = "JWT_PUBLIC_KEY_FILE")]
    pub jwt_public_key_file: Option<PathBuf>,
    /// URL of the identity provider's JSON Web Key Set: https, or http on this machine.
    #[arg(long, env = "JWT_JWKS_URL")]
    pub jwt_jwks_url: Option<String>,
    /// The only issuer (`iss`) whose tokens are taken.
    #[arg(long, env = "JWT_ISSUER")]
    pub jwt_issuer: Option<String>,
    /// What a token's audience (`aud`) must contain.
    #[arg(long, env = "JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// Seconds by which clocks may differ when `exp` and `nbf` are checked.
    #[arg(
        long,
        env = "JWT_LEEWAY_SECS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(..=600)
    )]
    pub jwt_leeway_secs: u64,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        auth: AuthArgs,
    }

    #[test]
    fn no_secret_is_printed() {
        let secret = "0123456789abcdef0123456789abcdef";
        let program = Program::parse_from(["x", "--jwt-hs256-secret", secret]);
        let text = format!("{program:?}");
        assert!(text.contains("[redacted]") && !text.contains(secret));
        let held = program.auth.jwt_hs256_secret.unwrap();
        assert_eq!(held.expose(), secret);
    }

    #[test]
    fn a_leeway_that_defeats_expiry_is_refused() {
        let refused = Program::try_parse_from(["x", "--jwt-leeway-secs", "86400"]);
        assert!(refused.unwrap_err().to_string().contains("--jwt-leeway-secs"));
    }
}
