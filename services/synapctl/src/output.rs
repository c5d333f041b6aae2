//! What commands print: lines for a person, or one JSON object a line; and how far they are.

use std::{
    fmt::Display,
    fs::File,
    io::{BufWriter, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::Instant;

/// For whom a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For a person.
    Text,
    /// For a program: one JSON object a line.
    Json,
}

/// How a command reports.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// For a person or for a program.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Also write every line to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Where lines go.
pub(crate) struct Lines {
    output: Output,
    report: Option<BufWriter<File>>,
}

impl ReportArgs {
    pub(crate) fn lines(&self) -> anyhow::Result<Lines> {
        let open = |path: &Path| File::create(path).with_context(|| path.display().to_string());
        let report = self.report.as_deref().map(open).transpose()?;
        Ok(Lines { output: self.output, report: report.map(BufWriter::new) })
    }
}

impl Lines {
    /// Prints a line.
    pub(crate) fn print<L: Serialize + Display>(&mut self, line: &L) -> anyhow::Result<()> {
        match self.output {
            Output::Text => println!("{line}"),
            Output::Json => println!("{}", serde_json::to_string(line)?),
        }
        if let Some(report) = &mut self.report {
            writeln!(report, "{}", serde_json::to_string(line)?)?;
            // What is reported is there, whatever comes next.
            report.flush()?;
        }
        Ok(())
    }
}

/// How often a log gets a line of progress.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How often a terminal does.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// Says on standard error how far a command is: in one line of a terminal, or in a plain line now and
/// then.
pub(crate) struct Progress {
    begun: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), shown: None, terminal: std::io::stderr().is_terminal() }
    }

    /// So many of so many are done, `fresh` of them by this call of the command.
    pub(crate) fn show(&mut self, what: &str, done: i64, total: i64, fresh: i64) {
        if !self.is_due() {
            return;
        }
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-3);
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 rows")]
        let (rate, left) = (fresh as f64 / seconds, (total - done).max(0) as f64);
        let percent = (done.min(total) * 100).checked_div(total).unwrap_or(100);
        let left = if rate > 0.0 { time_left(left / rate) } else { "unknown".to_owned() };
        let line =
            format!("{what}: {done} of {total} ({percent} %), {rate:.0}/s, time left: {left}");
        self.write(&line);
    }

    fn is_due(&mut self) -> bool {
        let every = if self.terminal { SHOW_EVERY } else { LOG_EVERY };
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return false;
        }
        self.shown = Some(Instant::now());
        true
    }

    fn write(&self, line: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    }

    /// Says something else than how far it is, as often.
    pub(crate) fn say(&mut self, line: &str) {
        if self.is_due() {
            self.write(line);
        }
    }

    /// Leaves the line free for what is printed next.
    pub(crate) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn time_left(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds")]
    let seconds = seconds.clamp(0.0, 1e9).ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}
