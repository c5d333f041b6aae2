//! One data directory: who may use it, what a crash left in it, and how it is initialised.
//!
//! ```text
//! <data_dir>/pgdata        PostgreSQL's own data directory
//!            owner.lock    locked by the process that provides the server; holds its pid
//!            server.lock   locked by the watchdog as long as the server may be running
//!            postgres.log  what the server prints
//! ```
//!
//! Two locks, because a server outlives a killed owner for the moment that its shutdown takes: the
//! next owner gets `owner.lock` at once and then waits for `server.lock`. The system releases both
//! when their holders end, so there is nothing stale about them after a crash.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Progress, ProvideError, identity::Identity, installed::Installation,
    provide_error::IoContext as _,
};

/// The user and owner of everything in a cluster that we make.
pub(crate) const SUPERUSER: &str = "synap";

/// A log longer than this is begun anew at the next start.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// How long a server whose owner is gone may take to shut down before we give up on it.
const SHUTDOWN_LIMIT: Duration = Duration::from_mins(1);

const POLL: Duration = Duration::from_millis(20);
/// A child that this process is starting has a copy of each of our locks from fork to exec: on a busy
/// machine one that we have given up is held for this long at most.
const FORK_LIMIT: Duration = Duration::from_secs(2);

/// No system numbers processes this high, so nobody ever has this pid (Linux ends at 2^22).
const NOBODYS_PID: &str = "4194999";

/// How the names of socket directories begin.
pub(crate) const SOCKET_PREFIX: &str = "synap-pg-";

/// Where socket directories are made. Not `$TMPDIR`: the path of a socket ends after 100 bytes.
pub(crate) const SOCKET_PARENT: &str = "/tmp";

/// A data directory that this process owns.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: PathBuf,
    /// Held, not read.
    _owner: File,
}

