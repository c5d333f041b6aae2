//! How every benchmark reports: a table for a person, or one JSON object a line.

use serde::Serialize;

use super::load::Measured;

/// One side at one concurrency.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    /// Operations a second.
    throughput: f64,
    p50_ms: f64,
    p99_ms: f64,
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
    concurrency: usize,
    system: Side,
    floor: Side,
    /// System over floor: 1 is as fast.
    throughput_ratio: f64,
    /// System over floor: 1 is as fast, 2 takes twice as long.
    p50_ratio: f64,
}

impl Line {
    pub(super) fn new(concurrency: usize, system: Measured, floor: Measured) -> Self {
        let (system, floor) = (Side::from(system), Side::from(floor));
        Self {
            concurrency,
            throughput_ratio: system.throughput / floor.throughput,
            p50_ratio: system.p50_ms / floor.p50_ms,
            system,
            floor,
        }
    }

    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { concurrency, system, floor, throughput_ratio, p50_ratio } = self;
        for (name, side) in [("system", system), ("floor", floor)] {
            println!(
                "{concurrency:>11}  {name:<6}  {:>10.0}/s  {:>8.2} ms  {:>8.2} ms",
                side.throughput, side.p50_ms, side.p99_ms
            );
        }
        println!("{concurrency:>11}  ratio   {throughput_ratio:>10.2} x  {p50_ratio:>8.2} x");
        Ok(())
    }
}

pub(super) fn print_head(json: bool) {
    if !json {
        println!("concurrency  side      throughput          p50          p99");
    }
}
