//! Connection pools, and URLs that can be shown.

use std::time::Duration;

use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use url::Url;

/// A connection idle for longer than this is tried before it is used. A database that suspends
/// itself (Neon after 5 minutes) or was restarted leaves such connections behind; testing every
/// connection every time would cost each query a round trip.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(30);

/// How a pool behaves. Start from [`PoolOptions::new`].
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The most connections that this pool opens. Default 16.
    pub max_connections: u32,
    /// The name shown in `pg_stat_activity`.
    pub application_name: String,
    /// How long a caller waits for a connection. Default 10 s, which covers the time that a
    /// suspended Neon database takes to wake up.
    pub acquire_timeout: Duration,
    /// The server cancels a statement that takes longer. Default 30 s; `None` for no limit. A
    /// transaction pooler takes no such setting, see [`connect_pool`].
    pub statement_timeout: Option<Duration>,
    /// The server ends a session that is inside a transaction and does nothing for this long, which
    /// nothing here has reason to: an open transaction holds back the readers of all events.
    /// Default 30 s; `None` for no limit. A transaction pooler takes no such setting.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// Connections idle for longer are closed. Default 10 min.
    pub idle_timeout: Duration,
    /// Whether every busy statement finds its rows by key. Then each is planned once, as nested
    /// loops over indexes. Left alone PostgreSQL plans a statement over `unnest` anew at every call
    /// (the arrays' lengths make the general plan look dear), which costs more than running it; and
    /// a plan made while a table was small would read all of it when it is large. Default false.
    /// A transaction pooler takes no such settings: behind one, statements are planned every time.
    pub by_key: bool,
}

/// The settings behind [`PoolOptions::by_key`].
const BY_KEY: [(&str, &str); 7] = [
    ("plan_cache_mode", "force_generic_plan"),
    // To follow a key costs a little time of the processor; a whole index costs that for each row.
    ("random_page_cost", "0"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    // Starting a worker takes longer than any of these statements.
    ("max_parallel_workers_per_gather", "0"),
];

impl PoolOptions {
    /// The defaults, under an application's name.
    #[must_use]
    pub fn new(application_name: impl Into<String>) -> Self {
        Self {
            max_connections: 16,
            application_name: application_name.into(),
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Some(Duration::from_secs(30)),
            idle_in_transaction_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Duration::from_mins(10),
            by_key: false,
        }
    }
}

/// A URL that is not one of PostgreSQL. Its text holds no password.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{url}` is no PostgreSQL URL: {reason}; expected postgres://user:password@host:port/database"
)]
pub struct InvalidUrl {
    url: String,
    reason: String,
}

/// A pool that opens its connections when they are first needed: the database need not be there.
///
/// Must be called within a Tokio runtime, and the pool ends with that runtime. Behind a transaction
/// pooler (a Neon host with `-pooler` in its name) statement timeout and plan settings are left
/// out, because such a pooler refuses settings at start.
///
/// # Errors
/// [`InvalidUrl`] if the URL is not one of PostgreSQL. A database that is down shows when the pool
/// is first used.
pub fn connect_pool(url: &str, options: &PoolOptions) -> Result<PgPool, InvalidUrl> {
    let mut connect = connect_options(url)?.application_name(&options.application_name);
    if !is_transaction_pooler(&connect) {
        if let Some(timeout) = options.statement_timeout {
            connect = connect.options([("statement_timeout", timeout.as_millis().to_string())]);
        }
        if let Some(timeout) = options.idle_in_transaction_timeout {
            let millis = timeout.as_millis().to_string();
            connect = connect.options([("idle_in_transaction_session_timeout", millis)]);
        }
        if options.by_key {
            connect = connect.options(BY_KEY);
        }
    }
    Ok(PgPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(options.idle_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move {
                if state.idle_for > STALE_AFTER {
                    return Ok(connection.ping().await.is_ok());
                }
                Ok(true)
            })
        })
        .after_release(|connection, _| {
            Box::pin(async move { Ok(is_outside_of_transactions(connection).await) })
        })
        .connect_lazy_with(connect))
}