impl Cluster {
    /// Makes the directory if there is none, and takes ownership.
    pub(crate) fn open(dir: &Path) -> Result<Self, ProvideError> {
        let what = || format!("opening the data directory {}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(what)?;
        let dir = dir.canonicalize().doing(what)?;
        let path = dir.join("owner.lock");
        let mut owner = open_lock(&path).doing(what)?;
        let started = Instant::now();
        loop {
            match owner.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let pid = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                    if pid == std::process::id().to_string() && started.elapsed() < FORK_LIMIT {
                        thread::sleep(POLL);
                        continue;
                    }
                    let pid = if pid.is_empty() { "?".to_owned() } else { pid };
                    return Err(ProvideError::InUse { data_dir: dir, pid });
                }
                Err(TryLockError::Error(error)) => return Err(error).doing(what),
            }
        }
        owner.set_len(0).doing(what)?;
        writeln!(owner, "{}", std::process::id()).doing(what)?;
        Ok(Self { dir, _owner: owner })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn pgdata(&self) -> PathBuf {
        self.dir.join("pgdata")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// The major version that made the data, if there is any.
    pub(crate) fn major(dir: &Path) -> Option<u32> {
        fs::read_to_string(dir.join("pgdata/PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// The process id of the server that runs, or ran last.
    pub(crate) fn postmaster_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.pgdata().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Waits until no server runs on this directory any more, and keeps others from starting one
    /// for as long as the returned file, or a duplicate of it, is open.
    pub(crate) fn lock_server(&self, progress: &Progress) -> Result<File, ProvideError> {
        let what = || format!("waiting for the previous server on {}", self.dir.display());
        let lock = open_lock(&self.dir.join("server.lock")).doing(what)?;
        let started = Instant::now();
        let mut told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if started.elapsed() < SHUTDOWN_LIMIT => {
                    if !told && started.elapsed() > Duration::from_secs(1) {
                        progress("waiting for the previous PostgreSQL to shut down");
                        told = true;
                    }
                    thread::sleep(POLL);
                }
                Err(error) => return Err(error.into()).doing(what),
            }
        }
    }

    /// Prepares for a start after anything: a crash, a kill, a reboot. Needs the server's lock.
    ///
    /// PostgreSQL refuses to start while its pid file names a living process. That process can be
    /// a server whose watchdog was killed, which is shut down here, or an innocent one that has got
    /// the number since, as happens in containers where the numbers are small. In that case only
    /// the number is replaced: the file also names the shared memory by which PostgreSQL knows
    /// whether old backends still live, and without it would not notice them.
    pub(crate) fn clear_stale(&self) -> Result<(), ProvideError> {
        let path = self.pgdata().join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(());
        };
        let mut lines: Vec<&str> = text.lines().collect();
        let sockets = lines.get(4).map(Path::new);
        if let Some(sockets) = sockets.filter(|sockets| is_socket_dir(sockets)) {
            // A watchdog that was killed could not do it; what stays is an empty directory.
            let _ = fs::remove_dir_all(sockets);
        }
        let Some(pid) = lines.first().and_then(|line| line.trim().parse().ok()) else {
            // Empty or broken: the machine stopped while it was written.
            return fs::remove_file(&path).doing(|| format!("removing {}", path.display()));
        };
        if !is_alive(pid) {
            return Ok(());
        }
        if command_line(pid).contains(&*self.pgdata().to_string_lossy()) {
            return self.end_orphan(pid);
        }
        lines[0] = NOBODYS_PID;
        let text = lines.join("\n") + "\n";
        // Written in place: the file keeps its owner.
        fs::write(&path, text).doing(|| format!("correcting {}", path.display()))
    }

    fn end_orphan(&self, pid: u32) -> Result<(), ProvideError> {
        tracing::warn!(pid, "a PostgreSQL without a watchdog runs on this directory: ending it");
        send("INT", pid);
        let started = Instant::now();
        while is_alive(pid) {
            if started.elapsed() > SHUTDOWN_LIMIT {
                return Err(ProvideError::InUse {
                    data_dir: self.dir.clone(),
                    pid: pid.to_string(),
                });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Initialises the data if there is none yet: wholly, or not at all.
    pub(crate) fn init(
        &self,
        installation: &Installation,
        identity: &Identity,
        durable: bool,
    ) -> Result<(), ProvideError> {
        if Self::major(&self.dir).is_some() {
            return Ok(());
        }
        let (pgdata, fresh) = (self.pgdata(), self.dir.join("pgdata.new"));
        // In PostgreSQL's built-in C.UTF-8 texts sort by code point and case works in all
        // languages, on every system alike. Before 17 the C library has to do it, if it can.
        let locales: &[&[&str]] = if installation.major >= 17 {
            &[&["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]]
        } else {
            &[&["--locale=C", "--lc-ctype=C.UTF-8"], &["--locale=C"]]
        };
        let mut output = String::new();
        for locale in locales {
            if fresh.exists() {
                fs::remove_dir_all(&fresh).doing(|| format!("removing {}", fresh.display()))?;
            }
            let mut command = identity.command(&installation.bin.join("initdb"));
            command.arg("-D").arg(&fresh);
            command.args(["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8"]);
            command.args(["--data-checksums", "--no-instructions"]).args(*locale);
            if !durable {
                command.arg("--no-sync");
            }
            let result = command.output().doing(|| "starting initdb".to_owned())?;
            if result.status.success() {
                fs::rename(&fresh, &pgdata).doing(|| format!("creating {}", pgdata.display()))?;
                return sync_dir(&self.dir);
            }
            output = String::from_utf8_lossy(&result.stderr).into_owned();
        }
        Err(ProvideError::Failed { what: "initdb".to_owned(), output })
    }

    /// Makes the log ready for a start, and returns where it will begin to speak of it.
    pub(crate) fn open_log(&self, identity: &Identity) -> Result<u64, ProvideError> {
        let path = self.log();
        let what = || format!("opening {}", path.display());
        let mut options = OpenOptions::new();
        let log = options.create(true).append(true).mode(0o600).open(&path).doing(what)?;
        identity.give(&path).doing(what)?;
        let length = log.metadata().doing(what)?.len();
        if length > LOG_LIMIT {
            log.set_len(0).doing(what)?;
            return Ok(0);
        }
        Ok(length)
    }

    /// What the server has printed since `start`, at most the last few lines.
    pub(crate) fn log_since(&self, start: u64) -> String {
        const ENOUGH: u64 = 4096;
        let read = || {
            let mut log = File::open(self.log())?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(start.max(length.saturating_sub(ENOUGH))))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
    }
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// A rename is there after a power failure only once its directory is.
fn sync_dir(dir: &Path) -> Result<(), ProvideError> {
    let what = || format!("syncing {}", dir.display());
    File::open(dir).doing(what)?.sync_all().doing(what)
}

fn is_socket_dir(path: &Path) -> bool {
    path.parent() == Some(Path::new(SOCKET_PARENT))
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SOCKET_PREFIX))
}

/// Whether we could signal that process. Another user's process is not our server.
fn is_alive(pid: u32) -> bool {
    send("0", pid)
}

/// Sends a signal, or with `0` asks whether one could be sent.
fn send(signal: &str, pid: u32) -> bool {
    Command::new("/bin/sh")
        .args(["-c", "kill -\"$1\" \"$2\"", "sh", signal, &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The words of a process's command, or nothing for one that has ended.
fn command_line(pid: u32) -> String {
    if let Ok(words) = fs::read(format!("/proc/{pid}/cmdline")) {
        return String::from_utf8_lossy(&words).into_owned();
    }
    let output = Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
