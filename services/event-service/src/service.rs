//! The parts put together: port, pool, migrations, server.

use std::{io, net::SocketAddr, sync::LazyLock, time::Duration};

use sqlx::{PgPool, migrate::Migrator};
use synap_postgres::{InvalidUrl, MigrateError, PoolOptions, is_transient};
use synap_proto::event::{
    event_admin_service_server::EventAdminServiceServer, event_service_server::EventServiceServer,
};
use synap_rpc::{Channel, ChannelError, Server};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    archive::{Archive, Blobs},
    config::DatabaseUrl,
    grpc::{EventAdminApi, EventApi, LONG_CALLS},
    legacy::{DualWrite, Legacy},
    store::{Admin, Store},
    upkeep::Upkeep,
};

const NAME: &str = "event-service";

/// What `migrations/event` brings the database to.
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    synap_postgres::migrator!("../../../migrations/event":
        "0001_event_store.sql",
        "0002_partitions.sql",
        "0003_feed.sql",
        "0004_legacy.sql",
        "0005_archive.sql",
        "0006_epoch.sql",
        "0007_legacy_owners.sql",
    )
});

/// The table of applied migrations, in the schema that the connection uses first.
pub const MIGRATION_TABLE: &str = "_event_migrations";

/// How long the connections have to say goodbye when the service ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why the service could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The port could not be opened.
    #[error(transparent)]
    Listen(#[from] io::Error),
    /// The database's URL cannot be used.
    #[error(transparent)]
    DatabaseUrl(#[from] InvalidUrl),
    /// content-service's URL cannot be used.
    #[error(transparent)]
    ContentEndpoint(#[from] ChannelError),
    /// The database was reached and cannot be migrated; waiting would not help.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The server broke.
    #[error("event-service stopped serving: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Brings the database to the newest migration.
///
/// # Errors
/// See [`synap_postgres::migrate`].
pub async fn migrate(url: &str) -> Result<(), MigrateError> {
    synap_postgres::migrate(url, &MIGRATOR, MIGRATION_TABLE).await
}

/// event-service with its port open.
pub struct Service {
    server: Server,
    local_addr: SocketAddr,
    pool: PgPool,
    upkeep: Upkeep,
    config: Config,
}

impl Service {
    /// Opens the port. The database need not be there yet.
    ///
    /// # Errors
    /// [`StartError::Listen`] or [`StartError::DatabaseUrl`].
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let pool = synap_postgres::connect_pool(
            config.database_url.expose(),
            &PoolOptions {
                by_key: true,
                max_connections: config.database_connections,
                ..PoolOptions::new("synap-event")
            },
        )?;
        let admin = Admin::new(config.database_url.expose())?;
        let content = config.upkeep.content_endpoint.as_deref();
        let content = content.map(|url| Channel::connect("content-service", url)).transpose()?;
        let archive = Archive::new(content.map(Blobs::new));
        let upkeep = Upkeep::new(admin, archive, config.upkeep.clone());
        let server = Server::bind(NAME, config.listen, &config.server).await?;
        let local_addr = server.local_addr()?;
        Ok(Self { server, local_addr, pool, upkeep, config })
    }

    /// The address that is listened on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop` is cancelled. Ready once the database is there with every migration
    /// applied, and again whenever it comes back.
    ///
    /// # Errors
    /// [`StartError::Migrate`] or [`StartError::Serve`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        let Self { server, local_addr, pool, upkeep, config } = self;
        tracing::info!(
            server.address = %local_addr.ip(),
            server.port = local_addr.port(),
            "event-service listens"
        );
        let dual_write = DualWrite::default();
        let store = Store::new(
            pool.clone(),
            config.group_commit(),
            upkeep.archive.clone(),
            dual_write.clone(),
        );
        let legacy = Legacy::new(upkeep.admin.clone(), dual_write);
        let ready = || {
            let pool = pool.clone();
            async move {
                synap_postgres::migrations_current(&pool, &MIGRATOR, MIGRATION_TABLE)
                    .await
                    .unwrap_or(false)
            }
        };
        let api = EventApi::new(store, upkeep.clone(), stop.clone());
        let serving = server
            .long_calls(LONG_CALLS)
            .add_service(EventServiceServer::new(api))
            .add_service(EventAdminServiceServer::new(EventAdminApi::new(upkeep.clone(), legacy)))
            .serve(stop, ready);
        let served = async {
            tokio::pin!(serving);
            tokio::select! {
                outcome = &mut serving => return Ok(outcome?),
                migrated = migrate_patiently(&config.database_url), if config.auto_migrate => {
                    migrated?;
                }
            }
            Ok(serving.await?)
        };
        let outcome = tokio::select! {
            outcome = served => outcome,
            () = upkeep.run(ready) => unreachable!("the upkeep has no end"),
        };
        // A connection that hangs would hold up the end.
        let closed = async { tokio::join!(pool.close(), upkeep.admin.pool().close()) };
        let _ = tokio::time::timeout(GOODBYE, closed).await;
        outcome
    }
}

/// Migrates as soon as the database can be reached.
async fn migrate_patiently(url: &DatabaseUrl) -> Result<(), MigrateError> {
    let mut pause = Duration::from_millis(100);
    loop {
        match migrate(url.expose()).await {
            Err(error @ MigrateError::DatabaseNewer { .. }) => {
                // A rolling update: the new schema serves the old release too.
                tracing::warn!(reason = %error, "the database is ahead of this release");
                return Ok(());
            }
            Err(error) if may_pass(&error) => {
                tracing::warn!(reason = %error, "waiting for the database");
            }
            outcome => return outcome,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn may_pass(error: &MigrateError) -> bool {
    match error {
        MigrateError::Failed { source, .. } | MigrateError::Database { source, .. } => {
            is_transient(source)
        }
        _ => false,
    }
}
