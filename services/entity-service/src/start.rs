//! What becomes of the database when the service starts: one that is empty or ours is migrated; one
//! of V0.2 is somebody's, in use, and left alone until an operator has it adopted.

use std::time::Duration;

use crate::{
    Config, MIGRATION_TABLE, MIGRATOR, domain::StepProgress, error::Error, store::Adoption,
};

/// How often it is asked whether it is adopted by now, or back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Returns when the database is as this release wants it, or somebody else is to make it so.
///
/// # Errors
/// If a migration fails for good.
pub(crate) async fn prepare(config: &Config, adoption: &Adoption) -> anyhow::Result<()> {
    until_adopted(config, adoption).await?;
    if config.auto_migrate {
        synap_postgres::migrate_when_reachable(&config.database_url, &MIGRATOR, MIGRATION_TABLE)
            .await?;
    }
    Ok(())
}

async fn until_adopted(config: &Config, adoption: &Adoption) -> Result<(), Error> {
    let mut told = false;
    loop {
        match adoption.look().await {
            Ok(true) if config.auto_adopt => {
                Box::pin(adoption.adopt(&log)).await?;
            }
            Ok(true) if !told => {
                told = true;
                tracing::warn!(
                    "the database is one of Synap V0.2 and left as it is: run `synapctl adopt` to \
                     have this service take it over"
                );
            }
            Ok(true) => {}
            Err(Error::Database(cause)) if synap_postgres::is_transient(&cause) => {
                tracing::warn!(error = %cause, "waiting for the database");
            }
            // What is wrong with it otherwise is said by the migrator.
            Ok(false) | Err(_) => return Ok(()),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn log(progress: StepProgress) {
    if let Some(waiting_for) = progress.waiting_for {
        tracing::info!(step = progress.step.description, waiting_for, "the adoption waits");
    }
}
