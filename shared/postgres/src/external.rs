//! The database that the operator configured: is it there, new enough, and does it have pgvector?

use std::{
    io,
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::{
    ProvideError, is_transient,
    pool::{connect_options, redact_url},
    version::{GOOD_VECTOR, OLDEST_MAJOR, VectorVersion, server_version},
};

/// How long a database may take to answer at all: one that is suspended or starting needs seconds.
const PATIENCE: Duration = Duration::from_secs(10);

const RETRY: Duration = Duration::from_millis(200);

/// What a server says about itself.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Such as `18.4`.
    pub(crate) version: String,
    /// Such as 180004.
    pub(crate) number: i32,
    /// The `vector` extension that `CREATE EXTENSION` would create.
    pub(crate) available: Option<String>,
    /// The `vector` extension that the database already has.
    pub(crate) created: Option<String>,
}

impl Facts {
    pub(crate) async fn ask(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let (version, number, available, created): (String, i32, _, _) = sqlx::query_as(
            "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                    (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
                    (SELECT extversion FROM pg_extension WHERE extname = 'vector')",
        )
        .fetch_one(connection)
        .await?;
        let version = server_version(&version).unwrap_or(version);
        Ok(Self { version, number, available, created })
    }

    /// `PostgreSQL 18.4, pgvector 0.8.5`
    pub(crate) fn describe(&self) -> String {
        let vector = self.created.as_deref().or(self.available.as_deref()).unwrap_or("missing");
        format!("PostgreSQL {}, pgvector {vector}", self.version)
    }

    /// What an operator should know about this server's pgvector, if anything.
    pub(crate) fn vector_warning(&self) -> Option<String> {
        let good = |text: &Option<String>| {
            text.as_deref().and_then(VectorVersion::parse).is_some_and(|found| found >= GOOD_VECTOR)
        };
        let danger = "older ones can corrupt an index on vacuum";
        match (&self.available, &self.created) {
            (Some(available), _) if !good(&self.available) => Some(format!(
                "pgvector {available} is too old: upgrade it on the server to {GOOD_VECTOR} or \
                 newer, then run ALTER EXTENSION vector UPDATE and REINDEX its indexes ({danger})"
            )),
            (_, Some(created)) if !good(&self.created) => Some(format!(
                "the database still uses pgvector {created}: run ALTER EXTENSION vector UPDATE \
                 and REINDEX its indexes ({danger})"
            )),
            _ => None,
        }
    }
}

/// Checks the configured database.
pub(crate) async fn check(url: &str) -> Result<Facts, ProvideError> {
    let options = connect_options(url)?.application_name("synap-check");
    let shown = redact_url(url);
    let facts = ask_patiently(&options)
        .await
        .map_err(|source| ProvideError::Unreachable { url: shown.clone(), source })?;
    refuse_unusable(facts, shown)
}

fn refuse_unusable(facts: Facts, url: String) -> Result<Facts, ProvideError> {
    if u32::try_from(facts.number / 10_000).is_ok_and(|major| major < OLDEST_MAJOR) {
        return Err(ProvideError::TooOld { url, version: facts.version });
    }
    if facts.available.is_none() && facts.created.is_none() {
        return Err(ProvideError::NoVector { url });
    }
    Ok(facts)
}

async fn ask_patiently(options: &PgConnectOptions) -> Result<Facts, sqlx::Error> {
    let started = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(started.elapsed());
        let attempt = async {
            let mut connection = PgConnection::connect_with(options).await?;
            let facts = Facts::ask(&mut connection).await;
            // The answer is there; how the connection ends changes nothing.
            let _ = connection.close().await;
            facts
        };
        match tokio::time::timeout(left, attempt).await {
            Ok(Err(error)) if is_transient(&error) && started.elapsed() + RETRY < PATIENCE => {
                tokio::time::sleep(RETRY).await;
            }
            Ok(outcome) => return outcome,
            Err(_) => {
                let text = format!("no answer within {} s", PATIENCE.as_secs());
                return Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(number: i32, available: Option<&str>, created: Option<&str>) -> Facts {
        Facts {
            version: "x".to_owned(),
            number,
            available: available.map(str::to_owned),
            created: created.map(str::to_owned),
        }
    }

    #[test]
    fn postgresql_14_and_a_server_without_pgvector_are_refused() {
        let check = |facts| refuse_unusable(facts, "postgres://h".to_owned());
        let error = check(facts(140_011, Some("0.8.5"), None)).unwrap_err();
        assert!(matches!(error, ProvideError::TooOld { .. }), "{error}");
        let error = check(facts(150_008, None, None)).unwrap_err();
        assert!(matches!(error, ProvideError::NoVector { .. }), "{error}");
        assert!(check(facts(190_000, Some("0.8.5"), None)).is_ok());
    }

    #[test]
    fn an_old_pgvector_is_warned_about_on_the_server_and_in_the_database() {
        let warning = |available, created| facts(180_000, available, created).vector_warning();
        assert!(
            warning(Some("0.8.0"), None).unwrap().contains("upgrade it on the server to 0.8.4")
        );
        let stale = warning(Some("0.8.5"), Some("0.8.0")).unwrap();
        assert!(stale.contains("ALTER EXTENSION vector UPDATE"), "{stale}");
        assert_eq!(warning(Some("0.8.5"), Some("0.8.5")), None);
        assert_eq!(warning(Some("0.8.4"), None), None);
    }
}
