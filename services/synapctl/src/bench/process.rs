//! What a process holds in memory. Linux only: it reads `/proc`.

use anyhow::Context as _;

/// Resident memory of a process, in MiB.
pub(super) struct Resident {
    pub(super) now_mib: f64,
    /// The most since it was started, or since [`forget_peak`].
    pub(super) peak_mib: f64,
}

/// Lets the peak begin anew.
pub(super) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset VmHWM")
}

pub(super) fn memory(pid: u32) -> anyhow::Result<Resident> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: f64 = line
            .and_then(|line| line.split_whitespace().next())
            .with_context(|| format!("no {name} of process {pid}"))?
            .parse()?;
        Ok(kib / 1024.0)
    };
    Ok(Resident { now_mib: mib("VmRSS:")?, peak_mib: mib("VmHWM:")? })
}
