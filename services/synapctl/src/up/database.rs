//! The database of `up`: somebody's, or our own.

use std::{future::Future, time::Duration};

use anyhow::Context as _;
use synap_postgres::{EmbeddedMajor, ProvideOptions, Provided};

use super::UpArgs;

/// How often our own server is looked after.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The database, and our own server if it is that.
pub(super) struct Database {
    provided: Provided,
}

pub(super) async fn provide(args: &UpArgs) -> anyhow::Result<Database> {
    let mut options = ProvideOptions::new(args.data_dir.join("postgres"));
    options.database_url = args.database_url.clone().filter(|url| !url.is_empty());
    options.embedded_major = match args.embedded_pg {
        16 => EmbeddedMajor::V16,
        18 => EmbeddedMajor::V18,
        other => anyhow::bail!("--embedded-pg {other}: there are 16 and 18"),
    };
    let provided =
        synap_postgres::provide(options, |line| println!("{line}")).await.context("no database")?;
    for warning in provided.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(Database { provided })
}

impl Database {
    pub(super) fn url(&self) -> &str {
        self.provided.url()
    }

    pub(super) fn description(&self) -> &str {
        self.provided.description()
    }

    /// Waits for `work`, and meanwhile starts our own server again when it dies.
    pub(super) async fn keep<T>(&self, work: impl Future<Output = T>) -> T {
        let watch = async {
            loop {
                tokio::time::sleep(WATCH_INTERVAL).await;
                if !self.provided.is_running().await {
                    tracing::error!("PostgreSQL has died; starting it again");
                    if let Err(error) = self.provided.restart().await {
                        tracing::error!(%error, "PostgreSQL does not start");
                    }
                }
            }
        };
        tokio::select! {
            outcome = work => outcome,
            () = watch => unreachable!("watching has no end"),
        }
    }

    pub(super) async fn stop(&self) {
        self.provided.stop().await;
    }
}
