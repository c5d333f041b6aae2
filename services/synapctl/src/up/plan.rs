//! What each service is told. The same flags serve in one process and in four; secrets travel in
//! the environment, where `ps` does not show them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use synap_auth::Secret;

use super::{DevSecret, UpArgs, database::Database};
use crate::run::ServiceName;

/// The ports of `up`, where nothing else is said.
const GRPC_PORTS: [u16; 4] = [50051, 50052, 50053, 50054];
const HTTP_PORT: u16 = 8080;
const BLOBS_PORT: u16 = 50055;

/// Where everything listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The gateway's gRPC.
    pub gateway: SocketAddr,
    /// The gateway's HTTP.
    pub http: SocketAddr,
    /// content-service.
    pub content: SocketAddr,
    /// Signed URLs of content-service; nobody listens where the store is S3.
    pub blobs: SocketAddr,
    /// entity-service.
    pub entity: SocketAddr,
    /// event-service.
    pub event: SocketAddr,
}

impl Addresses {
    fn of(port_base: Option<u16>) -> anyhow::Result<Self> {
        let [gateway, content, entity, event, http, blobs] = match port_base {
            None => {
                let [gateway, content, entity, event] = GRPC_PORTS;
                [gateway, content, entity, event, HTTP_PORT, BLOBS_PORT]
            }
            Some(0) => [0; 6],
            Some(base) if base <= u16::MAX - 5 => [0, 1, 2, 3, 4, 5].map(|port| base + port),
            Some(base) => anyhow::bail!("--port-base {base}: six ports in a row do not fit"),
        };
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Ok(Self {
            gateway: loopback(gateway),
            http: loopback(http),
            content: loopback(content),
            blobs: loopback(blobs),
            entity: loopback(entity),
            event: loopback(event),
        })
    }

    /// The gRPC servers by name.
    #[must_use]
    pub fn services(&self) -> [(&'static str, SocketAddr); 4] {
        [
            ("content-service", self.content),
            ("entity-service", self.entity),
            ("event-service", self.event),
            ("gateway", self.gateway),
        ]
    }
}

/// What each service is told.
pub struct Plan {
    pub(super) addresses: Addresses,
    blob_dir: String,
    /// Kind of store, where the environment is not to decide.
    blob_store: Option<&'static str>,
    entity_database: String,
    event_database: String,
    secret: Option<Secret>,
    page_tokens: Option<Secret>,
}

/// One service's flags, and the secrets among them by their variable.
pub(super) struct Told {
    pub(super) service: ServiceName,
    pub(super) flags: Vec<String>,
    /// Variable, flag, value.
    pub(super) secrets: Vec<(&'static str, &'static str, String)>,
}

impl Told {
    /// Everything as flags: for a service in this process.
    pub(super) fn all_flags(&self) -> Vec<String> {
        let secrets =
            self.secrets.iter().flat_map(|(_, flag, value)| [(*flag).to_owned(), value.clone()]);
        self.flags.iter().cloned().chain(secrets).collect()
    }
}

impl Plan {
    pub(super) fn new(
        args: &UpArgs,
        database: &Database,
        secret: Option<&Secret>,
    ) -> anyhow::Result<Self> {
        let own = |name| std::env::var(name).ok().filter(|url: &String| !url.is_empty());
        let shared = || database.url().to_owned();
        Ok(Self {
            addresses: Addresses::of(args.port_base)?,
            blob_dir: blob_dir(&args.data_dir),
            blob_store: None,
            entity_database: own("ENTITY_DATABASE_URL").unwrap_or_else(shared),
            event_database: own("EVENT_DATABASE_URL").unwrap_or_else(shared),
            secret: secret.cloned(),
            page_tokens: DevSecret::for_page_tokens(&args.data_dir)?,
        })
    }

    /// A system on free ports, for a benchmark.
    ///
    /// # Errors
    /// Never: free ports always fit.
    pub fn on_free_ports(
        data_dir: &Path,
        database_url: &str,
        secret: &Secret,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            addresses: Addresses::of(Some(0))?,
            blob_dir: blob_dir(data_dir),
            blob_store: None,
            entity_database: database_url.to_owned(),
            event_database: database_url.to_owned(),
            secret: Some(secret.clone()),
            page_tokens: None,
        })
    }

    /// Keeps blobs in this kind of store, whatever the environment says.
    #[must_use]
    pub fn with_blob_store(mut self, kind: &'static str) -> Self {
        self.blob_store = Some(kind);
        self
    }

    pub(super) fn content(&self) -> Told {
        let Addresses { content, blobs, .. } = self.addresses;
        let mut flags = [("--listen", content), ("--http-listen", blobs)]
            .map(|(flag, address)| [flag.to_owned(), address.to_string()])
            .concat();
        // A bucket that is configured in the environment wins.
        if std::env::var_os("BLOB_DIR").is_none() {
            flags.extend(["--blob-dir".to_owned(), self.blob_dir.clone()]);
        }
        if let Some(kind) = self.blob_store {
            flags.extend(["--blob-store".to_owned(), kind.to_owned()]);
        }
        Told { service: ServiceName::ContentService, flags, secrets: Vec::new() }
    }

    pub(super) fn entity(&self) -> Told {
        Told {
            service: ServiceName::EntityService,
            flags: vec!["--listen".to_owned(), self.addresses.entity.to_string()],
            secrets: vec![("ENTITY_DATABASE_URL", "--database-url", self.entity_database.clone())],
        }
    }

    /// Told after content-service, which keeps its archive.
    pub(super) fn event(&self, addresses: &Addresses) -> Told {
        let flags = [
            ("--listen", self.addresses.event.to_string()),
            ("--content-endpoint", format!("http://{}", addresses.content)),
        ];
        Told {
            service: ServiceName::EventService,
            flags: flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(),
            secrets: vec![("EVENT_DATABASE_URL", "--database-url", self.event_database.clone())],
        }
    }

    /// Told last: it must know where the others listen.
    pub(super) fn gateway(&self, addresses: &Addresses) -> Told {
        let Addresses { gateway, http, content, entity, event, .. } = addresses;
        let flags = [
            ("--listen", gateway.to_string()),
            ("--http-listen", http.to_string()),
            ("--content-url", format!("http://{content}")),
            ("--entity-url", format!("http://{entity}")),
            ("--event-url", format!("http://{event}")),
        ];
        let secrets = [
            ("JWT_HS256_SECRET", "--jwt-hs256-secret", &self.secret),
            ("PAGE_TOKEN_SECRET", "--page-token-secret", &self.page_tokens),
        ];
        Told {
            service: ServiceName::Gateway,
            flags: flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(),
            secrets: secrets
                .into_iter()
                .filter_map(|(variable, flag, secret)| {
                    Some((variable, flag, secret.as_ref()?.expose().to_owned()))
                })
                .collect(),
        }
    }
}

fn blob_dir(data_dir: &Path) -> String {
    data_dir.join("blobs").display().to_string()
}