/// Whether no transaction is open on a connection that comes back to the pool.
///
/// A future that is dropped while BEGIN is under way leaves one open, and sqlx does not know: it
/// counts a transaction when BEGIN has been answered. The next writes on the connection would be
/// part of that transaction, and lost. The server knows; sqlx tells only whether there is a
/// transaction after a statement that is meant to begin one. So one that begins none is sent:
/// outside of a transaction sqlx complains, inside it does not, and inside one that has failed the
/// server refuses the statement. It costs a round trip, which nobody waits for.
async fn is_outside_of_transactions(connection: &mut PgConnection) -> bool {
    // What was dropped inside of a transaction that sqlx knows has its ROLLBACK queued: it goes
    // first.
    match connection.begin_with("SELECT").await {
        Err(sqlx::Error::BeginFailed) => true,
        Ok(_) | Err(sqlx::Error::Database(_)) => {
            tracing::warn!("a connection came back inside a transaction; it is closed");
            false
        }
        // It is broken, and nobody needs to hear of it.
        Err(_) => false,
    }
}

/// The URL with `***` for its password, to be shown and logged.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return "(a URL that cannot be read)".to_owned();
    };
    // A URL without an authority (`postgres:password@host`) cannot carry a password in a known place.
    if parsed.cannot_be_a_base() {
        return format!("{}:(not shown)", parsed.scheme());
    }
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return format!("{}:(not shown)", parsed.scheme());
    }
    let is_secret = |name: &str| name.contains("password");
    if parsed.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<_> = parsed
            .query_pairs()
            .map(|(name, value)| {
                let value = if is_secret(&name) { "***".into() } else { value.into_owned() };
                (name.into_owned(), value)
            })
            .collect();
        parsed.query_pairs_mut().clear().extend_pairs(pairs);
    }
    parsed.into()
}

/// Reads a URL for sqlx. Unlike sqlx's own reading it refuses other schemes.
pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, InvalidUrl> {
    let invalid = |reason: String| InvalidUrl { url: redact_url(url), reason };
    let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(invalid(format!("its scheme is `{}`", parsed.scheme())));
    }
    url.parse().map_err(|error: sqlx::Error| invalid(error.to_string()))
}

/// Whether session state (settings, advisory locks, LISTEN) is lost between transactions.
pub(crate) fn is_transaction_pooler(options: &PgConnectOptions) -> bool {
    options.get_host().contains("-pooler.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_ever_shown() {
        for url in [
            "postgres://user:s3cret@host:5432/db",
            "postgres://user:s3cret%40@host/db?sslmode=require",
            "postgres://user@host/db?password=s3cret&sslmode=require",
            "postgres:user:s3cret@host",
            "user:s3cret@host/db",
            "mysql://user:s3cret@host/db",
            "postgres://user:s3cret@host:notaport/db",
        ] {
            let shown = redact_url(url);
            assert!(!shown.contains("s3cret"), "{shown}");
            if let Err(error) = connect_options(url) {
                let text = format!("{error} {error:?}");
                assert!(!text.contains("s3cret"), "{text}");
            }
        }
        assert_eq!(
            redact_url("postgres://u:p@h/d?host=/tmp/x"),
            "postgres://u:***@h/d?host=/tmp/x"
        );
        assert!(connect_options("mysql://user@host/db").is_err());
    }

    #[test]
    fn a_transaction_pooler_is_known_by_its_name() {
        let pooled = "postgres://u@ep-cool-1-pooler.eu-central-1.aws.neon.tech/d";
        let direct = "postgres://u@ep-cool-1.eu-central-1.aws.neon.tech/d";
        assert!(is_transaction_pooler(&connect_options(pooled).unwrap()));
        assert!(!is_transaction_pooler(&connect_options(direct).unwrap()));
    }
}
