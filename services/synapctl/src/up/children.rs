//! Each service as a child process, started again when it dies.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, Command},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Addresses, Plan, System, plan::Told};

/// A child that dies this soon after its start, this often in a row, will not get better.
const SOON: Duration = Duration::from_secs(5);
const TRIES: u32 = 5;
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// A child has its own grace period; this is what it may take to notice.
const KILL_AFTER: Duration = Duration::from_secs(30);

pub(super) fn start(mut plan: Plan, stop: CancellationToken) -> anyhow::Result<System> {
    plan.addresses = choose_ports(plan.addresses)?;
    let addresses = plan.addresses;
    let gateway_stopped = CancellationToken::new();
    let gateway = plan.gateway(&addresses);
    let mut system = System::new(addresses, stop.clone());
    for told in [plan.content(), plan.entity(), plan.event(&addresses)] {
        system.spawn(keep_running(told, gateway_stopped.clone()));
    }
    system.spawn(async move {
        let _gateway_stopped = gateway_stopped.drop_guard();
        keep_running(gateway, stop).await
    });
    Ok(system)
}

/// One service, started alone and not started again; killed when dropped.
pub struct StartedAlone {
    /// Which service.
    pub name: &'static str,
    /// Where its gRPC listens.
    pub address: SocketAddr,
    child: Child,
}

impl StartedAlone {
    /// The process.
    ///
    /// # Errors
    /// If it has died.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("{} has died", self.name))
    }
}

impl Plan {
    /// One function for each service that starts it: in this order, each when the one before is
    /// ready.
    ///
    /// # Errors
    /// If there are no free ports.
    pub fn starts(
        mut self,
    ) -> anyhow::Result<impl Iterator<Item = impl FnOnce() -> anyhow::Result<StartedAlone>>> {
        self.addresses = choose_ports(self.addresses)?;
        let Addresses { gateway, content, entity, event, .. } = self.addresses;
        let services = [
            (self.content(), content),
            (self.entity(), entity),
            (self.event(&self.addresses), event),
            (self.gateway(&self.addresses), gateway),
        ];
        Ok(services.into_iter().map(|(told, address)| {
            move || {
                let child = spawn(&told)?;
                Ok(StartedAlone { name: told.service.name(), address, child })
            }
        }))
    }
}

/// Children cannot tell which free port they took: it is chosen for them. A port that is taken is
/// found here, before a child starts: whoever listens there could pass for the child.
fn choose_ports(addresses: Addresses) -> anyhow::Result<Addresses> {
    // All are held until all are chosen, or one could be chosen twice.
    let mut held = Vec::new();
    let mut choose = |name: &str, address: SocketAddr| -> anyhow::Result<_> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("{name} cannot listen on {address}"))?;
        let chosen = listener.local_addr()?;
        held.push(listener);
        Ok(chosen)
    };
    Ok(Addresses {
        gateway: choose("gateway", addresses.gateway)?,
        http: choose("gateway", addresses.http)?,
        content: choose("content-service", addresses.content)?,
        blobs: choose("content-service", addresses.blobs)?,
        entity: choose("entity-service", addresses.entity)?,
        event: choose("event-service", addresses.event)?,
    })
}

async fn keep_running(told: Told, stop: CancellationToken) -> anyhow::Result<()> {
    let name = told.service.name();
    let mut quick_deaths = 0;
    loop {
        let started = Instant::now();
        let mut child = spawn(&told)?;
        // Taken out: `wait` would close it.
        let _life_line = child.stdin.take();
        tokio::select! {
            status = child.wait() => {
                let status = status?;
                if status.code() == Some(2) || status.code() == Some(3) {
                    bail!("{name} could not run; its message is above");
                }
                quick_deaths = if started.elapsed() < SOON { quick_deaths + 1 } else { 0 };
                if quick_deaths >= TRIES {
                    bail!("{name} died {TRIES} times in a row, last with {status}");
                }
                tracing::error!(service = name, %status, "died; starting it again");
            }
            () = stop.cancelled() => return end(name, child).await,
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn spawn(told: &Told) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find my own program")?;
    let mut command = std::process::Command::new(program);
    command.args(["run", "--with-parent", told.service.name(), "--"]).args(&told.flags);
    // A pipe that ends when we do, even by SIGKILL.
    command.stdin(Stdio::piped());
    for (variable, _, value) in &told.secrets {
        command.env(variable, value);
    }
    // Ctrl-C in a terminal goes to the whole group; children are told by us, in order.
    command.process_group(0);
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {}", told.service.name()))
}

/// SIGTERM, patience, SIGKILL.
async fn end(name: &str, mut child: Child) -> anyhow::Result<()> {
    if let Some(pid) = child.id() {
        let kill = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
        kill.await.context("cannot send SIGTERM")?;
    }
    if let Ok(status) = tokio::time::timeout(KILL_AFTER, child.wait()).await {
        status?;
    } else {
        tracing::error!(service = name, "did not stop; killing it");
        child.kill().await?;
    }
    Ok(())
}
