//! How every benchmark reports: a table for a person, or one JSON object a line.

use serde::Serialize;

use super::load::Measured;

/// One side at one concurrency.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    /// Operations a second, or what else a benchmark says that it counts.
    pub(super) throughput: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// What was measured, where a benchmark measures several things.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Subject {
    /// `local`, `s3` or `postgres`.
    pub(super) store: &'static str,
    /// `put`, `get`, …
    pub(super) operation: &'static str,
    /// Bytes of each body.
    pub(super) bytes: u64,
    /// Rows that are searched or listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<usize>,
}

/// Memory of a process, in MiB of its resident set.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Memory {
    pub(super) process: &'static str,
    /// Before the measurement.
    pub(super) before_mib: f64,
    /// At most, since its start.
    pub(super) peak_mib: f64,
}

impl From<Measured> for Side {
    fn from(mut measured: Measured) -> Self {
        Self {
            throughput: measured.throughput(),
            p50_ms: measured.percentile_ms(50),
            p99_ms: measured.percentile_ms(99),
        }
    }
}

/// The system beside its floor at one concurrency.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    subject: Option<Subject>,
    concurrency: usize,
    system: Side,
    floor: Side,
    /// System over floor: 1 is as fast.
    throughput_ratio: f64,
    /// System over floor: 1 is as fast, 2 takes twice as long.
    p50_ratio: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memory: Vec<Memory>,
}

impl Line {
    pub(super) fn new(concurrency: usize, system: Side, floor: Side) -> Self {
        Self {
            subject: None,
            memory: Vec::new(),
            concurrency,
            throughput_ratio: system.throughput / floor.throughput,
            p50_ratio: system.p50_ms / floor.p50_ms,
            system,
            floor,
        }
    }

    /// Says what the line is about, and what it took in memory.
    pub(super) fn about(mut self, subject: Subject, memory: Vec<Memory>) -> Self {
        (self.subject, self.memory) = (Some(subject), memory);
        self
    }

    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { concurrency, system, floor, throughput_ratio, p50_ratio, memory, .. } = self;
        for (name, side) in [("system", system), ("floor", floor)] {
            println!(
                "{concurrency:>11}  {name:<6}  {:>10.0}/s  {:>8.2} ms  {:>8.2} ms",
                side.throughput, side.p50_ms, side.p99_ms
            );
        }
        println!("{concurrency:>11}  ratio   {throughput_ratio:>10.2} x  {p50_ratio:>8.2} x");
        for Memory { process, before_mib, peak_mib } in memory {
            println!(
                "             {process}: {before_mib:.1} MiB before, {peak_mib:.1} MiB at most"
            );
        }
        Ok(())
    }
}

/// Says in the table what the next lines are about.
pub(super) fn print_title(json: bool, title: &str) {
    if !json {
        println!("\n{title}");
        print_head(json);
    }
}

pub(super) fn print_head(json: bool) {
    if !json {
        println!("concurrency  side      throughput          p50          p99");
    }
}
