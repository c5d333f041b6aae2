//! The system under measurement, with every service as a process of its own: what each holds in
//! memory can be told. Linux only: it reads `/proc`.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use synap_auth::Secret;
use synap_postgres::{ProvideOptions, Provided};
use synap_rpc::Channel;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{process, report::Memory, stores::StoreKind, system::migrate};
use crate::up::{Plan, StartedAlone};

/// How long a service may take to start.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Every service as a process of its own.
pub(super) struct Processes {
    services: Vec<StartedAlone>,
    pub(super) database: Provided,
    pub(super) directory: TempDir,
    pub(super) secret: Secret,
}

impl Processes {
    pub(super) async fn start(store: StoreKind) -> anyhow::Result<Self> {
        // Beside the build, not in /tmp: that may be memory, where fsync costs nothing.
        let directory = tempfile::Builder::new().prefix(".synap-bench-").tempdir_in(".")?;
        let options = ProvideOptions::new(directory.path().join("postgres"));
        let database = synap_postgres::provide(options, |line| eprintln!("{line}")).await?;
        migrate(database.url()).await?;
        let secret = Secret::new("a secret of a benchmark that nobody else uses");
        let plan = Plan::on_free_ports(directory.path(), database.url(), &secret)?;
        let mut services = Vec::new();
        for start in plan.with_blob_store(store.name()).starts()? {
            let service = start()?;
            let channel = Channel::connect(service.name, &format!("http://{}", service.address))?;
            let begun = Instant::now();
            while !channel.is_ready().await {
                anyhow::ensure!(begun.elapsed() < START_LIMIT, "{} is not ready", service.name);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            services.push(service);
        }
        Ok(Self { services, database, directory, secret })
    }

    fn service(&self, name: &str) -> anyhow::Result<&StartedAlone> {
        let found = self.services.iter().find(|service| service.name == name);
        found.with_context(|| format!("{name} was not started"))
    }

    /// Where a service listens.
    pub(super) fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        Ok(self.service(name)?.address)
    }

    /// Forgets what these services held at most, and what they hold now.
    pub(super) fn watch(&self, names: &[&'static str]) -> anyhow::Result<Watched<'_>> {
        let mut before = Vec::new();
        for name in names {
            let pid = self.service(name)?.pid()?;
            process::forget_peak(pid)?;
            before.push((*name, process::memory(pid)?.now_mib));
        }
        Ok(Watched { processes: self, before })
    }

    pub(super) async fn stop(self) {
        let Self { services, database, .. } = self;
        drop(services);
        database.stop().await;
    }
}

/// Services whose memory is watched.
pub(super) struct Watched<'a> {
    processes: &'a Processes,
    before: Vec<(&'static str, f64)>,
}

impl Watched<'_> {
    /// What was held at most since, or in a round before if that was more.
    pub(super) fn peaks(self, rounds_before: Vec<Memory>) -> anyhow::Result<Vec<Memory>> {
        let mut peaks = Vec::new();
        for (process, before_mib) in self.before {
            let pid = self.processes.service(process)?.pid()?;
            let peak_mib = process::memory(pid)?.peak_mib;
            peaks.push(Memory { process, before_mib, peak_mib });
        }
        for (peak, before) in peaks.iter_mut().zip(rounds_before) {
            if before.peak_mib > peak.peak_mib {
                *peak = before;
            }
        }
        Ok(peaks)
    }
}
