//! All the wiring of entity-service, in one place.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use sqlx::{PgPool, migrate::Migrator};
use synap_proto::entity::{
    adoption_service_server::AdoptionServiceServer,
    content_migration_service_server::ContentMigrationServiceServer,
    entity_service_server::EntityServiceServer, operation_service_server::OperationServiceServer,
    storage_service_server::StorageServiceServer, takeover_service_server::TakeoverServiceServer,
    verification_service_server::VerificationServiceServer,
};
use synap_rpc::Server;
use synap_types::SystemIds;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    grpc::{
        self, Adoptions, ContentMigration, Entities, LONG_CALLS, Operations, Storage, Takeover,
        Verification,
    },
    maintenance, start,
    store::{Adoption, Store},
};

/// entity-service's migrations: `migrations/entity`.
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    synap_postgres::migrator!("../../../migrations/entity":
        "0001_v02_tables.sql",
        "0002_write_protocol.sql",
        "0003_files.sql",
        "0004_operation_kinds.sql",
        "0005_events_in_order.sql",
        "0006_walls.sql",
        "0007_repairs.sql",
        "0008_edit_kinds.sql",
        "0009_purge.sql",
        "0010_listing.sql",
        "0011_search.sql",
        "0012_vector_key.sql",
        "0013_vector_versions.sql",
        "0014_vectors_of_user.sql",
        "0015_batches.sql",
        "0016_search_beginnings.sql",
        "0017_inline_documents.sql",
        "0018_search_few_vectors.sql",
        "0019_documents_ahead.sql",
        "0020_file_checks.sql",
        "0021_content_migrations.sql",
        "0022_takeover.sql",
        "0024_file_findings.sql",
        "0025_text_of_v02.sql",
    )
});

/// Where it is recorded which of them are applied.
pub const MIGRATION_TABLE: &str = "_entity_migrations";

/// Room for a body of 16 MiB and what surrounds it.
const MAX_MESSAGE_BYTES: usize = 20 * 1024 * 1024;

/// Room for a row of content_blocks in the text format of COPY: every byte of a body may become two.
const MAX_ROWS_BYTES: usize = 64 * 1024 * 1024;

/// entity-service, with its port open.
pub struct Service {
    config: Config,
    server: Server,
    pool: PgPool,
    store: Store,
    adoption: Adoption,
}

impl Service {
    /// Opens the port. The database may still be away: the service is not ready until it is there.
    ///
    /// # Errors
    /// If the port is taken or the database's URL is none.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let pool = synap_postgres::connect_pool(&config.database_url, &config.pool_options())?;
        let store =
            Store::new(pool.clone(), config.protocol, config.search.clone(), Arc::new(SystemIds));
        let content_migration = ContentMigration { store: store.clone() };
        let entities = Entities { store: store.clone() };
        let operations = Operations { store: store.clone() };
        let storage = Storage { store: store.clone() };
        let adoption = Adoption::new(&config.database_url)?;
        let adoptions = Adoptions { adoption: adoption.clone() };
        let operations =
            OperationServiceServer::new(operations).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let verification = Verification { store: store.clone() };
        let takeover = Takeover { store: store.clone() };
        let server = Server::bind("entity-service", config.listen, &config.server)
            .await?
            .long_calls(LONG_CALLS)
            .shut_for({
                let adoption = adoption.clone();
                move |path| grpc::refused_until_adopted(path, &adoption)
            })
            .add_service(AdoptionServiceServer::new(adoptions))
            .add_service(ContentMigrationServiceServer::new(content_migration))
            .add_service(EntityServiceServer::new(entities))
            .add_service(operations)
            .add_service(StorageServiceServer::new(storage))
            .add_service(
                TakeoverServiceServer::new(takeover).max_decoding_message_size(MAX_ROWS_BYTES),
            )
            .add_service(VerificationServiceServer::new(verification));
        Ok(Self { config, server, pool, store, adoption })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// Migrates, serves until `stop` is cancelled, and drains.
    ///
    /// # Errors
    /// If a migration fails for good, or the listener does.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { config, server, pool, store, adoption } = self;
        // Each part is a future of its own on the heap: as one, it would take most of a thread's stack.
        // A failed migration stops the service; a database that is away does not.
        let end = stop.child_token();
        let migrating = async {
            let done = Box::pin(start::prepare(&config, &adoption)).await;
            if done.is_err() {
                end.cancel();
            }
            done
        };
        let ready = || async {
            let current = synap_postgres::migrations_current(&pool, &MIGRATOR, MIGRATION_TABLE);
            current.await.unwrap_or(false)
        };
        let work = async {
            let (migrated, served) = tokio::join!(
                async {
                    tokio::select! {
                        done = migrating => done,
                        () = stop.cancelled() => Ok(()),
                    }
                },
                Box::pin(server.serve(end.clone(), ready))
            );
            migrated?;
            served?;
            anyhow::Ok(())
        };
        tokio::select! {
            outcome = work => outcome,
            () = Box::pin(maintenance::run(&store, ready)) => unreachable!("maintenance has no end"),
        }
    }
}
