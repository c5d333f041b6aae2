//! The process between us and the server; see `watchdog.sh` for its side.
//!
//! Why not `PR_SET_PDEATHSIG`: it is sent when the *thread* that started the child ends, it is
//! cleared when the child changes its user, and only Linux has it. The end of a pipe is certain.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
};

use tokio::sync::watch;

use crate::identity::Identity;

/// Signals that the watchdog passes on, by their effect on PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    /// Fast shutdown: ends sessions, writes a checkpoint.
    Fast,
    /// Immediate shutdown: the next start recovers as after a crash.
    Immediate,
    /// SIGKILL.
    Kill,
}

impl Signal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
            Self::Kill => "KILL",
        }
    }
}

/// What a watchdog is to do.
pub(crate) struct Plan<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) log: PathBuf,
    pub(crate) sockets: PathBuf,
    /// Removed after the server when we end.
    pub(crate) discard: Option<PathBuf>,
    /// How the server is stopped when we end.
    pub(crate) at_end: Signal,
    /// The server's lock, which the watchdog holds from now on.
    pub(crate) lock: File,
    pub(crate) server: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    /// The server has ended; the watchdog waits for our end.
    ServerEnded,
    /// Both have ended.
    Ended,
}

/// A running watchdog. Dropping it stops the server and removes its directories, without waiting.
#[derive(Debug)]
pub(crate) struct Watchdog {
    control: ChildStdin,
    stage: watch::Receiver<Stage>,
}

impl Watchdog {
    /// Starts the watchdog, which starts the server. Blocks for the time of a fork.
    pub(crate) fn spawn(plan: Plan<'_>) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        plan.identity.take(&mut command);
        command
            .args(["-c", include_str!("watchdog.sh"), "synap-postgres"])
            .args([plan.log, plan.sockets])
            .arg(plan.discard.unwrap_or_default())
            .arg(plan.at_end.name())
            .args(plan.server)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(plan.lock)
            // Ctrl-C goes to a terminal's whole process group; the database must outlive the
            // services that are still writing their last transactions to it.
            .process_group(0);
        let mut child = command.spawn()?;
        let control = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, stage) = watch::channel(Stage::Running);
        // A thread, not a task: the server outlives the runtime that started it (in tests, each
        // test has its own).
        thread::Builder::new()
            .name("postgres-watchdog".to_owned())
            .spawn(move || follow(child, &sender))?;
        Ok(Self { control, stage })
    }

    /// Sends a signal to the server. Not an error if it has ended already.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.server_ended() {
            return;
        }
        // A broken pipe is a watchdog that has ended, and with it the server.
        let _ = writeln!(self.control, "{}", signal.name());
    }

    pub(crate) fn server_ended(&self) -> bool {
        *self.stage.borrow() >= Stage::ServerEnded
    }

    /// Waits until the server has ended.
    pub(crate) async fn wait_server(&self) {
        wait(&self.stage, Stage::ServerEnded).await;
    }

    /// Ends the watchdog of a server that has ended, and keeps the directories.
    pub(crate) async fn leave(self) {
        let Self { mut control, stage } = self;
        wait(&stage, Stage::ServerEnded).await;
        let _ = writeln!(control, "leave");
        drop(control);
        wait(&stage, Stage::Ended).await;
    }
}

async fn wait(stage: &watch::Receiver<Stage>, least: Stage) {
    // An error means that the following thread is gone, which it is only after the end.
    let _ = stage.clone().wait_for(|stage| *stage >= least).await;
}

fn follow(mut child: Child, stage: &watch::Sender<Stage>) {
    if let Some(stdout) = child.stdout.take() {
        let mut line = String::new();
        // One line, or the end of the pipe if the watchdog itself was killed.
        if let Err(error) = BufReader::new(stdout).read_line(&mut line) {
            tracing::warn!(%error, "reading from PostgreSQL's watchdog");
        }
        tracing::debug!(report = line.trim(), "PostgreSQL has ended");
    }
    stage.send_replace(Stage::ServerEnded);
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "waiting for PostgreSQL's watchdog");
    }
    stage.send_replace(Stage::Ended);
}
