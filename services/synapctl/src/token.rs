//! `synapctl token`: a development token.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use synap_auth::Secret;
use synap_types::{SystemClock, UserId};

use crate::{cli::Exit, up::DevSecret};

/// Print a development token, signed with the secret of `synapctl up` or with JWT_HS256_SECRET.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  export TOKEN=$(cargo run -q -- token --user ada@example.org)")]
pub struct TokenArgs {
    /// The user whom the token names: its `sub`.
    #[arg(long)]
    user: String,
    /// Hours for which it is good.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
    ttl_hours: u64,
    /// The data directory of `synapctl up`.
    #[arg(long, default_value = ".synap")]
    data_dir: PathBuf,
    /// The secret that the gateway checks tokens with.
    #[arg(long, env = "JWT_HS256_SECRET", hide_env_values = true)]
    jwt_hs256_secret: Option<Secret>,
}

/// Runs the command.
pub(crate) fn token(args: &TokenArgs) -> anyhow::Result<Exit> {
    let user = UserId::parse(args.user.clone()).context("--user")?;
    let secret = match &args.jwt_hs256_secret {
        Some(secret) => secret.clone(),
        None => DevSecret::read(&args.data_dir)?,
    };
    let ttl = Duration::from_hours(args.ttl_hours);
    println!("{}", synap_auth::issue_hs256(&secret, &user, ttl, &SystemClock));
    Ok(Exit::Well)
}
